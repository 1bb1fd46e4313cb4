"""Try a training again after the loss of a worker, a link or a GPU, and after no other error."""

import pytest
import torch
from ray.exceptions import RayActorError

from speed_ray.on_ray.train import _is_of_a_loss

PAIR = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:33421"


@pytest.mark.parametrize(
    ("error", "is_of_a_loss"),
    [
        (RuntimeError(PAIR), True),
        (RuntimeError("Timed out waiting 1800000ms for recv operation to complete"), True),
        (torch.distributed.DistNetworkError("The client socket has failed to connect"), True),
        (torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:77, remote process exited"), True),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), True),
        (ConnectionResetError("reset by peer"), True),
        (RayActorError(), True),
        (KeyError("input_ids"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x8 and 16x4)"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (ValueError("connection is no column"), False),
        (AssertionError(), False),
    ],
)
def test_only_what_was_lost_is_tried_again(error, is_of_a_loss):
    assert _is_of_a_loss(error) is is_of_a_loss
