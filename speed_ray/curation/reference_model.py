"""What a reference embedder says of an example: how far its positive is before its negatives, and where it lies.

Any folder of sentence-transformers will do. Texts are embedded as the folder itself says queries and documents are,
without the example's instruction: most reference models have never seen one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speed_ray.engines import model_folder
from speed_ray.errors import UserError
from speed_ray.records import Row

COLUMNS = ["query", "positive", "negatives"]
AT_ONCE = 64  # texts

Numbers = np.ndarray[Any, np.dtype[np.float32]]
Vectors = np.ndarray[Any, np.dtype[np.float16]]


@dataclass(frozen=True)
class Verdicts:
    """Of some rows: the cosine of query and positive less that of query and nearest negative, NaN without negatives.

    `vectors` are those of query and positive, of length 1: (rows, 2, width).
    """

    margins: Numbers
    vectors: Vectors


def reference_folder(name: str) -> str:
    """Find a reference model. Raises UserError where it is no folder of sentence-transformers and no hub name."""
    found = model_folder.resolve_model(name, "curate.reference")
    if found and not (found / "modules.json").is_file():
        raise UserError(f"curate.reference: {found} holds no modules.json, so it is no sentence-transformers model.")
    return str(found or name)


def reference_identity(name: str) -> str:
    """What decides a reference's verdicts, wherever it lies."""
    found = reference_folder(name)
    return model_folder.folder_digest(Path(found)) if Path(found).is_dir() else found


class Reference:
    """A loaded reference embedder."""

    def __init__(self, name: str) -> None:
        from sentence_transformers import SentenceTransformer  # seconds, which a set without a reference need not wait
        from transformers.utils import logging

        logging.disable_progress_bar()

        self.model = SentenceTransformer(name, trust_remote_code=False, model_kwargs={"use_safetensors": True})

    def judge(self, rows: Sequence[Row]) -> Verdicts:
        """Embed some rows and compare. Each text is embedded once, however often it stands there."""
        queries = self._embed([row["query"] for row in rows], self.model.encode_query)
        documents = list(dict.fromkeys(text for row in rows for text in (row["positive"], *row["negatives"])))
        places = {text: place for place, text in enumerate(documents)}
        embedded = self._embed(documents, self.model.encode_document)
        positives = embedded[[places[row["positive"]] for row in rows]]
        margins = np.full(len(rows), np.nan, np.float32)
        for place, row in enumerate(rows):
            if row["negatives"]:
                negatives = embedded[[places[text] for text in row["negatives"]]]
                margins[place] = queries[place] @ positives[place] - (negatives @ queries[place]).max()
        return Verdicts(margins, np.stack([queries, positives], 1).astype(np.float16))

    def _embed(self, texts: list[str], encode: Any) -> Numbers:
        vectors: Numbers = encode(texts, batch_size=AT_ONCE, normalize_embeddings=True, show_progress_bar=False)
        return vectors.astype(np.float32)


def refusal(margin: float, allowed: Sequence[float]) -> tuple[str, str] | None:
    """Say what is wrong with an example whose positive is so far before its nearest negative."""
    low, high = allowed
    if margin < low:
        return "false_negative", f"the positive is {margin:.3f} before its nearest negative, wanted at least {low}"
    if margin > high:
        return "trivial_negative", f"the positive is {margin:.3f} before its nearest negative, wanted at most {high}"
    return None
