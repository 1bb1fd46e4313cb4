"""Report a run's status from storage alone, while it runs or after a crash."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from speed_ray.console.judge_report import judge_lines
from speed_ray.console.spending_report import spending_lines
from speed_ray.errors import UserError
from speed_ray.evaluation import datasets, parse_rate, position_bias, quality
from speed_ray.executor.usage import ARTIFACTS_OF, usage_by_artifact
from speed_ray.recipes.engine_settings import OpenAIEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.rounds import later_rounds, round_name
from speed_ray.storage.run import ARTIFACTS, PRODUCED_BY, PROPOSED_TASKS, REVISED_EXAMPLES, VERDICTS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact, Commit, Counts
from speed_ray.storage.spending import Spending, Usage
from speed_ray.storage.store import read_if_exists
from speed_ray.storage.trained_models import EMBEDDER, TUNED, Model
from speed_ray.text.durations import spell_seconds
from speed_ray.training.model_card import describe_choice

if TYPE_CHECKING:
    from rich.console import Console

# What GPT-4o was asked for 25K drafts, 10K judgements, 10K revisions, brainstorming not counted (SPEED, section 4.5).
PAPERS_CALLS, PAPERS_TOKENS = 45_000, 32_000_000

WATCH_SECONDS = 5.0
MODELS = [name for name in PRODUCED_BY if name not in ARTIFACTS]


@dataclass(frozen=True)
class ArtifactStatus:
    """One artifact: how much of it there is, and when the last of that came."""

    artifact: str
    planned: int
    shards: int
    committed: int
    counts: Counts
    published: bool
    idle: float | None  # seconds since the last commit, by the committing machine's clock
    asks: bool  # a model

    @property
    def state(self) -> str:
        """Return "published", "planned" (nothing committed yet) or the time since the last commit."""
        if self.published:
            return "published"
        if self.idle is None:
            return "planned"
        return f"last commit {spell_seconds(self.idle)} ago"


def artifact_statuses(run: Run) -> list[ArtifactStatus]:
    """List the artifacts that were begun. Raises UserError where there is none."""
    found = [_standing(run.artifact(name)) for name in ARTIFACTS]
    begun = [standing for standing in found if standing]
    if not begun:
        run.recipe()  # says so, when the folder is no run at all
        raise UserError(f"{run.uri} was begun, but nothing is planned in it yet. Run its job again.")
    return begun


def _standing(artifact: Artifact) -> ArtifactStatus | None:
    plan = artifact.plan()
    if plan is None:
        return None
    return standing_of(artifact, plan, list(artifact.commits()))


def standing_of(artifact: Artifact, plan: Plan, commits: Sequence[Commit]) -> ArtifactStatus:
    """Add up what is committed of an artifact."""
    return ArtifactStatus(
        artifact=artifact.name,
        planned=plan.rows,
        shards=plan.shards,
        committed=len(commits),
        counts=sum((commit.counts for commit in commits), Counts()),
        published=artifact.manifest() is not None,
        idle=max(0.0, time.time() - max(commit.finished for commit in commits)) if commits else None,
        asks="engine" in plan.identity,
    )


def status_lines(run: Run) -> list[str]:
    """One line an artifact, below it what its records are and why rows were rejected; then models, scores, calls."""
    recipe = run.recipe()
    found = []
    for standing in artifact_statuses(run):
        artifact = run.artifact(standing.artifact)
        found += [_line(recipe, standing), *breakdown(standing), *measured(artifact, standing)]
    spent = usage_by_artifact(run, "teacher")
    # Without a balance the run was charged what counts, which is added up already: it reads every commit.
    charged = Spending(run.store, "teacher", before=lambda: sum(spent.values(), Usage())).balance().charged
    return [
        *found,
        *_trained(run),
        *(f"later_rounds/{number}: {line}" for number, later in later_rounds(run) for line in _trained(later)),
        *score_lines(run),
        *_teacher(recipe, spent, charged),
        *spending_lines(run, recipe),
    ]


def measured(artifact: Artifact, standing: ArtifactStatus) -> list[str]:
    """Lines that say what an artifact's rows tell of who wrote and judged them."""
    places = _places(artifact) if standing.asks else []
    return [*_parsed(artifact), *places, *_kept(artifact), *judge_lines(artifact)]


def watch_status(run: Run, console: "Console") -> None:
    """Show a run's status every 5 s until interrupted: in place on a terminal, elsewhere a block for each change."""
    if not console.is_terminal:
        shown = ""
        for report in _reports(run):
            _, _, status = report.partition("\n")  # without the time of day
            if status != shown:
                console.print(report, markup=False, highlight=False, soft_wrap=True)
            shown = status
        return
    from rich.live import Live
    from rich.text import Text

    with Live(Text(), console=console, auto_refresh=False) as live:
        for report in _reports(run):
            live.update(Text(report), refresh=True)


