"""What a job shows while it runs: a bar on a terminal, one plain line every 30 s in a job's log."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from speed_ray.recipe import EngineConfig, OpenAIEngine
from speed_ray.shards import Artifact, Counts, Plan

LINE_EVERY = 30.0  # seconds


class Progress:
    """Counts the shards of one artifact as they are committed; what earlier drives committed is counted in."""

    def __init__(self, artifact: Artifact, plan: Plan, engine: EngineConfig) -> None:
        self.artifact = artifact
        self.plan = plan
        self.price = engine.price if isinstance(engine, OpenAIEngine) else None
        before = list(artifact.commits())
        self.before = self.counts = sum((commit.counts for commit in before), Counts())
        self.begun = self.lined = time.monotonic()
        self.console = Console(stderr=True)
        self.live = Live(self._bar(), console=self.console, transient=True) if sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        else:
            self._line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()
        if error is None:  # what another driver committed meanwhile counts as well
            self.counts = sum((commit.counts for commit in self.artifact.commits()), Counts())
        self._line()

    def add(self, counts: Counts) -> None:
        """Take in one committed shard, or no news."""
        self.counts += counts
        if self.live:
            self.live.update(self._bar())
        elif time.monotonic() - self.lined >= LINE_EVERY:
            self._line()

    def _line(self) -> None:
        self.lined = time.monotonic()
        self.console.print(f"{self.artifact.name}: {self.text()}", markup=False, highlight=False, soft_wrap=True)

    def _bar(self) -> Table:
        table = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self.plan.rows, completed=self._done(), width=30)
        table.add_row(self.artifact.name, bar, self.text())
        return table

    def text(self) -> str:
        """One line: rows, reasons, speeds, spending, time left."""
        counts, done = self.counts, self._done()
        seconds = max(time.monotonic() - self.begun, 1e-9)
        speed = (done - self.before.accepted - self.before.rejected) / seconds
        tokens = (counts.output_tokens - self.before.output_tokens) / seconds
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.reasons.items(), key=lambda r: -r[1])[:4])
        parts = [
            f"{done:,} of {self.plan.rows:,} rows",
            f"accepted {counts.accepted:,}",
            f"rejected {counts.rejected:,}" + (f" ({reasons})" if reasons else ""),
            f"{speed:,.1f} rows/s",
            f"{tokens:,.0f} tokens/s",
            f"{counts.calls:,} calls",
        ]
        if self.price:
            parts.append(f"${cost(counts, self.price.input, self.price.output):,.2f}")
        if speed and done < self.plan.rows:
            parts.append(f"{_clock((self.plan.rows - done) / speed)} left")
        return " · ".join(parts)

    def _done(self) -> int:
        return self.counts.accepted + self.counts.rejected


def cost(counts: Counts, input_price: float, output_price: float) -> float:
    """Dollars, from dollars per million tokens."""
    return (counts.prompt_tokens * input_price + counts.output_tokens * output_price) / 1e6


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
