"""Curating examples about passages: found again in the whole corpus, given negatives from it, all accounted for."""

import json
from pathlib import Path

import pytest

from speed_ray.console import status
from speed_ray.errors import UserError
from speed_ray.pipeline import read_documents
from speed_ray.records import PassageRow, Row
from speed_ray.stages import curate
from speed_ray.storage.run import CURATED_EXAMPLES, PASSAGE_EMBEDDINGS, Run
from speed_ray.storage.verify import verify
from tests.helpers.grounded_run import MINILM, curated, example, grounded, passage, publish
from tests.helpers.paths import ROOT

# Passages in threes about one subject, each with a question that it answers and a paraphrase of it.
PLANTED = [json.loads(line) for line in (ROOT / "tests/golden/planted_passages.jsonl").read_text().splitlines()]
REFERENCE = f"curate.reference={MINILM}"
WORDS = "curate.mine_negatives={count: 2, by: [bm25], skip_nearest: 0}"


@pytest.mark.slow
def test_wrong_pairs_are_not_found_again_and_right_ones_are(run) -> None:
    texts = [each[side] for side in ("passage", "paraphrase") for each in PLANTED]
    passages = [passage(text, text) for text in texts]
    questions = [each["question"] for each in PLANTED * 2]
    right = [example(question, about) for question, about in zip(questions, passages, strict=True)]
    wrong = [example(questions[number], passages[number - 19]) for number in range(0, 48, 4)]  # of another subject
    publish(run, passages, right + wrong)
    _, rejects = curated(run, REFERENCE, "curate.found_again={top: 6}", "curate.duplicate_similarity=null")
    planted = {row["id"] for row in wrong}
    lost = {row["row_id"] for row in rejects if row["reason"] == "not_found_again"}
    assert len(planted & lost) / len(planted) >= 0.9 and len(planted & lost) / len(lost) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("spare", [0, 5])
def test_neither_a_paraphrase_of_a_positive_nor_its_own_text_is_mined(run, spare: int) -> None:
    right = {
        each["passage"]: [each["passage"], each["paraphrase"], f"  {each['passage'].upper()}"] for each in PLANTED
    }
    passages = {text: passage(text, text) for texts in right.values() for text in texts}
    publish(run, list(passages.values()), [example(each["question"], passages[each["passage"]]) for each in PLANTED])
    kept, _ = curated(
        run, REFERENCE, f"curate.mine_negatives={{count: 3, by: [reference, bm25], skip_nearest: {spare}}}"
    )
    mined = [text.strip() in map(str.strip, right[row["positive"]]) for row in kept for text in row["negatives"]]
    assert len(mined) > 100, "the rules leave something"
    assert sum(mined) / len(mined) <= 0.01


SHAPES = ("round", "square", "long", "bent", "small", "broken")
LAMPS = [passage(f"a red lamp of {shape} shape", f"d{shape}") for shape in SHAPES]


def negatives(run: Run, passages: list[PassageRow], rows: list[Row], *overrides: str) -> list[list[str]]:
    publish(run, passages, rows)
    kept, _ = curated(run, "curate.duplicate_similarity=null", *(overrides or (WORDS,)))
    assert all(verdict.holds for verdict in verify(run))
    return [row["negatives"] for row in kept]


def account(run: Run) -> dict[str, int]:
    manifest = run.artifact(CURATED_EXAMPLES).manifest()
    assert manifest is not None
    counted: dict[str, int] = manifest["counts"]["mined"]
    return counted


def test_the_own_text_and_document_are_refused_and_counted(run) -> None:
    rows = [
        LAMPS[0],
        passage("A  RED lamp of round shape", "a copy"),
        passage("a red lamp once more", "dround"),
        *LAMPS[1:],
    ]
    [found] = negatives(run, rows, [example("which red lamp", LAMPS[0])])
    assert len(found) == 2 and set(found) <= {row["text"] for row in LAMPS[1:]}
    assert {name: count for name, count in account(run).items() if count} == {
        "bm25: wanted": 2,
        "bm25: filled": 2,
        "bm25: same_text": 1,
        "bm25: same_document": 1,
        "rows": 1,
    }


