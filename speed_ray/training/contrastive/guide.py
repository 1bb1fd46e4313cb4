"""Mask likely false negatives by a frozen embedder, the guide (GISTEmbed, arXiv 2402.16829).

A document counts against a query only where the guide finds it no nearer than the query's positive, less a margin.
The guide embeds each batch's texts when they are trained on, once each and without a graph. GradCache takes two
forward passes and a backward pass, so a guide as large as the embedder adds about a quarter; there is no store of
vectors to fill and keep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sentence_transformers import SentenceTransformer
from torch import Tensor

from speed_ray.recipes.training_settings import Guide


@dataclass(frozen=True)
class GuideVectors:
    """Hold the guide's unit vectors of this worker's queries (n, width) and all workers' documents (m, width).

    `bounds` (n,) is the similarity above which a document is masked.
    """

    queries: Tensor
    documents: Tensor
    bounds: Tensor

    def mask(self, chunk: slice) -> Tensor:
        """Return a bool mask (queries of the chunk, m), True where a document is too near; the positive may be."""
        return self.queries[chunk] @ self.documents.T > self.bounds[chunk, None]


@dataclass(frozen=True)
class GuideModel:
    """Embeds plain texts with the prompts of the guide's own folder, `batch_size` at once."""

    model: SentenceTransformer
    settings: Guide
    batch_size: int

    def embed(self, texts: Sequence[str], side: Literal["query", "document"]) -> Tensor:
        """Return fp32 unit vectors (texts, width); equal texts have equal ones."""
        index = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        vectors: Tensor = self.model.encode(
            list(index),
            prompt=self.model.prompts[side],
            batch_size=self.batch_size,
            normalize_embeddings=True,
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        return vectors.float()[[index[text] for text in texts]]

    def bounds(self, similarities: Tensor) -> Tensor:
        """Return what similarity a document may have beside these of the positives (n,)."""
        return similarities - self.settings.absolute_margin - self.settings.relative_margin * similarities.abs()
