"""Curating: every example ends as a record or as a reject with its reason, and no task is on both sides."""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from obstore.store import MemoryStore
from rich.console import Console

from speed_ray import recipes
from speed_ray.cli import main
from speed_ray.console import show, status
from speed_ray.curation import scan
from speed_ray.errors import UserError
from speed_ray.records import CURATED, EXAMPLE, REVISED, Row, content_id
from speed_ray.stages import curate, driver_stage
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.run import CURATED_EXAMPLES, EXAMPLES, REVISED_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS
from speed_ray.storage.store import ObjectStore
from speed_ray.storage.verify import verify

NOUNS = ["harbour", "lantern", "meadow", "cello", "glacier", "saddle", "orchard", "compass", "thimble", "quarry"]
VERBS = ["mends", "paints", "borrows", "hides", "weighs", "follows", "buries", "lifts", "trades", "sketches"]


def sentence(number: int) -> str:
    """Ten words that no other number shares two neighbours of with."""
    return " ".join(f"{(NOUNS if place % 2 else VERBS)[(number + place) % 10]}{number}x{place}" for place in range(10))


def example(number: int, **changes: object) -> Row:
    row: Row = {
        "id": content_id("example", str(number)),
        "row_id": content_id("prompt", str(number)),
        "parent_id": content_id("task", str(number % 40)),
        "kind": "retrieval",
        "topic": "Arts",
        "language": "English",
        "instruction": "Find the passage that answers",
        "query": f"who {sentence(number)}",
        "positive": sentence(1_000_000 + number),
        "negatives": ["something else"],
        "model": "m",
    }
    return {**row, **changes}


def publish(run: Run, rows: list[Row], name: str = EXAMPLES) -> None:
    """Publish rows as the stage before would, ten to a shard; None is a row that was rejected there."""
    plan = Plan(name, rows=len(rows), shard_rows=10)
    schema = EXAMPLE if name == EXAMPLES else REVISED
    driver_stage.publish_rows(
        run.artifact(name), plan, schema, (driver_stage.RowResult(row["id"], row, None) for row in rows)
    )


def curated(run: Run, rows: list[Row], *overrides: str) -> tuple[list[Row], list[Row]]:
    """Curate. Returns the records and the rejects."""
    publish(run, rows)
    sizes = ("synthesize.revise=false", "curate.shard_rows=16", "curate.held_out=0")
    artifact = curate.publish_curated(
        run, curate.prepare_curation(run, recipes.load_recipe("miniature", [*sizes, *overrides]))
    )
    assert all(verdict.holds for verdict in verify(run))
    files = [commit.files for commit in artifact.commits()]
    kept, rejects = ([r for f in files if role in f for r in artifact.read(f[role].path).to_pylist()]
                     for role in (RECORDS, REJECTS))  # fmt: skip
    assert [row["id"] for row in kept] == [row["id"] for row in rows if row["id"] in {each["id"] for each in kept}]
    assert Counter(row["id"] for row in rows) == Counter(
        [row["id"] for row in kept] + [row["row_id"] for row in rejects]
    )
    return kept, rejects


def reasons(rejects: list[Row]) -> dict[str, str]:
    return {row["row_id"]: row["reason"] for row in rejects}


def test_examples_that_break_no_rule_pass_as_they_are(run):
    rows = [example(number) for number in range(50)]
    kept, rejects = curated(run, rows)
    assert kept == [{**row, "split": "train"} for row in rows] and not rejects


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"query": "..."}, "no_letters"),
        ({"positive": "\u200b"}, "no_letters"),
        ({"negatives": ["Positive document"]}, "placeholder"),
        ({"query": "What a user of the task types into the search."}, "placeholder"),
        ({"positive": "the l\ufffdmp"}, "lost_character"),
    ],
)
def test_an_example_without_a_text_of_its_own_is_rejected(run, changes, why):
    kept, rejects = curated(run, [example(0), example(1, **changes)])
    assert len(kept) == 1 and reasons(rejects) == {example(1)["id"]: why}


