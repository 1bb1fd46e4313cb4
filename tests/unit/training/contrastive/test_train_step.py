"""A step of contrastive training on a real encoder, against the formula and against itself on several workers."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import cosine_similarity

from speed_ray.training.contrastive import encoder, train_step
from speed_ray.training.contrastive.encoder import Encoder, pad_batch
from speed_ray.training.contrastive.train_step import ContrastiveConfig
from tests.helpers.embedding_worker import NEGATIVES, OBJECTIVE, gradient, rows
from tests.helpers.paths import ROOT
from tests.helpers.tiny_training import tiny_model

WORKER = ROOT / "tests" / "helpers" / "embedding_worker.py"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("contrastive") / "base")


def loss(base, objective, own_negatives_only=False):
    torch.manual_seed(0)
    model = encoder.load_encoder(base, "last", max_length=64)
    tokenizer = encoder.load_tokenizer(model)
    made = rows(tokenizer)
    said = []
    return (
        train_step.train_step(
            Encoder(model), made, own_negatives_only, objective, tokenizer.pad_token_id, said.append
        ),
        Encoder(model),
        made,
    )


def by_formula(network, made, temperature, width, own_negatives_only):
    with torch.no_grad():
        columns = [
            network(**pad_batch(list(column), 2)).double()[:, :width]
            for column in zip(*(row.texts for row in made), strict=True)
        ]
    queries, documents = columns[0], torch.cat(columns[1:])
    hashes = [value for column in zip(*(row.hashes for row in made), strict=True) for value in column][len(made) :]
    losses = []
    for place, row in enumerate(made):
        logits = cosine_similarity(queries[place], documents) / temperature
        own = {place + column * len(made) for column in range(1 + NEGATIVES)}
        counted = [
            other
            for other in range(len(documents))
            if other == place
            or (other in own if own_negatives_only else hashes[other] not in (row.hashes[0], row.hashes[1]))
        ]
        losses.append(logits[counted].logsumexp(0) - logits[place])
    return torch.stack(losses).mean().item()


@pytest.mark.parametrize("own_negatives_only", [False, True])
def test_the_loss_is_that_of_the_formula(base, own_negatives_only):
    value, network, made = loss(base, OBJECTIVE, own_negatives_only)
    assert value == pytest.approx(by_formula(network, made, OBJECTIVE.temperature, 64, own_negatives_only), rel=1e-5)


def test_each_width_counts_alike(base):
    value, network, made = loss(base, ContrastiveConfig(0.05, mini_batch=3, dimensions=(64, 16)))
    each = [by_formula(network, made, 0.05, width, False) for width in (64, 16)]
    assert value == pytest.approx(sum(each) / 2, rel=1e-5)


def furthest(one, other):
    most = max(gradient.abs().max() for gradient in one.values())
    return max((one[name] - other[name]).abs().max() for name in one) / most


@pytest.mark.parametrize("mini_batch", [1, 5, 1000])
def test_the_mini_batch_changes_no_gradient(base, mini_batch):
    assert furthest(gradient(base, 1000), gradient(base, mini_batch)) < 1e-5


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_together_have_the_gradient_of_one(base, workers, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    ended = subprocess.run([*command, str(WORKER), str(base), str(tmp_path)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    alone = gradient(base, OBJECTIVE.mini_batch)
    for rank in range(workers):
        assert furthest(alone, torch.load(tmp_path / f"{rank}.pt", weights_only=True)) < 1e-5
