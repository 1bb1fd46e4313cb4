"""Who is scored: the run's embedder, the model that its training began with, and BM25 beside them for retrieval.

Each model is asked as it was trained to be. An embedder whose examples had instructions, and a language model that it
is made of, get one before each query; an embedder of sentence-transformers that training began with gets the prompts
of its own folder, mostly none.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import numpy as np

from speed_ray.engines.model_folder import fetch_model_folder, folder_digest, resolve_model
from speed_ray.errors import UserError
from speed_ray.evaluation.metrics import Embed, Vectors
from speed_ray.recipes.schema import Recipe
from speed_ray.records import content_id
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import FOLDER, Model
from speed_ray.training.plan import EMBEDDER

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BASE, BM25 = "base", "bm25"
BATCH = 32  # texts that a model reads at once


@dataclass(frozen=True)
class EvalModel:
    """A model to score. `digest` names its weights and how it is asked: the same, the same scores."""

    name: str
    digest: str
    model: str = ""  # a folder, a hub name or `<run>/models/<name>`
    revision: str | None = None
    pooling: Literal["last", "mean", "cls"] | None = None  # null: as the folder says
    max_length: int = 512
    instructed: bool = False


def models_of(run: Run, recipe: Recipe) -> list[EvalModel]:
    """The base, the embedder and BM25, in the order of a table. Raises UserError before the embedder is trained."""
    settings = recipe.embedder
    if settings is None:
        raise UserError("embedder: this recipe trains none, so there is nothing to evaluate. Name at least its model.")
    trained = Model(run, EMBEDDER)
    manifest = trained.published()
    weights, taught = manifest["digest"], manifest["facts"]["rows"]["instructed"]
    folder = resolve_model(settings.model, "embedder.model")
    base = folder_digest(folder) if folder else f"{settings.model} {settings.revision or ''}"
    length, instructed = settings.max_length, settings.pooling is not None
    asked = (str(settings.pooling), str(length))
    return [
        EvalModel(
            *(BASE, content_id(BASE, base, *asked), str(folder or settings.model), settings.revision),
            *(settings.pooling, length, instructed),
        ),
        EvalModel(
            EMBEDDER, content_id(EMBEDDER, weights, asked[1]), trained.where, max_length=length, instructed=taught
        ),
        EvalModel(BM25, content_id(BM25, version("bm25s"))),
    ]


def model_named(model: str) -> EvalModel:
    """A model that is given by its folder alone. One that a run trained is asked with instructions."""
    return EvalModel(model, "", model, instructed=f"/{FOLDER}/" in model)


@functools.lru_cache(maxsize=1)  # a worker takes one model's tasks one after the other
def load_model(subject: EvalModel, device: str) -> "SentenceTransformer":
    """Load a model, once for all of its tasks. Raises UserError or Interrupted."""
    from speed_ray.training.contrastive import encoder

    return (
        encoder.load_encoder(
            fetch_model_folder(subject.model, subject.revision, "embedder.model"), subject.pooling, subject.max_length
        )
        .to(device)
        .eval()
    )


def embed(model: "SentenceTransformer", instructed: bool, instruction: str) -> Embed:
    """How texts become vectors. `instruction` goes before queries, and "" is none."""
    from speed_ray.training.contrastive.encoder import format_query

    def vectors(texts: Sequence[str], side: Literal["query", "document"]) -> Vectors:
        if instructed:
            texts, prompt = [format_query(instruction, text) if side == "query" else text for text in texts], ""
        else:
            prompt = model.prompts.get(side) or ""
        found = model.encode(list(texts), prompt=prompt, batch_size=BATCH, show_progress_bar=False)
        return np.asarray(found, np.float32)

    return vectors
