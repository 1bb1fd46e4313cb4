"""What a live run exports: every metric that dashboards may name, from real engines and a real training."""

import threading
import time
from collections.abc import Iterator

import pytest
import ray

from speed_ray import pipeline
from speed_ray.on_ray import pool, train
from speed_ray.on_ray.pool import Step
from speed_ray.on_ray.prometheus_metrics import COUNTERS, GAUGES, HISTOGRAMS
from speed_ray.stages.draft import Draft
from speed_ray.storage.run import PROPOSED_TASKS
from speed_ray.training import plan
from speed_ray.training.train_model import train_model
from tests.helpers.prometheus import metrics_of
from tests.helpers.tiny_endpoint import mock
from tests.helpers.tiny_training import TEMPLATE, tiny_model

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

JUNIOR = {
    "global_batch_size": 4, "micro_batch_size": 4, "num_train_epochs": 8.0, "max_steps": 40, "learning_rate": 1e-3,
    "precision": "fp32", "lora": {"r": 4, "lora_alpha": 8}, "max_length": 4096, "eval_fraction": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    """One GPU that only Ray's bookkeeping knows, and a reporter that goes round every second."""
    ray.init(
        address="local",
        num_cpus=8,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _system_config={"metrics_report_interval_ms": 1000},
    )
    yield
    ray.shutdown()


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The address of a paid teacher that answers at once."""
    with mock("--latency-ms", "1") as url:
        yield url


def test_a_live_run_exports_every_metric(make_job, tmp_path, endpoint):
    base = str(tiny_model(tmp_path / "base", window=4096, heads=1))
    job = make_job(
        teacher={"engine": "openai", "model": "big", "base_url": endpoint, "price": {"input": 2.5, "output": 10.0}},
        generator={"engine": "vllm", "model": base, "max_concurrency": 8, "chat_template": TEMPLATE},
        synthesize={
            "examples": 46, "shard_rows": 23, "sampling": {"max_tokens": 40}, "pool": {"num_gpus": 1.0},
            "revise": False, "generator": "base",
        },
        junior=JUNIOR,
        draft__examples=46,
    )  # fmt: skip
    exports: dict[tuple[str, ...], float] = {}
    over = threading.Event()

    def look() -> None:
        """Keep what was seen last of each: an actor's gauges go with it."""
        while not over.wait(1):
            exports.update(metrics_of(job.run.store.uri))

    looking = threading.Thread(target=look)
    looking.start()
    pipeline.brainstorm(job.run, job.recipe)
    pipeline.synthesize(job.run, job.recipe)
    pool.execute(job.run, Step(Draft(job.recipe).plan(job.run), Draft(job.recipe)))
    train.train_on_ray(plan.plan_junior(job.run, job.recipe), train_model)
    time.sleep(3)
    over.set()
    looking.join()

    wanted = {name.removeprefix("speed_ray_") for name in (*COUNTERS, *GAUGES)}
    wanted |= {f"{name.removeprefix('speed_ray_')}_{part}" for name in HISTOGRAMS for part in ("sum", "count")}
    assert {key[0] for key in exports} == wanted
    assert sum(value for key, value in exports.items() if key[:2] == ("rows", "examples")) == 46
    assert exports["commits", "examples", "won"] == 2
    assert exports["rows", PROPOSED_TASKS, "accepted"] == 20 and exports["teacher_dollars", PROPOSED_TASKS] > 0
    assert exports["prefix_cache_tokens", "examples", "hit"] > 0
    assert exports["training_step", "junior"] == 40
