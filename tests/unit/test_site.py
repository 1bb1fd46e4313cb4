"""The site is built without a warning, loads nothing from another host, and its reference pages hold what there is."""

import ast
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import speed_ray
from speed_ray.recipes.curate_settings import Curate
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.score_settings import Gates
from speed_ray.recipes.training_settings import Dpo
from tests.helpers.paths import ROOT
from website import data_way, error_messages, python_api, recipe_keys

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Loads(HTMLParser):
    """Collects what a page has a browser load by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name == LOADED.get(tag) and value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "website/mkdocs.yml"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [*command, "--site-dir", str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_of_docs_is_on_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    references = {Path("reference", f"{name}.html") for name in ("recipe_keys", "error_messages", "python_api")}
    assert pages | references <= {path.relative_to(site) for path in site.rglob("*.html")}


def test_no_page_loads_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        foreign = [address for address in loads.found if re.match(r"(\w+:)?//", address)]
        assert loads.found and not foreign, f"{page.name} loads {foreign}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_no_page_has_a_diagram_whose_library_comes_from_another_host(site: Path) -> None:
    assert not [page.name for page in site.rglob("*.html") if 'class="mermaid"' in page.read_text(encoding="utf-8")]


def test_every_key_of_a_recipe_is_on_its_page() -> None:
    page = recipe_keys.write_page()
    for model in recipe_keys.sections():
        section = page.split(f"{{#{model.__name__.lower()}}}\n")[1].split("\n## ")[0]
        keys = re.findall(r"^\| `(\w+)`", section, re.M)
        assert keys == list(model.model_fields), model.__name__
    assert len(recipe_keys.sections()) > 30


def test_sections_stand_in_the_order_of_the_yaml() -> None:
    first = [paths[0].split(".")[0] for paths in recipe_keys.sections().values()][1:]
    assert [*dict.fromkeys(first)] == [name for name in Recipe.model_fields if name in first]


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("seed", "| whole number (≥ 0, < 4294967296) | `0` | numpy's seeds end there |"),
        ("beta", "| number (> 0) | `0.1` | the best of .05 to .3 (SPEED, section 4.3.4) |"),
        ("model", "| path or name | required |"),
        ("margin_range", "| list of number, 2 of them or `null` | `null` | of its cosines, see the docs |"),
        ("fluency", "| number (> 0, < 1) or `null` | `0.01` | Share of people's texts that are less likely"),
        ("dpo", "| [section](#dpo) or `false` | `{}` |"),
        ("max_concurrency", " ↻ | whole number (> 0) | `64` | the most at once;"),
    ],
)
def test_a_key_has_its_type_its_default_and_what_the_code_says_beside_it(key: str, row: str) -> None:
    rows = [line.removeprefix(f"| `{key}`") for line in recipe_keys.write_page().splitlines()]
    assert any(row in line for line in rows if not line.startswith("| `"))


def test_a_comment_belongs_to_its_own_key() -> None:
    assert recipe_keys.comments(Gates)["logprob"].startswith("mean of a text's tokens")
    assert recipe_keys.comments(Dpo)["warmup_ratio"] == "of the steps"  # of a class that it derives from
    assert recipe_keys.comments(VllmEngine).keys() >= VllmEngine.model_fields.keys()
    assert "see the docs" in recipe_keys.comments(Curate)["margin_range"]


def messages_of(source: str) -> list[tuple[str, str]]:
    return sorted(error_messages.Reader(ast.parse(source), error_messages.ENDS).messages())


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        ('raise UserError(f"{path} is no file: " + why)', [("… is no file: …", "2")]),
        ('def f():\n    hint = "say\\nwhich"\n    raise Stalled(hint) from None', [("say which", "4")]),
        ('raise (UserError if fatal else Interrupted)("text")', [("text", "2")]),
        ('def f(e):\n    kind = Interrupted if e else None\n    return kind("text")', [("text", "3")]),
        ('def g(n):\n    return f"{n} words"\nraise UserError(g(1))', [("… words", "2")]),
        ('raise UserError("\\n".join(["first", *more]))', [("first …", "2")]),
        ('raise APIError(404, f"nothing at {path}")', [("nothing at …", "HTTP 404")]),
        ("raise UserError(str(error))", []),
        ('raise KeyError("text")', []),
    ],
)
def test_a_message_is_found_however_it_is_made(source: str, messages: list[tuple[str, str]]) -> None:
    assert messages_of(source) == messages


def test_errors_that_derive_from_ours_and_those_of_recipes_are_found() -> None:
    found = error_messages.messages_by_area()
    assert any("name a list of topics, or documents" in message.text for message in found["recipes"])
    assert any(message.end == "3" and "the store cannot do that" in message.text for message in found["storage"])
    assert {message.end for messages in found.values() for message in messages} >= {"2", "3", "4", "HTTP 400"}
    assert sum(map(len, found.values())) > 300


def test_a_message_is_shown_as_it_stands() -> None:
    (row,) = [line for line in error_messages.write_page().splitlines() if "qrels/" in line and "no BEIR" in line]
    assert r"\*.tsv" in row


def test_every_public_name_is_on_its_page_with_its_example() -> None:
    page = python_api.write_page()
    names = [name for name in speed_ray.__all__ if not name.startswith("_")]
    assert re.findall(r"^## `(\w+)`", page, re.M) == names
    assert '```pycon\n>>> load_recipe("miniature"' in page and "examples(artifact: " in page


@pytest.mark.parametrize(
    ("start", "made", "not_made"),
    [
        ("documents", ["passages", "examples", "embedder"], ["junior"]),
        ("topics", ["revisor", "embedder"], ["passages"]),
    ],
)
def test_the_picture_holds_what_is_made_of_its_start(start: str, made: list[str], not_made: list[str]) -> None:
    drawn = re.findall(r'class="name">(\w+)<', data_way.draw_way(start))
    assert drawn[0] == start and set(made) <= set(drawn) and not set(not_made) & set(drawn)
