"""Compare this machine's Python and packages with the versions that were seen to work together."""

import platform
import re
import sys
from collections.abc import Collection, Iterator
from importlib import metadata, resources

from speed_ray.doctor.finding import Finding

PYTHON = (3, 11)
SHOWN = 6  # names of packages in one line
MENDED = "Run `make venv` in a checkout, or install the list of requirements/ that this machine is for."
_REQUIREMENT = re.compile(r"([\w.-]+)[^;=]*(?:==([\w.+]+))?[^;]*(?:;.*extra == [\"'](\w+)[\"'])?")


def check_python() -> Finding:
    """Find whether this is the Python that the packages are pinned for."""
    found = f"Python {platform.python_version()}"
    if sys.version_info[:2] == PYTHON:
        return Finding("python", "ok", found)
    return Finding("python", "fail", found, "Every package is pinned for Python 3.11: make the environment with it.")


def check_packages(extras: Collection[str]) -> Iterator[Finding]:
    """Find packages that are missing, of those that speed_ray and some of its extras name, or of other versions."""
    installed = _installed()
    if "speed_ray" not in {each.replace("-", "_") for each in installed}:
        yield Finding("packages", "warn", "speed_ray itself is not installed", "Run `pip install --no-deps -e .`.")
        return
    required = {name: (pin, extra) for name, pin, extra in _required() if extra in ("", *extras)}
    if missing := [name for name in required if name not in installed]:
        needing = sorted({extra for name, (_, extra) in required.items() if name in missing and extra})
        of = f"[{','.join(needing)}]" if needing else ""
        advice = f"Run `pip install 'speed_ray{of}'`. {MENDED}"
        yield Finding("packages", "fail", f"not installed: {_listed(missing)}", advice)
    exact = [name for name, (pin, _) in required.items() if pin and _public(installed.get(name, pin)) != pin]
    if exact:
        said = [f"{name} {installed[name]} (wanted: {required[name][0]})" for name in exact]
        yield Finding("packages", "fail", f"of another version than works: {_listed(said)}", MENDED)
    yield _against_pins(installed, [*missing, *exact])


def read_pins(machine: str) -> dict[str, str]:
    """Read the list of `requirements/` for "cpu" or "gpu" machines, which comes with the package."""
    text = (resources.files(__package__) / "pins" / f"{machine}.txt").read_text(encoding="utf-8")
    pairs = [line.split("==") for line in text.splitlines() if re.match(r"[\w.-]+==", line)]
    return {_canonical(name): version.strip() for name, version in pairs}


def machine_of(installed: Collection[str]) -> str:
    """Return whose list is installed: the two kinds of machine have builds of vLLM with different names."""
    return "gpu" if "vllm" in installed else "cpu"


def _against_pins(installed: dict[str, str], said: Collection[str]) -> Finding:
    machine = machine_of(installed)
    try:
        pins = read_pins(machine)
    except FileNotFoundError:  # an image holds the list of its own kind of machine
        return Finding("packages", "warn", f"the list requirements/{machine}.txt did not come with the package")
    both = {name: pin for name, pin in pins.items() if name in installed and name not in said}
    others = [f"{name} {installed[name]} (pinned: {pin})" for name, pin in both.items() if installed[name] != pin]
    of = f"{len(both) - len(others):,} of {len(both):,} packages are as pinned in requirements/{machine}.txt"
    if not others:
        return Finding("packages", "ok", of)
    return Finding("packages", "warn", f"{of}; others: {_listed(others)}", MENDED)


def _installed() -> dict[str, str]:
    """Read the version of each package that an import takes: of two copies, the one that is earlier on the path.

    `import setuptools` puts older copies of three packages at the path's end.
    """
    found: dict[str, str] = {}
    for each in metadata.distributions():
        found.setdefault(_canonical(each.name), each.version)
    return found


def _required() -> Iterator[tuple[str, str, str]]:
    """Yield the name, the exact version and the extra of each package that speed_ray names; "" where there is none."""
    for line in metadata.requires("speed_ray") or ():
        if found := _REQUIREMENT.match(line):
            yield _canonical(found[1]), found[2] or "", found[3] or ""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _public(version: str) -> str:
    return version.partition("+")[0]
