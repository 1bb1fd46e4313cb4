"""Show how a job comes on: in place on a terminal, as plain lines every 30 s in a job's log."""

import sys
import time
from abc import ABC, abstractmethod
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from speed_ray.recipes.engine_settings import EngineConfig, OpenAIEngine
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact, Counts
from speed_ray.storage.spending import Usage
from speed_ray.text.terminal import sanitize

LINE_SECONDS = 30.0


class Progress(ABC):
    """Shows `lines` from its entry on, whenever it is updated, and at its end."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, transient=True) if sys.stderr.isatty() else None
        self._printed = -LINE_SECONDS

    @abstractmethod
    def lines(self) -> list[str]:
        """Return the present state in plain text."""

    def render(self) -> RenderableType:
        """Return the present state as a terminal shows it."""
        return Text("\n".join(self.lines()))

    def update(self) -> None:
        """Show the present state, in a log no more often than every 30 s."""
        if self._live:
            self._live.update(self.render())
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self.print()

    def print(self, *lines: str | Text) -> None:
        """Print lines, by default the present state, above what is shown in place."""
        if not lines:
            self._printed = time.monotonic()
        for line in lines or self.lines():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        self.update()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._live:
            self._live.stop()
        self.print()


class StagesProgress(Progress):
    """Shows the progress of artifacts that are made together."""

    def __init__(self, made: list[tuple[Artifact, Plan, EngineConfig]]) -> None:
        super().__init__()
        self._stages = {artifact.name: StageProgress(artifact, plan, engine) for artifact, plan, engine in made}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for stage in self._stages.values():
                stage.recount()  # what another driver committed meanwhile counts as well
        super().__exit__(kind)

    def add(self, counts: dict[str, Counts]) -> None:
        """Add committed shards by artifact, or nothing."""
        for name, more in counts.items():
            self._stages[name].add(more)
        self.update()

    def warn(self, warnings: list[str]) -> None:
        """Print warnings of engines, which may quote a stranger's text."""
        for warning in warnings:
            self.print(sanitize(warning))

    def lines(self) -> list[str]:
        """Return a line for each artifact."""
        return [f"{name}: {stage.text()}" for name, stage in self._stages.items()]

    def render(self) -> Table:
        """Return a bar for each artifact."""
        table = Table.grid(padding=(0, 1))
        for name, stage in self._stages.items():
            table.add_row(name, ProgressBar(total=stage.plan.rows, completed=stage.done, width=30), stage.text())
        return table


class StageProgress:
    """Counts the shards of one artifact as they are committed; those of earlier drives are counted in."""

    def __init__(self, artifact: Artifact, plan: Plan, engine: EngineConfig) -> None:
        self.artifact = artifact
        self.plan = plan
        self._at_endpoint = isinstance(engine, OpenAIEngine)
        self._price = engine.price if isinstance(engine, OpenAIEngine) else None
        self._begun = time.monotonic()
        self._before = self.recount()

    def recount(self) -> Counts:
        """Recount the committed shards' rows from storage, replace the running counts by them and return them."""
        committed = [commit.counts for commit in self.artifact.commits()]
        self.shards, self.counts = len(committed), sum(committed, Counts())
        return self.counts

    def add(self, more: Counts) -> None:
        """Add one committed shard."""
        self.shards += 1
        self.counts += more

    @property
    def done(self) -> int:
        """Rows that were accepted or rejected."""
        return self.counts.accepted + self.counts.rejected

    def text(self) -> str:
        """Return one line: rows, reasons, speeds, cost, time left."""
        counts, done = self.counts, self.done
        seconds = max(time.monotonic() - self._begun, 1e-9)
        speed = (done - self._before.accepted - self._before.rejected) / seconds
        tokens = (counts.output_tokens - self._before.output_tokens) / seconds
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.reasons.items(), key=lambda r: -r[1])[:4])
        parts = [
            f"{self.shards:,} of {self.plan.shards:,} shards",
            f"{done:,} of {self.plan.rows:,} rows",
            f"accepted {counts.accepted:,}",
            f"rejected {counts.rejected:,}" + (f" ({reasons})" if reasons else ""),
            f"{speed:,.1f} rows/s",
            f"{tokens:,.0f} tokens/s",
            f"{counts.calls:,} calls",
        ]
        if counts.cached_tokens:
            parts.append(f"{counts.prefix_hits:.0%} of the prompts' tokens shared")
        if not speed and done < self.plan.rows:
            parts.append("no answers yet" if self._at_endpoint else "engines load, or work on their first shards")
        if self._price:
            parts.append(f"${Usage(0, counts.prompt_tokens, counts.output_tokens).dollars(self._price):,.2f}")
        if speed and done < self.plan.rows:
            parts.append(f"{_clock((self.plan.rows - done) / speed)} left")
        return " · ".join(parts)


class LineProgress(Progress):
    """Shows one line."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self._line = line

    def show(self, line: str) -> None:
        """Replace the line."""
        self._line = line
        self.update()

    def lines(self) -> list[str]:
        """Return the line."""
        return [self._line]


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
