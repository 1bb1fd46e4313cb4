"""Write examples as Tevatron trains on them: queries with the ids of their documents, and the corpus of these.

Tevatron draws negatives for each row, and fails where there is none: such rows are files of their own.
"""

from pathlib import Path

from speed_ray.export.corpus_file import CorpusFile
from speed_ray.export.source import Source, positives_of
from speed_ray.export.table import ExportedTable, JsonLines
from speed_ray.records import TRAIN, format_query


def write_tevatron(source: Source, folder: Path) -> list[ExportedTable]:
    """Write the files; a query has its instruction before it, as our embedder reads it."""
    corpus = ExportedTable("corpus", "corpus.jsonl")
    with_negatives = ExportedTable("queries", "{split}.jsonl")
    without = ExportedTable("queries_without_negatives", "{split}_without_negatives.jsonl")
    with (
        JsonLines(folder, corpus) as documents,
        JsonLines(folder, with_negatives) as queries,
        JsonLines(folder, without) as others,
    ):
        texts = CorpusFile(lambda name, text, _: documents.add("corpus", {"docid": name, "text": text}))
        texts.add_passages(source)
        for row in (row for rows in source.shards() for row in rows):
            asked = {"query_id": row["id"], "query_text": format_query(row["instruction"], row["query"])}
            answers = {
                "positive_document_ids": list(map(texts.add, positives_of(row))),
                "negative_document_ids": list(map(texts.add, row["negatives"])),
            }
            (queries if row["negatives"] else others).add(row.get("split", TRAIN), asked | answers)
    return [table for table in (with_negatives, without, corpus) if table.rows]
