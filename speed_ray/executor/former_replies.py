"""Take over what a model replied to the same prompts in an earlier run or a sample, so that nothing is asked twice.

A row's id is a hash of its input row and variant, and a passage's one of its document: where that is as it was, the
row has its old id in any run. A reply counts where prompt and seed are the same too, and is parsed as any other.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from speed_ray.engines.base import Reply, Request, Sample
from speed_ray.errors import UserError
from speed_ray.executor.reply_journal import Answer
from speed_ray.executor.stage import Stage
from speed_ray.records import ReplyRow
from speed_ray.storage.planned_rows import FollowedInputs, Inputs
from speed_ray.storage.run import Run, sample_folders
from speed_ray.storage.shard_plan import Plan, identity_difference
from speed_ray.storage.shards import REPLIES, Artifact

SHARDS_HELD = 16  # of the earlier run, whose order is much the same

Samples = list[ReplyRow]


class FormerReplies:
    """Find the replies of an earlier run's artifact by the ids of their rows. Its index holds 12 bytes a row."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._files = [commit.files[REPLIES].path for commit in artifact.commits() if REPLIES in commit.files]
        numbers, places = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        for place, path in enumerate(self._files):
            of_file = {_number(row_id) for row_id in artifact.read(path)["row_id"].to_pylist()}
            numbers.append(np.fromiter(of_file, np.uint64))
            places.append(np.full(len(of_file), place, np.int32))
        order = np.argsort(np.concatenate(numbers))
        self._numbers, self._places = np.concatenate(numbers)[order], np.concatenate(places)[order]
        self._answers = lru_cache(SHARDS_HELD)(self._read)

    def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        """Map each of the rows that were asked to the place of its file."""
        wanted = np.array([_number(row_id) for row_id in row_ids], np.uint64)
        at = np.searchsorted(self._numbers, wanted)
        known = at < len(self._numbers)
        known[known] = self._numbers[at[known]] == wanted[known]
        return {row_ids[row]: int(self._places[at[row]]) for row in np.flatnonzero(known).tolist()}

    def of_rows(self, row_ids: Sequence[str]) -> dict[Answer, Samples]:
        """Return the samples of each reply to some rows."""
        found = self.find(row_ids)
        files = [self._answers(place) for place in sorted(set(found.values()))]
        return {answer: samples for of_file in files for answer, samples in of_file.items() if answer[0] in found}

    def _read(self, place: int) -> dict[Answer, Samples]:
        answers: dict[Answer, Samples] = defaultdict(list)
        for row in self._artifact.read(self._files[place]).to_pylist():
            answers[row["row_id"], row["trial"]].append(row)
        return dict(answers)


def open_former(stage: Stage[Any, Any], artifact: Artifact, plan: Plan) -> list[FormerReplies]:
    """Open the replies of the run that the recipe's `reuse` names, and of samples of this run under its settings."""
    reuse, store = stage.recipe.reuse, artifact.store
    found = [FormerReplies(Run(reuse).artifact(stage.name))] if reuse else []
    samples = (Artifact(store, f"{folder}/{stage.name}") for folder in sample_folders(store))
    return found + [FormerReplies(each) for each in samples if _is_made_alike(each.plan(), plan)]


def _is_made_alike(former: Plan | None, plan: Plan) -> bool:
    return former is not None and not identity_difference(_decides(former), _decides(plan))


def same_prompt(samples: Samples | None, request: Request) -> Reply | None:
    """Return a former reply where it answers this very request."""
    if not samples or samples[0]["messages"] != request.messages or samples[0]["seed"] != request.seed:
        return None
    replied = [
        Sample(each["text"], each["finish_reason"], each["output_tokens"], each.get("logprobs", []))
        for each in samples  # without log-probabilities where an earlier version stored them
    ]
    return Reply(replied, sum(each["prompt_tokens"] for each in samples), samples[0]["seconds"])


def count_former(stage: Stage[Any, Any], plan: Plan, inputs: Inputs | FollowedInputs) -> int | None:
    """Count the planned rows that were asked in the run that the recipe's `reuse` names; None where it names none.

    Raises UserError where that run's rows were made in another way, before anything is asked.
    """
    reuse = stage.recipe.reuse
    former = Run(reuse).artifact(stage.name) if reuse else None
    planned = former.plan() if former else None
    if former is None or planned is None or isinstance(inputs, FollowedInputs):
        return None
    if difference := identity_difference(_decides(planned), _decides(plan)):
        raise UserError(
            f"reuse: {former.where} was made in another way, so none of its rows can be taken over:\n{difference}\n"
            "Go back to the recipe that it was made with, or leave reuse away: then every row is asked anew."
        )
    index = FormerReplies(former)
    shards = (inputs.of_shard(shard) for shard in range(plan.shards))
    return sum(len(index.find([row.row_id for row in rows])) for rows in shards)


def _decides(plan: Plan) -> dict[str, Any]:
    """Return all that decides a plan's rows but which input rows there are."""
    return {key: value for key, value in plan.identity.items() if key != "input"}


def _number(row_id: str) -> int:
    return int(row_id[:16], 16)