def test_the_first_of_the_same_examples_stays_and_is_named(run):
    rows = [example(0), example(1), example(2, query=example(0)["query"], positive=example(0)["positive"])]
    kept, [reject] = curated(run, rows)
    assert [row["id"] for row in kept] == [rows[0]["id"], rows[1]["id"]]
    assert (reject["row_id"], reject["reason"]) == (rows[2]["id"], "duplicate")
    assert reject["detail"] == f"repeats {rows[0]['id']}" and reject["kind"] == "retrieval"


def test_the_same_example_in_another_form_of_unicode_is_a_duplicate(run):
    same = {"query": "Où est le café fermé ?", "positive": "Près de la forêt."}
    other = {side: unicodedata.normalize("NFD", text) for side, text in same.items()}
    _, [reject] = curated(run, [example(0, **same), example(1, **other)], "curate.duplicate_similarity=null")
    assert reject["reason"] == "duplicate"


def test_near_duplicates_are_found_across_shards(run):
    rows = [example(number) for number in range(60)]
    near = example(59)
    near["positive"] = rows[3]["positive"].replace(rows[3]["positive"].split()[4], "another")
    near["query"] = rows[3]["query"].upper() + "?"
    kept, [reject] = curated(run, [*rows[:59], near])
    assert len(kept) == 59 and reject["reason"] == "near_duplicate"
    assert reject["detail"] == f"repeats {rows[3]['id']}"


def test_without_the_rule_near_duplicates_stay(run):
    rows = [example(0), example(1, query=example(0)["query"] + "!", positive=example(0)["positive"])]
    kept, _ = curated(run, rows, "curate.duplicate_similarity=null")
    assert len(kept) == 2


def test_what_repeats_a_rejected_example_takes_its_place(run):
    rows = [
        example(0, language="German"),
        example(1, query=f"{example(0)['query']}!", positive=example(0)["positive"]),
    ]
    english = "It was the best of times and the worst of times, as everybody in both of the cities knew very well."
    rows = [{**row, "positive": english} for row in rows]
    kept, [reject] = curated(run, rows, "curate.check_language=true")
    assert [row["id"] for row in kept] == [rows[1]["id"]] and reject["reason"] == "other_language"


def test_a_task_is_on_one_side_with_all_its_examples(run):
    kept, _ = curated(run, [example(number) for number in range(400)], "curate.held_out=0.3")
    sides = {row["parent_id"]: set() for row in kept}
    for row in kept:
        sides[row["parent_id"]].add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert {"train", "held_out"} == set.union(*sides.values())
    assert 0.1 < sum(row["split"] == "held_out" for row in kept) / len(kept) < 0.5


def test_other_tasks_do_not_change_the_side_of_one(run_on: Callable[..., Run]):
    sides = []
    for numbers in (range(40), range(0, 40, 3)):
        run = run_on(ObjectStore(MemoryStore(), "memory://"))
        kept, _ = curated(run, [example(number) for number in numbers], "curate.held_out=0.5")
        sides.append({row["parent_id"]: row["split"] for row in kept})
    assert sides[1].items() < sides[0].items()


@pytest.mark.parametrize(
    ("override", "reason", "kept_of_first"),
    [
        ("curate.examples=7", "surplus", 7),
        ("curate.kinds={retrieval: 5}", "kind_quota", 5),
        ("curate.languages={English: 3}", "language_quota", 3),
    ],
)
def test_quotas_keep_the_first(run, override, reason, kept_of_first):
    rows = [example(number) for number in range(20)]
    kept, rejects = curated(run, rows, override)
    assert [row["id"] for row in kept] == [row["id"] for row in rows[:kept_of_first]]
    assert set(reasons(rejects).values()) == {reason}


def test_what_is_held_out_counts_for_no_quota(run):
    rows = [example(number) for number in range(200)]
    kept, rejects = curated(run, rows, "curate.held_out=0.3", "curate.examples=50")
    assert sum(row["split"] == "train" for row in kept) == 50
    held_out = sum(row["split"] == "held_out" for row in kept)
    assert held_out and held_out + 50 + len(rejects) == 200


def test_no_label_has_more_than_its_share_of_what_is_kept(run):
    rows = [
        example(number, kind="classification", positive="Good" if number % 2 else f"label {number}")
        for number in range(60)
    ]
    kept, rejects = curated(run, rows, "curate.label_share=0.1")
    assert Counter(row["positive"] for row in kept)["Good"] == 3 <= 0.1 * len(kept)
    assert Counter(reasons(rejects).values()) == {"common_label": 27}


