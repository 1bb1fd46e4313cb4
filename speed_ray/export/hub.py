"""Write a run's artifacts as the Hugging Face hub holds data sets: a config each, Parquet by split."""

from pathlib import Path

from speed_ray.export.source import Source, tables_by_split
from speed_ray.export.table import ExportedTable, ParquetSplits
from speed_ray.records import TRAIN

# The only split of an artifact that examples were chosen from: rows to train on and held-out ones lie in it together.
UNSPLIT = "unsplit"


def write_hub(source: Source, folder: Path) -> list[ExportedTable]:
    """Write every artifact of the source as a table of its name, that of the examples first."""
    first = source.examples or source.artifacts[0]
    written = []
    for artifact in sorted(source.artifacts, key=lambda each: each.name != first.name):
        table = ExportedTable(artifact.name, f"data/{artifact.name}/{{split}}-*.parquet")
        with ParquetSplits(folder, table) as files:
            for split, rows in tables_by_split(artifact, TRAIN if artifact.name == first.name else UNSPLIT):
                files.add(split, rows)
        written.append(table)
    return written
