"""Run independent tasks on a pool of Ray actors, each of which loads what it needs once."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import ray
from ray.exceptions import RayError
from ray.util import ActorPool

from speed_ray.errors import Interrupted, UserError
from speed_ray.on_ray.capacity import ResourceNeed, actor_options, check_capacity
from speed_ray.on_ray.progress import LineProgress
from speed_ray.on_ray.session import session
from speed_ray.on_ray.worker_errors import lost_worker_error, unforeseen_error
from speed_ray.recipes.training_settings import Workers

log = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_tasks(
    name: str, tasks: Sequence[Task], make: Callable[[], Callable[[Task], Result]], workers: Workers
) -> Iterator[tuple[int, Result]]:
    """Yield each task's index and result as they are ready, in any order; Ray is not started where there is no task.

    `make` is called once in every actor and returns the function that does a task. A task that fails ends no other:
    all are tried, then UserError or Interrupted has the messages. A lost actor is restarted
    `workers.max_failures` times.
    """
    if not tasks:
        return
    failures: list[tuple[str, str]] = []
    with session():
        check_capacity(ResourceNeed(f"{name}.workers", workers))
        pool = _actor_pool(make, workers, len(tasks))
        for numbered in enumerate(tasks):
            pool.submit(lambda actor, numbered: actor.run.remote(*numbered), numbered)
        done = 0
        with LineProgress(f"{name}: 0 of {len(tasks)} done") as progress:
            try:
                while pool.has_next():
                    try:
                        index, result, *failure = pool.get_next_unordered(timeout=1)
                    except TimeoutError:
                        progress.update()
                        continue
                    done += 1
                    outcome = " failed" if failure else ""
                    progress.show(f"{name}: {done} of {len(tasks)} done · {str(tasks[index])[:80]}{outcome}")
                    if failure:
                        failures.append(failure)
                    else:
                        yield index, result
            except RayError as error:
                raise lost_worker_error(f"{name}, {workers.max_failures} restarts included", error) from error
    if failures:
        is_user_error = any(kind == UserError.__name__ for kind, _ in failures)
        raise (UserError if is_user_error else Interrupted)("\n".join(dict.fromkeys(text for _, text in failures)))


def _actor_pool(make: Callable[[], Callable[[Task], Result]], workers: Workers, tasks: int) -> ActorPool:
    actor = ray.remote(_TaskActor).options(
        **actor_options(workers), max_restarts=workers.max_failures, max_task_retries=workers.max_failures
    )
    return ActorPool([actor.remote(make) for _ in range(min(workers.num_workers, tasks))])


class _TaskActor(Generic[Task, Result]):
    """Runs tasks one after another, and returns the kind and message of an error that ends no other task."""

    def __init__(self, make: Callable[[], Callable[[Task], Result]]) -> None:
        self._make = make

    @functools.cached_property
    def _function(self) -> Callable[[Task], Result]:
        return self._make()

    def run(self, index: int, task: Task) -> tuple[int, Result] | tuple[int, None, str, str]:
        try:
            return index, self._function(task)
        except (UserError, Interrupted) as error:
            return index, None, type(error).__name__, str(error)
        except Exception as error:
            log.exception("%s failed", task)
            return index, None, Interrupted.__name__, str(unforeseen_error(str(task), error))
