"""A reference embedder's verdicts on all examples of a set: in this process, or on Ray where the recipe says so."""

from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np

from speed_ray.curation.reference_model import COLUMNS, Numbers, Reference, Vectors, Verdicts, reference_folder
from speed_ray.recipes.schema import Curate
from speed_ray.storage.run import Run
from speed_ray.storage.shards import Artifact


def judge_margins(source: Artifact, settings: Curate, scratch: Path) -> tuple[Numbers, Vectors]:
    """Each row's margin, and the vectors of its query and positive in a file of `scratch`: see `Verdicts`."""
    files = list(source.record_files().values())
    starts = [0, *accumulate(file.rows for file in files)]
    margins = np.empty(starts[-1], np.float32)
    vectors: Vectors | None = None
    for place, verdicts in _verdicts(source, [file.path for file in files], settings):
        if vectors is None:
            shape = (starts[-1], *verdicts.vectors.shape[1:])
            vectors = np.memmap(scratch / "vectors", np.float16, mode="w+", shape=shape)
        margins[starts[place] : starts[place + 1]] = verdicts.margins
        vectors[starts[place] : starts[place + 1]] = verdicts.vectors
    assert vectors is not None, "a set without a row is not curated"
    return margins, vectors


def _verdicts(source: Artifact, paths: list[str], settings: Curate) -> Iterator[tuple[int, Verdicts]]:
    assert settings.reference is not None
    name, workers = reference_folder(settings.reference), settings.workers
    if workers.count > 1 or workers.gpus:
        from speed_ray.on_ray import map_tasks  # brings Ray, which one process does without

        make = partial(_Judge, source.store.uri, source.name, name)
        for place, answer in map_tasks.map_tasks("curate", paths, make, workers):
            margins, vectors = (
                np.frombuffer(answer["margins"], np.float32),
                np.frombuffer(answer["vectors"], np.float16),
            )
            yield place, Verdicts(margins, vectors.reshape(len(margins), 2, -1))
    else:
        reference = Reference(name)
        for place, path in enumerate(paths):
            yield place, reference.judge(source.read(path).select(COLUMNS).to_pylist())


class _Judge:
    """The reference in one worker."""

    def __init__(self, uri: str, artifact: str, name: str) -> None:
        self.source = Run(uri).artifact(artifact)
        self.reference = Reference(name)

    def __call__(self, path: str) -> dict[str, bytes]:
        verdicts = self.reference.judge(self.source.read(path).select(COLUMNS).to_pylist())
        return {"margins": verdicts.margins.tobytes(), "vectors": verdicts.vectors.tobytes()}
