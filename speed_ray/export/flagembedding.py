"""Write examples as FlagEmbedding trains on them: JSON lines of query, pos, neg and prompt, a file a kind and split.

A batch of FlagEmbedding's is of one file, so that a kind's texts stand beside each other as in our own training. The
ending `_no_in_batch_neg` tells it that other rows' positives may answer a row too. It draws negatives for each row,
and fails where there is none: kinds without negatives lie in a folder of their own.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from speed_ray.export.source import Source, positives_of, scores_by
from speed_ray.export.table import ExportedTable, JsonLines
from speed_ray.recipes.training_settings import Embedder
from speed_ray.records import TRAIN

NO_IN_BATCH = "_no_in_batch_neg"


def write_flagembedding(source: Source, folder: Path) -> list[ExportedTable]:
    """Write the files, with a judge's scores where the examples have some."""
    embedder = source.recipe.embedder
    alone = embedder.no_in_batch_negatives if embedder else Embedder.model_fields["no_in_batch_negatives"].default
    tables: dict[str, ExportedTable] = {}
    files: dict[str, JsonLines] = {}
    with ExitStack() as opened:
        for row in (row for rows in source.shards() for row in rows):
            name = row["kind"] + (NO_IN_BATCH if row["kind"] in alone else "")
            name += "" if row["negatives"] else "_without_negatives"
            if name not in files:
                below = "{split}" if row["negatives"] else "{split}_without_negatives"
                tables[name] = ExportedTable(name, f"{below}/{name.removesuffix('_without_negatives')}.jsonl")
                files[name] = opened.enter_context(JsonLines(folder, tables[name]))
            files[name].add(row.get("split", TRAIN), _record(row, source.judge))
    return sorted(tables.values(), key=lambda table: (-table.rows.total(), table.name))


def _record(row: dict[str, Any], judge: str | None) -> dict[str, Any]:
    texts = {"query": row["query"], "pos": positives_of(row), "neg": row["negatives"], "prompt": row["instruction"]}
    scores = scores_by(judge, row["scores"]) if judge else None
    if scores is None:
        return texts
    of_positives = [scores["positive"], *scores["further_positives"]]
    return texts | {"pos_scores": of_positives, "neg_scores": scores["negatives"]}
