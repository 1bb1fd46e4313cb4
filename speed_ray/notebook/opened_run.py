"""Open a run for a notebook: its rows as tables and data sets, and a short picture of where it stands."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from speed_ray.console.status import ArtifactStatus, artifact_statuses
from speed_ray.errors import UserError, nearest
from speed_ray.notebook.shown_report import ShownReport
from speed_ray.records import Row
from speed_ray.storage import run
from speed_ray.storage.run import ARTIFACTS, CURATED_EXAMPLES, EXAMPLES, PRODUCED_BY, REVISED_EXAMPLES, SCORED_EXAMPLES
from speed_ray.storage.shards import Artifact

if TYPE_CHECKING:
    from datasets import IterableDataset

FINISHED = (SCORED_EXAMPLES, CURATED_EXAMPLES, REVISED_EXAMPLES, EXAMPLES)  # the most worked on comes first
COLUMNS = ("artifact", "state", "planned", "accepted", "rejected", "records")


class Run(run.Run):
    """The folder of a run, on disk or in a bucket. Opening it touches nothing.

    >>> opened = Run("runs/first")
    >>> opened.table("tasks").num_rows
    8
    >>> sorted(opened.examples().column_names)[:3]
    ['id', 'instruction', 'kind']
    """

    def examples(self, artifact: str | None = None) -> "IterableDataset":
        """Stream examples as a data set, a shard at a time in memory: the most worked on of those that are published.

        Workers of a DataLoader share the shards. `.to_pandas()` and `.with_format("arrow")` are the library's own.

        >>> examples = Run("runs/first").examples("examples")
        >>> len(list(examples.take(2)))
        2
        """
        from datasets import Features, IterableDataset

        made = self._published(artifact)
        paths = [file.path for file in made.record_files().values()]
        features = Features.from_arrow_schema(made.read(paths[0]).schema)
        where = {"uri": self.uri, "artifact": made.name, "paths": paths}
        return IterableDataset.from_generator(_rows, features=features, gen_kwargs=where)

    def table(self, artifact: str | None = None) -> pa.Table:
        """Read all records of a published artifact into memory, as Arrow has them; by default those of `examples`.

        >>> frame = Run("runs/first").table("examples").to_pandas()
        >>> list(frame.columns)[:3]
        ['id', 'row_id', 'parent_id']
        """
        made = self._published(artifact)
        return pa.concat_tables(made.read(file.path) for file in made.record_files().values())

    def report(self, to: str | None = None) -> ShownReport:
        """Write the run's report as `speed-ray report` does, into the run or into the file `to`; a notebook shows it.

        >>> Run("runs/first").report("report.html").path
        'report.html'
        """
        from speed_ray.report.page import put_report, render_report

        html = render_report(self)
        return ShownReport(put_report(self, html, Path(to) if to else None), html)

    def _published(self, name: str | None) -> Artifact:
        """Return a published artifact with records. Raises UserError."""
        if name is not None and name not in ARTIFACTS:
            raise UserError(f"there is no artifact {name!r}{nearest(name, ARTIFACTS)}")
        self.recipe()  # says so, when the folder is no run
        named = [self.artifact(each) for each in ([name] if name else FINISHED)]
        made = next((each for each in named if each.manifest() is not None), None)
        if made is None:
            missing = name or EXAMPLES
            raise UserError(f"{self.uri} has no finished {missing} yet: run `speed-ray {PRODUCED_BY[missing]}` first.")
        if not made.record_files():
            raise UserError(f"{made.where} holds no record: every row was rejected. See `speed-ray show --rejects`.")
        return made

    def _repr_html_(self) -> str:
        """Show the run's artifacts as a table: what a notebook prints of it."""
        try:
            rows = [_row(standing) for standing in artifact_statuses(self)]
        except UserError as error:
            return f"<p>{escape(str(error))}</p>"
        head = "".join(f"<th>{column}</th>" for column in COLUMNS)
        return f"<p>{escape(self.uri)}</p><table><tr>{head}</tr>{''.join(rows)}</table>"


def _row(standing: ArtifactStatus) -> str:
    counts = standing.counts
    numbers = (standing.planned, counts.accepted, counts.rejected, counts.records)
    cells = (standing.artifact, standing.state, *(f"{number:,}" for number in numbers))
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _rows(uri: str, artifact: str, paths: list[str]) -> Iterator[Row]:
    """Yield the rows of some files; a worker process of a DataLoader opens the run for itself."""
    made = run.Run(uri).artifact(artifact)
    for path in paths:
        yield from made.read(path).to_pylist()
