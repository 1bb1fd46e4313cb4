"""Each command of the documentation is understood by our command line, or its block says what it needs besides."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from benchmarks.__main__ import ALL
from speed_ray import cli, recipes
from speed_ray.recipes.schema import Recipe
from tests.helpers.paths import ROOT
from website import recipe_keys

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w*)([^\n]*)\n(.+?)^```$", re.M | re.S)
INLINE = re.compile(r"`(speed-ray (?!--help)[^`…]+)`")
MARK = re.compile(r'title="Needs (a cluster|a GPU|an endpoint|the model hub)[^"]*"')
USAGE_ERROR = typer.BadParameter.__bases__[0]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
KEYS = {
    f"{path}.{name}".lstrip("."): field
    for model, paths in recipe_keys.sections().items()
    for path in paths
    for name, field in model.model_fields.items()
}


@cache
def commands() -> list[tuple[str, str, str]]:
    """List page, what stands behind the fence's language, and command of all blocks of commands."""
    return [
        (str(page.relative_to(ROOT)), attributes, line)
        for page in PAGES
        for language, attributes, block in FENCED.findall(page.read_text(encoding="utf-8"))
        if language in ("", "sh")
        for line in re.sub(r"\\\n\s*", "", block).splitlines()
        if shlex.split(line, comments=True)
    ]


def ours(line: str) -> list[str] | None:
    """Return the words after `speed-ray`, also where a cluster's job runs it; None of a foreign command."""
    words = shlex.split(line, comments=True)
    for number, word in enumerate(words):
        if word in ("speed-ray", ".venv/bin/speed-ray") and words[number - 1 : number] in ([], ["--"]):
            return words[number + 1 :]
        if word == "jobs/run.py":
            return ["run", *words[number + 1 :]]
        if words[number : number + 2] == ["-m", "speed_ray"]:
            return words[number + 2 :]
    return None


def parse(words: list[str]) -> dict[str, Any]:
    """Parse the words of a command as the command line does, and run nothing. Raises USAGE_ERROR."""
    group: Any = typer.main.get_command(cli.app)
    above = group.make_context("speed-ray", list(words))
    name, command, rest = group.resolve_command(above, list(words))
    return command.make_context(name, rest, parent=above).params


def is_key(key: str) -> bool:
    """Tell if a recipe has a key, or takes any name in its place: `engine_kwargs.max_model_len`."""
    above = key.rpartition(".")[0]
    return key in KEYS or (above in KEYS and "dict" in str(KEYS[above].annotation))


def unknown_keys(tree: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in tree.items():
        key = f"{path}.{name}".lstrip(".")
        if not is_key(key):
            yield key
        elif isinstance(value, dict) and "dict" not in str(KEYS.get(key, "dict")):
            yield from unknown_keys(value, key)


OURS = sorted({(page, line) for page, _, line in commands() if ours(line) is not None})
FOREIGN = sorted({(page, mark, line) for page, mark, line in commands() if ours(line) is None})


@pytest.mark.parametrize(("page", "line"), OURS)
def test_our_commands_are_understood(page: str, line: str) -> None:
    given = parse(ours(line) or [])
    for override in given.get("set_") or ():
        assert is_key(override.partition("=")[0]), f"{page}: a recipe has no key {override}"
    if (recipe := given.get("recipe")) and not recipe.endswith(".yaml"):
        assert recipe in recipes.recipe_names(), f"{page}: there is no recipe {recipe}"


@pytest.mark.parametrize(("page", "mark", "line"), FOREIGN)
def test_other_commands_are_there_or_their_block_says_what_they_need(page: str, mark: str, line: str) -> None:
    match shlex.split(line, comments=True):
        case ["make", target, *_]:
            assert target in TARGETS
        case ["python" | ".venv/bin/python", "-m", "benchmarks", name, *_]:
            assert name in ALL
        case ["python" | ".venv/bin/python", file, *_] if file.endswith(".py"):
            assert (ROOT / file).is_file()
        case ["source", ".venv/bin/activate"]:
            assert "make venv\n" in (ROOT / page).read_text(encoding="utf-8")
        case _:  # README's are held by test_readme.py
            assert page == "README.md" or MARK.search(mark), f'{page}: {line}: say title="Needs …" behind the fence'


def test_commands_within_sentences_are_understood() -> None:
    found = 0
    for page in PAGES:
        for said in INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
            found += 1
            try:
                parse(shlex.split(said)[1:])
            except USAGE_ERROR as error:  # a sentence names a command, and not all that it wants
                assert type(error).__name__ == "MissingParameter", f"{page.name}: `{said}`: {error}"
    assert found > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_of_recipes_exist(page: Path) -> None:
    trees = [
        yaml.safe_load(block)
        for language, _, block in FENCED.findall(page.read_text(encoding="utf-8"))
        if language == "yaml"
    ]
    of_recipes = [tree for tree in trees if next(iter(tree)) in Recipe.model_fields]
    assert not [key for tree in of_recipes for key in unknown_keys(tree)]


def test_there_are_commands() -> None:
    assert len(OURS) > 25
