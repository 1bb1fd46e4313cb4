"""The census finds each thing that it has a bound for, and nothing in a tree that keeps to all of them."""

import sys
from pathlib import Path

import pytest

from tests.helpers import census

FINE = {
    "speed_ray/__init__.py": '"""Train an embedder."""\n',
    "speed_ray/text/rules.py": '"""Check texts."""\n\nfrom speed_ray.text import words\nimport numpy as np\n',
    "speed_ray/text/words.py": '"""Split texts into words."""\n\n\ndef split() -> None:\n    """Split a text."""\n',
    "README.md": f"Short.\n\n| {'a row ' * 30} |\n\n[link](https://example.org/{'long' * 40})\n",
    "LOG.md": "a diary " * 30,
}


def plant(root: Path, files: dict[str, str]) -> dict[str, census.Count]:
    """Write a tree that keeps to every bound and these files into it; count what is over its bound."""
    for name, text in (FINE | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return {count.title: count for count in census.counts(root) if count.found > count.bound}


def test_a_tree_within_the_bounds_is_fine(tmp_path: Path) -> None:
    assert plant(tmp_path, {}) == {}


@pytest.mark.parametrize(
    ("files", "title"),
    [
        ({"speed_ray/text/a.py": "\n" * 12_501}, "lines of the package without miniature"),
        ({"speed_ray/miniature/a.py": "\n" * 1_101}, "lines of miniature"),
        ({f"speed_ray/{name}.py": "" for name in "abcdef"}, "files at the package's root"),
        ({"speed_ray/text/a.py": "\n" * 401}, "lines of the longest file"),
        ({"speed_ray/text/a.py": "def f():\n" + "    f()\n" * 60}, "lines of the longest function"),
        ({"jobs/a.py": "from speed_ray.text import rules as r\n"}, "renamed imports of our own names"),
        ({"jobs/a.py": "import speed_ray.text.rules as r\n"}, "renamed imports of our own names"),
        ({"speed_ray/a/rules.py": ""}, "module names used twice"),
        (
            {f"speed_ray/text/{name}.py": "def split(): ...\n" for name in "ab"},
            "public functions of one name in three modules or more",
        ),
        ({"speed_ray/text/words.py": "from speed_ray.text.rules import distinct\n"}, "import cycles"),
        ({"speed_ray/text/a.py": '"""Where words go."""\n'}, "docstrings that begin with a question word"),
        ({"docs/a.md": "word " * 30}, "lines of documentation beyond 119 columns"),
    ],
)
def test_what_breaks_a_bound_is_found(files: dict[str, str], title: str, tmp_path: Path) -> None:
    over = plant(tmp_path, files)
    assert title in over
    assert set(over) <= {title, "lines of the longest file"}  # a file of 1,101 lines is too long as well


def test_a_renamed_import_is_found_where_it_stands(tmp_path: Path) -> None:
    over = plant(tmp_path, {"jobs/a.py": "import json\n\nfrom speed_ray.text import rules as r\n"})
    assert over["renamed imports of our own names"].places == ("jobs/a.py:3 rules as r",)


@pytest.mark.parametrize(("bound", "status"), [(0, 0), (-1, 1)])
def test_check_returns_1_only_when_a_bound_is_broken(
    bound: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(census, "counts", lambda: [census.Count("import cycles", 0, bound, ("a -> b -> a",))])
    monkeypatch.setattr(sys, "argv", ["census", "--check"])
    assert census.main() == status
    assert ("a -> b -> a" in capsys.readouterr().out) == bool(status)