def test_an_example_to_train_on_gets_no_passage_that_is_held_out(run) -> None:
    held_out = [passage(row["text"] + " held out", "x" + row["document_id"], split="held_out") for row in LAMPS]
    rows = [example("which red lamp", LAMPS[0]), example("what red lamp", held_out[0])]
    first, second = negatives(run, [*held_out, *LAMPS], rows)
    assert all("held out" not in text for text in first) and len(first) == len(second) == 2
    assert account(run)["bm25: held_out"] == len(held_out)


def test_an_example_is_split_as_the_document_of_its_passage_is(run) -> None:
    passages = [passage(f"text {number} of a lamp", f"d{number}", split="held_out" if number % 3 else "train")
                for number in range(9)]  # fmt: skip
    publish(run, passages, [example(f"query {number}", each) for number, each in enumerate(passages)])
    kept, _ = curated(run, "curate.duplicate_similarity=null")
    assert [row["split"] for row in kept] == [each["split"] for each in passages]


def test_a_row_that_is_short_stays_so_and_is_counted(run) -> None:
    passages = [*LAMPS[:2], passage("the deep blue sea", "sea"), passage("the old harbour", "harbour")]
    [found] = negatives(run, passages, [example("which red lamp", LAMPS[0])])
    assert found == [LAMPS[1]["text"]]
    lines = [line for standing in status.artifact_statuses(run) for line in status.breakdown(standing)]
    assert "  negatives by bm25: 1 of 2; spared 0; refused: none" in lines
    assert "  fewer negatives than wanted: 1 of 1 rows" in lines


def test_a_named_fallback_fills_up_from_the_rest_and_is_counted(run) -> None:
    passages = [*LAMPS[:2], passage("the deep blue sea", "sea"), passage("the old harbour", "harbour")]
    fallback = "curate.mine_negatives={count: 2, by: [bm25], skip_nearest: 0, fallback: random}"
    [found] = negatives(run, passages, [example("which red lamp", LAMPS[0])], fallback)
    assert found[0] == LAMPS[1]["text"] and found[1] in {"the deep blue sea", "the old harbour"}
    assert account(run)["random: filled"] == 1


def test_the_nearest_are_spared_and_counted(run) -> None:
    spare = "curate.mine_negatives={count: 2, by: [bm25], skip_nearest: 1}"
    [found] = negatives(run, LAMPS, [example("which red square lamp", LAMPS[0])], spare)
    assert len(found) == 2 and LAMPS[1]["text"] not in found and account(run)["bm25: skip_nearest"] == 1


def test_each_retriever_gives_its_own_and_none_twice(run) -> None:
    off = "skip_nearest: 0, max_of_positive: null, max_near_positive: null"
    both = f"curate.mine_negatives={{count: 2, by: [reference, bm25], {off}}}"
    [found] = negatives(run, LAMPS, [example("which red lamp", LAMPS[0])], REFERENCE, both, "curate.max_overlap=null")
    assert len(found) == len(set(found)) == 4
    assert account(run)["reference: filled"] == account(run)["bm25: filled"] == 2


def test_examples_of_topics_get_negatives_of_the_corpus_too(run) -> None:
    written = {**example("which red lamp", LAMPS[0]), "parent_id": "a task", "positive": LAMPS[0]["text"].upper()}
    publish(run, LAMPS, [written])
    recipe = grounded("topics={source: topics.txt}", "curate.held_out=0", WORDS)
    artifact = curate.publish_curated(run, curate.prepare_curation(run, recipe))
    [row] = artifact.records()
    assert len(row["negatives"]) == 2 and set(row["negatives"]) <= {each["text"] for each in LAMPS[1:]}


def test_a_reject_says_the_ranks_that_its_passage_has(run) -> None:
    publish(run, LAMPS, [example("which square red lamp", LAMPS[0]), example("the long lamp", LAMPS[2])])
    found_again = "curate.found_again={top: 1, by: [bm25]}"
    kept, [reject] = curated(run, found_again, "curate.duplicate_similarity=null")
    assert [row["query"] for row in kept] == ["the long lamp"] and reject["reason"] == "not_found_again"
    assert reject["detail"] == "its passage has rank 2 by bm25; wanted up to 1 by bm25"


