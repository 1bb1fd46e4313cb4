"""Tokenize prompts and replies, by the chat template or as plain lines, and order the rows of a training by its seed.

A prompt's ids are those that engines/vllm.py sends for it. A reply ends with the end-of-sequence token. A row that is
too long is excluded and counted, never truncated.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import TemplateError

from speed_ray.errors import UserError
from speed_ray.recipes.training_settings import Embedder
from speed_ray.records import Row, is_in_share
from speed_ray.training import plan
from speed_ray.training.plan import TrainingPlan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLY_COLUMNS = {"sft": {"reply": "reply_ids"}, "dpo": {"chosen": "chosen_ids", "rejected": "rejected_ids"}}

TokenizedRow = dict[str, Any]  # a row's id and token ids, by the trainer's column names


@dataclass(frozen=True)
class TokenizedRows:
    """Rows of token ids: `row_id`, `prompt_ids`, and `reply_ids` (sft) or `chosen_ids` and `rejected_ids` (dpo).

    `held_out` is for evaluation alone. `excluded` counts rows that are in neither, by reason.
    """

    train: list[TokenizedRow]
    held_out: list[TokenizedRow]
    excluded: dict[str, int]

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each set, as reports and published models have them."""
        excluded = {f"left_out/{reason}": count for reason, count in sorted(self.excluded.items())}
        return {"rows": len(self.train), "held_out": len(self.held_out), **excluded}


class RowExcluded(Exception):
    """Raised for a row that cannot be trained on; the message is the reason, a word or two."""


def tokenize_rows(training: TrainingPlan, tokenizer: "PreTrainedTokenizerBase", context_length: int) -> TokenizedRows:
    """Tokenize the rows of a training, in manifest order, up to the model's `context_length` in tokens.

    Raises UserError where too few rows remain for one step.
    """
    assert not isinstance(training.settings, Embedder)
    limit = min(training.settings.max_length, context_length)
    encoder: ChatTokenizer | LineTokenizer = (
        LineTokenizer(tokenizer, limit) if training.completion else ChatTokenizer(tokenizer, limit)
    )
    rows = TokenizedRows([], [], Counter())
    for row in plan.finished_training_data(training).records():
        try:
            tokenized = _tokenize_row(row, encoder, REPLY_COLUMNS[training.method])
        except RowExcluded as reason:
            rows.excluded[str(reason)] += 1
            continue
        (rows.held_out if is_held_out(row["row_id"], training.settings.eval_fraction) else rows.train).append(
            tokenized
        )
    total_steps(training, rows)
    return rows


def total_steps(training: TrainingPlan, rows: TokenizedRows) -> int:
    """Return the number of steps of a training on tokenized rows. Raises UserError where it is 0."""
    excluded = ", ".join(f"{count} {reason}" for reason, count in sorted(rows.excluded.items())) or "none"
    details = f"Held out for evaluation: {len(rows.held_out)}. Left out: {excluded}.\n"
    plan.check_enough_rows(training, len(rows.train), details)
    return plan.count_steps(training, len(rows.train) / training.settings.global_batch_size)


