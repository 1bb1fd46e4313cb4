"""The images are built as CI installs, hold what they are told to hold, and follow hadolint's rules."""

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from speed_ray import __version__
from tests.helpers.paths import ROOT

FOLDER = ROOT / "cluster" / "docker"
HADOLINT = Path(sys.executable).with_name("hadolint")

every_image = pytest.mark.parametrize("machine", ["cpu", "gpu"])


def instructions(machine: str) -> list[tuple[str, str]]:
    """Return the name and the rest of each of the Dockerfile's instructions, with continued lines joined."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("$MACHINE", machine)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def planned(*arguments: str) -> str:
    """Return the commands that make would run."""
    command = ["make", "--dry-run", "--always-make", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not HADOLINT.is_file(), reason="hadolint is not installed: make venv brings it")
def test_hadolint_has_nothing_to_say() -> None:
    said = subprocess.run([HADOLINT, "--no-color", FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.skipif(not HADOLINT.is_file(), reason="hadolint is not installed: make venv brings it")
def test_hadolint_is_asked_in_earnest(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nUSER root\n")
    said = subprocess.run([HADOLINT, "--no-color", tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert said.returncode and "DL3007" in said.stdout


@every_image
def test_packages_are_installed_by_the_command_that_ci_runs(machine: str) -> None:
    runs = [rest for name, rest in instructions(machine) if name == "RUN"]
    installing = [rest for rest in runs if re.search(r"\b(pip|make|uv|conda)\b", rest) and "apt-get" not in rest]
    assert installing == [f'make venv MACHINE="{machine}"']
    assert re.search(r"^for target in venv\b.*\n.*\n  make \"\$target\"$", (ROOT / ".ci" / "run").read_text(), re.M)
    commands = planned("venv", f"MACHINE={machine}")
    assert f"pip install -qq --no-deps -r requirements/{machine}.txt" in commands
    assert ("torch==" in commands) == (machine == "cpu")


@every_image
def test_the_base_is_an_exact_version(machine: str) -> None:
    stages = [rest.split() for name, rest in instructions(machine) if name == "FROM"]
    named = {stage for _, *name in stages for stage in name[1:]}
    (base,) = [base for base, *_ in stages if base not in named]
    assert re.fullmatch(r"\w+:\d+\.\d+\.\d+-[\w-]+(@sha256:[0-9a-f]{64})?", base), base


@every_image
def test_nothing_runs_as_root(machine: str) -> None:
    assert [rest for name, rest in instructions(machine) if name == "USER"][-1] == "1000:1000"


@every_image
def test_what_is_copied_is_there_and_let_through(machine: str) -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    for source in (each for name, rest in instructions(machine) if name == "COPY" for each in rest.split()[:-1]):
        assert (ROOT / source).exists(), source
        top = source.split("/")[0]
        assert ignored[0] == "*" and any(fnmatch.fnmatch(top, line[1:]) for line in ignored if line[0] == "!"), source
    copied = {rest.split()[0] for name, rest in instructions(machine) if name == "COPY"}
    assert {"speed_ray", "jobs"} <= copied


@every_image
def test_an_image_is_tagged_and_labelled_with_the_packages_version(machine: str) -> None:
    command = planned("image", f"MACHINE={machine}")
    assert f"--build-arg MACHINE={machine} --build-arg VERSION={__version__} " in command
    assert f"--tag speed-ray-{machine}:{__version__} " in command


def test_the_build_with_buildah_names_the_debian_packages_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "")  # a machine with no buildah and no debootstrap
    bash = shutil.which("bash") or ""
    said = subprocess.run(
        [bash, FOLDER / "build_with_buildah.sh"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert said.returncode == 1 and "apt-get install buildah debootstrap" in said.stderr, said.stderr
