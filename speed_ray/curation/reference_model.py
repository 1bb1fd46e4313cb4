"""Embed examples with a reference model: margins of positives over negatives, and vectors to compare rows by.

Any sentence-transformers folder will do. Texts are embedded with the folder's own prompts for queries and documents,
without the example's instruction: most reference models have never seen one. One process embeds, or Ray's workers do
where the recipe says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from speed_ray.engines import model_folder
from speed_ray.engines.embedder_folder import check_embedder_folder, load_embedder
from speed_ray.recipes.curate_settings import Curate
from speed_ray.records import Row
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Artifact
from speed_ray.text.rules import Broken

KEY = "curate.reference"  # of the recipe, for messages
COLUMNS = ["query", "positive", "negatives"]
BATCH = 64  # texts

Numbers = np.ndarray[Any, np.dtype[np.float32]]
Vectors = np.ndarray[Any, np.dtype[np.float16]]


@dataclass(frozen=True)
class EmbeddedRows:
    """Hold the margins and the vectors of some rows.

    margins   cos(query, positive) - cos(query, nearest negative); NaN without negatives. (rows,)
    vectors   of query and positive, of length 1. (rows, 2, width)
    """

    margins: Numbers
    vectors: Vectors


def reference_folder(name: str) -> str:
    """Return a reference model's local folder, downloaded if a run trained it, or its hub name.

    Raises UserError where it is neither a folder of sentence-transformers nor a hub name.
    """
    found = model_folder.ensure_model_folder(name, KEY)
    if found:
        check_embedder_folder(found, KEY)
    return str(found or name)


def reference_digest(name: str) -> str:
    """Return a digest of a reference's weights; a model of the hub is named. Raises as `reference_folder` does."""
    reference_folder(name)  # one that cannot embed is refused before the plan
    return model_folder.identify_model(name, KEY) or name


class ReferenceModel:
    """Embed rows with a loaded reference model."""

    def __init__(self, name: str) -> None:
        from transformers.utils import logging  # seconds, which a set without a reference need not wait

        logging.disable_progress_bar()
        self.model = load_embedder(name, KEY, model_kwargs={"use_safetensors": True})

    def embed_rows(self, rows: Sequence[Row]) -> EmbeddedRows:
        """Embed some rows and compute their margins. Each text is embedded once, however often it occurs."""
        queries = self.embed_queries([row["query"] for row in rows])
        documents = list(dict.fromkeys(text for row in rows for text in (row["positive"], *row["negatives"])))
        index_of = {text: index for index, text in enumerate(documents)}
        embedded = self.embed_documents(documents)
        positives = embedded[[index_of[row["positive"]] for row in rows]]
        margins = np.full(len(rows), np.nan, np.float32)
        for index, row in enumerate(rows):
            if row["negatives"]:
                negatives = embedded[[index_of[text] for text in row["negatives"]]]
                margins[index] = queries[index] @ positives[index] - (negatives @ queries[index]).max()
        return EmbeddedRows(margins, np.stack([queries, positives], 1).astype(np.float16))

    def embed_queries(self, texts: list[str]) -> Numbers:
        """Embed texts as queries. -> vectors of length 1, (texts, width)"""
        return self._embed(texts, self.model.encode_query)

    def embed_documents(self, texts: list[str]) -> Numbers:
        """Embed texts as documents. -> vectors of length 1, (texts, width)"""
        return self._embed(texts, self.model.encode_document)

    def _embed(self, texts: list[str], encode: Any) -> Numbers:
        vectors: Numbers = encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
        return vectors.astype(np.float32)


def margin_broken(margin: float, allowed: Sequence[float]) -> Broken:
    """Return (reason, detail) of a margin outside the allowed range, else None."""
    low, high = allowed
    measured = f"margin cos(query, positive) - cos(query, nearest negative) is {margin:.3f}; curate.margin"
    if margin < low:
        return "false_negative", f"{measured} requires at least {low}"
    if margin > high:
        return "trivial_negative", f"{measured} allows at most {high}"
    return None


def embed_artifact(source: Artifact, settings: Curate, scratch: Path) -> tuple[Numbers, Vectors]:
    """Embed all examples -> margins (rows,), and vectors (rows, 2, width) in a file of `scratch`."""
    files = list(source.record_files().values())
    starts = [0, *accumulate(file.rows for file in files)]
    margins = np.empty(starts[-1], np.float32)
    vectors: Vectors | None = None
    for shard, embedded in _embed_shards(source, [file.path for file in files], settings):
        if vectors is None:
            shape = (starts[-1], *embedded.vectors.shape[1:])
            vectors = np.memmap(scratch / "vectors", np.float16, mode="w+", shape=shape)
        margins[starts[shard] : starts[shard + 1]] = embedded.margins
        vectors[starts[shard] : starts[shard + 1]] = embedded.vectors
    assert vectors is not None, "a set without a row is not curated"
    return margins, vectors


def _embed_shards(source: Artifact, paths: list[str], settings: Curate) -> Iterator[tuple[int, EmbeddedRows]]:
    assert settings.reference is not None
    name, workers = settings.reference, settings.workers
    if workers.num_workers > 1 or workers.num_gpus:
        from speed_ray.on_ray import map_tasks  # brings Ray, which one process does without

        make = partial(_ShardEmbedder, source.store.uri, source.name, name)
        for shard, answer in map_tasks.map_tasks("curate", paths, make, workers):
            margins, vectors = (np.frombuffer(answer[key], kind) for key, kind in _ANSWER.items())
            yield shard, EmbeddedRows(margins, vectors.reshape(len(margins), 2, -1))
    else:
        model = ReferenceModel(reference_folder(name))
        for shard, path in enumerate(paths):
            yield shard, model.embed_rows(source.read(path).select(COLUMNS).to_pylist())


_ANSWER = {"margins": np.float32, "vectors": np.float16}


class _ShardEmbedder:
    """Embed shards in a worker."""

    def __init__(self, uri: str, artifact: str, name: str) -> None:
        self.source = Run(uri).artifact(artifact)
        self.model = ReferenceModel(reference_folder(name))  # on a worker's own machine

    def __call__(self, path: str) -> dict[str, bytes]:
        embedded = self.model.embed_rows(self.source.read(path).select(COLUMNS).to_pylist())
        return {"margins": embedded.margins.tobytes(), "vectors": embedded.vectors.tobytes()}
