"""Add up a run's calls and tokens by role, over all its stages and drivers, from storage alone."""

from typing import TYPE_CHECKING

from speed_ray.executor.reply_journal import replay
from speed_ray.recipes.engine_settings import EngineConfig, OpenAIEngine
from speed_ray.storage.run import (
    CANDIDATES,
    DRAFTS,
    EXAMPLES,
    FLUENCY,
    OWN_REVISIONS,
    PROPOSED_TASKS,
    REFERENCE_FLUENCY,
    RELEVANCE,
    REVISED_EXAMPLES,
    REVISIONS,
    REWRITTEN_EXAMPLES,
    VERDICTS,
    Run,
    sample_folders,
)
from speed_ray.storage.shards import Artifact
from speed_ray.storage.spending import Spending, Usage

if TYPE_CHECKING:
    from speed_ray.engines.budget import Ledger

ARTIFACTS_OF = {
    "teacher": (PROPOSED_TASKS, DRAFTS, VERDICTS, REVISIONS, RELEVANCE),
    "generator": (
        *(CANDIDATES, OWN_REVISIONS, EXAMPLES, REWRITTEN_EXAMPLES, REVISED_EXAMPLES, FLUENCY, REFERENCE_FLUENCY),
    ),
}


def open_ledger(run: Run, config: EngineConfig, role: str) -> "Ledger | None":
    """Open this process's ledger for a role ("teacher"), as storage has it now; None where calls cost nothing.

    A sample is paid for from the budget of the run that it is to plan.
    """
    if not isinstance(config, OpenAIEngine):
        return None
    from speed_ray.engines.budget import Ledger
    from speed_ray.storage.holder import Holder

    payer = run.payer
    return Ledger(config.budget, config.price, spending_of(payer, role), Holder(payer.store), role)


def spending_of(run: Run, role: str) -> Spending:
    """Open the balance of a role's calls. It begins with the usage of a run of a version that had no balances."""
    return Spending(run.store, role, before=lambda: usage_of(run, role))


def usage_of(run: Run, role: str) -> Usage:
    """Add up the calls and tokens of the replies that count, in every artifact that a role answers for.

    Replies that a killed drive left in journals count: the next attempt uses them. What was charged is more by the
    calls whose answers were lost: see `spending_of`.
    """
    return sum(usage_by_artifact(run, role).values(), Usage())


def usage_by_artifact(run: Run, role: str) -> dict[str, Usage]:
    """Add up the calls and tokens of each artifact of a role, including those not begun; samples count as well."""
    samples = sample_folders(run.store)
    return {
        name: sum((_of(Artifact(run.store, f"{folder}/{name}")) for folder in samples), _of(run.artifact(name)))
        for name in ARTIFACTS_OF[role]
    }


def usage_of_all(run: Run) -> dict[str, Usage]:
    """Add up the calls and tokens of each artifact that a model is asked for, of every role."""
    return {name: usage for role in ARTIFACTS_OF for name, usage in usage_by_artifact(run, role).items()}


def _of(artifact: Artifact) -> Usage:
    plan = artifact.plan()
    if plan is None:
        return Usage()
    committed = [commit.counts for commit in artifact.commits()]
    journalled = [reply for shard, _ in artifact.pending(plan) for reply in replay(artifact, shard).values()]
    return Usage(
        calls=sum(counts.calls for counts in committed) + len(journalled),
        prompt_tokens=sum(counts.prompt_tokens for counts in committed) + sum(r.prompt_tokens for r in journalled),
        output_tokens=sum(counts.output_tokens for counts in committed)
        + sum(sample.output_tokens for reply in journalled for sample in reply.samples),
    )