@pytest.mark.parametrize(
    ("counts", "share", "most"),
    [
        ([90, *[1] * 10], 0.5, 10),
        ([50, 50], 0.5, 50),
        ([40, 30, 20, 10], 0.4, 40),
        ([60, 30, 10], 0.5, 40),
        ([3] * 200, 0.01, 3),
        ([90, 10], 0.4, 40),
        ([5], 0.1, 1),
        ([], 0.1, 1),
    ],
)
def test_as_many_of_a_label_are_kept_as_its_share_allows(counts, share, most):
    assert curate._largest_count(np.array(counts, np.int64), share) == most


def test_what_is_held_out_counts_for_no_share(run):
    rows = [example(number, kind="classification", positive="Good" if number % 2 else "Bad") for number in range(200)]
    kept, _ = curated(run, rows, "curate.label_share=0.4", "curate.held_out=0.3")
    held_out = sum(row["split"] == "held_out" for row in kept)
    taken = Counter(row["positive"] for row in kept if row["split"] == "train")
    assert held_out and set(taken.values()) == {int(0.4 * (200 - held_out))}


def test_a_positive_that_copies_its_query_is_dropped_but_for_sts(run):
    copied = {
        "query": "how many boats the harbour holds",
        "positive": f"How many boats the harbour holds: {sentence(9)}",
    }
    turned = {"query": copied["positive"] + "!", "positive": copied["query"]}
    rows = [example(0, **copied), example(1, **turned), example(2, kind="sts", **copied)]
    kept, rejects = curated(run, rows, "curate.duplicate_similarity=null")
    assert [row["id"] for row in kept] == [rows[2]["id"]]
    assert set(reasons(rejects).values()) == {"copied_query"}
    assert rejects[0]["detail"] == "query and positive share 100% of one's word triples"


def test_lengths_are_of_query_and_positive_together(run):
    rows = [example(0, query="a b", positive="c"), example(1, query="a b", positive="c d"), example(2)]
    kept, rejects = curated(run, rows, "curate.min_words=4", "curate.max_words=20", "curate.duplicate_similarity=null")
    assert [row["id"] for row in kept] == [rows[1]["id"]]
    assert list(reasons(rejects).values()) == ["too_short", "too_long"]


def test_texts_of_evaluation_sets_are_not_learnt_from(run, tmp_path):
    (tmp_path / "sts.csv").write_text(f'"{sentence(3)}",whatever,5.0\n')
    long = f"{sentence(50)} and then {sentence(51)}"
    (tmp_path / "more.jsonl").write_text(json.dumps({"text": long}) + "\n")
    within = f"Here {sentence(50)} and then {sentence(51).split()[0]} stop"
    twelve = " ".join(long.split()[:12]) + " stop"
    rows = [
        example(0, query=f"{sentence(3).upper()}!"),
        example(1, positive=within),
        example(2, positive=twelve),
        example(3, query="5.0"),
    ]
    _, rejects = curated(run, rows, f"curate.decontaminate=[{tmp_path}]", "curate.duplicate_similarity=null")
    assert set(reasons(rejects).values()) == {"contaminated"}
    assert [row["row_id"] for row in rejects] == [rows[0]["id"], rows[1]["id"]]
    assert rejects[1]["detail"] == f"the positive, or 13 words of it, stands in {tmp_path}"


@pytest.mark.parametrize("text", ["le café près de la forêt était fermé", "租房合同里关于押金退还的规定"])
def test_an_evaluation_set_is_known_in_any_form_of_unicode_and_script(run, tmp_path, text):
    (tmp_path / "set.txt").write_text(unicodedata.normalize("NFD", text) + "\n", encoding="utf-8-sig")
    _, [reject] = curated(run, [example(0, query=f"«{text}»"), example(1)], f"curate.decontaminate=[{tmp_path}]")
    assert reject["reason"] == "contaminated"


