"""Imports point one way, only some rooms know Ray, and looking at a run loads no model library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "speed_ray"

# From the top of the house to its foundations: a module imports from its own line and from those below, never upwards.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("pipeline", "console", "report", "serving", "export", "notebook"),
    ("doctor", "planning"),
    ("stages", "training", "evaluation"),
    ("curation", "documents"),
    ("executor", "on_ray"),
    ("prompts", "engines", "miniature"),
    ("storage",),
    ("recipes", "kinds"),
    ("text", "records", "errors"),
)

KNOW_RAY = ("on_ray", "serving")
HEAVY = ("ray", "torch", "transformers", "vllm")


def depth(module: str) -> int:
    """Which layer a module below speed_ray belongs to: its own name's, else that of the folder that it lies in."""
    if module == "engines.base":  # the protocol: as plain as a record
        return len(LAYERS) - 1
    for level, names in enumerate(LAYERS):
        if module.split(".")[0] in names:
            return level
    raise AssertionError(f"speed_ray/{module.split('.')[0]} has no layer: give it a place in LAYERS")


def modules() -> list[str]:
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if name != "__init__"]


def imports(module: str) -> Iterator[str]:
    """Every dotted name that a module imports, also within functions; of `from a import b` both `a` and `a.b`."""
    base = PACKAGE.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: write imports out in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    level = depth(module)
    ours = [name.removeprefix("speed_ray.") for name in imports(module) if name.startswith("speed_ray.")]
    ours = [name for name in ours if name != "__version__"]
    upwards = [name for name in ours if depth(name) < level]
    assert not upwards, f"speed_ray.{module} imports from above itself: {upwards}"


@pytest.mark.parametrize("module", modules())
def test_only_some_rooms_know_ray(module: str) -> None:
    knows = any(name.split(".")[0] == "ray" for name in imports(module))
    assert not knows or module.split(".")[0] in KNOW_RAY, f"speed_ray.{module} imports ray"


SIMULATED = ["--recipe", "miniature", "--set", "generator={engine: simulated}", "--set", "teacher={engine: simulated}"]


HELP_DOES_WITHOUT = (*HEAVY, "numpy", "pandas", "pyarrow", "pydantic", "obstore", "jinja2", "yaml")


def test_help_loads_what_it_prints_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "speed_ray", "--help"], capture_output=True, text=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "speed_ray.cli" in loaded and "align-junior" in done.stdout
    assert not loaded & set(HELP_DOES_WITHOUT)


@pytest.mark.parametrize("command", ["--help", "status", "verify", "show", "quality", "report", "doctor", "plan"])
def test_looking_loads_no_model_library(command: str, tmp_path: Path) -> None:
    other = {"--help": [], "doctor": [], "show": [str(tmp_path), "examples"], "plan": SIMULATED}
    arguments = other.get(command, [str(tmp_path)])
    script = (
        "import sys\n"
        "from speed_ray.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print('loaded:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, command, *arguments], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["loaded: []"], done.stdout + done.stderr
