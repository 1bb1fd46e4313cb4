"""A worker of test_train_step.py: take one step on its rows of a batch, and save the gradient."""

import contextlib
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from speed_ray.recipes.training_settings import Loss
from speed_ray.training import distributed
from speed_ray.training.contrastive import encoder, train_step
from speed_ray.training.contrastive.batch_loss import ContrastiveConfig
from speed_ray.training.contrastive.encoder import Encoder
from speed_ray.training.contrastive.judge_scores import NO_TARGET, Target
from speed_ray.training.contrastive.train_step import TokenizedExample

ROWS, NEGATIVES = 8, 2
CONFIG = ContrastiveConfig(temperature=0.05, micro_batch_size=5)


def rows(tokenizer, judged: bool = False, positives: int = 1) -> list[TokenizedExample]:
    """Make rows of unequal lengths; the last two have the same positive, and one query is another's negative.

    With `judged` each has a judge's scores, and a weight of its own. Of its answer and two negatives `positives` count
    as answers.
    """
    made = []
    for number in range(ROWS):
        answer = f"it is {number * number}" if number < ROWS - 1 else f"it is {(ROWS - 2) ** 2}"
        query = f"what is {number} times {number}" + "?" * number
        texts = [query, answer, "so " * number + "it is not", "what is 0 times 0" if number == 3 else f"{number}"]
        read = [encoder.format_query("Answer it", query), *texts[1:]]
        ids = tuple(tokenizer(text).input_ids for text in read)
        target = Target((3.0 - number, 0.5 * number, -1.0), 0.5 + number / 10) if judged else NO_TARGET
        hashes = tuple(map(train_step.text_hash, texts))
        made.append(TokenizedExample(str(number), ids, hashes, target, positives=positives))
    return made


def gradient(
    base: Path,
    micro_batch_size: int,
    batch_rows: int = ROWS,
    padding: int = 0,
    loss: Loss = "infonce",
    positives: int = 1,
) -> dict[str, Tensor]:
    """Return the gradient of a global batch of the first rows, as this worker has it after the step.

    Each worker has equally many rows, and `padding` more: what is missing are copies of the last row.
    """
    model = encoder.load_encoder(base, "last", max_length=64)
    tokenizer = model.tokenizer
    network = Encoder(model)
    rank, world = distributed.rank(), distributed.world_size()
    shared = DistributedDataParallel(network) if world > 1 else network
    each = -(-batch_rows // world) + padding
    made = rows(tokenizer, loss != "infonce", positives)
    mine = [made[min(place, batch_rows - 1)] for place in range(rank * each, (rank + 1) * each)]
    no_sync = shared.no_sync if world > 1 else contextlib.nullcontext
    config = ContrastiveConfig(CONFIG.temperature, micro_batch_size, loss=loss)
    train_step.train_step(
        shared,
        mine,
        False,
        config,
        tokenizer.pad_token_id,
        lambda value: (value * world).backward(),
        no_sync,
        batch_rows,
    )
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def save_gradient(base: Path, folder: Path, batch_rows: int, loss: Loss, positives: int) -> None:
    """Save the gradient of a global batch, as this of several workers has it, to a file named by its rank."""
    dist.init_process_group("gloo")
    made = gradient(base, CONFIG.micro_batch_size, batch_rows, loss=loss, positives=positives)
    torch.save(made, folder / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()
