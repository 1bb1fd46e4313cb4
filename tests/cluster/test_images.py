"""The images are built as CI installs, hold what they are told to hold, and follow hadolint's rules."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

DOCKERFILES = sorted((ROOT / "cluster" / "docker").glob("Dockerfile.*"))
HADOLINT = Path(sys.executable).with_name("hadolint")

every_image = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction's name and the rest, with continued lines joined."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


@pytest.mark.skipif(not HADOLINT.is_file(), reason="hadolint is not installed: make venv brings it")
@every_image
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    said = subprocess.run([HADOLINT, "--no-color", dockerfile], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.skipif(not HADOLINT.is_file(), reason="hadolint is not installed: make venv brings it")
def test_hadolint_is_asked_in_earnest(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nUSER root\n")
    said = subprocess.run([HADOLINT, "--no-color", tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert said.returncode and "DL3007" in said.stdout


@every_image
def test_packages_are_installed_by_the_command_that_ci_runs(dockerfile: Path) -> None:
    machine = dockerfile.suffix[1:]
    runs = [rest for name, rest in instructions(dockerfile) if name == "RUN"]
    installing = [rest for rest in runs if re.search(r"\b(pip|make|uv|conda)\b", rest) and "apt-get" not in rest]
    assert installing == ["make venv" + ("" if machine == "cpu" else f" MACHINE={machine}")]
    assert re.search(r"^for target in venv\b.*\n.*\n  make \"\$target\"$", (ROOT / ".ci" / "run").read_text(), re.M)
    planned = ["make", "--dry-run", "--always-make", "venv", f"MACHINE={machine}"]
    commands = subprocess.run(planned, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"pip install -qq --no-deps -r requirements/{machine}.txt" in commands
    assert ("torch==" in commands) == (machine == "cpu")


@every_image
def test_the_base_is_an_exact_version(dockerfile: Path) -> None:
    bases = [rest for name, rest in instructions(dockerfile) if name == "FROM"]
    assert all(re.fullmatch(r"\w+:\d+\.\d+\.\d+-[\w-]+(@sha256:[0-9a-f]{64})?", base) for base in bases), bases


@every_image
def test_nothing_runs_as_root(dockerfile: Path) -> None:
    assert [rest for name, rest in instructions(dockerfile) if name == "USER"][-1] == "1000:1000"


@every_image
def test_what_is_copied_is_there_and_let_through(dockerfile: Path) -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    for source in (each for name, rest in instructions(dockerfile) if name == "COPY" for each in rest.split()[:-1]):
        assert (ROOT / source).exists(), source
        top = source.split("/")[0]
        assert ignored[0] == "*" and any(fnmatch.fnmatch(top, line[1:]) for line in ignored if line[0] == "!"), source
    copied = {rest.split()[0] for name, rest in instructions(dockerfile) if name == "COPY"}
    assert {"speed_ray", "jobs"} <= copied
