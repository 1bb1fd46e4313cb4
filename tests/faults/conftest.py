"""A Ray session in this process whose workers die when a note in the run's folder tells them to."""

import functools
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.helpers.tiny_cluster import Head
from tests.helpers.tiny_training import tiny_model
from tests.helpers.two_hosts import Cluster, two_hosts

TEACHER = {"engine": "simulated", "prefill": 1e9, "decode": 1e9, "max_tokens_per_stream": 1400.0, "max_concurrency": 4}
TRAINING = {
    "global_batch_size": 4, "micro_batch_size": 4, "num_train_epochs": 4.0, "max_steps": 10, "save_steps": 2,
    "learning_rate": 1e-3,
    "precision": "fp32", "lora": {"r": 4, "lora_alpha": 8}, "max_length": 4096, "eval_fraction": 0.0,
}  # fmt: skip
EMBEDDER = {
    "global_batch_size": 8, "micro_batch_size": 8, "num_train_epochs": 100.0, "max_steps": 20, "save_steps": 4,
    "learning_rate": 1e-3, "precision": "fp32", "lora": None, "max_length": 64, "pooling": "mean",
}  # fmt: skip


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    """A private Ray for one module. Its workers know `die_as_told`; production code knows nothing of it."""
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"worker_process_setup_hook": _die_as_told()},
    )
    yield
    ray.shutdown()


@pytest.fixture
def make_whole_job(make_job, tmp_path: Path) -> Callable[..., Any]:
    """Make a job that goes the whole way to an embedder, on tiny models; `interrupted_run.py` drives it."""
    base = tiny_model(tmp_path / "base", window=4096)
    settings = {f"{stage}__shard_rows": 4 for stage in ("draft", "propose", "judge", "critique", "revise")}
    settings |= {
        "draft__examples": 46,
        "propose__lists": 46,
        "critique__candidates": 1,
        "synthesize__examples": 46,
        "synthesize__shard_rows": 4,
        "synthesize__generator": "senior",
        "synthesize__revise": True,
        "brainstorm__shard_rows": 4,
        "embedder": {**EMBEDDER, "model": str(base)},
        "curate": {"duplicate_similarity": None},
        "evaluate": {},
        "generator": {"engine": "vllm", "model": str(base)},
        "teacher": TEACHER,
        **dict.fromkeys(("junior", "senior", "revisor__sft", "revisor__dpo"), TRAINING),
    }
    return functools.partial(make_job, **settings)


@pytest.fixture
def nothing_left() -> Callable[..., None]:
    """Wait for a driver's private Ray to vanish by itself: Ray's processes watch the one that started them."""

    def check(driver) -> None:
        for _ in range(1200):
            if not driver.left():
                return
            time.sleep(0.1)
        names = [process.name() for process in driver.left()]
        raise AssertionError(f"the driver is gone and left behind: {names}")

    return check


@pytest.fixture
def cluster_of_two(ray_folder, drive) -> Iterator[Cluster]:
    """Two hosts with a link between them, and a cluster on them that is not begun yet."""
    with ExitStack() as stack:
        try:
            hosts = stack.enter_context(two_hosts())
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces are not to be had here: {getattr(error, 'stderr', error)}")
        yield Cluster(drive, Head(ray_folder, cpus=2, host=hosts[0].address), hosts)


def _die_as_told() -> Callable[[], None]:
    # A nested function travels to the workers by value: they cannot import this file.
    def hook() -> None:
        """Before, during or after a `put` (an attempt's file) or a `create` (a commit), as the note's name says."""
        import os
        import signal

        from speed_ray.storage.store import LocalFolder

        def die_if(store: LocalFolder, moment: str) -> None:
            try:
                (store.root / f".die-{moment}").unlink()  # one process takes the note, and only once
            except FileNotFoundError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

        def patched(verb: str):
            original = getattr(LocalFolder, verb)

            def write(store: LocalFolder, path: str, data: bytes) -> bool | None:
                die_if(store, f"before-{verb}")
                if (store.root / f".die-during-{verb}").exists():
                    torn = store.root / path
                    torn.parent.mkdir(parents=True, exist_ok=True)
                    (torn.parent / f".{torn.name}-torn").write_bytes(data[: len(data) // 2])
                    die_if(store, f"during-{verb}")
                result = original(store, path, data)
                die_if(store, f"after-{verb}")
                return result

            return write

        LocalFolder.put = patched("put")
        LocalFolder.create = patched("create")

    return hook
