"""What a kind of example is: slots that vary in its prompt, fields that a model must return, checks on them."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Fields = dict[str, str]
Slots = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One string that the model returns. `meaning` is told to the model and may use the slots as Jinja variables.

    `any_language` frees it from the row's language: the foreign half of a translation.
    """

    name: str
    meaning: str
    any_language: bool = False


@dataclass(frozen=True)
class Kind:
    """One kind of training example; everything about it is in its one file.

    `fields` are in the order in which a model writes them. `query`, `positive`, `negative` name the fields that the
    embedder learns from (`negative` None: the kind has none); there is no other field, so that an example can be
    written back as its fields when it is to be revised. `instruction` is the embedder's fixed instruction, or
    None where the brainstormed task is the instruction (then the kind needs tasks). `slots` draws what varies, from
    the row's own random generator. `guidelines` are Jinja sentences over the slots, shuffled where `shuffled`.
    `check` returns (reason, detail) of the first rule that an example breaks, or None. Curating goes by the last two:
    whether `positive` is a label, and whether it is to have words in common with `query`.
    """

    name: str
    brief: str
    fields: tuple[Field, ...]
    query: str
    positive: str
    negative: str | None
    slots: Callable[[random.Random], Slots]
    guidelines: tuple[str, ...]
    check: Callable[[Fields, Slots], tuple[str, str] | None]
    shuffled: bool = True
    instruction: str | None = None
    example_tasks: tuple[str, ...] = ()
    task_rules: tuple[str, ...] = ()
    positive_is_label: bool = False
    shares_words: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a reply, for structured output: all fields, in order, nothing else."""
        return {
            "type": "object",
            "properties": {field.name: {"type": "string", "minLength": 1} for field in self.fields},
            "required": [field.name for field in self.fields],
            "additionalProperties": False,
        }
