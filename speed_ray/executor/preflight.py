"""Check templates, engines and prompt lengths before anything is started or spent."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speed_ray.engines import cross_encoder_folder, embedder_folder, endpoint, model_folder, vllm_arguments
from speed_ray.engines.base import Request
from speed_ray.errors import UserError
from speed_ray.executor.stage import Stage
from speed_ray.prompts.render import load_prompts
from speed_ray.recipes.engine_settings import EngineConfig, OpenAIEngine, VllmEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import EXAMPLES

SAMPLE_PROMPTS = 32  # whose tokens are counted


def check_recipe(recipe: Recipe, shortest: Iterable[Request]) -> None:
    """Check a recipe's templates and engines. Raises UserError before the recipe is frozen into a run.

    The generator's prompts are about tasks, which are paid for first; they are longer than the `shortest`.
    """
    load_prompts(recipe.prompts)
    if recipe.embedder:
        embedder_folder.check_embedder_model(recipe.embedder.model, recipe.embedder.pooling)
    reference = recipe.curate.reference
    if reference and (folder := model_folder.find_folder(reference, "curate.reference")):
        embedder_folder.check_embedder_folder(folder, "curate.reference")
    for name, model in recipe.score.cross_encoders.items() if recipe.score else ():
        cross_encoder_folder.check_cross_encoder(model, f"score.cross_encoders.{name}")
    for role, config in (("teacher", recipe.teacher), ("generator", recipe.generator)):
        if isinstance(config, OpenAIEngine):
            endpoint.check_endpoint(config, role)
        if isinstance(config, VllmEngine):
            vllm_arguments.check_vllm_arguments(config.engine_kwargs, role)
            if not config.model.startswith(model_folder.MINIATURE):  # that would train it
                folder = model_folder.ensure_checked_folder(config, role)
                if folder and role == "generator":
                    tokens = recipe.synthesize.sampling.max_tokens
                    _check_window(config, folder, role, EXAMPLES, recipe, tokens, shortest)


def check_engine(stage: Stage[Any, Any], rows: Sequence[PlannedRow[Any]]) -> None:
    """Check that a stage's local model loads and that its window holds the prompts of `rows`, else raise UserError."""
    config, pool = stage.engine, stage.settings.pool
    if isinstance(config, OpenAIEngine) and pool.max_size > 1:
        raise UserError(
            f"{stage.name}: pool.max_size is {pool.max_size}, but an endpoint is asked by one actor, "
            f"which asks as many prompts at once as you like.\n"
            f"Leave pool.max_size at 1 and raise {stage.role}.max_concurrency (now {config.max_concurrency}) instead."
        )
    check_api_key(config, stage.role)
    if not isinstance(config, VllmEngine):
        return
    folder = model_folder.ensure_checked_folder(config, stage.role)
    if config.adapter:
        model_folder.ensure_model_folder(config.adapter, f"{stage.role}.adapter")
    if folder is None:
        return
    requests = [request for row in rows[:SAMPLE_PROMPTS] if (request := stage.request(row))]
    _check_window(config, folder, stage.role, stage.name, stage.recipe, stage.sampling.max_tokens, requests)


def check_api_key(config: EngineConfig, role: str) -> None:
    """Raise UserError where the variable that holds an endpoint's key is not set. For jobs that ask it alone."""
    if isinstance(config, OpenAIEngine):
        endpoint.request_headers(config, role)


def _check_window(
    config: VllmEngine,
    folder: Path,
    role: str,
    name: str,
    recipe: Recipe,
    reply_tokens: int,
    requests: Iterable[Request],
) -> None:
    own = model_folder.read_window(folder) if recipe.is_grounded else None  # how long passages get is known
    window = config.engine_kwargs.get("max_model_len", own)
    texts = [_text(request) for request in requests]
    if not window or not texts:
        return
    lengths = model_folder.count_tokens(folder, texts)
    fitting = sum(length < window for length in lengths)
    if fitting < len(lengths) / 2:
        raise UserError(
            f"{role}.engine_kwargs.max_model_len: {window} tokens cannot hold the prompts of {name}: of "
            f"{len(lengths)} measured, {len(lengths) - fitting} do not fit (the longest has {max(lengths)} tokens).\n"
            f"Set it to {max(lengths) + reply_tokens} or more, if the model allows that"
            f"{_or_shorter_passages(recipe)}."
        )


def _or_shorter_passages(recipe: Recipe) -> str:
    return f", or lower corpus.tokens (now {recipe.corpus.tokens})" if recipe.corpus and recipe.is_grounded else ""


def _text(request: Request) -> str:
    return "\n".join(message["content"] for message in request.messages)
