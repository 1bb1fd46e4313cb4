"""Write the documentation of installed packages as a retrieval collection: real text that every machine has.

    python jobs/write_docstrings.py runs/docstrings

A document is what a docstring says below its first line, and its first line, written by a person, is a query that it
answers. The folder is one of BEIR, with the packages' licences beside it.
"""

import ast
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("numpy", "pandas", "scipy", "sklearn")
DOCUMENTED = ("scipy",)  # eight hundred documents: minutes on a laptop
SECTION = re.compile(r"\n\s*(?:Parameters|Args|Arguments|Returns|Examples?|See Also|\.\. |>>>|Notes|Yields|Raises)")
WORDS = range(15, 120)  # of a description; the rest is cut off


class Section(NamedTuple):
    """Hold what a function says it is for, and what it then says of it. `module` is the file it stands in."""

    module: str
    name: str
    title: str
    body: str


def write_collection(folder: Path, packages: Sequence[str] = DOCUMENTED) -> int:
    """Write the public functions and classes of some packages as a BEIR folder, and return how many there are."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    public = [each for each in sections(packages) if not each.name.startswith("_")]
    found = {f"{each.module.removesuffix('.py').replace('/', '.')}.{each.name}": each for each in public}
    corpus = [{"_id": name, "title": "", "text": each.body} for name, each in found.items()]
    queries = [{"_id": f"first line of {name}", "text": each.title} for name, each in found.items()]
    _write_lines(folder / "corpus.jsonl", map(json.dumps, corpus))
    _write_lines(folder / "queries.jsonl", map(json.dumps, queries))
    _write_lines(folder / "qrels/test.tsv", (f"first line of {name}\t{name}\t1" for name in found))
    _write_lines(folder / "LICENCES.txt", map(_licence, packages))
    return len(found)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _licence(package: str) -> str:
    """Return a package's name and version, and the text of its licence."""
    told = metadata(package)
    return f"{package} {told['Version']}\n\n{told['License']}\n"


def sections(packages: Sequence[str] = PACKAGES) -> list[Section]:
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


if __name__ == "__main__":
    target = Path(sys.argv[1])
    print(f"{write_collection(target):,} documents, each with the line that a person wrote above it, in {target}")
