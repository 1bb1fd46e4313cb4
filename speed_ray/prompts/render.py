"""Render the messages that a model is sent, from the templates here or in a recipe's own folder.

Topics and tasks come from anywhere, so they are values and never templates, and the environment is a sandbox. A
template's constant text comes first and what varies comes last, because an engine with a prefix cache computes the
shared beginning of two prompts once.
"""

import hashlib
import itertools
import random
import traceback
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, PrefixLoader, StrictUndefined, Template, TemplateError, TemplateNotFound, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.meta import find_referenced_templates, find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from speed_ray import kinds
from speed_ray.errors import UserError, nearest
from speed_ray.kinds.kind import Kind, Shot, Slots
from speed_ray.records import Message, PassageRow, titled_text

OURS = Path(__file__).parent
MINIATURE = OURS.parent / "miniature" / "prompts"  # a fifth of our tokens: its model is trained on them, on a CPU
MINIATURE_URI = "miniature://prompts"
A_PASSAGE: PassageRow = {  # to try templates with
    "id": "",
    "parent_id": "",
    "document_id": "",
    "title": "a title",
    "headings": "a heading",
    "text": "a text",
    "start": 0,
    "end": 6,
    "tokens": 2,
    "digest": "",
    "split": "train",
}


class Prompts:
    """Render the prompts of one recipe. The constructor tries every template: no mistake is met after spending.

    `folder` is the recipe's own: a `synthesize-sts.jinja` there is for one kind, a `synthesize.jinja` for all, and
    where it has neither the package's is used; likewise for every other template's name. Raises UserError for a file
    that is no template's name, wrong syntax or an unknown variable. `digests` holds the sha256 of every template in
    use, and of every one that these include, for the plan's identity; a kind's own sentences are in its digest.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._origins = ["recipe/", "package/"] if folder is not None else ["package/"]
        loaders = {"package": FileSystemLoader(OURS)}
        if folder is not None:
            own = MINIATURE if folder == MINIATURE_URI else Path(folder)
            _refuse_unknown_files(own)
            loaders["recipe"] = FileSystemLoader(own)
        self._loader = PrefixLoader(loaders)
        self._environment = ImmutableSandboxedEnvironment(
            loader=self._loader,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._parse = lru_cache(self._environment.parse)  # one template serves several kinds
        self._templates: dict[tuple[str, str], Template] = {}
        self._sentences: dict[str, Template] = {}
        self._cached_sentences = lru_cache(maxsize=4096)(self._sentences_of)
        self.digests: dict[str, str] = {}
        for kind in map(kinds.load_kind, kinds.kind_names()):
            self._try_out(kind)

    def brainstorm(self, kind: Kind, topic: str, ask: int, language: str, rng: random.Random) -> list[Message]:
        """Render the prompt for about `ask` one-sentence tasks that people who deal with `topic` would have."""
        return self._render("brainstorm", kind, _brainstorm_values(kind, topic, ask, language, rng))

    def synthesize(
        self, kind: Kind, slots: Slots, topic: str, task: str, language: str, rng: random.Random
    ) -> list[Message]:
        """Render the prompt for one example of a task, or of a topic where the kind has an instruction of its own."""
        return self._render("synthesize", kind, self._synthesize_values(kind, slots, topic, task, language, rng))

    def ground(
        self,
        kind: Kind,
        slots: Slots,
        passage: PassageRow,
        language: str,
        shots: Sequence[Shot],
        completion: bool = False,
        neighbour: str = "",
    ) -> list[Message]:
        """Render the prompt for what a grounded kind writes about a passage, after `shots`, its examples.

        With `completion` it is a plain text that a model continues by one line, for models that know no chat.
        `neighbour` is another passage, which is not to answer what is written; "" shows none.
        """
        name = "ground-completion" if completion else "ground"
        return self._render(name, kind, self._ground_values(kind, slots, passage, language, shots, neighbour))

    def judge(
        self,
        kind: Kind,
        slots: Slots,
        topic: str,
        task: str,
        language: str,
        candidates: list[str],
        rng: random.Random,
    ) -> list[Message]:
        """Render the prompt for the best and the worst of several examples of one request, JSON texts in order."""
        values = self._synthesize_values(kind, slots, topic, task, language, rng)
        return self._render("judge", kind, {**values, "candidates": candidates})

    def critique(
        self, kind: Kind, slots: Slots, topic: str, task: str, language: str, example: str, rng: random.Random
    ) -> list[Message]:
        """Render the prompt for remarks on an example, a JSON text, and a revision of it."""
        values = self._synthesize_values(kind, slots, topic, task, language, rng)
        return self._render("critique", kind, {**values, "example": example})

    def revise(self, kind: Kind, topic: str, task: str, language: str, example: str) -> list[Message]:
        """Render the prompt for a better version of an example, a JSON text: short, for a small model to learn."""
        task = task if kind.instruction is None else ""
        return self._render("revise", kind, {"topic": topic, "task": task, "language": language, "example": example})

    def relevance(self, kind: Kind, instruction: str, query: str, document: str) -> list[Message]:
        """Render the question whether a document answers a query as an instruction wants; "" for no instruction."""
        values = {"instruction": instruction, "query": query, "document": document}
        return self._render("relevance", kind, values)

    def _ground_values(
        self, kind: Kind, slots: Slots, passage: PassageRow, language: str, shots: Sequence[Shot], neighbour: str
    ) -> dict[str, Any]:
        fields, guidelines = self._cached_sentences(kind, tuple(slots.items()))
        examples = [
            {
                "passage": shot.passage,
                "neighbour": shot.neighbour if neighbour else "",
                "lines": {_label(name): line for name, line in shot.lines.items()},
            }
            for shot in shots
        ]
        return {
            "brief": kind.brief,
            "fields": fields,
            "in_language": ", ".join(field["name"] for field in fields if not field["any_language"]),
            "guidelines": [said for said in guidelines if said],
            "slots": dict(slots),
            "examples": examples,
            "title": passage["title"],
            "headings": passage["headings"].splitlines(),
            "text": passage["text"],
            "neighbour": " ".join(neighbour.split()),
            "line": " ".join(titled_text(passage).split()),
            "label": _label(slots.get("form") or kind.fields[0].name),
            "language": language,
        }

    def _synthesize_values(
        self, kind: Kind, slots: Slots, topic: str, task: str, language: str, rng: random.Random
    ) -> dict[str, Any]:
        fields, guidelines = self._cached_sentences(kind, tuple(slots.items()))
        return {
            "brief": kind.brief,
            "fields": fields,
            "in_language": ", ".join(field["name"] for field in fields if not field["any_language"]),
            # An unnamed difficulty leaves a blank one; they are shuffled with it, then it goes.
            "guidelines": [said for said in (_shuffled(guidelines, rng) if kind.shuffled else guidelines) if said],
            "slots": dict(slots),
            "topic": topic,
            "task": task if kind.instruction is None else "",
            "language": language,
        }

    def _sentences_of(self, kind: Kind, slots: tuple[tuple[str, Any], ...]) -> tuple[list[dict[str, Any]], list[str]]:
        """Fill a kind's fields and guidelines with slots, whose few values recur: it was a third of a row's time."""
        values = dict(slots)
        fields = [
            {
                "name": field.name,
                "meaning": self._sentence(field.meaning, kind, values),
                "any_language": field.any_language,
            }
            for field in kind.fields
        ]
        return fields, [self._sentence(guideline, kind, values) for guideline in kind.guidelines]

    def _sentence(self, text: str, kind: Kind, slots: Slots) -> str:
        if "{" not in text:
            return text
        try:
            if text not in self._sentences:
                self._sentences[text] = self._environment.from_string(text)
            return self._sentences[text].render(slots)
        except TemplateError as error:
            raise UserError(
                f"kind {kind.name}: {error.message} in {text!r}\nA kind's sentences may use its slots: {sorted(slots)}"
            ) from None

    def _render(self, name: str, kind: Kind, values: dict[str, Any]) -> list[Message]:
        """Fill the template `name` for one kind: one user message, as base models' chat templates know no system."""
        template = self._templates.get((name, kind.name)) or self._load(name, kind, values)
        try:
            return [{"role": "user", "content": template.render(values).strip()}]
        except Exception as error:  # a template can fail in any way that Python can
            raise UserError(f"{_place(template, error)}: {error}") from None

    def _load(self, name: str, kind: Kind, values: dict[str, Any]) -> Template:
        stems = [f"{name}-{kind.name}", name]
        candidates = [f"{origin}{stem}.jinja" for origin in self._origins for stem in stems]
        try:
            template = self._environment.select_template(candidates)
        except TemplateSyntaxError as error:
            raise UserError(f"{error.filename}, line {error.lineno}: {error.message}") from None
        except UnicodeDecodeError as error:
            raise UserError(
                f"the template {name}.jinja or {name}-{kind.name}.jinja is not UTF-8 text: {error}"
            ) from None
        path = Path(str(template.filename))
        text = path.read_text(encoding="utf-8")
        self._refuse_unknown_variables(text, path, values)
        template.globals = dict(template.globals)  # copied for each row, and Jinja's own ChainMap is slow to copy
        self._templates[name, kind.name] = template
        self.digests[path.name] = _sha256(text)
        self._add_included(text, path)
        return template

    def _add_included(self, text: str, path: Path) -> None:
        """Add the digests of the templates that a template includes, imports or extends, and of all that these do."""
        for name in find_referenced_templates(self._parse(text)):
            if name is None:
                raise UserError(
                    f"{path} includes a template by a name that is computed, so a change of it would go unseen.\n"
                    "Include it by its name in quotes."
                )
            if name in self.digests:
                continue
            try:
                source, file, _ = self._loader.get_source(self._environment, name)
                self.digests[name] = _sha256(source)
                self._add_included(source, Path(str(file)))
            except TemplateNotFound:  # `ignore missing`, or an error where it is rendered
                self.digests[name] = "missing"
            except (TemplateSyntaxError, UnicodeDecodeError) as error:
                raise UserError(f"{name}, which {path} includes, cannot be read: {error}") from None

    def _refuse_unknown_variables(self, text: str, path: Path, values: dict[str, Any]) -> None:
        """Raise UserError for an unknown variable in any branch, also in one that no row may take for hours."""
        tree = self._parse(text)
        unknown = find_undeclared_variables(tree) - set(values)
        for used in tree.find_all(nodes.Name):
            if used.name in unknown:
                hint = nearest(used.name, values)
                raise UserError(f"{path}, line {used.lineno}: there is no value {used.name!r}{hint}")

    def _try_out(self, kind: Kind) -> None:
        rng = random.Random(0)
        slots = kind.slots(rng)
        self.synthesize(kind, slots, "a topic", "a task", "English", rng)
        if kind.instruction is None:
            self.brainstorm(kind, "a topic", 5, "English", rng)
        self.judge(kind, slots, "a topic", "a task", "English", ["one", "another"], rng)
        self.critique(kind, slots, "a topic", "a task", "English", "an example", rng)
        self.revise(kind, "a topic", "a task", "English", "an example")
        self.relevance(kind, "an instruction", "a query", "a document")
        if kind.grounded:
            slots = kind.grounded.slots(rng)
            for completion, neighbour in itertools.product((False, True), ("", "another text")):
                self.ground(kind.grounded, slots, A_PASSAGE, "English", kind.grounded.shots, completion, neighbour)


