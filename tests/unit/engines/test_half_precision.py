"""A CPU without instructions for half precision is warned of, one with them is not."""

import pytest

from speed_ray.engines import half_precision


@pytest.mark.parametrize(("dtype", "is_fast", "warned"), [("bfloat16", False, True), ("bfloat16", True, False),
                                                          ("float32", False, False)])  # fmt: skip
def test_only_a_cpu_that_emulates_the_dtype_is_warned_of(dtype, is_fast, warned, monkeypatch, caplog) -> None:
    monkeypatch.setitem(half_precision._IS_FAST, "bfloat16", lambda: is_fast)
    half_precision.warn_of_slow_cpu("generator.engine_kwargs.dtype", dtype, "float32")
    assert ("Set generator.engine_kwargs.dtype: float32." in caplog.text) == warned
