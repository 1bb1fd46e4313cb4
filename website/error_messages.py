"""Write the page of every error message, from the calls that make them in the package's source.

A call of an error class is found by name, its subclasses are found by what they derive from, and the text is read from
the argument: as it stands, joined, chosen or returned by a function of the same file. What is put into a message when
it is raised stands as an ellipsis. A call that only passes on the words of another error has no text, and no line.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "speed_ray"
ENDS = {  # how a command ends with an error of each base class
    "UserError": "2",
    "FatalEngineError": "2",
    "Interrupted": "3",
    "BudgetExhausted": "3",
    "Stalled": "4",
    "APIError": "HTTP",
}
OF_RECIPES = {"ValueError": "2"}  # raised while a recipe is read, and shown with its key
GAP = "…"
INTRODUCTION = """# Error messages

Every message that a job, a command or the server ends with, by the part of the package that it comes from; search for
a few of its fixed words. {gap} stands for what is filled in. Each says what happened, where, and what to do next; that
of a recipe's key begins with the recipe and the key's path.

| exit code | the job |
|---|---|
| 0 | ended well |
| 1 | proved something wrong: `verify`, or a check of `doctor` |
| 2 | met a mistake that you can mend; what was committed is kept |
| 3 | was interrupted, and goes on when the same command is given again |
| 4 | stalled: for the recipe's `watchdog_minutes` nothing was committed, or no worker was at work |
"""


class Message(NamedTuple):
    """Holds the text of a message, and the exit code or HTTP status that comes with it."""

    text: str
    end: str


def write_page() -> str:
    """Return the page."""
    parts = [INTRODUCTION.format(gap=GAP).rstrip()]
    for area, messages in messages_by_area().items():
        rows = [f"| {_cell(message.text)} | {message.end} |" for message in messages]
        parts += [f"## {area}", _docstring(area), "\n".join(["| message | ends with |", "|---|---|", *rows])]
    return "\n\n".join(parts)


def messages_by_area() -> dict[str, list[Message]]:
    """List the messages of each folder of the package, those of its own files under their names, in order."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    ends = _ends_of_classes(trees.values())
    found = defaultdict(set)
    for path, tree in trees.items():
        area = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        known = ends | (OF_RECIPES if area in ("recipes", "kinds") else {})
        found[area] |= set(Reader(tree, known).messages())
    return {area: sorted(messages) for area, messages in found.items() if messages}


def _ends_of_classes(trees: Iterable[ast.Module]) -> dict[str, str]:
    """Map each error class to how a command ends with it, a derived one like what it derives from."""
    bases = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    ends = dict(ENDS)
    while found := {
        name: ends[base] for name, above in bases.items() for base in above if base in ends and name not in ends
    }:
        ends |= found
    return ends


class Reader:
    """Reads the messages of one file."""

    def __init__(self, tree: ast.Module, ends: Mapping[str, str]) -> None:
        self._tree, self._ends = tree, ends
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        self._functions = {function.name: function for function in functions}

    def messages(self) -> Iterator[Message]:
        """Yield what each call of an error class says; of a call that has no words of its own nothing."""
        for scope in (self._tree, *self._functions.values()):
            for node in ast.walk(scope):
                if isinstance(node, ast.Call) and (end := self._end(node.func, scope)) and node.args:
                    is_answer = end == "HTTP" and len(node.args) > 1 and isinstance(node.args[0], ast.Constant)
                    text = self._text(node.args[1] if is_answer else node.args[0], scope, ())
                    if re.search(r"[a-z]{3}", text) and (is_answer or end != "HTTP"):
                        yield Message(text, f"HTTP {ast.unparse(node.args[0])}" if is_answer else end)

    def _end(self, called: ast.expr, scope: ast.AST) -> str | None:
        """Return how a command ends with the class called, which a choice or a variable may name."""
        if isinstance(called, ast.IfExp):
            return self._end(called.body, scope) or self._end(called.orelse, scope)
        if not isinstance(called, ast.Name):
            return None
        if called.id in self._ends:
            return self._ends[called.id]
        return next((self._end(value, scope) for value in _assigned(called.id, scope) if value is not called), None)

    def _text(self, said: ast.expr, scope: ast.AST, seen: tuple[str, ...]) -> str:
        match said:
            case ast.Constant(value=str(text)):
                parts = [text]
            case ast.JoinedStr(values=values):
                parts = [self._text(value, scope, seen) for value in values]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                parts = [self._text(left, scope, seen), self._text(right, scope, seen)]
            case ast.IfExp(body=body, orelse=orelse):
                parts = [self._text(body, scope, seen) or self._text(orelse, scope, seen)]
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(between)), attr="join"), args=[joined]):
                listed = joined.elts if isinstance(joined, ast.List | ast.Tuple) else [joined]
                parts = [between.join(self._text(each, scope, seen) for each in listed)]
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name)):
                parts = [self._returned(name, seen)]
            case ast.Name(id=name) if name not in seen:
                values = [*_assigned(name, scope), *_assigned(name, self._tree)]
                parts = [self._text(values[0], scope, (*seen, name)) if values else GAP]
            case _:
                parts = [GAP]
        return _smoothed("".join(parts))

    def _returned(self, name: str, seen: tuple[str, ...]) -> str:
        """Return the text that a function of this file makes."""
        if name not in self._functions or name in seen:
            return GAP
        function = self._functions[name]
        returns = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        return self._text(returns[-1], function, (*seen, name)) if returns else GAP


def _assigned(name: str, scope: ast.AST) -> list[ast.expr]:
    """List what is assigned to a plain name in a function or, at its own level alone, in a file."""
    nodes = scope.body if isinstance(scope, ast.Module) else ast.walk(scope)
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    ]


def _smoothed(text: str) -> str:
    """Return a text on one line, with one gap where several meet."""
    return re.sub(rf"{GAP}([\s,;]*{GAP})+", GAP, re.sub(r"\s+", " ", text))


def _docstring(area: str) -> str:
    """Return the first paragraph about a folder or file of the package."""
    file = PACKAGE / area / "__init__.py" if (PACKAGE / area).is_dir() else PACKAGE / f"{area}.py"
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]


def _cell(text: str) -> str:
    """Write a text as a table's cell that Markdown leaves as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~])", r"\\\1", text.strip())
