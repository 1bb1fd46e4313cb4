"""Find rows of an artifact by an id, many at once, and read as few files for it as may be."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from speed_ray.records import Row
from speed_ray.storage.shards import Artifact, Commit

Places = Mapping[str, float]  # ids that are looked for, each with where in its artifact it may be: from 0 to 1


def find_rows(
    artifact: Artifact, commits: Sequence[Commit], role: str, column: str, places: Places
) -> dict[str, list]:
    """Return the rows that have one of these ids in a column, by id, of the first file that has any.

    Stages keep the order of their input, so files near an id's place are read first.
    """
    found: dict[str, list[Row]] = {}
    files = [commit.files[role] for commit in commits if role in commit.files]
    near = sorted(set(places.values()))
    for number in sorted(range(len(files)), key=lambda number: _distance(number / len(files), near)):
        wanted = pa.array([name for name in places if name not in found], pa.string())
        if not len(wanted):
            break
        path = files[number].path
        is_wanted = pc.is_in(artifact.read(path, [column])[column], value_set=wanted)
        if pc.any(is_wanted).as_py():
            for row in artifact.read(path).filter(is_wanted).to_pylist():
                found.setdefault(row[column], []).append(row)
    return found


def _distance(place: float, near: Sequence[float]) -> float:
    return min((abs(place - each) for each in near), default=0.0)
