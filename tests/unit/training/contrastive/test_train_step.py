"""A step of contrastive training on a real encoder, against the formula and against itself on several workers."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, kl_div, mse_loss

from speed_ray.training.contrastive import encoder, train_step
from speed_ray.training.contrastive.batch_loss import ContrastiveConfig
from speed_ray.training.contrastive.encoder import Encoder, pad_batch
from tests.helpers.embedding_worker import CONFIG, NEGATIVES, gradient, rows, save_gradient
from tests.helpers.forked_workers import start_workers
from tests.helpers.tiny_training import tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("contrastive") / "base")


def loss(base, config, no_in_batch_negatives=False):
    torch.manual_seed(0)
    model = encoder.load_encoder(base, "last", max_length=64)
    tokenizer = model.tokenizer
    made = rows(tokenizer)
    return (
        train_step.train_step(
            Encoder(model), made, no_in_batch_negatives, config, tokenizer.pad_token_id, lambda loss: None
        ),
        Encoder(model),
        made,
    )


def by_formula(network, made, temperature, width, no_in_batch_negatives):
    with torch.no_grad():
        columns = [
            network(**pad_batch(list(column), 2)).double()[:, :width]
            for column in zip(*(row.token_ids for row in made), strict=True)
        ]
    queries, documents = columns[0], torch.cat(columns[1:])
    hashes = [value for column in zip(*(row.hashes for row in made), strict=True) for value in column][len(made) :]
    losses = []
    for index, row in enumerate(made):
        logits = cosine_similarity(queries[index], documents) / temperature
        own = {index + column * len(made) for column in range(1 + NEGATIVES)}
        counted = [
            other
            for other in range(len(documents))
            if other == index
            or (other in own if no_in_batch_negatives else hashes[other] not in (row.hashes[0], row.hashes[1]))
        ]
        losses.append(logits[counted].logsumexp(0) - logits[index])
    return torch.stack(losses).mean().item()


@pytest.mark.parametrize("no_in_batch_negatives", [False, True])
def test_the_loss_is_that_of_the_formula(base, no_in_batch_negatives):
    value, network, made = loss(base, CONFIG, no_in_batch_negatives)
    assert value == pytest.approx(by_formula(network, made, CONFIG.temperature, 64, no_in_batch_negatives), rel=1e-5)


def test_each_width_counts_alike(base):
    value, network, made = loss(base, ContrastiveConfig(0.05, micro_batch_size=3, matryoshka_dims=(64, 16)))
    each = [by_formula(network, made, 0.05, width, False) for width in (64, 16)]
    assert value == pytest.approx(sum(each) / 2, rel=1e-5)


def furthest(one, other):
    most = max(gradient.abs().max() for gradient in one.values())
    return max((one[name] - other[name]).abs().max() for name in one) / most


@pytest.mark.parametrize("micro_batch_size", [1, 5, 1000])
def test_the_micro_batch_size_changes_no_gradient(base, micro_batch_size):
    assert furthest(gradient(base, 1000), gradient(base, micro_batch_size)) < 1e-5


def test_copies_that_fill_up_a_worker_change_no_gradient(base):
    assert furthest(gradient(base, 3, batch_rows=5), gradient(base, 3, batch_rows=5, padding=2)) < 1e-5


def test_a_smaller_batch_weighs_as_many_rows_as_it_has(base):
    value, *_ = loss(base, CONFIG)
    seen = []
    model = encoder.load_encoder(base, "last", max_length=64)
    config = ContrastiveConfig(CONFIG.temperature, CONFIG.micro_batch_size, global_batch_size=4 * 8)
    for each in (CONFIG, config):
        step = (Encoder(model.eval()), rows(model.tokenizer), False, each, model.tokenizer.pad_token_id)
        seen.append([])
        assert train_step.train_step(*step, lambda loss: seen[-1].append(loss.item())) == pytest.approx(
            value, rel=1e-5
        )
    assert seen[1] == pytest.approx([part / 4 for part in seen[0]], rel=1e-4)


def plain_gradient(base, loss, positives):
    """One graph over all texts, by PyTorch's own losses: a judge's loss and a tenth of InfoNCE, rows weighted."""
    network = Encoder(encoder.load_encoder(base, "last", max_length=64))
    made = rows(network.model.tokenizer, judged=True)
    texts = [list(column) for column in zip(*(row.token_ids for row in made), strict=True)]
    queries, *documents = (network(**pad_batch(column, 2)) for column in texts)
    all_logits = cosine_similarity(queries[:, None], torch.cat(documents)[None], dim=-1) / CONFIG.temperature
    own = torch.stack([torch.arange(len(made)) + len(made) * column for column in range(1 + NEGATIVES)], dim=1)
    logits, scores = all_logits.gather(1, own), torch.tensor([row.target.scores for row in made])
    if loss == "kl":
        judged = kl_div(logits.log_softmax(1), scores.softmax(1), reduction="none").sum(1)
    else:
        judged = mse_loss(logits[:, :1] - logits[:, 1:], scores[:, :1] - scores[:, 1:], reduction="none").mean(1)
    hashes = torch.tensor([row.hashes for row in made])
    others = hashes[:, 1:].T.flatten()
    masked = (others[None, :, None] == hashes[:, None, : 1 + positives]).any(2)
    masked.scatter_(1, own[:, :positives], True)
    negatives, near = all_logits.masked_fill(masked, float("-inf")).logsumexp(1), logits[:, :positives]
    infonce = (torch.stack([negatives[:, None].expand_as(near), near]).logsumexp(0) - near).mean(1)
    ((judged + 0.1 * infonce) * torch.tensor([row.target.weight for row in made])).mean().backward()
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(("loss", "positives"), [("kl", 1), ("margin_mse", 1), ("kl", 2)])
def test_the_gradient_by_a_judges_scores_is_that_of_one_graph(base, loss, positives):
    wanted = plain_gradient(base, loss, positives)
    assert furthest(wanted, gradient(base, 3, loss=loss, positives=positives)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "batch_rows", "loss", "positives"),
    [(2, 8, "infonce", 1), (4, 8, "infonce", 1), (4, 5, "infonce", 1), (4, 5, "kl", 2), (2, 8, "margin_mse", 1)],
)
def test_workers_together_have_the_gradient_of_one(base, workers, batch_rows, loss, positives, tmp_path):
    arguments = (base, tmp_path, batch_rows, loss, positives)
    together = start_workers(tmp_path / "said", workers, save_gradient, *arguments)
    assert together.wait() == 0, together.said()
    alone = gradient(base, CONFIG.micro_batch_size, batch_rows, loss=loss, positives=positives)
    for rank in range(workers):
        assert furthest(alone, torch.load(tmp_path / f"{rank}.pt", weights_only=True)) < 1e-5
