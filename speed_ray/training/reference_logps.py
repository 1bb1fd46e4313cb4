"""Log-probabilities of the reference, computed once for a run and read ever after.

    <run>/reference/<key>/<chunk>.json    {row id: [log p(chosen), log p(rejected)]}, sums over the reply's tokens
    <run>/reference/<key>/_MANIFEST.json  the chunks with their sha256, written last: complete

The key is a digest of all that decides a number: weights, rows, tokenizer, template, length, precision. Chunks are
of rows in the order of their ids, so another number of workers finishes what one began.
"""

import hashlib
import json
from typing import Any

import torch
from trl.models import prepare_deepspeed

from speed_ray.errors import Interrupted
from speed_ray.records import Row
from speed_ray.storage.run import Run
from speed_ray.storage.store import Store, read_if_exists
from speed_ray.training import distributed, plan
from speed_ray.training.plan import TrainingPlan

CHUNK_ROWS = 64  # rows
LogProbPair = list[float]  # log p(chosen), log p(rejected)


def reference_log_probabilities(training: TrainingPlan, trainer: Any, rows: list[Row]) -> dict[str, LogProbPair]:
    """Return what the model that training begins with gives each row, by row id, on every worker.

    `trainer` is TRL's DPOTrainer before its first step. Raises Interrupted where a stored file is damaged.
    """
    store, folder = Run(training.run).store, f"reference/{cache_key(training)}"
    rows = sorted(rows, key=lambda row: row["row_id"])
    chunks = [rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS)]
    missing = distributed.broadcast(_missing_chunks(store, folder, chunks) if distributed.rank() == 0 else [])
    if missing:
        _compute(trainer, store, folder, [(number, chunks[number]) for number in missing])
    distributed.barrier()
    if missing and distributed.rank() == 0:
        digests = {name: _sha256(store.get(f"{folder}/{name}")) for name in map(_chunk_name, range(len(chunks)))}
        store.put(f"{folder}/_MANIFEST.json", json.dumps(digests, sort_keys=True).encode())
    distributed.barrier()
    return _read(store, folder)


def cache_key(training: TrainingPlan) -> str:
    """Digest all that decides a reference log-probability."""
    identity = plan.training_identity(training)
    decides = {name: identity[name] for name in ("base", "start", "data", "chat_template")}
    settings = {"max_length": training.settings.max_length, "precision": training.settings.precision}
    return _sha256(json.dumps({**decides, **settings}, sort_keys=True).encode())[:32]


def _missing_chunks(store: Store, folder: str, chunks: list[list[Row]]) -> list[int]:
    """Number the chunks that are not stored. A chunk is stored in one piece, so one that is there is whole."""
    if read_if_exists(store, f"{folder}/_MANIFEST.json") is not None:
        return []
    there = set(store.names(folder))
    return [number for number in range(len(chunks)) if _chunk_name(number) not in there]


def _compute(trainer: Any, store: Store, folder: str, missing: list[tuple[int, list[Row]]]) -> None:
    """Share the chunks out among the workers, which all run the network equally often: ZeRO-3 needs them together."""
    network = _prepare_network(trainer)
    for first in range(0, len(missing), distributed.world_size()):
        mine = first + distributed.rank()
        number, rows = missing[min(mine, len(missing) - 1)]
        pairs = _chunk_log_probs(trainer, network, rows)
        if mine < len(missing):
            store.put(f"{folder}/{_chunk_name(number)}", json.dumps(pairs, sort_keys=True).encode())


def _prepare_network(trainer: Any) -> Any:
    """Put the network where it can be run before training has begun; ZeRO-3 keeps its weights in pieces."""
    trainer.model.eval()
    if trainer.args.deepspeed and trainer.args.deepspeed["zero_optimization"]["stage"] == 3:
        return prepare_deepspeed(trainer.model, trainer.accelerator)
    return trainer.model.to(trainer.accelerator.device)


def _chunk_log_probs(trainer: Any, network: Any, rows: list[Row]) -> dict[str, LogProbPair]:
    size = trainer.args.per_device_eval_batch_size
    pairs: dict[str, LogProbPair] = {}
    for start in range(0, CHUNK_ROWS, size):
        batch = rows[start : start + size] or rows[:size]
        chosen, rejected = _reply_log_probs(trainer, network, trainer.data_collator(batch))
        pairs |= {row["row_id"]: pair for row, *pair in zip(batch, chosen, rejected, strict=True)}
    return pairs


def _reply_log_probs(trainer: Any, network: Any, batch: dict[str, torch.Tensor]) -> tuple[LogProbPair, LogProbPair]:
    """Run the network as the loss does: the same function, the same precision."""
    batch = {name: values.to(trainer.accelerator.device) for name, values in batch.items()}
    learnt = batch.pop("completion_mask")
    labels = batch["input_ids"].masked_fill(learnt == 0, -100)
    with torch.no_grad(), trainer.accelerator.autocast():
        output = network(**batch, labels=labels, use_cache=False, fused_lm_head=True)
    chosen, rejected = output.log_probs.float().sum(dim=1).chunk(2)
    return chosen.tolist(), rejected.tolist()


def _read(store: Store, folder: str) -> dict[str, LogProbPair]:
    pairs: dict[str, LogProbPair] = {}
    for name, digest in json.loads(store.get(f"{folder}/_MANIFEST.json")).items():
        data = read_if_exists(store, f"{folder}/{name}")
        if data is None or _sha256(data) != digest:
            raise Interrupted(
                f"{store.uri}/{folder}/{name} is missing or damaged (sha256 differs).\n"
                f"Delete {store.uri}/{folder} and run the same command again: it computes the reference anew."
            )
        pairs |= json.loads(data)
    return pairs


def _chunk_name(chunk: int) -> str:
    return f"{chunk:08d}.json"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
