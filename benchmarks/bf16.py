"""The direction of a contrastive step's gradient in bf16, against the same step in fp32; on a GPU where there is one.

    python -m benchmarks.bf16 --rows 64

All weights and LoRA, on the miniature base, without dropout: the cosine of both gradients, all weights as one vector.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.gradients import PLAIN, error, gradient

WAYS: dict[str, dict[str, Any]] = {"all weights": {}, "LoRA": {"lora": {"r": 8}}}
GOAL = 0.99


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    gpus = int(torch.cuda.is_available())
    details = []
    with tempfile.TemporaryDirectory(prefix="bf16-") as folder:
        for way, changes in WAYS.items():
            found = {}
            for precision in ("fp32", "bf16"):
                settings = {**PLAIN, **changes, "precision": precision, "workers": {"num_gpus": gpus}}
                case = {"dropout": False, "workers": 1, "rows": options.rows, "graph": False, "settings": settings}
                found[precision] = gradient(Path(folder), case, 1)
            row = {"way": way, "on": "a GPU" if gpus else "a CPU", "cosine": cosine(found["bf16"], found["fp32"])}
            details.append({**row, "largest error": f"{error(found['bf16'], found['fp32']):.1e}"})
    worst = min(row["cosine"] for row in details)
    unit = "cosine of the gradients in bf16 and in fp32"
    report.emit_against(f">= {GOAL}", "bf16", worst, unit, details, options.json)


def cosine(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Of two gradients, each taken as one vector."""
    joined = [torch.cat([part[name].flatten().double() for name in sorted(other)]) for part in (one, other)]
    return float(torch.nn.functional.cosine_similarity(*joined, dim=0))


if __name__ == "__main__":
    main()
