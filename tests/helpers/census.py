"""Count what CONTRIBUTING.md bounds: lines, files, functions, imports, names, docstrings and lines of documentation.

`python -m tests.helpers.census` prints the counts; with `--check` also every place that breaks a bound, and exits 1.
Imports that point upward are not counted here: tests/unit/test_imports.py holds them to the order of the folders.
"""

import argparse
import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
PACKAGE = "speed_ray"
CODE = (PACKAGE, "jobs", "benchmarks", "tests", "website")
MAX_COLUMNS = 119
ENTRY_POINT = "main"  # every command line's function has this name
NOT_A_VERB = re.compile(r"(What|Where|Whether|How|Which|Who|That)\b")
DIARY = "LOG.md"  # what was found on a day is left as it was written then


@dataclass(frozen=True)
class Source:
    """One Python file: its path below the root, its text and its syntax tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Dotted name under which the file is imported."""
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")

    @property
    def lines(self) -> int:
        """Lines of the file, blank ones and comments among them."""
        return len(self.text.splitlines())


@dataclass(frozen=True)
class Count:
    """One counted property, the largest value allowed for it, and the places that break the bound."""

    title: str
    found: int
    bound: int
    places: tuple[str, ...] = ()
    is_goal: bool = False  # printed, and no error yet


def sources(root: Path, folders: Iterable[str]) -> list[Source]:
    """Read and parse every Python file below these folders of `root`."""
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return [Source(path.relative_to(root), text, ast.parse(text)) for path, text in zip(paths, texts, strict=True)]


def lines_by_room(package: list[Source]) -> dict[str, int]:
    """Sum the lines of each top folder of the package; files at its root are listed as `.`."""
    lines: Counter[str] = Counter()
    for source in package:
        lines[source.path.parts[1] if len(source.path.parts) > 2 else "."] += source.lines
    return dict(sorted(lines.items()))


def counts(root: Path = ROOT) -> list[Count]:
    """Count everything that has a bound."""
    package = sources(root, [PACKAGE])
    rooms = lines_by_room(package)
    at_root = [str(source.path) for source in package if len(source.path.parts) == 2]
    miniature = rooms.get("miniature", 0)
    return [
        Count("lines of the package without miniature", sum(rooms.values()) - miniature, 12_500, is_goal=True),
        Count("lines of miniature", miniature, 1_100),
        Count("files at the package's root", len(at_root), 6, tuple(at_root)),
        _largest("lines of the longest file", 400, {str(source.path): source.lines for source in package}),
        _largest("lines of the longest function", 60, dict(_function_lines(package))),
        _none("renamed imports of our own names", _renamed_imports(sources(root, CODE))),
        _none("module names used twice", _doubled_modules(package)),
        _none("public functions of one name in three modules or more", _doubled_functions(package)),
        _none("import cycles", _import_cycle(package)),
        _none("docstrings that begin with a question word", _docstrings_without_verb(package)),
        _none(f"lines of documentation beyond {MAX_COLUMNS} columns", _long_doc_lines(root)),
    ]


def _largest(title: str, bound: int, sizes: dict[str, int]) -> Count:
    over = sorted((name for name in sizes if sizes[name] > bound), key=lambda name: -sizes[name])
    return Count(title, max(sizes.values(), default=0), bound, tuple(f"{name}: {sizes[name]}" for name in over))


def _none(title: str, places: Iterable[str]) -> Count:
    found = tuple(places)
    return Count(title, len(found), 0, found)


def _function_lines(files: list[Source]) -> Iterator[tuple[str, int]]:
    for source in files:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None  # ast.parse sets it
                yield f"{source.path}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def _renamed_imports(files: list[Source]) -> Iterator[str]:
    for source in files:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom):
                ours = [alias for alias in node.names if node.module and _is_ours(node.module)]
            elif isinstance(node, ast.Import):
                ours = [alias for alias in node.names if _is_ours(alias.name)]
            else:
                continue
            renamed = [alias for alias in ours if alias.asname not in (None, alias.name)]
            yield from (f"{source.path}:{node.lineno} {alias.name} as {alias.asname}" for alias in renamed)


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in CODE


def _doubled_modules(package: list[Source]) -> Iterator[str]:
    paths = defaultdict(list)
    for source in package:
        if not source.path.stem.startswith("__"):
            paths[source.path.stem].append(str(source.path))
    yield from (" ".join(same) for same in paths.values() if len(same) > 1)


def _doubled_functions(package: list[Source]) -> Iterator[str]:
    modules = defaultdict(set)
    for source in package:
        for node in source.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                modules[node.name].add(source.module)
    public = {name: where for name, where in modules.items() if name != ENTRY_POINT and not name.startswith("_")}
    yield from (f"{name}: {' '.join(sorted(where))}" for name, where in sorted(public.items()) if len(where) > 2)


def _import_cycle(package: list[Source]) -> Iterator[str]:
    """Yield one cycle if there is any, counting imports within functions too."""
    names = {source.module for source in package}
    try:
        TopologicalSorter({source.module: _imported(source, names) for source in package}).prepare()
    except CycleError as error:
        yield " -> ".join(error.args[1])


def _imported(source: Source, names: set[str]) -> set[str]:
    """List the package's modules that a file imports; of `from a import b`, `a.b` where that is a module, else `a`."""
    found = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in names else node.module for name in dotted}
    return found & names


def _docstrings_without_verb(package: list[Source]) -> Iterator[str]:
    for source in package:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = (ast.get_docstring(node) or "").partition("\n")[0]
                if NOT_A_VERB.match(first):
                    yield f"{source.path}:{getattr(node, 'lineno', 1)} {first}"


def _long_doc_lines(root: Path) -> Iterator[str]:
    """Yield long lines, but neither rows of tables nor single words: Markdown cannot break a row or an address."""
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "requirements/*.md", ".github/**/*.md"):
        for path in sorted(root.glob(pattern)):
            if path.name == DIARY:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if len(line) > MAX_COLUMNS and not line.lstrip().startswith("|") and len(line.split()) > 1:
                    yield f"{path.relative_to(root)}:{number} {len(line)}"


def main() -> int:
    """Print the counts, and with `--check` what breaks a bound; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="list what breaks a bound and exit 1 if anything does")
    check = parser.parse_args().check
    found = counts()
    rooms = Table("folder of speed_ray", "lines", box=None)
    for room, lines in lines_by_room(sources(ROOT, [PACKAGE])).items():
        rooms.add_row(room, f"{lines:,}")
    table = Table("count", "found", "at most", "", box=None)
    for count in found:
        table.add_row(count.title, f"{count.found:,}", f"{count.bound:,}", "OVER" if count.found > count.bound else "")
    console = Console(width=MAX_COLUMNS, highlight=False)
    console.print(rooms, "", table)
    over = [count for count in found if count.found > count.bound and not count.is_goal]
    for count in over if check else []:
        print(f"\n{count.title}: {count.found:,}, at most {count.bound:,}", *count.places, sep="\n  ")
    return int(check and bool(over))


if __name__ == "__main__":
    sys.exit(main())
