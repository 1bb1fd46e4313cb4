"""Read how large a model is from the heads of its safetensors files, without a weight."""

import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}  # of others, such as F8_E4M3, one


@dataclass(frozen=True)
class Size:
    """Holds a model's number of parameters and the bytes that they are stored in."""

    parameters: int
    bytes: int


def read_size(folder: Path) -> Size | None:
    """Return the size of the weights in a folder; None where it holds none."""
    return add_up((count, dtype) for file in folder.glob("*.safetensors") for count, dtype in _tensors(file))


def add_up(counted: Iterable[tuple[int, str]]) -> Size | None:
    """Return the size of weights by their number and type; None where there are none."""
    counts = list(counted)
    size = Size(sum(count for count, _ in counts), sum(count * BYTES.get(dtype, 1) for count, dtype in counts))
    return size if counts else None


def _tensors(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the number of values and the type of each tensor of a file, from its head alone."""
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        try:
            tensors = json.loads(stream.read(min(length, 1 << 26)))
        except ValueError:
            return
    for name, tensor in tensors.items():
        if name != "__metadata__":
            yield math.prod(tensor["shape"]), tensor["dtype"]
