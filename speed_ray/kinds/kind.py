"""Define `Kind`, a type of example: slots that vary in its prompt, fields that a model returns, checks on them."""

import functools
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from speed_ray.errors import nearest
from speed_ray.text import rules
from speed_ray.text.words import split_words

Fields = dict[str, str]
Slots = dict[str, Any]
DRAWS = 200  # of a kind's slots, to see what each may be
MIN_MEANING_WORDS = 3  # beside the slots; fewer can well be a text of their own
MAX_SLOT_CHARS = 40  # of a slot's value in a meaning

_SLOT = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


@dataclass(frozen=True)
class Field:
    """One string that the model returns. `meaning` is told to the model and may use the slots as Jinja variables.

    `any_language` frees it from the row's language: the foreign half of a translation.
    """

    name: str
    meaning: str
    any_language: bool = False


@dataclass(frozen=True)
class Shot:
    """A passage and the lines that were written about it, by form or field: an example in a prompt.

    `neighbour` is a passage near to it that the lines do not fit, "" where there is none.
    """

    passage: str
    lines: dict[str, str]
    neighbour: str = ""


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of training example; everything about it is in its one file.

    `fields` are in the order in which a model writes them. `query`, `positive`, `negative` name the fields that the
    embedder learns from (`negative` None: the kind has none); there is no other field, so that an example can be
    written back as its fields when it is to be revised. `instruction` is the embedder's fixed instruction, or
    None where the brainstormed task is the instruction (then the kind needs tasks). `slots` draws what varies, from
    the row's own random generator. `guidelines` are Jinja sentences over the slots, shuffled where `shuffled`.
    `check` returns (reason, detail) of the first rule that an example breaks, or None. Curating goes by the last two:
    whether `positive` is a label, and whether it is to have words in common with `query`.

    `grounded` is how the kind is written about a passage of the user's documents, None where that makes no sense: a
    kind of the same name, of whose texts `passage` names the one that the passage is; the model writes the others. It
    may come in `forms`: prompts about one passage ask for different ones, each given to `slots` after the generator.
    `shots` are our own examples of it.
    """

    name: str
    brief: str
    fields: tuple[Field, ...]
    query: str
    positive: str
    negative: str | None
    slots: Callable[..., Slots]
    guidelines: tuple[str, ...]
    check: Callable[[Fields, Slots], tuple[str, str] | None]
    shuffled: bool = True
    instruction: str | None = None
    example_tasks: tuple[str, ...] = ()
    task_rules: tuple[str, ...] = ()
    positive_is_label: bool = False
    shares_words: bool = False
    grounded: "Kind | None" = None
    passage: str | None = None
    forms: tuple[str, ...] = ()
    shots: tuple[Shot, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a reply, for structured output: all fields, in order, nothing else."""
        return {
            "type": "object",
            "properties": {field.name: {"type": "string", "minLength": 1} for field in self.fields},
            "required": [field.name for field in self.fields],
            "additionalProperties": False,
        }

    @property
    def answered_by_passage(self) -> bool:
        """Return whether the passage that the kind is written about is the positive of what is written."""
        return self.passage is not None and self.positive == self.passage

    @property
    def writes_queries(self) -> bool:
        """Tell if what a model writes about a passage is one query, which the passage answers."""
        return self.answered_by_passage and len(self.fields) == 1

    def is_placeholder(self, text: str) -> bool:
        """Check whether a text is none: a form's stand-in, or what a prompt shows in its place."""
        return rules.is_stand_in(text) or self._is_shown(text)

    def _is_shown(self, text: str) -> bool:
        longest, shown = self._shown_in_prompts
        return len(text) <= longest and shown.fullmatch(rules.is_plain(text)) is not None

    @functools.cached_property
    def _shown_in_prompts(self) -> tuple[int, re.Pattern[str]]:
        """Return the longest text in characters that can be a field's name or meaning, and a pattern for all."""
        shown = [r"[\W_]*".join(re.findall(r"[^\W_]+", field.name.casefold())) for field in self.fields]
        for field in self.fields:
            parts = [rules.is_plain(part) for part in _SLOT.split(field.meaning)]
            if len(split_words(" ".join(parts))) >= MIN_MEANING_WORDS:
                shown.append(rf"\s?.{{0,{MAX_SLOT_CHARS}}}\s?".join(map(re.escape, parts)))
        longest = max(len(field.name) + len(field.meaning) for field in self.fields) + MAX_SLOT_CHARS
        return longest, re.compile(rf"[\W_]*(?:{'|'.join(shown)})\W*")

    def check_written(self, fields: Fields) -> rules.Broken:
        """Check that each field holds a text of its own, which no prompt shows in its place."""
        labels = (self.positive, self.negative) if self.positive_is_label else ()
        for name, text in fields.items():
            if broken := rules.written(name, text) or rules.no_stand_in(name, text, name in labels):
                return broken
            if self._is_shown(text):
                return "placeholder", f"{name} holds what the prompt shows in the place of a text"
        if all(map(rules.is_stand_in, fields.values())):
            return "placeholder", "each field holds something in the place of a text"
        return None

    def refuse_fixed(self, fixed: Slots) -> None:
        """Raise ValueError where slots that are to be the same in each prompt do not fit those that are drawn."""
        form = fixed.get("form")
        if self.forms and form is not None and form not in self.forms:
            raise ValueError(f"{self.name}.form is {form!r}{nearest(str(form), self.forms)}")
        chosen = [form] if self.forms and form else []
        draws = [self.slots(random.Random(number), *chosen) for number in range(DRAWS)]
        for name, value in fixed.items():
            if name not in draws[0]:
                raise ValueError(f"{self.name} has no slot {name!r}{nearest(name, draws[0])}")
            if type(value) not in {type(draw[name]) for draw in draws}:
                drawn = sorted({json.dumps(draw[name]) for draw in draws})[:4]
                raise ValueError(f"{self.name}.{name} is {value!r}, but such are drawn: {', '.join(drawn)}")
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{self.name}.{name} is {value}: give a number of words, at least 0")
        for draw in draws:
            self._refuse_empty_ranges(draw | fixed)

    def _refuse_empty_ranges(self, slots: Slots) -> None:
        for least in [name for name in slots if name.endswith("min_words")]:
            most = least.replace("min_words", "max_words")
            if most not in slots:
                continue
            low, high = slots[least], slots[most]
            if low is None and high is None:
                raise ValueError(
                    f"{self.name}.{least} and {self.name}.{most} can both be null: give one of them a number"
                )
            if low is not None and high is not None and low > high:
                raise ValueError(
                    f"{self.name}.{least} can be {low} where {self.name}.{most} is {high}: fix both to what fits"
                )
