"""A run watched: its status again and again, with rates, and what its engines and trainings are at."""

import time
from collections.abc import Iterator
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

from speed_ray.console import status
from speed_ray.storage.run import Run

EVERY = 5.0  # seconds


def watch_status(run: Run, console: Console) -> None:
    """Show a run until Ctrl-C: in place on a terminal; elsewhere one block after another, each that says more."""
    looks = _looks(run)
    if not console.is_terminal:
        said = ""
        for look in looks:
            _, _, told = look.partition("\n")  # past the time
            if told != said:
                console.print(look, markup=False, highlight=False, soft_wrap=True)
            said = told
        return
    with Live(Text(), console=console, auto_refresh=False) as live:
        for look in looks:
            live.update(Text(look), refresh=True)


def _looks(run: Run) -> Iterator[str]:
    from speed_ray.on_ray import exported  # brings Ray, which a single look does without

    joined = exported.join()
    before: dict[str, int] = {}
    looked = time.monotonic()
    while True:
        done = {each.artifact: each.counts.accepted + each.counts.rejected for each in status.artifact_statuses(run)}
        seconds, looked = time.monotonic() - looked, time.monotonic()
        grown = {name: count - before.get(name, count) for name, count in done.items()}
        rates = [f"{name}: {rows / seconds:,.1f} rows/s" for name, rows in grown.items() if rows]
        live = exported.lines(exported.sums(run.store.uri, exported.pages())) if joined else []
        hint = [] if joined else ["(set RAY_ADDRESS to the run's cluster to see its engines and trainings too)"]
        yield "\n".join([f"{datetime.now():%H:%M:%S}", *status.status_lines(run), *rates, *live, *hint])
        before = done
        time.sleep(EVERY)
