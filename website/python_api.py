"""Write the page of what `import speed_ray` gives from signatures and docstrings, in the order of the package."""

import ast
import inspect
from pathlib import Path

from speed_ray import _MODULES  # where each name is defined; getattr would import Ray

ROOT = Path(__file__).parents[1]
INTRODUCTION = """# Python API

What `import speed_ray` gives; [From Python](../python.md) shows it in use. The keys of a `Recipe` are those of
[its YAML](recipe_keys.md). Each job is the command of the same name."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def write_page() -> str:
    """Return the page."""
    return "\n\n".join([INTRODUCTION, *(_entry(name, module) for name, module in _MODULES.items())])


def _entry(name: str, module: str) -> str:
    node = _defined(name, module)
    parts = [f"## `{name}` {{#{name}}}"]
    if isinstance(node, Function):
        parts += [_signature(node, f"speed_ray.{name}"), _documented(node)]
    else:
        parts += [f"```python\nclass speed_ray.{name}\n```", _documented(node)]
        for method in node.body:
            if isinstance(method, Function) and not method.name.startswith("_") and not method.decorator_list:
                heading = f"### `{name}.{method.name}` {{#{name}.{method.name}}}"
                parts += [heading, _signature(method, method.name), _documented(method)]
    return "\n\n".join(parts)


def _defined(name: str, module: str) -> Function | ast.ClassDef:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, Function | ast.ClassDef) and node.name == name)
    return found


def _signature(node: Function, name: str) -> str:
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"```python\n{name}({arguments}){returned}\n```"


def _documented(node: Function | ast.ClassDef) -> str:
    """Return a docstring whose examples are blocks of code."""
    parts = inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n")
    return "\n\n".join(f"```pycon\n{part}\n```" if part.startswith(">>>") else part for part in parts)