def _reports(run: Run) -> Iterator[str]:
    """Yield the time, the status, and each artifact's rows a second since the report before, every 5 s."""
    before: dict[str, int] = {}
    then = time.monotonic()
    while True:
        done = {each.artifact: each.counts.accepted + each.counts.rejected for each in artifact_statuses(run)}
        seconds, then = time.monotonic() - then, time.monotonic()
        grown = {name: count - before.get(name, count) for name, count in done.items()}
        rates = [f"{name}: {rows / seconds:,.1f} rows/s" for name, rows in grown.items() if rows]
        yield "\n".join([f"{datetime.now():%H:%M:%S}", *status_lines(run), *rates])
        before = done
        time.sleep(WATCH_SECONDS)


def _line(recipe: Recipe, standing: ArtifactStatus) -> str:
    counts = standing.counts
    parts = [
        f"{standing.artifact}: {standing.state}",
        f"{standing.committed:,} of {standing.shards:,} shards",
        f"{standing.planned:,} rows planned, {counts.accepted:,} accepted, {counts.rejected:,} rejected",
        f"{counts.records:,} records",
    ]
    if counts.calls:
        parts.append(f"{counts.calls:,} calls, {counts.prompt_tokens:,} + {counts.output_tokens:,} tokens")
    if counts.cached_tokens:
        parts.append(f"{counts.prefix_hits:.0%} of the prompts' tokens shared")
    if recipe.reuse and standing.asks:
        asked = counts.calls - counts.retries
        parts.append(f"{counts.accepted + counts.rejected - asked:,} rows without a call, by {recipe.reuse}")
    if (dollars := dollars_of(recipe, standing)) is not None:
        parts.append(f"${dollars:,.2f}")
    return " · ".join(parts)


def breakdown(standing: ArtifactStatus) -> list[str]:
    """Lines that say what the records are and why rows were rejected."""
    kinds, reasons = standing.counts.kinds, standing.counts.reasons
    lines = [f"  {kind}: {count:,}" for kind, count in sorted(kinds.items())]
    lines += [f"  rejected, {reason}: {count:,}" for reason, count in sorted(reasons.items(), key=lambda r: -r[1])]
    return lines + _mined(standing.counts.mined)


def _mined(counted: dict[str, int]) -> list[str]:
    """Lines that say how many negatives each retriever gave, what rules refused, and which rows have too few."""
    lines = [f"  {said}: {count:,}" for said, count in counted.items() if said.startswith("without")]
    for name in (key.removesuffix(": wanted") for key in sorted(counted) if key.endswith(": wanted")):
        each = {key.removeprefix(f"{name}: "): count for key, count in counted.items() if key.startswith(f"{name}: ")}
        wanted, filled, spared = (each.pop(key, 0) for key in ("wanted", "filled", "skip_nearest"))
        refused = " · ".join(f"{rule} {count:,}" for rule, count in sorted(each.items(), key=lambda rule: -rule[1]))
        lines.append(
            f"  negatives by {name}: {filled:,} of {wanted:,}; spared {spared:,}; refused: {refused or 'none'}"
        )
    if "rows" in counted:
        lines.append(f"  fewer negatives than wanted: {counted.get('rows: short', 0):,} of {counted['rows']:,} rows")
    return lines


def _parsed(artifact: Artifact) -> list[str]:
    """Lines that say what share of each model's raw replies has the form of an example."""
    if artifact.name not in parse_rate.WITH_EXAMPLES:
        return []
    return [
        f"  {each.model}: {each.parsed / each.replies:.1%} of {each.replies:,} raw replies parsed"
        + (", held to a JSON schema: this says nothing about the model" if each.held_to_schema else "")
        for each in parse_rate.measure_parse_rate(artifact)
    ]


def _places(artifact: Artifact) -> list[str]:
    """Lines that say whether a judge looks at the place where it is shown a candidate."""
    found = position_bias.count_positions(artifact) if artifact.name == VERDICTS else None
    if found is None:
        return []
    shares = " ".join(f"{place}: {share:.0%}" for place, share in enumerate(found.shares, 1))
    lines = [f"  best by place shown: {shares} · position bias {found.bias:.2f} of 1"]
    if found.is_biased:
        lines.append(
            f"  WARNING: the judge prefers place {found.favourite}, whatever is there: its verdicts teach little.\n"
            "  Take another teacher or word its prompt otherwise (prompts/judge.jinja), in another --run folder."
        )
    return lines


def _kept(artifact: Artifact) -> list[str]:
    """Lines that say how many examples their revisor bettered, and why the others stayed as they were."""
    if artifact.name != REVISED_EXAMPLES:
        return []
    reasons = quality.count_kept_reasons(artifact)
    revised, others = reasons.pop("", 0), reasons.total()
    lines = [f"  revised: {revised:,} of the first {revised + others:,}"] if revised + others else []
    return lines + [f"  kept as it was, {reason}: {count:,}" for reason, count in reasons.most_common()]


