"""Language models say how likely texts are and whether they answer; what they say comes back with its example."""

import math
from typing import Any

import pytest

from speed_ray.engines.base import Reply, Request, Sample
from speed_ray.errors import UserError
from speed_ray.executor.stage import Stage
from speed_ray.recipes.schema import Recipe
from speed_ray.records import CURATED, CuratedRow, ExampleRow, Row
from speed_ray.stages import driver_stage, scored_examples
from speed_ray.stages.fluency import Fluency, ReferenceFluency
from speed_ray.stages.language_models import Said, read_said, stages_of
from speed_ray.stages.relevance import Relevance
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CURATED_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import REJECTS
from speed_ray.storage.verify import verify
from tests.conftest import work
from tests.helpers.grounded_run import example, grounded, passage, publish

RATES = "prefill: 1.0e+12, decode: 1.0e+12, max_tokens_per_stream: 1.0e+12"
ENGINES = [f"generator={{engine: simulated, {RATES}}}", f"teacher={{engine: simulated, {RATES}}}"]
PASSAGES = [passage(f"Bees of hive {number} sleep. They shiver in winter. The queen {number} is warm.", f"d{number}")
            for number in range(40)]  # fmt: skip


def recipe(*overrides: str) -> Recipe:
    return grounded(*ENGINES, *overrides)


def curated(rows: list[ExampleRow]) -> list[CuratedRow]:
    return [{**row, "split": "train"} for row in rows]


def begin(run: Run, rows: list[CuratedRow]) -> None:
    """Publish forty passages and these curated examples, seven to a shard."""
    publish(run, PASSAGES, rows)
    results = (driver_stage.RowResult(row["id"], row, None) for row in rows)
    driver_stage.publish_rows(run.artifact(CURATED_EXAMPLES), Plan(CURATED_EXAMPLES, len(rows), 7), CURATED, results)


def make(run: Run, stage: Stage[Any, Any]) -> list[Row]:
    """Work a stage off with the simulated engine. Returns its records."""
    artifact, plan = run.artifact(stage.name), stage.plan(run)
    work(run, artifact, plan, stage)
    assert artifact.publish(plan)
    assert all(verdict.holds for verdict in verify(run) if verdict.artifact == stage.name)
    return list(artifact.records())


def queries() -> list[CuratedRow]:
    return curated([example(f"do bees{number} sleep in hive {number}", each) for number, each in enumerate(PASSAGES)])


def test_the_text_that_is_no_passage_is_asked_about(run: Run) -> None:
    rows = queries()
    rows[3] = {**rows[3], "kind": "sts", "query": rows[3]["positive"], "positive": "Hives sleep."}
    begin(run, rows)
    records = make(run, Fluency(recipe("score={}", "mix={retrieval: 1, sts: 1}")))
    assert [each["parent_id"] for each in records] == [row["id"] for row in rows]
    assert [(each["side"], each["tokens"]) for each in records[2:5]] == [("query", 5), ("positive", 1), ("query", 5)]
    assert all(-8 < each["logprob"] < -2 for each in records)


def test_an_ungrounded_example_has_two_texts_and_a_label_is_none(run: Run) -> None:
    sts = curated([example("Bees sleep.", PASSAGES[0], "sts"), example("Ants sleep.", PASSAGES[1], "classification")])
    begin(run, sts)
    topics = ["topics={source: miniature://topics}", "corpus.source=documents"]
    records = make(run, Fluency(recipe("score={}", *topics)))
    assert [(each["side"], each["tokens"] > 0) for each in records] == [
        ("query", True), ("positive", True), ("query", True), ("positive", False)
    ]  # fmt: skip


def test_the_adapter_of_a_generator_is_left_away() -> None:
    tuned = grounded("generator.adapter=lora", "score={}")
    assert Fluency(tuned).engine == tuned.generator.model_copy(update={"adapter": None})


def test_references_begin_with_a_sentence_and_are_spread_over_the_corpus(run: Run) -> None:
    begin(run, queries())
    records = make(run, ReferenceFluency(recipe("score={fluency: {references: 20}}")))
    assert [each["parent_id"] for each in records] == [each["id"] for each in PASSAGES[::2]]
    beginnings = {each["text"].split()[0] for each in records}
    assert beginnings == {"Bees", "They", "The"}
    assert all(len(each["logprobs"]) == len(each["text"].split()) - 1 for each in records)


