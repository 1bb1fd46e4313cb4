"""What the tests of this folder share: a run that lives in memory, an endpoint, the same draws of hypothesis."""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, settings
from obstore.store import MemoryStore

from speed_ray import recipes
from speed_ray.cli import main
from speed_ray.engines import openai
from speed_ray.engines.base import Engine, Reply, Request, Sample
from speed_ray.engines.budget import Ledger
from speed_ray.engines.openai import OpenAI
from speed_ray.engines.scripted import ScriptedTeacher
from speed_ray.executor.shard_worker import Worker
from speed_ray.executor.stage import Stage
from speed_ray.miniature import teacher, world
from speed_ray.recipes.engine_settings import OpenAIEngine, ScriptedEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.records import Row
from speed_ray.stages import pair_revisions, select_tasks, topics
from speed_ray.stages.brainstorm import Brainstorm
from speed_ray.stages.critique import Critique
from speed_ray.stages.draft import Draft
from speed_ray.stages.judge import Judge
from speed_ray.stages.propose import Propose
from speed_ray.stages.revise import Revise
from speed_ray.stages.self_revise import SelfRevise
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.holder import Holder
from speed_ray.storage.planned_rows import FollowedInputs, Inputs
from speed_ray.storage.run import Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import RECORDS, Artifact
from speed_ray.storage.spending import Spending
from speed_ray.storage.store import LocalFolder, ObjectStore
from tests.helpers.tiny_endpoint import KEY, Endpoint

settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
# Looks for what the fixed examples miss: HYPOTHESIS_PROFILE=search .venv/bin/pytest tests/unit/storage/test_shards.py
settings.register_profile("search", max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


class StoredRun(Run):
    """A run on a store that a test made."""

    def __init__(self, store: Any) -> None:
        self.uri = store.uri
        self.store = store


@pytest.fixture(scope="session")
def run_on() -> Callable[[Any], Run]:
    """Make a run on any store."""
    return StoredRun


@pytest.fixture
def run() -> Run:
    """An empty run in memory."""
    return StoredRun(ObjectStore(MemoryStore(), "memory://"))


class Alignment:
    """A run of the miniature world in memory, worked off without Ray by engines of this process."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        self.run = run
        self.recipe = recipe

    def begin(self) -> "Alignment":
        """Freeze the recipe and brainstorm tasks."""
        self.run.freeze(self.recipe)
        topics.collect_topics(self.run, topics.topics_of(self.recipe))
        self.make(Brainstorm(self.recipe))
        select_tasks.select_tasks(self.run, self.recipe)
        return self

    def make(self, stage: Stage, engine: Engine | None = None) -> Artifact:
        """Commit every shard of a stage with the script or another engine, and publish."""
        plan, artifact = stage.plan(self.run), self.run.artifact(stage.name)
        artifact.ensure_plan(plan)
        worker = self.worker(plan, stage, engine)

        async def answer() -> None:
            for shard, generation in artifact.pending(plan):
                await worker.work(shard, generation)

        asyncio.run(answer())
        assert artifact.publish(plan)
        return artifact

    def worker(self, plan: Plan, stage: Stage, engine: Engine | None = None) -> Worker:
        """One engine at work on a stage."""
        assert plan.input
        source = self.run.artifact(plan.input)
        inputs = Inputs(source, plan) if plan.variants or plan.mix else FollowedInputs(source)
        assert isinstance(stage.engine, ScriptedEngine)
        engine = engine or ScriptedTeacher(stage.engine)
        return Worker(stage, self.run.artifact(plan.stage), plan, inputs, engine, None)

    def rows(self, name: str, role: str = RECORDS) -> list[Row]:
        """All that is committed of an artifact, in order."""
        artifact = self.run.artifact(name)
        files = [commit.files[role].path for commit in artifact.commits() if role in commit.files]
        return [row for path in files for row in artifact.read(path).to_pylist()]


class WeakModel:
    """Answers as the scripted teacher would write, then forgets its words: each sample a share of its own."""

    model, in_flight = "weak", 64

    async def generate(self, request: Request) -> Reply:
        """One sample in ten is no JSON at all; of the others up to half the words belong to another topic."""
        seeds = [f"{request.context['stage']} {request.seed + number}" for number in range(request.n)]
        texts = [self._text(request, random.Random(seed)) for seed in seeds]
        return Reply([Sample(text, "stop", len(text.split())) for text in texts], prompt_tokens=9, seconds=0.1)

    def _text(self, request: Request, rng: random.Random) -> str:
        if rng.random() < 0.1:
            return "Certainly, here is one."
        elsewhere = [concept.b for concept in world.topic(rng.choice(world.topics())).concepts]
        forgotten = rng.random() / 2
        return json.dumps(
            {
                name: " ".join(rng.choice(elsewhere) if rng.random() < forgotten else word for word in text.split())
                for name, text in teacher.write_example(request.context, rng).items()
            }
        )


@pytest.fixture
def weak() -> WeakModel:
    """A model that has something to learn."""
    return WeakModel()


@pytest.fixture(scope="session")
def begin_alignment() -> Callable[..., Alignment]:
    """Begin a small miniature run in memory; its models are scripts, and overrides change the recipe."""

    def begin(*overrides: str) -> Alignment:
        sizes = [
            "draft.examples=46",
            "propose.lists=46",
            "critique.candidates=1",
            "synthesize.examples=46",
            "topics.limit=12",
        ]
        shards = [f"{stage}.shard_rows=10" for stage in ("draft", "propose", "judge", "critique", "revise")]
        script = ["generator={engine: scripted, model: the generator}", "synthesize.shard_rows=10"]
        recipe = recipes.load_recipe("miniature", [*sizes, *shards, *script, *overrides])
        return Alignment(StoredRun(ObjectStore(MemoryStore(), "memory://")), recipe).begin()

    return begin


@pytest.fixture(scope="session")
def alignment(begin_alignment: Callable[..., Alignment]) -> Alignment:
    """A run with everything that alignment makes; a weak model stands for junior and revisor. Read only."""
    made = begin_alignment()
    run, recipe, junior = made.run, made.recipe, made.recipe.generator
    made.make(Draft(recipe))
    made.make(Propose(recipe, junior), WeakModel())
    made.make(Judge(recipe))
    made.make(Critique(recipe))
    made.make(SelfRevise(recipe, junior), WeakModel())
    pair_revisions.pair_revisions(run, recipe)
    made.make(Synthesize(recipe), WeakModel())
    made.make(Revise(recipe, junior), WeakModel())
    return made


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run `speed-ray` in this process. Returns its exit code and all that it said."""

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return int(ended.value.code or 0), captured.out + captured.err

    return run


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """An OpenAI-compatible endpoint, which answers well until the test says otherwise."""
    endpoint = Endpoint()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", endpoint.handle)
    server = TestServer(application)
    await server.start_server()
    endpoint.url = str(server.make_url("/v1"))
    yield endpoint
    await server.close()


@pytest.fixture
async def connect(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    """Start engines on the endpoint, impatient ones that may use its key, and close them all."""
    monkeypatch.setattr(openai, "FIRST_BACKOFF", 0.005)
    monkeypatch.setattr(openai, "LONGEST_BACKOFF", 0.05)
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    started: list[OpenAI] = []
    holders: list[Holder] = []

    async def connect(run: str = "", key: str = "teacher", **settings: Any) -> OpenAI:
        """Start an engine; those of one `run` share its balance."""
        settings = {"base_url": endpoint.url, "max_concurrency": 8, "api_key_env": "ENDPOINT_KEY", **settings}
        config = OpenAIEngine(engine="openai", model="m", **settings)
        store = LocalFolder(tmp_path / (run or f"run-{len(started)}"))
        holders.append(Holder(store))
        ledger = Ledger(config.budget, config.price, Spending(store, key), holders[-1], key)
        client = OpenAI(config, ledger, key)
        await client.start()
        started.append(client)
        return client

    yield connect
    for each in started:
        await each.close()
    for holder in holders:
        holder.close()
