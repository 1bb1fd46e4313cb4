"""Write rows of one artifact as JSON lines, as they are."""

from pathlib import Path

from speed_ray.export.source import Source, tables_by_split
from speed_ray.export.table import ExportedTable, JsonLines
from speed_ray.records import TRAIN


def write_json_lines(source: Source, folder: Path) -> list[ExportedTable]:
    """Write each artifact of the source into a file a split, with all of its columns."""
    written = []
    for artifact in source.artifacts:
        table = ExportedTable(artifact.name, f"{artifact.name}.{{split}}.jsonl")
        with JsonLines(folder, table) as files:
            for split, rows in tables_by_split(artifact, TRAIN):
                for row in rows.to_pylist():
                    files.add(split, row)
        written.append(table)
    return written