def shuffled_order(rows: int, length: int, seed: int) -> list[int]:
    """Return `length` row indices: one permutation of `rows` rows after another, each epoch's from its own seed."""
    epochs = (np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(-(-length // rows)))
    order: list[int] = np.concatenate(list(epochs))[:length].tolist()
    return order


def sort_by_length_within_batch(order: list[int], rows: list[TokenizedRow], batch_size: int) -> list[int]:
    """Sort the indices of each global batch by the rows' numbers of tokens, so that micro-batches need less padding.

    A step's loss is a mean over its global batch, so this changes the speed and nothing else (padding of the
    miniature junior's batches of 8: 29% of the tokens before, 13% after).
    """

    def tokens(index: int) -> int:
        return sum(len(ids) for name, ids in rows[index].items() if name != "row_id")

    batches = (order[first : first + batch_size] for first in range(0, len(order), batch_size))
    return [index for batch in batches for index in sorted(batch, key=tokens)]


def is_held_out(row_id: str, share: float) -> bool:
    """Return True for a `share` of all row ids, which are kept for evaluation, by a hash of the id alone."""
    return is_in_share(row_id, "held out", share)


class ChatTokenizer:
    """Tokenizes prompts and replies with the tokenizer's chat template; `limit` is in tokens, of both together."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", limit: int) -> None:
        self.tokenizer = tokenizer
        self.limit = limit
        self.special = [token for token in tokenizer.all_special_tokens if token]

    def encode(self, messages: list[dict[str, str]], reply: str) -> tuple[list[int], list[int]]:
        """Return the token ids of a prompt and of its reply, which ends with the end-of-sequence token.

        What a template puts between the two, such as the empty thought of Qwen3's, is not learnt: engines send the
        prompt without it, and hold a reply to begin with its JSON. Raises RowExcluded, also for a reply that the
        template changes, and UserError where the template is at fault.
        """
        _refuse_special(self.special, [*(message["content"] for message in messages), reply])
        prompt = self._render(messages, add_generation_prompt=True)
        conversation = self._render([*messages, {"role": "assistant", "content": reply}])
        if not conversation.startswith(prompt):
            start = max(0, len(prompt) - 60)
            raise UserError(
                "generator.chat_template writes a prompt differently once its reply follows, so the model would be "
                f"trained on another prompt than it gets later. The prompt ends\n  {prompt[start:]!r}\nand with the "
                f"reply it goes\n  {conversation[start : len(prompt) + 20]!r}\nGive a template that does not."
            )
        added, found, end = conversation[len(prompt) :].partition(reply)
        if not found:
            raise RowExcluded("changed_by_template")
        if added.strip():
            conversation = prompt + reply + end
        prompt_ids = self._encode_text(prompt)
        reply_ids = _end_reply(self.tokenizer, self._encode_reply(prompt, prompt_ids, conversation))
        return _fit(prompt_ids, reply_ids, self.limit)

    def _encode_reply(self, prompt: str, prompt_ids: list[int], conversation: str) -> list[int]:
        """Tokenize the reply after its prompt, or alone where a token would span both.

        Engines send the prompt's own ids and the model continues from there, so these must stay unchanged.
        """
        ids = self._encode_text(conversation)
        if ids[: len(prompt_ids)] == prompt_ids:
            return ids[len(prompt_ids) :]
        reply = conversation[len(prompt) :]
        ids = self._encode_text(reply)
        if self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) != reply:
            raise UserError(
                "generator.chat_template ends a prompt in the middle of a token: the tokenizer joins it with the "
                f"reply's beginning, {prompt[-20:] + reply[:20]!r}.\n"
                "Let the template end a prompt with a special token or a line break."
            )
        return ids

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise UserError(f"generator.chat_template cannot write this prompt: {error}") from error
        return text

    def _encode_text(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)  # the template wrote them
        return ids


class LineTokenizer:
    """Tokenizes plain texts and the lines that continue them, for a generator that does not chat (`completion`)."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", limit: int) -> None:
        self.tokenizer = tokenizer
        self.limit = limit
        self.special = [token for token in tokenizer.all_special_tokens if token]

    def encode(self, messages: list[dict[str, str]], reply: str) -> tuple[list[int], list[int]]:
        """Return the token ids of a text, as engines/vllm.py has them, and of the line after it, with its end.

        The line follows a space and ends with the end-of-sequence token, where a model without training would begin a
        new line. Raises RowExcluded.
        """
        prompt = "\n".join(message["content"] for message in messages)
        _refuse_special(self.special, [prompt, reply])
        prompt_ids: list[int] = self.tokenizer.encode(prompt)
        ids: list[int] = self.tokenizer.encode(f"{prompt} {reply}")
        if ids[: len(prompt_ids)] != prompt_ids:  # a token would span both
            ids = prompt_ids + self.tokenizer.encode(f" {reply}", add_special_tokens=False)
        return _fit(prompt_ids, _end_reply(self.tokenizer, ids[len(prompt_ids) :]), self.limit)


def _refuse_special(special: Sequence[str], texts: Sequence[str]) -> None:
    """Raise RowExcluded for texts with a special token: a model wrote it, and it would end a turn or begin one."""
    if any(token in text for token in special for text in texts):
        raise RowExcluded("special_token")


def _end_reply(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> list[int]:
    """End a reply with the end-of-sequence token; what a template adds after it belongs to a next turn."""
    end = tokenizer.eos_token_id
    return [*ids[: ids.index(end)], end] if end in ids else [*ids, end]


def _fit(prompt_ids: list[int], reply_ids: list[int], limit: int) -> tuple[list[int], list[int]]:
    """Return both where together they are within a limit. Raises RowExcluded."""
    if len(prompt_ids) + len(reply_ids) > limit:
        raise RowExcluded("too_long")
    return prompt_ids, reply_ids


def _tokenize_row(row: Row, encoder: ChatTokenizer | LineTokenizer, columns: dict[str, str]) -> TokenizedRow:
    if len({row[name] for name in columns}) < len(columns):
        raise RowExcluded("chosen_is_rejected")
    tokenized: TokenizedRow = {"row_id": row["row_id"]}
    for name, ids in columns.items():
        tokenized["prompt_ids"], tokenized[ids] = encoder.encode(row["messages"], row[name])
    return tokenized