def test_a_few_words_without_spaces_may_stand_in_a_positive(run):
    document = "本文面向初学者介绍量子计算机原理，从叠加态与纠缠讲起。"
    copied = document[:20]
    _, [reject] = curated(run, [example(0, query="量子计算机原理", positive=document),
                                example(1, query=copied, positive=f"{document}并比较了两条路线的优缺点。")],
                          "curate.duplicate_similarity=null")  # fmt: skip
    assert (reject["row_id"], reject["reason"]) == (example(1)["id"], "copied_query")


def test_a_label_of_an_evaluation_set_may_be_learnt(run, tmp_path):
    (tmp_path / "test.csv").write_text("some text,card_payment_fee_charged\n")
    rows = [example(0, kind="classification", positive="Card payment fee charged")]
    kept, _ = curated(run, rows, f"curate.decontaminate=[{tmp_path}/test.csv]")
    assert len(kept) == 1


def test_of_a_beir_folder_queries_and_judged_documents_count(run, tmp_path):
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": sentence(1)}) + "\n")
    documents = [{"_id": f"d{number}", "title": "", "text": sentence(number)} for number in (2, 3)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)) + "\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td2\t1\n")
    rows = [example(number + 10, query=f"q{number}", positive=sentence(number)) for number in (1, 2, 3)]
    kept, rejects = curated(run, rows, f"curate.decontaminate=[{tmp_path}]")
    assert [row["id"] for row in kept] == [rows[2]["id"]] and len(rejects) == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no file of these: .txt, .csv"),
        ({"corpus.jsonl": "{}\n", "qrels": None}, "is no BEIR folder: it has no queries.jsonl"),
        ({"corpus.jsonl": "{}\n", "queries.jsonl": "{}\n"}, r"is no BEIR folder: it has no qrels/\*\.tsv"),
        ({"a.jsonl": "not json\n"}, "a.jsonl, line 1: this is not JSON in UTF-8: Expecting value"),
        ({"a.txt": "too short\n"}, "holds no text of 4 words or more"),
        ({"a.parquet": "PAR1"}, "a.parquet is not a Parquet file"),
    ],
)
def test_an_evaluation_set_that_cannot_be_read_is_named(run, tmp_path: Path, files, message):
    for name, content in files.items():
        (tmp_path / name).mkdir() if content is None else (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"curate.decontaminate: .*{message}"):
        curated(run, [example(0)], f"curate.decontaminate=[{tmp_path}]")


def test_an_evaluation_set_that_is_not_there_is_named(run, tmp_path):
    with pytest.raises(UserError, match=r"there is no file or folder .*/missing"):
        curated(run, [example(0)], f"curate.decontaminate=[{tmp_path}/missing]")


def test_examples_that_are_not_finished_are_asked_for(run):
    with pytest.raises(UserError, match=r"examples is not finished.*\n.*Run `speed-ray synthesize` first"):
        curate.publish_curated(
            run, curate.prepare_curation(run, recipes.load_recipe("miniature", ["synthesize.revise=false"]))
        )


def test_revised_examples_lose_what_only_their_revision_was_about(run):
    rows = [{**example(number), "revised": False, "kept_because": "unchanged"} for number in range(3)]
    publish(run, rows, REVISED_EXAMPLES)
    artifact = curate.publish_curated(
        run,
        curate.prepare_curation(
            run, recipes.load_recipe("miniature", ["synthesize.revise=true", "curate.held_out=0"])
        ),
    )
    kept = list(artifact.records())
    assert kept == [{**example(number), "split": "train"} for number in range(3)]
    assert list(kept[0]) == CURATED.names


