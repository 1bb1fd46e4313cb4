"""Other documents than a run was begun with are refused with what they would cost."""

import json
from pathlib import Path

import pytest

from speed_ray.errors import UserError
from speed_ray.pipeline import read_documents
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.run import EXAMPLES, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan
from tests.unit.documents.test_splitter import tokenizer

TEXTS = {"a": "Here is one sentence. And another follows.", "b": "The second says less.", "c": "The third as well."}


def recipe_of(folder: Path, texts: dict[str, str], tokens: int = 5) -> Recipe:
    (folder / "tokenizer").mkdir(exist_ok=True)
    tokenizer().save(str(folder / "tokenizer" / "tokenizer.json"))
    rows = (json.dumps({"_id": name, "text": text}) for name, text in texts.items())
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    corpus = {"source": str(folder / "corpus.jsonl"), "tokens": tokens, "tokenizer": str(folder / "tokenizer")}
    return Recipe.model_validate({"corpus": corpus, "generator": {"engine": "simulated"}})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(str(tmp_path / "run"))
    read_documents(run, recipe_of(tmp_path, TEXTS))
    return run


def test_it_says_what_has_changed_and_how_to_make_only_that(run: Run, tmp_path: Path) -> None:
    run.artifact(EXAMPLES).ensure_plan(Plan(EXAMPLES, rows=8, shard_rows=8, input=PASSAGES, variants=("0", "1")))
    others = {"b": TEXTS["b"], "a": f"{TEXTS['a']} And one more.", "d": "It is new."}
    with pytest.raises(UserError) as refused:
        read_documents(run, recipe_of(tmp_path, others))
    said = str(refused.value)
    assert "1 have changed, 1 are new and 1 are gone" in said
    assert "4 passages would be made, and about 8 prompts asked" in said
    assert f"--set reuse={run.uri}" in said


def test_the_same_documents_elsewhere_are_no_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    read_documents(run, recipe_of(tmp_path / "moved", TEXTS))


def test_another_split_is_refused_for_what_it_is(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.tokens: was 5, now 9"):
        read_documents(run, recipe_of(tmp_path, TEXTS, tokens=9))