def load_prompts(folder: str | None) -> Prompts:
    """Return a recipe's prompts, tried out once in a process while its `folder` holds the same files."""
    return _prompts_of(folder, _contents(folder))


@lru_cache(maxsize=8)
def _prompts_of(folder: str | None, _contents: tuple[tuple[str, str], ...]) -> Prompts:
    return Prompts(folder)


def _contents(folder: str | None) -> tuple[tuple[str, str], ...]:
    """Return names and digests of a recipe's own templates; the package's do not change."""
    own = Path(folder or "")
    if folder in (None, MINIATURE_URI) or not own.is_dir():
        return ()
    files = (path for path in sorted(own.rglob("*")) if path.is_file())  # what a template includes may lie below
    return tuple((str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files)


def _brainstorm_values(kind: Kind, topic: str, ask: int, language: str, rng: random.Random) -> dict[str, Any]:
    return {
        "brief": kind.brief,
        "rules": list(kind.task_rules),
        "example_tasks": _shuffled(kind.example_tasks, rng),
        "ask": ask,
        "topic": topic,
        "language": language,
    }


def _label(name: str) -> str:
    """Return the name of a form or field as a line of plain text begins with it."""
    return name.replace("_", " ").capitalize()


def _shuffled(sentences: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(sentences, len(sentences))


def _refuse_unknown_files(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"prompts: {folder} is not a folder: give one that holds templates, or leave the key out")
    names = sorted(path.stem for path in OURS.glob("*.jinja"))
    valid = {f"{stem}.jinja" for name in names for stem in (name, *(f"{name}-{kind}" for kind in kinds.kind_names()))}
    for path in sorted(folder.iterdir()):
        if path.name not in valid and not path.name.startswith("."):
            raise UserError(f"{path} is no template's name{nearest(path.name, valid)}")


def _place(template: Template, error: Exception) -> str:
    """Return the template's name and the line in which an error arose; Jinja puts it into the traceback."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == template.filename
    ]
    return f"{template.filename}, line {lines[-1]}" if lines else str(template.filename)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
