"""docs/architecture.md names files, functions and classes that exist."""

import ast
import re

import pytest

from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w./]+\.py)(?::([\w.]+))?`", PAGE)))


def defined(path: str) -> set[str]:
    """Return the names that a file defines at module level, and `Class.method` for methods."""
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}.{method.name}" for method in methods}
    return found


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_file_and_name_of_the_page_exists(file: str, name: str) -> None:
    path = file if file.startswith("tests/") else f"speed_ray/{file}"
    assert (ROOT / path).is_file(), f"docs/architecture.md names {file}, which does not exist"
    assert not name or name in defined(path), f"docs/architecture.md names {file}:{name}, which does not exist"


def test_every_folder_of_the_package_has_its_line() -> None:
    folders = {path.parent.name for path in (ROOT / "speed_ray").glob("*/__init__.py")}
    assert folders <= set(re.findall(r"`(\w+)/`", PAGE))


def test_the_page_names_much() -> None:
    assert len(NAMED) > 30
