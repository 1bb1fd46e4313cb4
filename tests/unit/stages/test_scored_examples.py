"""Scoring pairs: judged shard by shard, refused or relabelled by what the judges say, all rows accounted for."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from speed_ray import pipeline
from speed_ray.console import judge_report, show, status
from speed_ray.errors import UserError
from speed_ray.recipes.needed_jobs import needed_jobs
from speed_ray.records import CURATED, EXAMPLE, HELD_OUT, PASSAGE, PassageRow, Row
from speed_ray.stages import driver_stage, pair_scores, scored_examples
from speed_ray.storage.run import CURATED_EXAMPLES, EXAMPLES, PAIR_SCORES, PASSAGES, SCORED_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS
from speed_ray.storage.verify import verify
from speed_ray.training.plan import plan_embedder
from tests.helpers.cross_encoders import tiny_cross_encoder
from tests.helpers.grounded_run import MINILM, example, grounded, passage
from tests.helpers.paths import ROOT

# Passages in threes about one subject, each with a question that it answers and a paraphrase of it.
PLANTED = [json.loads(line) for line in (ROOT / "tests/golden/planted_passages.jsonl").read_text().splitlines()]
PASSAGE_ROWS = [passage(each["passage"], each["question"]) for each in PLANTED]
PARAPHRASES = [passage(each["paraphrase"], each["question"] + " again") for each in PLANTED]
REFERENCE, SCORE = f"curate.reference={MINILM}", "score.shard_rows=5"
OPEN = "score.gates={relatedness: null, order: null}"
MUTE = "generator={engine: scripted}"  # tells no log-probabilities


def pair(number: int, about: PassageRow | None = None, split: str = "train", **changes: object) -> Row:
    """A planted question, the passage that answers it, and as mined negatives those of two other subjects."""
    others = [PASSAGE_ROWS[(number + step) % len(PLANTED)]["text"] for step in (7, 13)]
    row = example(PLANTED[number]["question"], about or PASSAGE_ROWS[number])
    return {**row, "negatives": others, "split": split, **changes}


def publish(run: Run, rows: Sequence[Row], passages: Sequence[PassageRow] = PASSAGE_ROWS) -> None:
    for name, of_name, schema in ((PASSAGES, passages, PASSAGE), (CURATED_EXAMPLES, rows, CURATED)):
        results = (driver_stage.RowResult(row["id"], row, None) for row in of_name)
        driver_stage.publish_rows(run.artifact(name), Plan(name, len(of_name), 7), schema, results)


def scored(run: Run, *overrides: str) -> tuple[list[Row], list[Row]]:
    """Score. Returns the records and the rejects."""
    pipeline.score(run, grounded(SCORE, MUTE, *overrides))
    files = [commit.files for commit in run.artifact(SCORED_EXAMPLES).commits()]
    kept, rejects = ([row for each in files if role in each
                      for row in run.artifact(SCORED_EXAMPLES).read(each[role].path).to_pylist()]
                     for role in (RECORDS, REJECTS))  # fmt: skip
    return kept, rejects


def lines(run: Run) -> str:
    return "\n".join(judge_report.judge_lines(run.artifact(SCORED_EXAMPLES)))


def test_each_row_has_the_scores_of_each_judge_and_its_gates_numbers(run) -> None:
    rows = [*map(pair, range(12))]
    publish(run, rows)
    kept, rejects = scored(run, REFERENCE)
    assert not rejects and [row["id"] for row in kept] == [row["id"] for row in rows]
    for row in kept:
        assert [each["judge"] for each in row["scores"]] == ["reference", "bm25", "mixture"]
        assert all(len(each["negatives"]) == len(row["negatives"]) == 2 for each in row["scores"])
        assert row["scores"][0]["positive"] > max(row["scores"][0]["negatives"])
        assert [each["gate"] for each in row["gates"]] == ["order", "copied"], "of 24 passages none is far off"
        assert (row["relabelled_from"], row["dropped"]) == ("", [])
    assert all(verdict.holds for verdict in verify(run))


def test_a_positive_that_answers_another_question_is_refused_with_its_number(run) -> None:
    wrong = [pair(number, PASSAGE_ROWS[number - 11]) for number in range(12, 15)]
    rows = [*map(pair, range(8)), *wrong]
    publish(run, rows, PASSAGE_ROWS + PARAPHRASES)
    kept, rejects = scored(run, REFERENCE)
    assert [row["id"] for row in kept] == [row["id"] for row in rows[:8]]
    assert {row["reason"] for row in rejects} == {"gate_relatedness"} and len(rejects) == 3
    assert all("standard deviations" in row["detail"] for row in rejects)


def test_a_mined_negative_above_the_positive_is_left_out(run) -> None:
    false = pair(3, negatives=[f"{PLANTED[3]['question']} {PLANTED[3]['passage']}", PASSAGE_ROWS[9]["text"]])
    publish(run, [pair(0), false])
    first, second = scored(run, REFERENCE)[0]
    assert first["negatives"] == pair(0)["negatives"] and second["negatives"] == [PASSAGE_ROWS[9]["text"]]
    assert second["dropped"] == false["negatives"][:1] and len(second["scores"][0]["negatives"]) == 1
    assert "mined negatives left out as likely right answers: 1" in lines(run)


def test_a_mined_negative_far_above_the_positive_is_a_further_one_but_for_held_out_rows(run) -> None:
    texts = [f"{PLANTED[3]['question']} {PLANTED[3]['passage']}", PASSAGE_ROWS[9]["text"]]
    rows = [pair(0), pair(3, negatives=texts), pair(3, PARAPHRASES[3], negatives=texts, split=HELD_OUT)]
    publish(run, rows, PASSAGE_ROWS + PARAPHRASES)
    _, turned, held_out = scored(run, REFERENCE, "score.further_positives=0.1")[0]
    assert turned["further_positives"] == texts[:1] and turned["negatives"] == texts[1:] and not turned["dropped"]
    assert not held_out["further_positives"] and held_out["dropped"] == texts[:1]
    for each in turned["scores"][:3:2]:
        assert each["further_positives"][0] > each["positive"] > each["negatives"][0]
    assert "further positives: 1; mined negatives left out as likely right answers: 1" in lines(run)


def test_a_row_whose_negatives_all_lie_above_its_positive_is_refused(run) -> None:
    wrong = pair(3, positive=PASSAGE_ROWS[20]["text"], negatives=[PLANTED[3]["passage"], PLANTED[3]["paraphrase"]])
    publish(run, [pair(0), wrong])
    _, [reject] = scored(run, REFERENCE)
    assert reject["reason"] == "gate_order" and reject["row_id"] == wrong["id"]


def test_a_negative_that_was_written_with_the_positive_is_not_left_out(run) -> None:
    swapped = pair(3, positive=PLANTED[9]["passage"], negatives=[PLANTED[3]["passage"]])
    publish(run, [pair(0), swapped])
    kept, [reject] = scored(run, REFERENCE, "topics={source: topics.txt}", "score.gates.relatedness=null")
    assert reject["reason"] == "gate_order" and len(kept) == 1


def test_a_likeness_that_keeps_less_of_the_meaning_is_refused(run) -> None:
    texts = {"query": PLANTED[2]["passage"], "positive": PLANTED[15]["passage"]}
    publish(run, [pair(0), pair(5, kind="sts", negatives=[PLANTED[2]["paraphrase"]], **texts)])
    _, [reject] = scored(run, REFERENCE, "topics={source: topics.txt}", "score.gates.relatedness=null")
    assert reject["reason"] == "gate_meaning" and "above the negative's" in reject["detail"]


def test_a_query_that_repeats_the_prompt_is_refused(run) -> None:
    publish(run, [pair(0), pair(1, query="The query is one question, which the passage answers.")])
    _, [reject] = scored(run, REFERENCE, "score.gates={relatedness: null, order: null, copied: 0.5}")
    assert reject["reason"] == "gate_copied" and reject["detail"].startswith("100% of a text's word triples")


def labelled(number: int, label: str, task: str = "task") -> Row:
    return pair(number, kind="classification", positive=label, negatives=["weather"], parent_id=task)


def test_a_label_that_no_other_example_of_its_task_gets_is_refused(run) -> None:
    labels = [*["baking", "trains"] * 5, "Trains", "lamps"]
    few = [labelled(number, label, "small task") for number, label in ((20, "stars"), (21, "seas"))]
    rows = [labelled(number, label) for number, label in enumerate(labels)]
    publish(run, [*rows, pair(22), *few])
    kept, [reject] = scored(run, "topics={source: topics.txt}", "curate.reference=null", OPEN)
    assert (reject["row_id"], reject["reason"]) == (rows[11]["id"], "gate_label")
    assert reject["detail"].startswith("0 other examples of its task get its label; score.gates.label is 1")
    assert {"gate": "label", "number": 5.0} in kept[1]["gates"], "case is no other label"
    assert not [each for row in kept[-2:] for each in row["gates"] if each["gate"] == "label"]


def test_a_better_passage_takes_the_place_of_the_positive_but_for_held_out_rows(run) -> None:
    wrong = PASSAGE_ROWS[20]
    rows = [pair(3, wrong), pair(4, wrong, split=HELD_OUT), pair(5)]
    publish(run, rows)
    kept, _ = scored(run, REFERENCE, OPEN, "score.relabel=true")
    by_id = {row["id"]: row for row in kept}
    better, held_out, right = (by_id[row["id"]] for row in rows)
    assert better["positive"] == PLANTED[3]["passage"] and better["relabelled_from"] == wrong["text"]
    assert held_out["positive"] == wrong["text"] and held_out["relabelled_from"] == ""
    assert right["positive"] == PLANTED[5]["passage"]
    assert better["scores"][2]["positive"] > max(better["scores"][2]["negatives"])
    assert "relabelled: 1 positives" in lines(run)


def test_no_held_out_passage_becomes_a_positive(run) -> None:
    passages = [{**row, "split": HELD_OUT if place == 3 else "train"} for place, row in enumerate(PASSAGE_ROWS)]
    publish(run, [pair(3, PASSAGE_ROWS[20])], passages)
    [row] = scored(run, REFERENCE, OPEN, "score.relabel=true")[0]
    assert row["positive"] != PLANTED[3]["passage"]


def test_held_out_queries_weigh_words(run) -> None:
    publish(run, [pair(number, split=HELD_OUT) for number in range(24)])
    scored(run, REFERENCE)
    weights = run.artifact(SCORED_EXAMPLES).plan().identity["weights"]
    assert weights["queries"] == 24 and max(weights["ndcg_at_10"].values()) > 0.8
    assert weights["ndcg_at_10"][f"{weights['bm25']:g}"] == max(weights["ndcg_at_10"].values())
    assert "by 24 held-out queries (nDCG@10 at 0:" in lines(run)


def test_without_a_corpus_scores_are_held_against_the_rows_own_texts(run) -> None:
    publish(run, [*map(pair, range(24))])
    kept, _ = scored(run, REFERENCE, "topics={source: topics.txt}", "corpus=null", "curate.mine_negatives=0")
    assert {row["background"] for row in run.artifact(PAIR_SCORES).records()} == {len(PLANTED)} and kept


def test_without_a_reference_words_alone_judge(run) -> None:
    publish(run, [*map(pair, range(6))])
    kept, _ = scored(run, "curate.reference=null", OPEN)
    assert [each["judge"] for each in kept[0]["scores"]] == ["bm25"]


def test_a_cross_encoder_judges_beside_the_others(run, tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path / "cross")
    publish(run, [*map(pair, range(6))])
    kept, _ = scored(run, REFERENCE, OPEN, f"score.cross_encoders.mine={folder}")
    assert [each["judge"] for each in kept[0]["scores"]] == ["reference", "bm25", "mixture", "mine"]
    assert "reference and mine:" in lines(run)


def test_judges_that_disagree_on_most_pairs_are_told(run) -> None:
    counted = {"rows": 4, "pairs/a/b": 10, "order/a/b": 4, "alike/a/b": 1}
    said = "\n".join(judge_report.agreement_lines(counted, "a", "b"))
    assert "a and b: 40% of 10 pairs of texts in one order, 25% of rows alike" in said
    assert "WARNING: a and b disagree on more than half" in said
    assert "WARNING" not in "\n".join(judge_report.agreement_lines({**counted, "order/a/b": 5}, "a", "b"))


def test_agreement_counts_order_and_leaves_equal_scores_out() -> None:
    counted = scored_examples.count_agreement({"a": [3.0, 2.0, 1.0], "b": [2.0, 5.0, 2.0]})
    assert counted == {"rows": 1, "first/a": 1, "first/b": 0, "alike/a/b": 0, "pairs/a/b": 2, "order/a/b": 1}


@pytest.mark.parametrize("head", [0.0, float("nan")])
def test_a_judge_of_no_use_ends_the_job_by_its_key(run, tmp_path: Path, head: float) -> None:
    folder = tiny_cross_encoder(tmp_path / "cross", head=head)
    publish(run, [*map(pair, range(12))])
    said = "one score" if head == 0 else f"gave row {pair(0)['id']} a score that is no finite number"
    with pytest.raises(UserError, match=rf"^score\.cross_encoders\.mine: the judge 'mine' .*{said}"):
        scored(run, f"score.cross_encoders.mine={folder}", "score.shard_rows=12")
    assert run.artifact(SCORED_EXAMPLES).plan() is None


def test_words_that_tell_no_text_from_another_are_refused(run) -> None:
    publish(run, [pair(number, query="quartz") for number in range(3)])
    with pytest.raises(UserError, match=r"^score\.judges: the judge 'bm25' gives .* one score \(such as 0\)"):
        scored(run, "curate.reference=null")


def test_what_is_judged_is_not_judged_again_after_an_interruption(tmp_path: Path, monkeypatch) -> None:
    stopped, whole = Run(str(tmp_path / "stopped")), Run(str(tmp_path / "whole"))
    for each in (stopped, whole):
        publish(each, [pair(number, split=HELD_OUT if number % 3 else "train") for number in range(24)])
    judged, judge = [], pair_scores._ShardJudge.__call__

    def stop(self, shard: int):
        judged.append(shard)
        if len(judged) == 3:
            raise ZeroDivisionError
        return judge(self, shard)

    with monkeypatch.context() as patched:
        patched.setattr(pair_scores._ShardJudge, "__call__", stop)
        with pytest.raises(ZeroDivisionError):
            scored(stopped, REFERENCE)
        scored(stopped, REFERENCE)
    assert judged == [0, 1, 2, 2, 3, 4]
    scored(whole, REFERENCE)
    for name in (PAIR_SCORES, SCORED_EXAMPLES):
        assert stopped.artifact(name).records_digest() == whole.artifact(name).records_digest(), name
    assert all(verdict.holds for verdict in verify(stopped))


def test_other_bounds_refuse_rows_without_asking_again(run) -> None:
    publish(run, [*map(pair, range(6))], PASSAGE_ROWS + PARAPHRASES)
    scored(run, REFERENCE)
    console = Console(file=io.StringIO(), width=200)
    console.print(judge_report.gate_table(run))
    shown = console.file.getvalue()
    assert "relatedness" in shown and "*1.5: 0" in shown and "*0.5: 0" in shown


def test_a_row_is_shown_with_scores_by_judge_and_gates(run) -> None:
    about = pair(3, PASSAGE_ROWS[20])
    publish(run, [about])
    driver_stage.publish_rows(
        run.artifact(EXAMPLES),
        Plan(EXAMPLES, 1, 1, input=PASSAGES),
        EXAMPLE,
        iter([driver_stage.RowResult(about["id"], about, None)]),
    )
    [row] = scored(run, REFERENCE, OPEN, "score.relabel=true")[0]
    console = Console(file=io.StringIO(), width=300)
    show.show_rows(run, SCORED_EXAMPLES, console, row=row["id"])
    shown = console.file.getvalue()
    for part in ("judge reference, positive 0.", "judge mixture, positive", "gate copied, number 0",
                 f"relabelled_from: {PASSAGE_ROWS[20]['text'][:40]}", "from passages: text:",
                 "positive's passage: document_id: " + PASSAGE_ROWS[3]["document_id"]):  # fmt: skip
        assert part in shown, part
    console.file.truncate(0)
    show.show_rows(run, PAIR_SCORES, console, row=row["id"])
    for part in ("judge bm25, scores ", f"from curated_examples: query: {row['query']}", "from passages: text:"):
        assert part in console.file.getvalue(), part


def test_status_tells_what_judges_say_alike(run) -> None:
    publish(run, [*map(pair, range(6))])
    scored(run, REFERENCE)
    shown = "\n".join(status.status_lines(run))
    assert "positive put first, of 6 rows with negatives: reference 100%" in shown
    assert "reference and bm25:" in shown and "the usual weights, for 0 held-out queries are too few" in shown


def test_the_embedder_learns_from_scored_rows(run) -> None:
    embedder = f"embedder={{model: {MINILM}, loss: kl, judge: mixture, global_batch_size: 4}}"
    recipe = grounded(REFERENCE, embedder, "score={}")
    assert plan_embedder(run, recipe).data == SCORED_EXAMPLES
    assert needed_jobs(recipe)[-4:] == ["curate", "score", "train_embedder", "evaluate"]


@pytest.mark.slow
def test_on_ray_rows_are_those_of_one_process(tmp_path: Path) -> None:
    found = []
    for name, *more in (["here"], ["on Ray", "score.workers={num_workers: 2, num_cpus: 1}"]):
        run = Run(str(tmp_path / name))
        publish(run, [pair(number, split=HELD_OUT if number % 4 else "train") for number in range(24)])
        found.append((scored(run, REFERENCE, "score.relabel=true", *more), run.artifact(PAIR_SCORES).records_digest()))
    assert found[0] == found[1]
