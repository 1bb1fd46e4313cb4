"""The gradient of our contrastive step on 1, 2 and 4 workers, against one graph over the whole batch in one process.

    python -m benchmarks.gradients --rows 16

DDP, ZeRO-2, ZeRO-3, LoRA, gradient checkpointing and the losses by a judge's scores, with dropout and without, all in
fp32: the largest error of any weight's gradient, over the largest. With dropout the graph draws for each worker's
texts what that worker draws.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import report

PLAIN: dict[str, Any] = {
    "global_batch_size": 16, "micro_batch_size": 5, "precision": "fp32", "lora": None, "weight_decay": 0.0,
    "max_grad_norm": 1e30, "warmup_ratio": 0.0, "lr_scheduler_type": "constant_with_warmup", "temperature": 0.05,
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "DDP": {},
    "DDP, LoRA": {"lora": {"r": 8}},
    "DDP, checkpointing": {"gradient_checkpointing": True},
    "ZeRO-2": {"zero_stage": 2},
    "ZeRO-3": {"zero_stage": 3},
    "ZeRO-3, LoRA": {"zero_stage": 3, "lora": {"r": 8}},
    "DDP, KL": {"loss": "kl"},
    "DDP, KL, two positives": {"loss": "kl", "positives": 2},
    "DDP, MarginMSE": {"loss": "margin_mse"},
    "ZeRO-3, KL": {"zero_stage": 3, "loss": "kl"},
}
GOAL = 1e-5


def gradient(folder: Path, case: dict[str, Any], workers: int) -> dict[str, torch.Tensor]:
    """Run one case; return rank 0's gradient, which every worker has."""
    file, out = folder / "case.json", folder / "gradient.pt"
    file.write_text(json.dumps({**case, "out": str(out)}))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"] if workers > 1 else []
    command = [sys.executable, *launcher, "-m", "benchmarks.gradient_worker", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{case} ended with {ended.returncode}:\n{ended.stderr[-3000:]}")
    found: dict[str, torch.Tensor] = torch.load(out, weights_only=True)
    return found


def error(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of any number, over the largest number."""
    assert set(one) == set(other), set(one) ^ set(other)
    largest = max(part.abs().max() for part in other.values())
    return float(max((one[name] - other[name]).abs().max() for name in other) / largest)


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=16)
    options = parser.parse_args()
    details = []
    with tempfile.TemporaryDirectory(prefix="gradients-") as folder:
        for dropout in (False, True):
            for way, changes in WAYS.items():
                row: dict[str, Any] = {"way": way, "dropout": "on" if dropout else "off"}
                for workers in (1, 2, 4):
                    settings = {**PLAIN, **changes}
                    positives = settings.pop("positives", 1)
                    case = {"dropout": dropout, "workers": workers, "rows": options.rows, "positives": positives}
                    graph = {**settings, "zero_stage": 0, "gradient_checkpointing": False}
                    whole = gradient(Path(folder), {**case, "graph": True, "settings": graph}, 1)
                    ours = gradient(Path(folder), {**case, "graph": False, "settings": settings}, workers)
                    row[f"{workers} workers"] = f"{error(ours, whole):.1e}"
                report.say(f"gradients: {row}")
                details.append(row)
    worst = max(float(row[f"{workers} workers"]) for row in details for workers in (1, 2, 4))
    report.emit_against(f"<= {GOAL}", "gradients", worst, "relative error of a gradient", details, options.json)


if __name__ == "__main__":
    main()
