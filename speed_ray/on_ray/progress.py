"""What a job shows while it runs: a bar on a terminal, one plain line every 30 s in a job's log."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from speed_ray.recipes.schema import EngineConfig, OpenAIEngine
from speed_ray.storage.shards import Artifact, Counts, Plan
from speed_ray.text.terminal import sanitize

LINE_EVERY = 30.0  # seconds


class Progress:
    """Shows how artifacts that are made together come on."""

    def __init__(self, made: list[tuple[Artifact, Plan, EngineConfig]]) -> None:
        self.tallies = {artifact.name: StageProgress(artifact, plan, engine) for artifact, plan, engine in made}
        self.lined = time.monotonic()
        self.console = Console(stderr=True)
        self.live = Live(self._bars(), console=self.console, transient=True) if sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        else:
            self._lines()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()
        if error is None:  # what another driver committed meanwhile counts as well
            for tally in self.tallies.values():
                tally.count()
        self._lines()

    def add(self, counts: dict[str, Counts]) -> None:
        """Take in committed shards by artifact, or no news."""
        for name, more in counts.items():
            self.tallies[name].add(more)
        if self.live:
            self.live.update(self._bars())
        elif time.monotonic() - self.lined >= LINE_EVERY:
            self._lines()

    def say(self, words: list[str]) -> None:
        """Print what engines have to say, which may quote a stranger."""
        for each in words:
            self.console.print(sanitize(each), soft_wrap=True)

    def _lines(self) -> None:
        self.lined = time.monotonic()
        for name, tally in self.tallies.items():
            self.console.print(f"{name}: {tally.text()}", markup=False, highlight=False, soft_wrap=True)

    def _bars(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for name, tally in self.tallies.items():
            bar = ProgressBar(total=tally.plan.rows, completed=tally.done, width=30)
            table.add_row(name, bar, tally.text())
        return table


class StageProgress:
    """Counts the shards of one artifact as they are committed; what earlier drives committed is counted in."""

    def __init__(self, artifact: Artifact, plan: Plan, engine: EngineConfig) -> None:
        self.artifact = artifact
        self.plan = plan
        self.at_endpoint = isinstance(engine, OpenAIEngine)
        self.price = engine.price if isinstance(engine, OpenAIEngine) else None
        self.begun = time.monotonic()
        self.before = self.count()

    def count(self) -> Counts:
        """Count anew what is committed."""
        committed = [commit.counts for commit in self.artifact.commits()]
        self.shards, self.counts = len(committed), sum(committed, Counts())
        return self.counts

    def add(self, more: Counts) -> None:
        """Take in one committed shard."""
        self.shards += 1
        self.counts += more

    def text(self) -> str:
        """One line: rows, reasons, speeds, spending, time left."""
        counts, done = self.counts, self.done
        seconds = max(time.monotonic() - self.begun, 1e-9)
        speed = (done - self.before.accepted - self.before.rejected) / seconds
        tokens = (counts.output_tokens - self.before.output_tokens) / seconds
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
        if not speed and done < self.plan.rows:
            parts.append("no answers yet" if self.at_endpoint else "engines load, or work on their first shards")
        if self.price:
            parts.append(f"${format_cost(counts, self.price.input, self.price.output):,.2f}")
        if speed and done < self.plan.rows:
            parts.append(f"{_clock((self.plan.rows - done) / speed)} left")
        return " · ".join(parts)

    @property
    def done(self) -> int:
        """Rows that came to their end."""
        return self.counts.accepted + self.counts.rejected


def format_cost(counts: Counts, input_price: float, output_price: float) -> float:
    """Dollars, from dollars per million tokens."""
    return (counts.prompt_tokens * input_price + counts.output_tokens * output_price) / 1e6


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
