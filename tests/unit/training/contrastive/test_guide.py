"""A guide masks what it finds nearer than the positive, and never the positive itself."""

import pytest
import torch
from torch.nn.functional import normalize

from speed_ray.recipes.training_settings import Guide
from speed_ray.training.contrastive import encoder, infonce
from speed_ray.training.contrastive.guide import GuideModel, GuideVectors
from speed_ray.training.contrastive.infonce import TextHashes
from tests.helpers.tiny_training import tiny_model

HASHES = TextHashes(
    queries=torch.arange(2),
    positives=torch.arange(10, 12)[:, None],
    documents=torch.arange(10, 14),
    own_documents=torch.tensor([[0, 2], [1, 3]]),
)
SIMILARITIES = torch.tensor([[0.8, 0.85, 0.3, 0.75], [0.1, 0.5, 0.2, 0.45]])  # of two queries and four documents


def mask(settings):
    """The mask by similarities alone: the documents are unit vectors, the queries hold their similarities."""
    bounds = GuideModel(None, settings, 1).bounds(SIMILARITIES[[0, 1], [0, 1]])
    return GuideVectors(SIMILARITIES, torch.eye(4), bounds).mask(slice(None)).int().tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[0, 1, 0, 0], [0, 0, 0, 0]]),
        ({"absolute_margin": 0.1}, [[1, 1, 0, 1], [0, 1, 0, 1]]),
        ({"absolute_margin": -0.1}, [[0, 0, 0, 0], [0, 0, 0, 0]]),
        ({"relative_margin": 0.08}, [[1, 1, 0, 1], [0, 1, 0, 0]]),
    ],
)
def test_what_is_nearer_than_the_bound_is_masked(settings, expected):
    assert mask(Guide(**settings)) == expected


def losses(queries, documents, guide):
    return infonce.infonce_loss(queries, documents, HASHES, 0.05, False, guide=guide)


def test_a_masked_document_counts_for_nothing_and_the_positive_always():
    queries, documents = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).split([2, 4])
    near_all = GuideVectors(torch.ones(2, 1), torch.ones(4, 1), torch.zeros(2))
    assert losses(queries, documents, near_all) == pytest.approx(0, abs=1e-6)
    one = GuideVectors(SIMILARITIES, torch.eye(4), SIMILARITIES[[0, 1], [0, 1]])
    logits = normalize(queries, dim=1) @ normalize(documents, dim=1).T / 0.05
    expected = logits[0, [0, 2, 3]].logsumexp(0) - logits[0, 0] + logits[1].logsumexp(0) - logits[1, 1]
    assert losses(queries, documents, one) == pytest.approx(expected.item(), rel=1e-5)


def test_texts_are_embedded_with_the_prompts_of_the_guides_folder(tmp_path):
    model = encoder.load_encoder(tiny_model(tmp_path / "base"), "mean", max_length=64).eval()
    model.prompts = {"query": "find: ", "document": ""}
    guide = GuideModel(model, Guide(), batch_size=2)
    queries, documents = guide.embed(["one", "two", "one"], "query"), guide.embed(["find: one", "one"], "document")
    assert torch.equal(queries[0], queries[2]) and (queries[0] - documents[0]).abs().max() < 1e-5
    assert (queries[0] - documents[1]).abs().max() > 1e-3
