"""Real text that every installation has: docstrings of installed packages, first line -> the description below it."""

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("numpy", "pandas", "scipy", "sklearn")
SECTION = re.compile(r"\n\s*(?:Parameters|Args|Arguments|Returns|Examples?|See Also|\.\. |>>>|Notes|Yields|Raises)")
WORDS = range(15, 120)  # of a description; the rest is cut off


class Section(NamedTuple):
    """What a function says it is for, and what it then says of it. `module` is the file it stands in."""

    module: str
    name: str
    title: str
    body: str


def sections(packages: tuple[str, ...] = PACKAGES) -> list[Section]:
    """Every docstring with a description, each title and body once, in the order of files and lines."""
    found: list[Section] = []
    seen: set[str] = set()
    for package in packages:
        for section in _of(package):
            if not {section.title, section.body} & seen:
                seen |= {section.title, section.body}
                found.append(section)
    return found


def _of(package: str) -> Iterator[Section]:
    spec = importlib.util.find_spec(package)
    assert spec and spec.origin
    root = Path(spec.origin).parent
    for path in sorted(root.rglob("*.py")):
        if "test" in path.as_posix():
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                name = f"{package}/{path.relative_to(root).as_posix()}"
                if section := _split(name, node.name, text):
                    yield section


def _split(module: str, name: str, text: str) -> Section | None:
    title, _, rest = inspect.cleandoc(text).partition("\n\n")
    body = " ".join(SECTION.split("\n" + rest)[0].replace("`", "").split())
    title = " ".join(title.replace("`", "").split())
    words = body.split()
    if len(words) < WORDS.start or not 3 <= len(title.split()) <= 30:
        return None
    return Section(module, name, title, " ".join(words[: WORDS.stop]))