def _trained(run: Run) -> list[str]:
    """Lines that say what was trained, and how far what is in training has come."""
    found = []
    for model in (Model(run, name) for name in MODELS):
        manifest = model.manifest()
        logged = read_if_exists(run.store, f"{model.path}/metrics.jsonl")
        step = _last_step(logged or b"")
        if manifest is not None:
            found.append(f"{model.name}: trained{step} · models/{model.name}/{manifest['weights']}")
            found += trained_rows(manifest)
            found += [f"  {line}" for line in describe_choice(manifest["facts"])]
        elif logged is not None or read_if_exists(run.store, f"{model.path}/plan.json") is not None:
            found.append(f"{model.name}: in training{step}, as stored with its last checkpoint")
    return found


def trained_rows(manifest: dict[str, Any]) -> list[str]:
    """Lines that say how many rows of each kind a model was trained on, and how many it was not, by kind or reason."""
    rows = manifest["facts"].get("rows", {})
    left_out = {name.partition("/")[2]: count for name, count in rows.items() if name.startswith("left_out/")}
    counted = {"rows trained on, each once an epoch": rows.get("trained", {}), "left out": left_out}
    return [
        f"  {said}: " + " · ".join(f"{name} {count:,}" for name, count in counts.items())
        for said, counts in counted.items()
        if counts
    ]


def _last_step(logged: bytes) -> str:
    """Return the step of the last line of a training's metrics, "" where there is none or it is damaged."""
    try:
        return f" · step {json.loads(logged.splitlines()[-1])['step']:,}"
    except (IndexError, ValueError, KeyError, TypeError):
        return ""


def score_lines(run: Run) -> list[str]:
    """Lines that say how the models did on each evaluation set, and what was left out of it."""
    lines: dict[tuple[str, ...], str] = {}
    faults: dict[tuple[str, ...], list[str]] = {}
    for model in scored_models(run):
        for result in published_results(run, model):
            task = result["kind"], result["name"], *result["sources"]
            score = result["scores"][datasets.MAIN_SCORES[result["kind"]]]
            lines[task] = lines.get(task, f"evaluation, {result['name']}:") + f" {model} {score:.4f}"
            faults[task] = datasets.describe_faults(result.get("facts", {}))
    return [line for task in lines for line in (lines[task], *(f"  {fault}" for fault in faults[task]))]


def scored_models(run: Run) -> list[str]:
    """List the models that an evaluation may have scored, as evaluation/results.py, which loads scikit-learn, does."""
    return ["base", TUNED, EMBEDDER, *(round_name(number) for number, _ in later_rounds(run)), "bm25"]


def published_results(run: Run, model: str) -> list[Any]:
    """Read a model's results on all sets; none before there are any."""
    try:
        return list(json.loads(read_if_exists(run.store, f"evaluation/{model}.json") or b'{"results": []}')["results"])
    except ValueError:
        return []  # damaged: the next evaluation writes it anew


def _teacher(recipe: Recipe, spent: dict[str, Usage], charged: Usage) -> list[str]:
    """Lines that say what the teacher was asked for, stage by stage, and against the paper."""
    asked = {name: each for name, each in spent.items() if each.calls}
    if not asked:
        return []
    price = recipe.teacher.price if isinstance(recipe.teacher, OpenAIEngine) else None
    total = sum(asked.values(), Usage())
    lines = [f"teacher ({recipe.teacher.model}):"]
    rows = {**asked, "in all": total}
    if charged.calls > total.calls:  # calls whose answers were lost, or that a killed worker had reserved
        rows["charged"] = charged
    for name, each in rows.items():
        line = f"  {name:<15}{each.calls:>9,} calls {each.prompt_tokens:>13,} + {each.output_tokens:>11,} tokens"
        lines.append(line + (f" {'$' + format(each.dollars(price), ',.2f'):>11}" if price else ""))
    counted = total - asked.get(PROPOSED_TASKS, Usage())
    tokens = counted.prompt_tokens + counted.output_tokens
    shares = f"{counted.calls / PAPERS_CALLS:.1%} of its 45K calls, {tokens / PAPERS_TOKENS:.1%} of its 32M tokens"
    return [*lines, f"  against the paper, which leaves brainstorming out: {shares}"]


def dollars_of(recipe: Recipe, standing: ArtifactStatus) -> float | None:
    """Return what the calls that count cost; None where the recipe names no price."""
    for role, artifacts in ARTIFACTS_OF.items():
        engine = getattr(recipe, role)
        if standing.artifact in artifacts and isinstance(engine, OpenAIEngine) and engine.price:
            return Usage(0, standing.counts.prompt_tokens, standing.counts.output_tokens).dollars(engine.price)
    return None
