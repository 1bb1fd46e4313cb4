"""End a paid stage early that gets nowhere: whose first rows are all rejected."""

from collections import Counter
from typing import Any

from speed_ray.errors import UserError
from speed_ray.executor.stage import Stage
from speed_ray.records import RejectRow
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact

ROWS = 32  # of which one at least must be accepted
SHOWN_CHARS = 200
SHORT_OF_TOKENS = {"no_content", "cut_off"}


class GetsNowhere(UserError):
    """Signals that none of a stage's first rows was accepted."""


class EarlyStop:
    """Counts the outcomes of a stage's rows until one is accepted."""

    def __init__(self, stage: Stage[Any, Any], artifact: Artifact, plan: Plan) -> None:
        self.stage = stage
        self.rows = min(ROWS, plan.rows)
        self._rejects: list[RejectRow] = []
        self._goes_on = any(commit.counts.accepted for commit in artifact.commits())

    def count(self, reject: RejectRow | None) -> None:
        """Count the outcome of a row. Raises GetsNowhere where it is the last of the first rows, all rejected."""
        if reject is None:
            self._goes_on = True
        else:
            self._rejects += [] if self._goes_on else [reject]
        self.check()

    def check(self) -> None:
        """Raise GetsNowhere where so many rows were rejected and none was accepted that no more should be paid for."""
        if self._goes_on or len(self._rejects) < self.rows:
            return
        key, role = self.stage.settings.key, self.stage.role
        reasons = Counter(reject["reason"] for reject in self._rejects)
        counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        first = self._rejects[0]
        advice = f"Change what they are rejected for: the settings under {key}, or the prompts."
        if 2 * sum(reasons[reason] for reason in SHORT_OF_TOKENS) > len(self._rejects):
            advice = (
                f"Raise {key}.sampling.max_tokens (now {self.stage.settings.sampling.max_tokens}); a model that "
                "thinks first needs thousands."
            )
        raise GetsNowhere(
            f"{self.stage.name}: none of the first {len(self._rejects)} rows was accepted ({counted}), so no more are "
            "paid for.\n"
            f"Row {first['row_id']}: {first['detail'][:SHOWN_CHARS]!r}; its reply: {first['text'][:SHOWN_CHARS]!r}\n"
            f"{advice}\nThen run the same command again: this stage's settings may still change in this run. "
            f"Those of the {role}, such as model and extra_body, may until it has answered another stage: then begin "
            "another run."
        )
