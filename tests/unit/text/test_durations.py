"""A duration is written in the largest unit of which there are two."""

import pytest

from speed_ray.text.durations import spell_seconds


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (119, "119.0 s"), (120, "2.0 min"), (24_684, "6.9 hours"), (172_800, "2.0 days")],
)
def test_spelled_seconds(seconds, said):
    assert spell_seconds(seconds) == said
