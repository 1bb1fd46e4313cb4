"""The cached gradient is that of one process with the whole batch in memory, on any number of workers."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contrastive_worker import QUERIES, TEXTS, WIDTH, by_cache, network, tokens

from speed_ray.training import infonce
from speed_ray.training.infonce import Texts

WORKER = Path(__file__).parents[1] / "contrastive_worker.py"


def whole(dropout: float) -> dict[str, torch.Tensor]:
    """One graph over all texts, embedded in the mini-batches of `by_cache`, so that dropout draws alike."""
    model = network(dropout)
    torch.manual_seed(1)
    embedded = torch.cat([model(batch) for batch in tokens().split(2)])
    loss = infonce.loss(embedded[:QUERIES], embedded[QUERIES:], TEXTS, 0.05, own_negatives_only=False) / QUERIES
    loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def furthest(one, other):
    """The largest difference of two gradients, over the largest number in them."""
    most = max(gradient.abs().max() for gradient in one.values())
    return max((one[name] - other[name]).abs().max() for name in one) / most


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_of_the_whole_batch(dropout):
    assert furthest(whole(dropout), by_cache(dropout)) < 1e-5


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_together_have_the_gradient_of_one(workers, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    ended = subprocess.run([*command, str(WORKER), str(tmp_path)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for rank in range(workers):
        assert furthest(whole(0.0), torch.load(tmp_path / f"{rank}.pt", weights_only=True)) < 1e-5


def left_out(queries, positives, documents, own, own_negatives_only=False):
    hashes = (torch.tensor(each) for each in (queries, positives, documents, own))
    return infonce.left_out(Texts(*hashes), own_negatives_only).int().tolist()


def test_a_text_that_answers_a_query_is_no_negative_of_it_wherever_it_stands():
    # Documents 20 and 20 are one text, the answer to both queries; 10 is the first query's own text.
    assert left_out([10, 11], [20, 20], [20, 20, 10, 30], [[0, 2], [1, 3]]) == [[0, 1, 1, 0], [1, 0, 0, 0]]


def test_own_negatives_only():
    assert left_out([10, 11], [20, 21], [20, 21, 30, 31], [[0, 2], [1, 3]], True) == [[0, 1, 0, 1], [1, 0, 1, 0]]


def test_a_query_that_knows_only_its_answer_has_no_loss():
    texts = Texts(*(torch.tensor(each) for each in ([1, 2], [7, 7], [7, 7], [[0], [1]])))
    loss = infonce.loss(torch.randn(2, WIDTH), torch.randn(2, WIDTH), texts, 0.05, own_negatives_only=False)
    assert loss == 0.0


def test_the_loss_is_that_of_the_formula():
    torch.manual_seed(0)
    queries, documents = torch.randn(2, WIDTH), torch.randn(4, WIDTH)
    texts = Texts(*(torch.tensor(each) for each in ([1, 2], [3, 4], [3, 4, 5, 6], [[0, 2], [1, 3]])))
    cosines = torch.stack([torch.cosine_similarity(query, documents, dim=-1) for query in queries]).double() / 0.1
    expected = (
        -(cosines[0, 0].exp() / cosines[0].exp().sum()).log() - (cosines[1, 1].exp() / cosines[1].exp().sum()).log()
    )
    got = infonce.loss(queries, documents, texts, 0.1, own_negatives_only=False)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