def test_what_is_said_comes_with_its_example(run: Run) -> None:
    rows = queries()
    rows[5] = {**rows[5], "query": "?"}
    rows[9] = {**rows[9], "negatives": ["Ants do not."]}
    begin(run, rows)
    asking = recipe("score={llm: {}}")
    for stage in [stage for group in stages_of(asking) for stage in group]:
        make(run, stage)
    said = list(read_said(run, asking))
    assert len(said) == len(rows)
    assert said[5].fluency is said[5].logprob is None and said[5].answers
    assert [len(each.answers or ()) for each in said[8:11]] == [1, 2, 1]
    told = [each for number, each in enumerate(said) if number != 5]
    assert all(0 <= each.fluency <= 1 and -8 < each.logprob < -2 for each in told)


def test_the_less_fluent_text_counts(run: Run) -> None:
    """Of two texts that are as long, the one with the lower mean is that of the example."""
    begin(run, curated([example("do bees sleep", PASSAGES[0], "sts")]))
    topics = ["topics={source: miniature://topics}", "corpus.source=documents", "score={}"]
    asking = recipe(*topics)
    records = make(run, Fluency(asking))
    make(run, ReferenceFluency(asking))
    [said] = read_said(run, asking)
    assert said.logprob == min(each["logprob"] for each in records) and len(records) == 2


def test_an_example_of_which_a_text_was_not_answered_has_no_answers(run: Run) -> None:
    rows = queries()[:3]
    rows = [{**row, "negatives": ["One.", "Another."]} for row in rows]
    begin(run, rows)
    asking = recipe("score={llm: {}, gates: {fluency: null}}")
    stage = Relevance(asking)
    plan, artifact = stage.plan(run), run.artifact(stage.name)
    assert plan.variants == ("0", "1", "2")
    stage.parse = refusing(stage.parse, "1")  # type: ignore[method-assign]
    work(run, artifact, plan, stage)
    artifact.publish(plan)
    assert [each.answers for each in read_said(run, asking)] == [None] * 3


def refusing(parse: Any, variant: str) -> Any:
    def parsed(row: PlannedRow, request: Request, reply: Reply) -> list[Row]:
        return parse(row, request, Reply([Sample("", "stop", 1)], 1, 0.1) if row.variant == variant else reply)

    return parsed


def test_the_place_of_a_negative_that_is_not_there_is_a_reject(run: Run) -> None:
    rows = [{**row, "negatives": ["One."] * number} for number, row in enumerate(queries()[:3])]
    begin(run, rows)
    stage = Relevance(recipe("score={llm: {}}"))
    records = make(run, stage)
    assert [each["place"] for each in records] == [0, 0, 1, 0, 1, 2]
    rejects = [reject for commit in run.artifact(stage.name).commits() if REJECTS in commit.files
               for reject in run.artifact(stage.name).read(commit.files[REJECTS].path).to_pylist()]  # fmt: skip
    assert [each["reason"] for each in rejects] == ["no_negative"] * 3


def test_the_question_has_query_and_text_and_asks_for_one_token(run: Run) -> None:
    row = {**queries()[0], "negatives": ["Ants do not."]}
    stage = Relevance(recipe("score={llm: {}}"))
    request = stage.request(PlannedRow("r", row, "1"))
    assert request is not None and (request.max_tokens, request.temperature, request.logprobs) == (
        1,
        0.0,
        "first_token",
    )
    [message] = request.messages
    assert row["query"] in message["content"] and "Ants do not." in message["content"]
    assert row["positive"] not in message["content"]


def test_log_odds_are_read_from_the_reply() -> None:
    stage, row = Relevance(recipe("score={llm: {}}")), PlannedRow("r", queries()[0], "0")
    request = stage.request(row)
    assert request is not None
    told = [{"token": "Yes", "logprob": math.log(0.75)}, {"token": "No", "logprob": math.log(0.25)}]
    [record] = stage.parse(row, request, Reply([Sample("Yes", "length", 1, told)], 9, 0.1))
    assert record["log_odds"] == pytest.approx(math.log(3)) and record["model"] == "simulated"


def test_nothing_is_asked_where_no_gate_or_judge_wants_it(run: Run) -> None:
    begin(run, queries())
    idle = recipe("score={gates: {fluency: null}}")
    assert stages_of(idle) == []
    assert set(read_said(run, idle)) == {Said()}


