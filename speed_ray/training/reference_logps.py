"""Compute DPO's reference log-probabilities once for a run, and cache them in its storage.

    <run>/reference/<key>/<chunk>.json    {row id: [log p(chosen), log p(rejected)]}, sums over the reply's tokens
    <run>/reference/<key>/_MANIFEST.json  the chunks with their sha256, written last: complete

The key is a digest of all that determines a log-probability: weights, rows, tokenizer, template, length, precision.
Chunks are of rows sorted by id, so any number of workers can complete what others began.
"""

import hashlib
import json
from typing import Any

import torch
from trl.models import prepare_deepspeed

from speed_ray.errors import Interrupted
from speed_ray.storage.run import Run
from speed_ray.storage.store import Store, read_if_exists, read_json
from speed_ray.training import distributed, plan
from speed_ray.training.plan import TrainingPlan
from speed_ray.training.tokenize import TokenizedRow

CHUNK_ROWS = 64
LogProbPair = list[float]  # log p(chosen), log p(rejected), in nats


def reference_log_probabilities(
    training: TrainingPlan, trainer: Any, rows: list[TokenizedRow]
) -> dict[str, LogProbPair]:
    """Return each row's log-probabilities under the reference policy, by row id, on every worker.

    The reference policy is the model that training begins with; `trainer` is TRL's DPOTrainer before its first step.
    Raises Interrupted where a stored file is damaged.
    """
    store, folder = Run(training.run).store, f"reference/{cache_key(training)}"
    rows = sorted(rows, key=lambda row: row["row_id"])
    chunks = [rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS)]
    missing = distributed.broadcast(_missing_chunks(store, folder, len(chunks)) if distributed.rank() == 0 else [])
    if missing:
        _compute(trainer, store, folder, [(number, chunks[number]) for number in missing])
    distributed.barrier()
    if missing and distributed.rank() == 0:
        digests = {name: _sha256(store.get(f"{folder}/{name}")) for name in map(_chunk_name, range(len(chunks)))}
        store.create(f"{folder}/_MANIFEST.json", json.dumps(digests, sort_keys=True).encode())
    distributed.barrier()
    return _read(store, folder)


def cache_key(training: TrainingPlan) -> str:
    """Return a digest of all that determines a reference log-probability."""
    identity = plan.training_identity(training)
    deciding = {name: identity[name] for name in ("base", "start", "data", "chat_template")}
    settings = {"max_length": training.settings.max_length, "precision": training.settings.precision}
    return _sha256(json.dumps({**deciding, **settings}, sort_keys=True).encode())[:32]


def _missing_chunks(store: Store, folder: str, chunks: int) -> list[int]:
    """List the chunks that are not stored. A chunk is one file, so a stored one is complete."""
    if read_if_exists(store, f"{folder}/_MANIFEST.json") is not None:
        return []
    stored = set(store.names(folder))
    return [number for number in range(chunks) if _chunk_name(number) not in stored]


def _compute(trainer: Any, store: Store, folder: str, missing: list[tuple[int, list[TokenizedRow]]]) -> None:
    """Divide the chunks among workers; all run the network equally often, because ZeRO-3 needs all for a forward."""
    network = _prepare_network(trainer)
    for first in range(0, len(missing), distributed.world_size()):
        mine = first + distributed.rank()
        number, rows = missing[min(mine, len(missing) - 1)]
        pairs = _chunk_log_probs(trainer, network, rows)
        if mine < len(missing):
            # Of two drivers the first counts: their numbers may differ in the last bits, and the manifest names one.
            store.create(f"{folder}/{_chunk_name(number)}", json.dumps(pairs, sort_keys=True).encode())


def _prepare_network(trainer: Any) -> Any:
    """Prepare the network for forward passes before training: on its device, or sharded by ZeRO-3."""
    trainer.model.eval()
    if trainer.args.deepspeed and trainer.args.deepspeed["zero_optimization"]["stage"] == 3:
        return prepare_deepspeed(trainer.model, trainer.accelerator)
    return trainer.model.to(trainer.accelerator.device)


def _chunk_log_probs(trainer: Any, network: Any, rows: list[TokenizedRow]) -> dict[str, LogProbPair]:
    size = trainer.args.per_device_eval_batch_size
    pairs: dict[str, LogProbPair] = {}
    for start in range(0, CHUNK_ROWS, size):
        batch = rows[start : start + size] or rows[:size]
        chosen, rejected = _reply_log_probs(trainer, network, trainer.data_collator(batch))
        pairs |= {row["row_id"]: pair for row, *pair in zip(batch, chosen, rejected, strict=True)}
    return pairs


def _reply_log_probs(trainer: Any, network: Any, batch: dict[str, torch.Tensor]) -> tuple[list[float], list[float]]:
    """Return the log-probabilities of n chosen and n rejected replies, with the function and precision of the loss.

    `batch` holds the 2 n conversations, chosen first: input_ids, attention_mask, completion_mask (2 n, longest).
    """
    batch = {name: values.to(trainer.accelerator.device) for name, values in batch.items()}
    labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
    with torch.no_grad(), trainer.accelerator.autocast():
        output = network(**batch, labels=labels, use_cache=False, fused_lm_head=True)
    chosen, rejected = output.log_probs.float().sum(dim=1).chunk(2)
    return chosen.tolist(), rejected.tolist()


def _read(store: Store, folder: str) -> dict[str, LogProbPair]:
    pairs: dict[str, LogProbPair] = {}
    advice = f"Delete {store.uri}/{folder} and run the same command again: it computes the reference anew."
    for name, digest in read_json(store, f"{folder}/_MANIFEST.json", advice).items():
        data = read_if_exists(store, f"{folder}/{name}")
        if data is None or _sha256(data) != digest:
            raise Interrupted(f"{store.uri}/{folder}/{name} is missing or damaged (sha256 differs).\n{advice}")
        pairs |= json.loads(data)
    return pairs


def _chunk_name(chunk: int) -> str:
    return f"{chunk:08d}.json"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
