"""A writer aligned to documents without a teacher: lessons, junior, candidates, verdicts, senior; trainings are real.

A simulated engine stands for vLLM where a trained model writes, in this process and without Ray.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speed_ray import pipeline, recipes
from speed_ray.engines.simulated import Simulated
from speed_ray.errors import UserError
from speed_ray.executor.shard_worker import Worker
from speed_ray.on_ray.pool import Step
from speed_ray.recipes.engine_settings import SimulatedEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.planned_rows import Inputs
from speed_ray.storage.run import CANDIDATES, DRAFTS, EXAMPLES, PASSAGES, VERDICTS, Run
from speed_ray.storage.trained_models import Model
from speed_ray.storage.verify import verify
from speed_ray.training.train_model import train_model
from tests.helpers.grounded_run import MINILM
from tests.helpers.paths import ROOT
from tests.helpers.tiny_training import ignore, tiny_model

pytestmark = pytest.mark.slow

PLANTED = [json.loads(line) for line in (ROOT / "tests/golden/planted_passages.jsonl").read_text().splitlines()]
TRAINING = {
    "global_batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-3, "precision": "fp32", "max_steps": 2,
    "lora": {"r": 4}, "max_length": 1000, "eval_fraction": 0.0,
}  # fmt: skip


def recipe_of(folder: Path) -> Recipe:
    """Write documents whose titles are questions, and a short prompt about each."""
    for name in ("documents", "prompts"):
        (folder / name).mkdir()
    for number, each in enumerate(PLANTED):
        (folder / "documents" / f"{number}.md").write_text(f"# {each['question']}\n\n{each['passage']}\n")
    (folder / "prompts" / "ground.jinja").write_text("{{ text }}\n{{ label }}:\n")
    tree = {
        "corpus": {"source": str(folder / "documents"), "tokens": 200, "held_out": 0.2, "duplicate_similarity": None},
        "prompts": str(folder / "prompts"),
        "generator": {"engine": "vllm", "model": str(tiny_model(folder / "base", window=1024))},
        "draft": {"shard_rows": 4},
        "junior": TRAINING,
        "propose": {"lists": 24, "candidates": 4, "shard_rows": 4},
        "judge": {"shard_rows": 4},
        "senior": TRAINING,
        "synthesize": {"generator": "senior", "per_passage": 1, "shard_rows": 8},
        "curate": {"reference": MINILM},
    }
    return recipes.validate(tree, "the test")


def stand_in(run: Run, recipe: Recipe, name: str) -> SimulatedEngine:
    """An engine in place of the vLLM that would serve a trained model."""
    fast: dict[str, Any] = {"prefill": 1e9, "decode": 1e9, "max_tokens_per_stream": 1e9}
    return SimulatedEngine(engine="simulated", model=f"{name} {Model(run, name).published()['digest'][:8]}", **fast)


def execute(run: Run, step: Step) -> None:
    """Work off a stage in this process."""
    artifact, config = run.artifact(step.plan.stage), step.stage.engine
    artifact.ensure_plan(step.plan)
    assert isinstance(config, SimulatedEngine) and step.plan.input
    engine, inputs = Simulated(config), Inputs(run.artifact(step.plan.input), step.plan)
    worker = Worker(step.stage, artifact, step.plan, inputs, engine, None)

    async def answer() -> None:
        await engine.start()
        for shard, generation in artifact.pending(step.plan):
            await worker.work(shard, generation)

    asyncio.run(answer())
    assert artifact.manifest() or artifact.publish(step.plan)


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run, Recipe], list[str]]:
    """Do all jobs up to the examples. Returns the models that a training was begun for."""

    def drive(run: Run, recipe: Recipe) -> list[str]:
        trained: list[str] = []

        def train(training: Any, _: Any) -> None:
            trained.append(training.name)
            train_model(training, ignore)

        monkeypatch.setattr(pipeline, "generator_with_trained_weights", stand_in)
        monkeypatch.setattr(pipeline, "train_on_ray", train)
        monkeypatch.setattr(pipeline.pool, "execute", execute)
        for job in pipeline.up_to("synthesize", recipe):
            job(run, recipe)
        return trained

    return drive


def test_documents_alone_make_a_senior(drive: Callable[[Run, Recipe], list[str]], tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path), Run(str(tmp_path / "run"))
    assert drive(run, recipe) == ["junior", "senior"]
    assert all(verdict.holds for verdict in verify(run))

    passages = {row["id"]: row for row in run.artifact(PASSAGES).records()}
    held_out = {name for name, row in passages.items() if row["split"] == "held_out"}
    lessons, lists, verdicts = (list(run.artifact(name).records()) for name in (DRAFTS, CANDIDATES, VERDICTS))
    assert held_out and len(lessons) == len(passages) - len(held_out)
    for lesson in lessons:
        assert json.loads(lesson["reply"])["query"] == passages[lesson["parent_id"]]["title"]
        assert lesson["messages"][0]["content"].endswith("\nQuestion:")
    assert not held_out & {row["parent_id"] for row in [*lessons, *lists]}
    assert len(verdicts) >= 4 and {row["parent_id"] for row in verdicts} <= {row["id"] for row in lists}

    senior = Model(run, "senior").published()["facts"]
    assert (senior["start"]["model"], senior["data"]["artifact"]) == ("junior", VERDICTS)
    assert {row["model"] for row in run.artifact(EXAMPLES).records()} == {stand_in(run, recipe, "senior").model}
    before = {name: run.artifact(name).records_digest() for name in (DRAFTS, CANDIDATES, VERDICTS, EXAMPLES)}
    drive(run, recipe)
    assert {name: run.artifact(name).records_digest() for name in before} == before


def test_too_few_lessons_are_told_before_a_run_holds_them(
    drive: Callable[[Run, Recipe], list[str]], tmp_path: Path
) -> None:
    recipe, run = recipe_of(tmp_path), Run(str(tmp_path / "run"))
    many = recipe.junior.model_copy(update={"global_batch_size": 64})
    with pytest.raises(UserError, match=r"one step needs 64 .*\nThere are no more of them by draft\.lessons: corpus"):
        drive(run, recipe.model_copy(update={"junior": many}))
    assert run.artifact(DRAFTS).plan() is None and drive(run, recipe) == ["junior", "senior"]
