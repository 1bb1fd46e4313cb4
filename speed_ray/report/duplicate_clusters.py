"""Group the examples that curation turned away as duplicates by the one that they repeat."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from speed_ray.records import Row
from speed_ray.report.found_rows import find_rows
from speed_ray.report.funnel import Leg
from speed_ray.report.shown_text import TEXT, shown_text
from speed_ray.report.unreadable import Faults
from speed_ray.storage.run import CURATED_EXAMPLES
from speed_ray.storage.shards import RECORDS, REJECTS

REPEATS = "repeats "  # how the detail of such a reject begins, before the id
SIZES = (2, 3, 4, 5, 10, 20, 50)  # of clusters, each up to the next
LARGEST, MEMBERS = 5, 3


def read_clusters(legs: Sequence[Leg], faults: Faults) -> dict[str, Any] | None:
    """Count clusters by size, and show the largest; None where nothing was turned away as a duplicate."""
    leg = next((leg for leg in legs if leg.name == CURATED_EXAMPLES), None)
    if leg is None:
        return None
    repeated = faults.read("clusters of near-duplicates", Counter(), _repeated, leg)
    if not repeated:
        return None
    sizes = Counter(max(size for size in SIZES if size <= count + 1) for count in repeated.values())
    largest = [name for name, _ in sorted(repeated.items(), key=lambda pair: (-pair[1], pair[0]))[:LARGEST]]
    source = next((other for other in legs if other.name == leg.plan.input), None)
    first: dict[str, list[Row]] = {}
    if source:
        wanted = dict.fromkeys(largest, 0.0)
        what = "the first of each cluster"
        first = faults.read(what, {}, find_rows, source.artifact, source.commits, RECORDS, "id", wanted)
    details = {f"{REPEATS}{name}": 0.0 for name in largest}
    others = faults.read("members of clusters", {}, find_rows, leg.artifact, leg.commits, REJECTS, "detail", details)
    return {
        "clusters": len(repeated),
        "rows": repeated.total(),
        "sizes": [(_range(size), sizes[size]) for size in SIZES if sizes[size]],
        "most": max(sizes.values()),
        "largest": [
            {
                "size": repeated[name] + 1,
                "first": _texts(first.get(name, [])),
                "others": _texts(others.get(f"{REPEATS}{name}", [])[:MEMBERS]),
            }
            for name in largest
        ],
    }


def _repeated(leg: Leg) -> Counter[str]:
    """Count by id how many rows repeat it."""
    found: Counter[str] = Counter()
    for commit in leg.commits:
        if REJECTS in commit.files and any("duplicate" in reason for reason in commit.counts.reasons):
            details = leg.artifact.read(commit.files[REJECTS].path, ["detail"])["detail"].to_pylist()
            found.update(detail.removeprefix(REPEATS) for detail in details if detail.startswith(REPEATS))
    return found


def _range(size: int) -> str:
    after = next((other for other in SIZES if other > size), None)
    if after is None:
        return f"{size} or more"
    return str(size) if after == size + 1 else f"{size} to {after - 1}"


def _texts(rows: Sequence[Row]) -> list[str]:
    texts = (row["text"] if "text" in row else f"{row['query']}\n{row['positive']}" for row in rows)
    return [shown_text(text, TEXT) for text in texts]
