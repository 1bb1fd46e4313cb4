"""What became of the examples that a revisor went over: bettered, or kept as they were, and why."""

from collections import Counter

from speed_ray.storage.shards import RECORDS, Artifact

LOOKED_AT = 2_000  # examples, from the first shards on: they give the shares to about a percent


def kept_because(revised_examples: Artifact) -> Counter[str]:
    """Count the first `LOOKED_AT` examples or a few more, by why they were kept; "" is for the revised ones."""
    counts: Counter[str] = Counter()
    for commit in revised_examples.commits():
        if RECORDS in commit.files:
            counts.update(revised_examples.read(commit.files[RECORDS].path)["kept_because"].to_pylist())
        if counts.total() >= LOOKED_AT:
            break
    return counts
