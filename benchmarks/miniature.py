"""A miniature run as far as a benchmark of training needs it, made by the scripted teacher in seconds.

Prompts and replies are the teacher's, so their lengths are those of a real run. Adapters are of random weights, and
what is rejected in a pair is the draft of another task of its kind: neither changes what a step costs.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from speed_ray import pipeline, recipes
from speed_ray.engines.model_folder import ensure_model_folder
from speed_ray.on_ray import pool
from speed_ray.on_ray.pool import Step
from speed_ray.on_ray.session import session
from speed_ray.records import VERDICT, Row
from speed_ray.stages.draft import Draft
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import DRAFTS, VERDICTS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.trained_models import Model

# Overrides for benchmarks of adapters on one base, as large models have them: the miniature trains all of its junior.
WITH_ADAPTERS = ["junior.lora={r: 8, lora_alpha: 16}", "senior.lora={r: 8, lora_alpha: 16}"]


def with_tasks(folder: Path, overrides: list[str]) -> Run:
    """Begin a run: topics and tasks."""
    run = Run(str(folder))
    pipeline.brainstorm(run, recipes.load_recipe("miniature", overrides))
    return run


def with_drafts(folder: Path, overrides: list[str]) -> Run:
    """Begin a run and let the teacher draft: what SFT learns from."""
    recipe = recipes.load_recipe("miniature", overrides)
    with session():
        run = with_tasks(folder, overrides)
        pool.execute(run, Step(Draft(recipe).plan(run), Draft(recipe)))
    return run


def with_pairs(folder: Path, overrides: list[str]) -> Run:
    """Begin a run that has all that DPO needs: verdicts, and a junior to begin with."""
    run = with_drafts(folder, overrides)
    pairs = list(_pairs(run))
    plan = Plan(stage=VERDICTS, rows=len(pairs), shard_rows=100, variants=("",))
    publish_rows(run.artifact(VERDICTS), plan, VERDICT, (RowResult(pair["row_id"], pair, None) for pair in pairs))
    publish_adapter(run, "junior", overrides)
    return run


def publish_adapter(run: Run, name: str, overrides: list[str]) -> None:
    """Publish a LoRA of the junior's shape whose random weights differ by name, as a model that the run trained.

    `overrides` hold WITH_ADAPTERS.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    recipe = recipes.load_recipe("miniature", overrides)
    lora = recipe.junior.lora
    assert lora is not None
    base = AutoModelForCausalLM.from_pretrained(ensure_model_folder(recipe.generator.model))
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.lora_alpha, target_modules=lora.target_modules, task_type="CAUSAL_LM"
    )
    torch.manual_seed(len(name))
    model = get_peft_model(base, config)
    for weights_name, weights in model.named_parameters():
        if "lora_B" in weights_name:  # zeros in a fresh adapter, which would make it the base itself
            torch.nn.init.normal_(weights, std=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        Model(run, name).publish(Path(folder), {"start": None})


def _pairs(run: Run) -> Iterator[Row]:
    before: dict[str, str] = {}  # the draft before, by kind
    for lesson in run.artifact(DRAFTS).records():
        rejected = before.get(lesson["kind"])
        before[lesson["kind"]] = chosen = lesson.pop("reply")
        if rejected is not None and rejected != chosen:
            judged = {"chosen": chosen, "rejected": rejected, "order": [0, 1], "best": 1, "worst": 2, "reason": ""}
            yield {**lesson, **judged}
