"""Write examples as a BEIR folder: corpus.jsonl, queries.jsonl, and qrels of rows to train on and of held-out ones.

The held-out rows are qrels/test.tsv, so that the folder can be named in `evaluate.retrieval`.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from speed_ray.curation.kind_sides import answers_are_passages
from speed_ray.export.corpus_file import CorpusFile
from speed_ray.export.source import Source, positives_of
from speed_ray.export.table import ExportedTable, JsonLines
from speed_ray.records import HELD_OUT, TRAIN

QRELS = {TRAIN: "train", HELD_OUT: "test"}


def write_beir(source: Source, folder: Path) -> list[ExportedTable]:
    """Write the folder; a row whose positive is a label or a likeness is no query that a document answers."""
    corpus, queries = (ExportedTable(name, f"{name}.jsonl") for name in ("corpus", "queries"))
    qrels = ExportedTable("qrels", "qrels/{split}.tsv", loads=False)
    with JsonLines(folder, corpus) as documents, JsonLines(folder, queries) as asked, ExitStack() as opened:
        texts = CorpusFile(lambda name, _, document: documents.add("corpus", {"_id": name, **document}))
        texts.add_passages(source)
        judged: dict[str, TextIO] = {}
        for row in (row for rows in source.shards() for row in rows):
            if not answers_are_passages(row["kind"]):
                qrels.left_out[f"{row['kind']}, which no document answers"] += 1
                continue
            split = QRELS[row.get("split", TRAIN)]
            if split not in judged:
                path = folder / qrels.pattern.format(split=split)
                path.parent.mkdir(exist_ok=True)
                judged[split] = opened.enter_context(path.open("w", encoding="utf-8", newline="\n"))
                judged[split].write("query-id\tcorpus-id\tscore\n")
            about = {"kind": row["kind"], "language": row["language"], "instruction": row["instruction"]}
            asked.add("queries", {"_id": row["id"], "text": row["query"], "metadata": about})
            for positive in positives_of(row):
                judged[split].write(f"{row['id']}\t{texts.add(positive)}\t1\n")
            qrels.rows[split] += 1
            for negative in row["negatives"]:
                texts.add(negative)
    return [corpus, queries, qrels]
