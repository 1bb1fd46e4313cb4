"""Something asked of every shard of an artifact, of actors that each load what they need once: an embedder's vectors.

By Ray Data, as all that goes over shards. Nothing is stored on the way: what an actor that is lost had not answered is
asked again of another.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError

from speed_ray.errors import Interrupted
from speed_ray.on_ray import capacity
from speed_ray.on_ray.session import resources, session
from speed_ray.recipes.schema import Workers

Answer = dict[str, bytes]
Asked = Callable[[str], Answer]


def map_shards(
    name: str, paths: Sequence[str], make: Callable[[], Asked], workers: Workers
) -> Iterator[tuple[int, Answer]]:
    """Ask about each path; answers come as they are ready, each with its path's place.

    `make` is called once in every actor. Raises Interrupted when the cluster cannot answer.
    """
    with session():
        capacity.check_capacity(capacity.ResourceNeed(f"{name}.workers", workers))
        todo = [{"place": place, "path": path} for place, path in enumerate(paths)]
        answers = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
            _Actor,
            fn_constructor_args=(make,),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(workers.count, len(todo))),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            accelerator_type=workers.accelerator,
            label_selector=workers.labels or None,
        )
        try:
            for row in answers.iter_rows():
                yield int(row.pop("place")), row
        except RayError as error:
            raise Interrupted(
                f"{name}: the workers ended: {error}\nThe cluster has {resources()}. Run the same command again."
            ) from error


class _Actor:
    """One worker."""

    def __init__(self, make: Callable[[], Asked]) -> None:
        self.ask = make()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        answer = self.ask(str(batch["path"][0]))
        return {"place": [int(batch["place"][0])], **{key: [data] for key, data in answer.items()}}
