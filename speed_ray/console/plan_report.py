"""Format what a recipe is to take: a table of its stages, sums, and what of it is a guess."""

import math
from collections.abc import Iterator

from speed_ray.planning.run_plan import RunPlan, StagePlan
from speed_ray.planning.stage_price import Interval

COLUMNS = (
    "stage",
    "rows",
    "calls",
    "retries",
    "prompt tokens",
    "output tokens",
    "up to",
    "$",
    "GPU-hours",
    "hours",
    "shards",
)


def plan_table(plan: RunPlan) -> list[str]:
    """Return the stages as lines of a table of whatever width, with their sums."""
    stages = plan.stages
    sums = [
        "in all",
        "",
        f"{sum(stage.calls for stage in stages):,}",
        f"{sum(stage.retries for stage in stages):,}",
        f"{sum(stage.prompt_tokens for stage in stages):,}",
        f"{sum(stage.output_tokens.expected for stage in stages):,.0f}",
        "",
        f"{plan.dollars.expected:,.2f}",
        f"{plan.gpu_hours:,.2f}",
        f"{plan.hours:,.2f}",
        f"{sum(stage.storage.shards for stage in stages):,}",
    ]
    rows = [list(COLUMNS), *map(_cells, stages), sums]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_aligned(row, widths) for row in rows]


def plan_lines(plan: RunPlan) -> Iterator[str]:
    """Yield what is to be said beside the table."""
    if plan.sampled:
        yield f"told by {plan.sampled} real rows of each kind, which a run takes over and does not pay again"
    elif any(stage.replies == "guessed" for stage in plan.stages):
        yield "replies are GUESSED: half as much or twice as much is possible. --sample 32 asks 32 rows of each kind"
    if plan.dollars.high:
        yield f"${plan.dollars.expected:,.2f} in all, {plan.dollars.low:,.2f} to {plan.dollars.high:,.2f}"
    for stage in plan.stages:
        yield f"{stage.stage} ({stage.model}): replies {stage.replies}; prompts {stage.prompts}; pace: {stage.pace}"
    unknown = [stage.stage for stage in plan.stages if stage.hours is None]
    if unknown:
        yield f"hours are without {', '.join(unknown)}, of which no pace is known"
    requests, stored = (sum(getattr(s.storage, name) for s in plan.stages) for name in ("requests", "bytes"))
    memory = max((stage.storage.driver_bytes for stage in plan.stages), default=0)
    yield f"store: {requests:,} requests, {stored / 1e6:,.1f} MB; driver: {memory / 1e6:,.0f} MB of memory"
    yield f"{_duration(plan.hours)}, one stage after another; trainings, curation and evaluation are not in it"
    yield from plan.notes


def _cells(stage: StagePlan) -> list[str]:
    output = stage.output_tokens
    return [
        stage.stage,
        f"{stage.rows:,}",
        f"{stage.calls:,}",
        f"{stage.retries:,}",
        f"{stage.prompt_tokens:,}",
        f"{output.expected:,.0f}",
        _spread(output),
        "" if stage.dollars is None else f"{stage.dollars.expected:,.2f}",
        "" if not stage.gpu_hours else f"{stage.gpu_hours:,.2f}",
        "?" if stage.hours is None else f"{stage.hours:,.2f}",
        f"{stage.storage.shards:,}",
    ]


def _aligned(row: list[str], widths: list[int]) -> str:
    name, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([name.strip().ljust(widths[0]), *numbers])


def _spread(interval: Interval) -> str:
    """Return by which share of the expected number the upper bound lies above it."""
    return f"{interval.high / interval.expected - 1:+.0%}" if interval.high > interval.expected else ""


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{math.ceil(hours * 60)} minutes"
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
