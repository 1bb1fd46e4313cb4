"""A few rounds of `make chaos-endpoint`: odd answers, lost ones, killed workers, and a budget that holds."""

import pytest

from benchmarks import chaos_endpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("number", [2, 4, 5])
def test_every_row_ends_once_within_the_budget(tmp_path, number):
    played = chaos_endpoint.round_of(number, 7, tmp_path)
    assert played["answers"] > chaos_endpoint.ROWS
