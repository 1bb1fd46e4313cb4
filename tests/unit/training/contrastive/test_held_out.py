"""Held-out queries rank what training contrasts them with, and a model that tells nothing apart scores nothing."""

import math

import pytest
import torch

from speed_ray.training import plan
from speed_ray.training.contrastive import encoder, held_out
from speed_ray.training.contrastive.encoder import Encoder, TextPrompts
from speed_ray.training.contrastive.held_out import TextEmbedder, read_held_out
from tests.helpers.tiny_training import tiny_model
from tests.unit.training.contrastive.test_loop import a_recipe, a_run, example

WORDS = ("one", "two", "three", "four")


def row(number, split="held_out", **fields):
    return {**example(number, split=split), "query": WORDS[number], "positive": f"digit {number}", **fields}


def read(folder, rows, **settings):
    training = plan.plan_embedder(a_run(folder, rows), a_recipe("a/model", **settings))
    return read_held_out(training, TextPrompts())


def by_number(texts):
    """A model that knows each word's digit, and tells all else apart: unit vectors."""
    names = [f"digit {number}" for number in range(len(WORDS))]
    known = {f"Instruct: Write the number as digits\nQuery: {word}": number for number, word in enumerate(WORDS)}
    known |= dict(zip(names, range(len(names)), strict=True))
    places = torch.tensor([known.get(text, len(names)) for text in texts])
    return torch.nn.functional.one_hot(places, len(names) + 1).float()


def test_a_model_that_finds_each_positive_scores_one(tmp_path):
    found = read(tmp_path, [row(0), row(1), row(2, "train")])
    assert sorted(found.ndcg_by_query(by_number).values()) == [1.0, 1.0]
    assert "digit 2" in found.documents, "what is trained on is ranked too"


def test_a_model_that_tells_nothing_apart_or_is_no_number_finds_nothing(tmp_path):
    rows = [row(number % 4, id=f"{number}", positive=f"digit {number}") for number in range(12)]
    found = read(tmp_path, rows)
    for value in (1.0, float("nan")):
        assert set(found.ndcg_by_query(lambda texts, value=value: torch.full((len(texts), 2), value)).values()) == {0}


def test_the_second_place_counts_less(tmp_path):
    found = read(tmp_path, [row(0, negatives=["digit 1"])])
    near = {"digit 0": [0.6, 0.8], "digit 1": [1.0, 0.0]}
    scores = found.ndcg_by_query(lambda texts: torch.tensor([near.get(text, [1.0, 0.0]) for text in texts]))
    assert list(scores.values()) == [pytest.approx(1 / math.log2(3))]


def test_labels_of_other_rows_are_not_ranked(tmp_path):
    labels = [row(number, kind="classification", negatives=["none"]) for number in range(2)]
    found = read(tmp_path, labels)
    answers = {document for hidden in found.hidden for document in [int((~hidden).sum())]}
    assert answers == {2}, "its own positive and negative"


def test_a_run_without_held_out_rows_has_none(tmp_path):
    assert read(tmp_path, [row(0, "train"), row(1, "train")]) is None


def test_more_rows_than_are_scored_are_drawn_alike_at_every_start(tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "MAX_QUERIES", 2)
    monkeypatch.setattr(held_out, "MAX_DOCUMENTS", 3)
    rows = [row(number) for number in range(4)]
    one, other = read(tmp_path / "one", rows), read(tmp_path / "other", rows[::-1])
    assert [each["id"] for each in one.rows] == [each["id"] for each in other.rows] and len(one.rows) == 2
    assert len(one.documents) == 4, "the documents of its own rows all stay"


def test_texts_are_embedded_without_dropout_and_training_goes_on(tmp_path):
    model = encoder.load_encoder(tiny_model(tmp_path / "base"), "mean", max_length=64)
    for layer in model[0].model.layers:
        layer.self_attn.attention_dropout = 0.5
    network = Encoder(model).train()
    texts, state = ["one", "twenty-two and more", "three"], torch.get_rng_state()
    vectors = TextEmbedder(network, model.tokenizer, 64, 2)(texts)
    assert network.training and torch.equal(torch.get_rng_state(), state)
    assert (vectors - torch.tensor(model.eval().encode(texts))).abs().max() < 1e-5
