"""The cached gradient is that of one graph over the whole batch, also with dropout; and which negatives count."""

import pytest
import torch
from torch import nn

from speed_ray.training.contrastive import gradcache, infonce
from speed_ray.training.contrastive.infonce import TextHashes

QUERIES, WIDTH = 8, 16
HASHES = TextHashes(
    queries=torch.arange(QUERIES),
    positives=torch.arange(QUERIES)[:, None],
    documents=torch.arange(2 * QUERIES),
    own_documents=torch.stack([torch.arange(QUERIES), QUERIES + torch.arange(QUERIES)], dim=1),
)


def network(dropout):
    torch.manual_seed(0)
    layers = [nn.EmbeddingBag(50, 32), nn.Dropout(dropout), nn.Linear(32, 32), nn.Tanh(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(32, WIDTH))


def loss(embedded):
    total = infonce.infonce_loss(embedded[:QUERIES], embedded[QUERIES:], HASHES, 0.05, no_in_batch_negatives=False)
    return total / QUERIES


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_of_the_whole_batch(dropout):
    texts = torch.randint(0, 50, (3 * QUERIES, 5), generator=torch.Generator().manual_seed(3))
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(4))  # whatever it is
    batches = [each.tolist() for each in order.split(2)]
    cached, whole = network(dropout), network(dropout)

    torch.manual_seed(1)
    value = gradcache.gradcache_step(
        batches, lambda indices: cached(texts[indices]), loss, lambda scalar: scalar.backward()
    )
    after = torch.rand(1)
    torch.manual_seed(1)
    back = torch.tensor([index for batch in batches for index in batch]).argsort()
    expected = loss(torch.cat([whole(texts[batch]) for batch in batches])[back])
    expected.backward()

    assert value == pytest.approx(expected.item(), rel=1e-6)
    assert after == torch.rand(1), "the replay has used up random numbers"
    most = max(weight.grad.abs().max() for weight in whole.parameters())
    for one, other in zip(cached.parameters(), whole.parameters(), strict=True):
        assert (one.grad - other.grad).abs().max() / most < 1e-5


def test_the_gradient_is_that_of_the_formula():
    ours, plain = (torch.randn(3 * QUERIES, WIDTH, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    ours.requires_grad_(), plain.requires_grad_()

    loss(ours).backward()
    unit = nn.functional.normalize(plain, dim=-1)
    nn.functional.cross_entropy(unit[:QUERIES] @ unit[QUERIES:].T / 0.05, HASHES.own_documents[:, 0]).backward()

    assert (ours.grad - plain.grad).abs().max() < 1e-6 * plain.grad.abs().max()


def mask(queries, positives, documents, own, no_in_batch_negatives=False):
    hashes = (torch.tensor(each) for each in (queries, positives, documents, own))
    return infonce.false_negative_mask(TextHashes(*hashes), no_in_batch_negatives).int().tolist()


def test_a_text_that_answers_a_query_is_no_negative_of_it_wherever_it_stands():
    # Documents 20 and 20 are one text, the answer to both queries; 10 is the first query's own text.
    assert mask([10, 11], [[20], [20]], [20, 20, 10, 30], [[0, 2], [1, 3]]) == [[0, 1, 1, 0], [1, 0, 0, 0]]


def test_no_positive_of_a_query_is_a_negative_of_it():
    assert mask([10, 11], [[20, 30], [21, 31]], [20, 21, 30, 31, 30], [[0, 2], [1, 3]])[0] == [0, 0, 0, 0, 1]


def test_several_positives_count_in_the_mean():
    vectors = torch.randn(3 * QUERIES, WIDTH, generator=torch.Generator().manual_seed(5), requires_grad=True)
    both = TextHashes(HASHES.queries, HASHES.own_documents, HASHES.documents, HASHES.own_documents)
    found = infonce.infonce_loss(vectors[:QUERIES], vectors[QUERIES:], both, 0.05, no_in_batch_negatives=False)
    logits = torch.nn.functional.normalize(vectors, dim=-1)
    logits = logits[:QUERIES] @ logits[QUERIES:].T / 0.05
    expected = 0
    for query, own in enumerate(HASHES.own_documents.tolist()):
        others = [place for place in range(2 * QUERIES) if place not in own]
        expected += sum(logits[query, [one, *others]].logsumexp(0) - logits[query, one] for one in own) / 2
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    one, other = (torch.autograd.grad(each, vectors, retain_graph=True)[0] for each in (found, expected))
    assert (one - other).abs().max() < 1e-5 * other.abs().max()


def test_no_in_batch_negatives():
    assert mask([10, 11], [[20], [21]], [20, 21, 30, 31], [[0, 2], [1, 3]], True) == [[0, 1, 0, 1], [1, 0, 1, 0]]


def test_a_query_that_knows_only_its_answer_has_no_loss():
    hashes = TextHashes(*(torch.tensor(each) for each in ([1, 2], [[7], [7]], [7, 7], [[0], [1]])))
    assert (
        infonce.infonce_loss(torch.randn(2, WIDTH), torch.randn(2, WIDTH), hashes, 0.05, no_in_batch_negatives=False)
        == 0.0
    )


def test_logits_that_are_taken_in_parts_change_nothing(monkeypatch):
    whole, parts = (torch.randn(3 * QUERIES, WIDTH, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    whole.requires_grad_(), parts.requires_grad_()
    loss(whole).backward()
    monkeypatch.setattr(infonce, "MAX_LOGITS", 3 * 2 * QUERIES)
    loss(parts).backward()
    assert (whole.grad - parts.grad).abs().max() < 1e-6 * whole.grad.abs().max()
