"""The version is written in `speed_ray/__init__.py`, and the image tags that repeat it name the same one."""

import re
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from speed_ray import __version__
from tests.helpers.paths import ROOT

SOURCE = Path("speed_ray/__init__.py")
TEXT = {"", ".cpu", ".gpu", ".md", ".py", ".sh", ".toml", ".yaml", ".yml"}
# What happened at one version stays as it was written; the pins are other packages' versions.
NOT_READ = {Path("CHANGELOG.md"), Path("LOG.md"), Path("benchmarks/RESULTS.md"), Path(__file__).relative_to(ROOT)}
NOT_READ |= {Path(f"requirements/{machine}.txt") for machine in ("cpu", "gpu")}
IMAGE = re.compile(r"\bspeed-ray-(?:cpu|gpu):([\w.-]+)")


def lines() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every line that may repeat the version."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for path in map(Path, tracked.splitlines()):
        if path.suffix in TEXT and path not in NOT_READ | {SOURCE} and (ROOT / path).is_file():
            text = (ROOT / path).read_text(encoding="utf-8")
            yield from ((f"{path}:{number}", line) for number, line in enumerate(text.splitlines(), 1))


def is_a_copy(line: str, version: str) -> bool:
    """Tell whether a line writes the version anywhere but in the tag of an image."""
    return bool(re.search(rf"(?<![\w.]){re.escape(version)}(?![\w.-])", IMAGE.sub("", line)))


def test_the_installed_package_has_it() -> None:
    assert metadata.version("speed_ray") == __version__, "the version changed after the installation: run `make venv`"


def test_every_image_is_tagged_with_it() -> None:
    tags = {place: tag for place, line in lines() for tag in IMAGE.findall(line)}
    assert any(place.startswith("cluster/kuberay/base/raycluster.yaml") for place in tags)
    assert any(place.startswith("README.md") for place in tags)
    assert set(tags.values()) == {__version__}, {place: tag for place, tag in tags.items() if tag != __version__}


def test_nothing_else_repeats_it() -> None:
    copies = [place for place, line in lines() if is_a_copy(line, __version__)]
    assert not copies, f"read the version from speed_ray.__version__ instead: {copies}"


def test_a_copy_is_told_from_an_image_tag_and_a_longer_version() -> None:
    assert is_a_copy('version = "7.8.9"', "7.8.9")
    assert not is_a_copy("image: speed-ray-cpu:7.8.9", "7.8.9")
    assert not is_a_copy("ray==17.8.9, aiohttp 7.8.9.1", "7.8.9")
