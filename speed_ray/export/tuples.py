"""Write examples as sentence-transformers trains on them: an anchor, its positive and its negatives, a column each.

Rows of one table must have the same columns, so those with as many negatives are one table: `pairs`, `triplets`,
`negatives_2` and so on. The trainer takes a dictionary of such data sets. Of several positives the first is written:
an anchor that stands in two rows would be its own false negative in a batch.
"""

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from speed_ray.export.source import Source, scores_by
from speed_ray.export.table import ExportedTable, ParquetSplits
from speed_ray.records import TRAIN, format_query

FEW = {0: "pairs", 1: "triplets"}


def write_tuples(source: Source, folder: Path) -> list[ExportedTable]:
    """Write the tables, the one with the most rows first; an anchor is the query with its instruction."""
    tables: dict[int, ExportedTable] = {}
    files: dict[int, ParquetSplits] = {}
    with ExitStack() as opened:
        for rows in source.shards():
            grouped: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
            for row in rows:
                grouped[len(row["negatives"]), row.get("split", TRAIN)].append(_tuple(row, source.judge))
            for (count, split), of_group in grouped.items():
                if count not in files:
                    name = FEW.get(count, f"negatives_{count}")
                    tables[count] = ExportedTable(name, f"data/{name}/{{split}}-*.parquet")
                    files[count] = opened.enter_context(ParquetSplits(folder, tables[count]))
                schema = _schema(count, source.judge is not None)
                files[count].add(split, pa.Table.from_pylist(of_group, schema=schema))
    return sorted(tables.values(), key=lambda table: (-table.rows.total(), table.name))


def _names(count: int) -> list[str]:
    return ["negative"] if count == 1 else [f"negative_{number}" for number in range(1, count + 1)]


def _schema(count: int, scored: bool) -> pa.Schema:
    texts = [(name, pa.string()) for name in ("anchor", "positive", *_names(count))]
    return pa.schema([*texts, ("scores", pa.list_(pa.float64()))] if scored else texts)


def _tuple(row: dict[str, Any], judge: str | None) -> dict[str, Any]:
    anchor = format_query(row["instruction"], row["query"])
    negatives = dict(zip(_names(len(row["negatives"])), row["negatives"], strict=True))
    texts = {"anchor": anchor, "positive": row["positive"], **negatives}
    if judge is None:
        return texts
    scores = scores_by(judge, row["scores"])
    return texts | {"scores": [scores["positive"], *scores["negatives"]] if scores else []}