def test_a_model_that_was_not_asked_is_said_so(run: Run) -> None:
    begin(run, queries())
    with pytest.raises(UserError, match="speed-ray score"):
        next(read_said(run, recipe("score={}")))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["generator={engine: openai, model: m, base_url: http://h/v1}", "score={gates: {fluency: 0.01}}"],
         r"score\.gates\.fluency"),
        (["teacher={engine: scripted}", "score={llm: {}}"], r"score\.llm"),
        (["score={llm: {}, relabel: true}"], r"score\.relabel"),
    ],
)  # fmt: skip
def test_an_engine_that_cannot_tell_is_refused_with_the_key(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        recipe(*overrides)


def test_an_engine_that_cannot_tell_is_not_asked_by_default() -> None:
    assert stages_of(recipe("generator={engine: openai, model: m, base_url: http://h/v1}", "score={}")) == []


def scored(run: Run, asking: Recipe) -> tuple[list[Row], list[Row]]:
    """Ask the models and score. Returns the records and the rejects."""
    for stage in [stage for group in stages_of(asking) for stage in group]:
        make(run, stage)
    artifact = scored_examples.publish_scored(run, scored_examples.prepare_scoring(run, asking), asking)
    assert all(verdict.holds for verdict in verify(run) if verdict.artifact == artifact.name)
    files = [commit.files[REJECTS].path for commit in artifact.commits() if REJECTS in commit.files]
    return list(artifact.records()), [reject for path in files for reject in artifact.read(path).to_pylist()]


def test_a_gate_refuses_what_the_base_model_finds_less_likely_than_people_write(run: Run) -> None:
    begin(run, queries())
    asking = recipe("score={gates: {fluency: 0.5, copied: null}}")
    kept, rejects = scored(run, asking)
    said = {row["id"]: each for row, each in zip(queries(), read_said(run, asking), strict=True)}
    assert {each["row_id"] for each in rejects} == {name for name, each in said.items() if each.fluency < 0.5}
    assert kept and {each["reason"] for each in rejects} == {"gate_fluency"}
    first = rejects[0]
    assert first["detail"].startswith(f"{said[first['row_id']].fluency:.1%} of the corpus's texts are less likely")
    numbers = {each["gate"]: each["number"] for each in kept[0]["gates"]}
    assert numbers["fluency"] == said[kept[0]["id"]].fluency and numbers["logprob"] == said[kept[0]["id"]].logprob


def test_another_bound_decides_anew_and_asks_no_model(run: Run) -> None:
    begin(run, queries())
    scored(run, recipe("score={gates: {fluency: 0.5, copied: null}}"))
    lenient = recipe("score={gates: {fluency: 0.01, copied: null}}")
    assert Fluency(lenient).plan(run).digest == run.artifact("fluency").plan().digest
    artifact = scored_examples.publish_scored(run, scored_examples.prepare_scoring(run, lenient), lenient)
    settings = artifact.plan().identity["settings"]
    assert settings["gates"]["fluency"] == 0.01 and artifact.manifest()["planned"] == len(queries())


def test_the_models_log_odds_are_the_scores_of_a_judge(run: Run) -> None:
    rows = [{**row, "negatives": ["Ants do not.", "Wasps do."]} for row in queries()]
    begin(run, rows)
    asking = recipe("score={llm: {}, judge: llm, gates: {fluency: null, copied: null}}")
    kept, rejects = scored(run, asking)
    said = {row["id"]: each.answers for row, each in zip(rows, read_said(run, asking), strict=True)}
    assert kept and rejects and len(kept) + len(rejects) == len(rows)
    for row in kept:
        [by_llm] = [each for each in row["scores"] if each["judge"] == "llm"]
        first, *others = said[row["id"]]
        assert by_llm["positive"] == first
        assert by_llm["negatives"] == [score for score in others if score <= first]
    assert {each["reason"] for each in rejects} == {"gate_order"}


def test_an_example_without_an_answer_is_no_pair_to_learn_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**row, "negatives": ["Ants do not."]} for row in queries()]
    begin(run, rows)
    parse = Relevance.parse

    def parsed(stage: Relevance, row: PlannedRow, request: Request, reply: Reply) -> list[Row]:
        is_mute = row.parent["id"] == rows[0]["id"] and row.variant == "1"
        return parse(stage, row, request, Reply([Sample("", "stop", 1)], 1, 0.1) if is_mute else reply)

    monkeypatch.setattr(Relevance, "parse", parsed)
    _, rejects = scored(run, recipe("score={llm: {}, gates: {fluency: null, copied: null, order: null}}"))
    assert [(each["row_id"], each["reason"]) for each in rejects] == [(rows[0]["id"], "unjudged")]


def test_an_answer_that_is_the_same_for_all_texts_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(run, [{**row, "negatives": ["Ants do not."]} for row in queries()])
    monkeypatch.setattr("speed_ray.stages.relevance.log_odds", lambda likely: 1.5)
    with pytest.raises(UserError, match=r"score\.llm: the judge 'llm' gives all texts .* one score \(such as 1\.5\)"):
        scored(run, recipe("score={llm: {}, gates: {fluency: null}}"))
