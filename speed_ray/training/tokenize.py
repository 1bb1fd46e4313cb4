"""Lessons and pairs as token ids: exactly those that the engine will see, in an order that only the seed decides.

A prompt's ids are what engines/vllm.py sends for it. A reply ends with the end-of-sequence token and with nothing
after it. A row that does not fit is counted and left out, never cut.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import TemplateError

from speed_ray.errors import UserError
from speed_ray.recipes.schema import Embedder
from speed_ray.records import Row, content_id
from speed_ray.training import plan
from speed_ray.training.plan import TrainingPlan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLY_COLUMNS = {"sft": {"reply": "reply_ids"}, "dpo": {"chosen": "chosen_ids", "rejected": "rejected_ids"}}


@dataclass(frozen=True)
class TokenizedRows:
    """Tokenized rows: `row_id`, `prompt_ids`, and `reply_ids` (sft) or `chosen_ids` and `rejected_ids` (dpo).

    `held_out` is never trained on; a row's own id decides. `excluded` counts the others by reason.
    """

    train: list[Row]
    held_out: list[Row]
    excluded: dict[str, int]

    def counts(self) -> dict[str, int]:
        """The counts, as they are reported and published."""
        left_out = {f"left_out/{reason}": count for reason, count in sorted(self.excluded.items())}
        return {"rows": len(self.train), "held_out": len(self.held_out), **left_out}


class RowExcluded(Exception):
    """A row that is not trained on; the message is the reason, a word or two, counted."""


def tokenize_rows(training: TrainingPlan, tokenizer: "PreTrainedTokenizerBase", window: int) -> TokenizedRows:
    """Tokenize the rows of a training in manifest order. `window` is the most tokens that the model can take.

    Raises UserError where too few are left for one step.
    """
    assert not isinstance(training.settings, Embedder)
    limit = min(training.settings.max_length, window)
    writer = ChatTokenizer(tokenizer, limit)
    rows = TokenizedRows([], [], Counter())
    for row in plan.finished_training_data(training).records():
        try:
            written = _tokenize_row(row, writer, REPLY_COLUMNS[training.method])
        except RowExcluded as reason:
            rows.excluded[str(reason)] += 1
            continue
        (rows.held_out if is_held_out(row["row_id"], training.settings.evaluation) else rows.train).append(written)
    total_steps(training, rows)
    return rows


def total_steps(training: TrainingPlan, rows: TokenizedRows) -> int:
    """How many steps a training has. Raises UserError where there is not one."""
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(rows.excluded.items())) or "none"
    others = f"Held out for evaluation: {len(rows.held_out)}. Left out: {left_out}.\n"
    return plan.count_steps(training, len(rows.train), others)


def shuffled_order(rows: int, wanted: int, seed: int) -> list[int]:
    """Return `wanted` places among `rows`: epoch after epoch, each in an order of its own, no batch cut at its end."""
    epochs = (np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(-(-wanted // rows)))
    places: list[int] = np.concatenate(list(epochs))[:wanted].tolist()
    return places


def sort_by_length_within_batch(places: list[int], rows: list[Row], batch: int) -> list[int]:
    """Return the places with each batch's rows from short to long, so that those held at once need less padding.

    A step's loss is a mean over its whole batch, so this changes seconds and nothing else (padding of the miniature
    junior's batches of 8: 29% of the tokens before, 13% after).
    """

    def length(place: int) -> int:
        return sum(len(ids) for name, ids in rows[place].items() if name != "row_id")

    batches = (places[first : first + batch] for first in range(0, len(places), batch))
    return [place for each in batches for place in sorted(each, key=length)]


def is_held_out(row_id: str, share: float) -> bool:
    """Whether a row is kept for evaluation: its id alone decides, whatever other rows there are."""
    return int(content_id(row_id, "held out")[:8], 16) < share * 2**32


class ChatTokenizer:
    """Writes prompts and replies as token ids by the tokenizer's chat template.

    `limit` is the most tokens of a prompt and its reply together.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", limit: int) -> None:
        self.tokenizer = tokenizer
        self.limit = limit
        self.special = [token for token in tokenizer.all_special_tokens if token]

    def write(self, messages: list[dict[str, str]], reply: str) -> tuple[list[int], list[int]]:
        """Return the ids of a prompt and of its reply, which ends with the end-of-sequence token.

        Raises LeftOut, and UserError where the template is at fault.
        """
        texts = [*(message["content"] for message in messages), reply]
        if any(token in text for token in self.special for text in texts):
            raise RowExcluded("special_token")  # a model wrote it, and it would end a turn or begin one
        prompt = self._render(messages, add_generation_prompt=True)
        whole = self._render([*messages, {"role": "assistant", "content": reply}])
        if not whole.startswith(prompt):
            raise UserError(
                "generator.chat_template writes a prompt in another way once its reply stands behind it, so what is "
                f"trained on is not what is asked later. The prompt ends\n  {prompt[-60:]!r}\nand with the reply it "
                f"goes\n  {whole[max(0, len(prompt) - 60) : len(prompt) + 20]!r}\nGive a template that does not."
            )
        prompt_ids = self._encode(prompt)
        reply_ids = self._ended(self._reply_ids(prompt, prompt_ids, whole))
        if len(prompt_ids) + len(reply_ids) > self.limit:
            raise RowExcluded("too_long")
        return prompt_ids, reply_ids

    def _reply_ids(self, prompt: str, prompt_ids: list[int], whole: str) -> list[int]:
        """Tokenize the reply behind its prompt; where the two would melt into one token, by itself.

        The engine sends the prompt's own ids and the model goes on from there, so these must stand unchanged.
        """
        ids = self._encode(whole)
        if ids[: len(prompt_ids)] == prompt_ids:
            return ids[len(prompt_ids) :]
        text = whole[len(prompt) :]
        ids = self._encode(text)
        if self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
            raise UserError(
                "generator.chat_template ends a prompt in the middle of a token: the tokenizer joins it with the "
                f"reply's beginning, {prompt[-20:] + text[:20]!r}.\n"
                "Let the template end a prompt with a special token or a line break."
            )
        return ids

    def _ended(self, ids: list[int]) -> list[int]:
        """End a reply with the end-of-sequence token; what the template writes after it is for a next turn."""
        end = self.tokenizer.eos_token_id
        return [*ids[: ids.index(end)], end] if end in ids else [*ids, end]

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise UserError(f"generator.chat_template cannot write this prompt: {error}") from error
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)  # the template wrote them
        return ids


def _tokenize_row(row: Row, writer: ChatTokenizer, answers: dict[str, str]) -> Row:
    if len({row[name] for name in answers}) < len(answers):
        raise RowExcluded("chosen_is_rejected")
    written: Row = {"row_id": row["row_id"]}
    for name, ids in answers.items():
        written["prompt_ids"], written[ids] = writer.write(row["messages"], row[name])
    return written
