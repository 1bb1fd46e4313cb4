"""Warn of half precision on a CPU that has no instructions for it."""

import logging

import torch

_IS_FAST = {
    "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported,  # the check by which torch itself leaves it to oneDNN
    "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported,
}


def warn_of_slow_cpu(key: str, dtype: str, instead: str) -> None:
    """Log a warning where this machine's CPU emulates a dtype; `key` is the recipe's, `instead` what to set it to.

    On two Zen 3 cores bfloat16 takes seven times as long as float32 (15 and 108 GFLOP/s at batches of 512 tokens), and
    on Zen 4 half as long.
    """
    if dtype in _IS_FAST and not _IS_FAST[dtype]():
        logging.getLogger(__name__).warning(
            "%s: this machine's CPU has no instructions for %s and is several times slower at it than at float32. "
            "Set %s: %s.", key, dtype, key, instead,
        )  # fmt: skip
