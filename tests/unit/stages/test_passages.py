"""Passages name their document and the place where they stand in it, and keep their ids while it stays as it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from speed_ray.errors import UserError
from speed_ray.recipes.schema import Recipe
from speed_ray.stages.documents import prepare_documents, publish_documents
from speed_ray.stages.passages import prepare_split, split_passages
from speed_ray.storage.run import DOCUMENTS, PASSAGES, Run
from speed_ray.storage.verify import verify
from tests.unit.documents.test_splitter import tokenizer

LONG = "# Guide\n\nIt begins here. " + "And on it goes. " * 9 + "\n\n## Part\n\nHere is a part of it. It is short."


def recipe_of(source: Path, tokens: int = 12, **tree: Any) -> Recipe:
    corpus = {"source": str(source), "tokens": tokens, "tokenizer": str(source.parent / "tokenizer")}
    return Recipe.model_validate({"corpus": corpus, "generator": {"engine": "simulated"}, **tree})


def split(folder: Path, run: str, texts: dict[str, str], tokens: int = 12) -> list[dict[str, Any]]:
    (folder / "tokenizer").mkdir(exist_ok=True)
    tokenizer().save(str(folder / "tokenizer" / "tokenizer.json"))
    rows = (json.dumps({"_id": name, "title": "Guide", "text": text}) for name, text in texts.items())
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    recipe, opened = recipe_of(folder / "corpus.jsonl", tokens), Run(str(folder / run))
    with prepare_documents(opened, recipe) as prepared:
        publish_documents(opened, prepared)
    split_passages(opened, prepare_split(recipe))
    return list(opened.artifact(PASSAGES).records())


def test_a_passage_is_the_span_of_its_document(tmp_path: Path) -> None:
    passages = split(tmp_path, "run", {"a": LONG})
    run = Run(str(tmp_path / "run"))
    [document] = run.artifact(DOCUMENTS).records()
    assert len(passages) > 3
    assert all(each["text"] == document["text"][each["start"] : each["end"]] for each in passages)
    assert {each["parent_id"] for each in passages} == {document["id"]}
    assert passages[-1]["headings"] == "Part"  # not the title again
    assert all(verdict.holds for verdict in verify(run))


def test_a_short_document_is_one_passage(tmp_path: Path) -> None:
    [passage] = split(tmp_path, "run", {"a": "It is short. It is one."})
    assert (passage["title"], passage["text"]) == ("Guide", "It is short. It is one.")


def test_ids_stay_when_other_documents_change(tmp_path: Path) -> None:
    before = split(tmp_path, "run", {"a": LONG, "b": "Something else is here."})
    after = split(tmp_path, "other", {"c": "A new one before it.", "b": "Another text is here.", "a": LONG})
    of_a = [each["id"] for each in before if each["document_id"] == "a"]
    assert of_a == [each["id"] for each in after if each["document_id"] == "a"]
    assert {each["id"] for each in before if each["document_id"] == "b"}.isdisjoint(each["id"] for each in after)


def test_a_recipe_must_say_whose_tokens_count(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"corpus": {"source": "x"}, "generator": {"engine": "simulated"}})
    with pytest.raises(UserError, match=r"corpus.tokenizer: passages are measured in tokens"):
        prepare_split(recipe)