def test_more_negatives_than_passages_are_refused_before_anything_is_made(run) -> None:
    publish(run, LAMPS, [example("which red lamp", LAMPS[0])])
    with pytest.raises(
        UserError, match=r"asks for 6 negatives .*, 6 by bm25, and .* the corpus has 5.\n.*corpus\.source"
    ):
        curated(run, "curate.mine_negatives=6")
    assert run.artifact(CURATED_EXAMPLES).plan() is None


def test_more_negatives_than_passages_are_refused_before_a_query_is_written(run, tmp_path: Path) -> None:
    (tmp_path / "lamp.txt").write_text(LAMPS[0]["text"])
    recipe = grounded(f"corpus={{source: {tmp_path}, tokenizer: {MINILM}, held_out: 0}}", "curate.mine_negatives=1")
    with pytest.raises(UserError, match=r"asks for 1 negatives .* the corpus has 0\."):
        read_documents(run, recipe)


def test_vectors_of_another_width_are_refused(run, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(run, LAMPS, [example("which red lamp", LAMPS[0])])
    opened = curate.open_corpus

    def narrow(*arguments):
        corpus = opened(*arguments)
        corpus.vectors.width //= 2
        return corpus

    monkeypatch.setattr(curate, "open_corpus", narrow)
    with pytest.raises(UserError, match=r"makes vectors of 384 numbers, and those of the passages.* have 192"):
        curated(run, REFERENCE, "curate.found_again={}")


def test_a_second_drive_gives_the_same_rows_and_account(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, stopped = (Run(str(tmp_path / name)) for name in ("at once", "stopped"))
    recipe = grounded(
        WORDS, "curate.shard_rows=4", "curate.found_again={by: [bm25]}", "curate.duplicate_similarity=null"
    )
    for run in (at_once, stopped):
        publish(run, LAMPS, [example(f"which red lamp {number}", LAMPS[number % 6]) for number in range(12)])
    with monkeypatch.context() as patched:
        whole = curate.curate_rows
        patched.setattr(curate, "curate_rows", lambda *given: _cut(whole(*given)))
        with pytest.raises(ZeroDivisionError):
            curate.publish_curated(stopped, curate.prepare_curation(stopped, recipe))
    assert len(list(stopped.artifact(CURATED_EXAMPLES).commits())) == 2
    found = [
        (list(curate.publish_curated(run, curate.prepare_curation(run, recipe)).records()), account(run))
        for run in (at_once, stopped)
    ]
    assert found[0] == found[1] and found[0][1]["rows"] == 12


def _cut(rows):
    for number, row in enumerate(rows):
        if number == 9:
            raise ZeroDivisionError
        yield row


@pytest.mark.parametrize("rule", ["found_again={}", "mine_negatives={count: 1, by: [reference]}"])
def test_a_rule_that_needs_a_reference_asks_for_one(rule: str) -> None:
    with pytest.raises(
        UserError, match=r"by names the reference: name one as curate\.reference, or set by to \[bm25\]"
    ):
        grounded(f"curate.{rule}", "curate.reference=null")


def test_found_again_is_refused_where_no_passage_is_written_about() -> None:
    with pytest.raises(UserError, match=r"curate\.found_again .* name a corpus, and no topics"):
        grounded("topics={source: topics.txt}", "curate.found_again={by: [bm25]}")


@pytest.mark.slow
def test_on_ray_rows_and_account_are_those_of_one_process(tmp_path) -> None:
    rules = [REFERENCE, "curate.found_again={top: 6}", "curate.mine_negatives={count: 2, skip_nearest: 1}"]
    found = []
    for name, *more in (["here"], ["on Ray", "curate.workers={num_workers: 2, num_cpus: 1}"]):
        run = Run(str(tmp_path / name))
        passages = [passage(each["passage"], each["question"]) for each in PLANTED]
        publish(run, passages, [example(each["question"], own) for each, own in zip(PLANTED, passages, strict=True)])
        found.append((curated(run, *rules, *more), account(run), list(run.artifact(PASSAGE_EMBEDDINGS).records())))
    assert found[0] == found[1] and found[0][1]["reference: filled"]