def many(count: int) -> list[Row]:
    """Examples of which a fifth repeats another, and a few are too short."""
    rows = [example(number) for number in range(count)]
    for number in range(0, count, 5):
        rows[number]["positive"] = rows[number // 3]["positive"]
        rows[number]["query"] = rows[number // 3]["query"]
    for number in range(1, count, 50):
        rows[number] |= {"query": "a", "positive": "b"}
    return rows


def test_curating_again_gives_the_same_bytes_and_the_funnel_adds_up(run_on: Callable[..., Run]):
    digests = []
    for _ in range(2):
        run = run_on(ObjectStore(MemoryStore(), "memory://"))
        curated(run, many(300), "curate.held_out=0.2", "curate.min_words=3", "curate.examples=150")
        manifest = run.artifact(CURATED_EXAMPLES).manifest()
        digests.append([entry["sha256"] for shard in manifest["shards"] for entry in shard["files"].values()])
    assert digests[0] == digests[1]
    [standing] = [each for each in status.artifact_statuses(run) if each.artifact == CURATED_EXAMPLES]
    assert standing.counts.records + sum(standing.counts.reasons.values()) == 300
    assert set(standing.counts.reasons) == {"duplicate", "too_short", "surplus"}
    assert "  rejected, surplus: " in "".join(status.breakdown(standing))


def test_processes_find_what_one_process_finds(tmp_path, monkeypatch):
    found = []
    for name, least in (("one", 10**9), ("more", 1)):
        monkeypatch.setattr(scan, "ROWS_FOR_PROCESSES", least)
        kept, rejects = curated(Run(str(tmp_path / name)), many(100), "curate.min_words=3")
        found.append((kept, rejects))
    assert found[0] == found[1]


def test_a_resumed_stage_makes_only_what_is_missing(run):
    class Stopped(Exception):
        pass

    publish(run, many(100))
    recipe = recipes.load_recipe("miniature", ["synthesize.revise=false", "curate.shard_rows=16"])
    artifact, prepared = run.artifact(CURATED_EXAMPLES), curate.prepare_curation(run, recipe)

    def cut():
        for number, passed in enumerate(curate.curate_rows(run, prepared)):
            if number == 40:
                raise Stopped
            yield passed

    with pytest.raises(Stopped):
        driver_stage.publish_rows(artifact, prepared.plan, CURATED, cut())
    before = {commit.shard: commit.attempt for commit in artifact.commits()}
    assert set(before) == {0, 1}
    curate.publish_curated(run, curate.prepare_curation(run, recipe))
    assert before.items() < {commit.shard: commit.attempt for commit in artifact.commits()}.items()
    assert all(verdict.holds for verdict in verify(run))


def test_a_run_of_the_miniature_is_curated_and_its_rows_walk_back_to_their_prompts(begin_alignment):
    made = begin_alignment("synthesize.revise=false", "curate.held_out=0.3")
    made.make(Synthesize(made.recipe))
    examples = made.rows(EXAMPLES)
    curate.publish_curated(made.run, curate.prepare_curation(made.run, made.recipe))
    kept, rejects = made.rows(CURATED_EXAMPLES), made.rows(CURATED_EXAMPLES, REJECTS)
    assert len(kept) + len(rejects) == len(examples) and {row["split"] for row in kept} == {"train", "held_out"}
    assert all(verdict.holds for verdict in verify(made.run))
    console = Console(record=True, width=200)
    show.show_rows(made.run, CURATED_EXAMPLES, console, row=kept[0]["id"])
    shown = console.export_text()
    assert "from topics: topic: " in shown and "raw reply (stop" in shown


def test_the_command_says_what_it_made(tmp_path, capsys):
    run = Run(str(tmp_path / "run"))
    publish(run, many(50))
    overrides = ["--set=synthesize.revise=false", "--set=curate.min_words=3"]
    with pytest.raises(SystemExit) as ended:
        main(["curate", "--recipe=miniature", f"--run={run.uri}", *overrides])
    said = capsys.readouterr().out
    assert not ended.value.code
    assert "curated_examples: 41 records in " in said and "  rejected, too_short: 1\n" in said
    assert f" train-embedder --recipe miniature --run {run.uri} " in said.splitlines()[-1]


def test_a_curation_follows_examples_that_a_repair_changed(tmp_path, said):
    """A damaged shard is made anew by a model that does not write the same again: the run goes on with what it has."""
    run = Run(str(tmp_path / "run"))
    curated(run, [example(number) for number in range(30)])
    examples = run.artifact(EXAMPLES)
    damaged = list(examples.commits())[1]
    examples.put(damaged.files[RECORDS].path, b"torn")
    code, words = said("verify", run.uri, "--repair")
    assert code == 1 and "1 damaged shards withdrawn" in words
    assert "Where their rows come out otherwise, what was made of them is made anew: curated_examples." in words
    again = [example(number, query=f"whether {sentence(500 + number)}") for number in range(30)]
    records, _ = curated(run, again)
    assert [row["query"].split()[0] for row in records] == ["who"] * 10 + ["whether"] * 10 + ["who"] * 10
