"""One worker of benchmarks/gradients.py: the gradient of a batch by our own step, or by one graph over all of it.

    torchrun --nproc-per-node 2 -m benchmarks.gradient_worker CASE.json

AdamW is replaced by plain descent at rate 1 without clipping, so what one step takes from the weights is the gradient.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from speed_ray.miniature import base_model, retrieval_set
from speed_ray.recipes.training_settings import Embedder
from speed_ray.training import distributed
from speed_ray.training.contrastive import encoder, infonce, loop, train_step
from speed_ray.training.contrastive.batch_loss import ContrastiveConfig
from speed_ray.training.contrastive.encoder import Encoder, pad_batch
from speed_ray.training.contrastive.infonce import TextHashes
from speed_ray.training.contrastive.judge_scores import Target
from speed_ray.training.contrastive.train_step import TokenizedExample

DROPOUT = 0.1


class Descent(torch.optim.SGD):
    """Takes the gradient itself from the weights, whatever rate it is given."""

    def __init__(self, groups: Any, **_: Any) -> None:
        super().__init__(groups, lr=1.0)


def rows(tokenizer: Any, count: int, positives: int) -> list[TokenizedExample]:
    """Questions of the miniature world, each with its answer, two other documents, a judge's scores and a weight.

    So many of a question's three texts count as answers.
    """
    documents, queries, relevant = retrieval_set.draw_queries()
    names, rng = list(documents), random.Random(0)
    made = []
    for query in rng.sample(list(queries), count):
        positive = next(iter(relevant[query]))
        texts = [queries[query], documents[positive], *(documents[rng.choice(names)] for _ in range(2))]
        ids = tuple(tokenizer(text, truncation=True, max_length=128).input_ids for text in texts)
        target = Target(tuple(rng.gauss(0, 3) for _ in texts[1:]), rng.uniform(0.5, 1.5))
        made.append(TokenizedExample(query, ids, tuple(map(train_step.text_hash, texts)), target, positives=positives))
    return made


def network(case: dict[str, Any], settings: Embedder) -> tuple[Encoder, Any]:
    """The miniature base as an embedder, in the shape of the case."""
    model = encoder.load_encoder(base_model.ensure_base_model("base"), "mean", 128, encoder.trained_dtype(settings))
    tokenizer = model.tokenizer
    for layer in model[0].model.layers:
        layer.self_attn.attention_dropout = DROPOUT if case["dropout"] else 0.0
    if settings.lora:
        encoder.add_lora(model, settings.lora, 0)
        rng = torch.Generator().manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # zeros at first, with which half of the gradients are zero too
                weight.data = torch.randn(weight.shape, generator=rng) * 0.02
    if settings.gradient_checkpointing:
        model[0].model.gradient_checkpointing_enable({"use_reentrant": False})
    model = model.to(distributed.device(settings.workers.num_gpus)).train()
    return Encoder(model, settings.precision == "bf16" and not settings.zero_stage), tokenizer


def by_step(case: dict[str, Any], settings: Embedder) -> dict[str, Tensor]:
    """What our own step takes from the weights, on this worker of several."""
    net, tokenizer = network(case, settings)
    before = {name: weight.detach().clone() for name, weight in net.named_parameters() if weight.requires_grad}
    strategy = loop.make_strategy(net, settings, 1)
    each = case["rows"] // distributed.world_size()
    mine = rows(tokenizer, case["rows"], case["positives"])[
        distributed.rank() * each : (distributed.rank() + 1) * each
    ]
    torch.manual_seed(distributed.rank())
    train_step.train_step(
        strategy.network,
        mine,
        False,
        ContrastiveConfig(settings.temperature, settings.micro_batch_size, loss=settings.loss),
        tokenizer.pad_token_id,
        strategy.backward,
        strategy.no_sync,
    )
    strategy.step()
    strategy.gather_weights()
    after = {name: weight.detach() for name, weight in net.named_parameters()}
    return {name: (before[name] - after[name]).clone() for name in before}


def by_graph(case: dict[str, Any], settings: Embedder) -> dict[str, Tensor]:
    """The gradient of one graph over the batch, each worker's texts under the random numbers that it would draw."""
    net, tokenizer = network(case, settings)
    batch, world = rows(tokenizer, case["rows"], case["positives"]), case["workers"]
    each = case["rows"] // world
    vectors = [
        _embedded(net, batch[rank * each : (rank + 1) * each], settings, tokenizer, rank) for rank in range(world)
    ]
    documents = torch.cat([vector[each:] for vector in vectors])
    hashes = torch.cat(
        [
            torch.tensor([row.hashes[1:] for row in batch[rank * each : (rank + 1) * each]]).T.flatten()
            for rank in range(world)
        ]
    )
    total = torch.zeros(())
    for rank, vector in enumerate(vectors):
        mine = torch.tensor([row.hashes for row in batch[rank * each : (rank + 1) * each]])
        first = rank * (len(documents) // world)
        own = torch.arange(first, first + len(documents) // world).view(-1, each).T
        text_hashes = TextHashes(mine[:, 0], mine[:, 1 : 1 + case["positives"]], hashes, own)
        weights = torch.tensor([row.target.weight for row in batch[rank * each : (rank + 1) * each]])
        in_batch = infonce.infonce_loss(vector[:each], documents, text_hashes, settings.temperature, False, weights)
        judged = _judged(vector, documents[own], batch[rank * each : (rank + 1) * each], settings)
        total = total + (in_batch if judged is None else 0.1 * in_batch + (judged * weights).sum())
    (total / case["rows"]).backward()
    return {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None}


def _judged(vectors: Tensor, own: Tensor, share: list[TokenizedExample], settings: Embedder) -> Tensor | None:
    """Each query's loss by its judge's scores, by PyTorch's own functions; None where there is none."""
    queries, scores = vectors[: len(share), None], torch.tensor([row.target.scores for row in share])
    logits = functional.cosine_similarity(queries, own, dim=-1) / settings.temperature
    if settings.loss == "kl":
        return functional.kl_div(logits.log_softmax(1), scores.softmax(1), reduction="none").sum(1)
    if settings.loss == "margin_mse":
        margins = (each[:, :1] - each[:, 1:] for each in (logits, scores))
        return functional.mse_loss(*margins, reduction="none").mean(1)
    return None


def _embedded(net: Encoder, share: list[TokenizedExample], settings: Embedder, tokenizer: Any, rank: int) -> Tensor:
    texts = [text for column in zip(*(row.token_ids for row in share), strict=True) for text in column]
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    size = settings.micro_batch_size
    torch.manual_seed(rank)
    parts = [
        net(**pad_batch([texts[place] for place in order[first : first + size]], tokenizer.pad_token_id))
        for first in range(0, len(order), size)
    ]
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back]


def main() -> None:
    case: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    settings = Embedder.model_validate(
        {"model": "miniature://base", "lr_scheduler_type": "constant", **case["settings"]}
    )
    torch.optim.AdamW = Descent  # type: ignore[misc]
    distributed.prepare_environment(settings, "embedder")
    distributed.init_process_group(0)
    gradient = by_graph(case, settings) if case["graph"] else by_step(case, settings)
    if distributed.rank() == 0:
        torch.save({name: part.cpu() for name, part in gradient.items()}, case["out"])
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
