"""Find the models of an evaluation: the run's embedder, its base before training, and BM25 beside them for retrieval.

An embedder that was merged with its base stands beside the one that was trained, unless they are one.

Each model gets the prompts that it was trained with. An embedder whose examples had instructions, and a language model
that it is made of, get one before each query; an embedder of sentence-transformers that training began with gets the
prompts of its own folder, mostly none. Documents get their folder's prompt.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import numpy as np

from speed_ray.engines.model_folder import fetch_model_folder, identify_model
from speed_ray.errors import UserError
from speed_ray.evaluation.metrics import Embed, Vectors
from speed_ray.recipes.schema import Recipe
from speed_ray.records import content_id, format_query
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.rounds import of_round, round_name
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import EMBEDDER, FOLDER, TUNED, Model
from speed_ray.text import bm25

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BASE, BM25 = "base", "bm25"
BATCH = 32  # texts of one forward pass


@dataclass(frozen=True)
class EvalModel:
    """Describe a model to score. `digest` covers its weights and its prompts: an equal digest means equal scores."""

    name: str
    digest: str
    location: str = ""  # a folder, a hub name or `<run>/models/<name>`
    revision: str | None = None
    pooling: Literal["last", "mean", "cls"] | None = None  # null: as the folder says
    max_length: int = 512  # tokens
    key: str = "embedder.model"  # of the recipe or the command line, for messages
    instructed: bool = False  # whether an instruction goes before each query


def models_of(run: Run, recipe: Recipe) -> list[EvalModel]:
    """List the base, the embedder, as trained and merged, those of later rounds, and BM25.

    Raises UserError before one is trained.
    """
    settings = recipe.embedder
    if settings is None:
        raise UserError("embedder: this recipe trains none, so there is nothing to evaluate. Name at least its model.")
    trained = Model(run, EMBEDDER)
    manifest = trained.published()
    weights = identify_model(settings.model, "embedder.model") or f"{settings.model} {settings.revision or ''}"
    length = settings.max_length
    base = EvalModel(
        name=BASE,
        digest=content_id(BASE, weights, str(settings.pooling), str(length)),
        location=settings.model,
        revision=settings.revision,
        pooling=settings.pooling,
        max_length=length,
        instructed=settings.pooling is not None,
    )
    models = [_trained(trained, length)]
    if 0 < manifest["facts"].get("merge", {}).get("share", 1) < 1:
        models.insert(0, _trained(Model(run, TUNED), length))
    for number in range(2, recipe.rounds + 1):
        later = Model(of_round(run, recipe, number)[0], EMBEDDER)
        models.append(replace(_trained(later, length), name=round_name(number)))
    words = *code_digests(bm25.__name__).values(), version("icu4py")  # how a text is split into words
    return [base, *models, EvalModel(BM25, content_id(BM25, version("bm25s"), *words))]


def _trained(model: Model, max_length: int) -> EvalModel:
    manifest = model.published()
    return EvalModel(
        name=model.name,
        digest=content_id(EMBEDDER, manifest["digest"], str(max_length)),
        location=model.where,
        max_length=max_length,
        instructed=manifest["facts"]["rows"]["instructed"],
    )


def model_at(location: str) -> EvalModel:
    """Describe a model by its folder alone; one that a run trained is given instructions."""
    return EvalModel(location, "", location, key="--embedder", instructed=f"/{FOLDER}/" in location)


@functools.lru_cache(maxsize=1)  # a worker takes one model's tasks one after the other
def load_model(model: EvalModel, device: str) -> "SentenceTransformer":
    """Load a model, once for all of its tasks. Raises UserError or Interrupted."""
    from speed_ray.training.contrastive import encoder

    folder = fetch_model_folder(model.location, model.revision, model.key)
    return encoder.load_encoder(folder, model.pooling, model.max_length, key=model.key).to(device).eval()


def embed_with(model: "SentenceTransformer", instructed: bool, instruction: str) -> Embed:
    """Return a function that embeds texts; `instruction` goes before queries, and "" is none."""

    def vectors(texts: Sequence[str], side: Literal["query", "document"]) -> Vectors:
        prompt = model.prompts.get(side) or ""
        if instructed and side == "query":
            texts, prompt = [format_query(instruction, text) for text in texts], ""
        blank = _blank_text(model) if "" in texts and not prompt else ""
        found = model.encode(
            [text or blank for text in texts], prompt=prompt, batch_size=BATCH, show_progress_bar=False
        )
        return np.asarray(found, np.float32)

    return vectors


def _blank_text(model: "SentenceTransformer") -> str:
    """Return what is embedded for an empty text: a period where the tokenizer makes no token of it, else itself."""
    tokens = model.preprocess([""]).get("input_ids")
    return "." if tokens is not None and tokens.shape[-1] == 0 else ""  # no model reads a batch of no tokens
