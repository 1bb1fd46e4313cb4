"""Keep rows in a file between two passes over them, so that a million take no memory."""

import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

Item = TypeVar("Item")
ROWS, CHARACTERS = 1_024, 4 << 20  # held at once, at most: a document may have 50 million


class Spool(Generic[Item]):
    """Append batches of items to a new file, and read them again in order."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self.items = 0

    def add(self, batch: list[Item]) -> None:
        """Append some items."""
        pickle.dump(batch, self._file, pickle.HIGHEST_PROTOCOL)
        self.items += len(batch)

    def __iter__(self) -> Iterator[Item]:
        """Yield all items from the first."""
        self._file.seek(0)
        for _ in iter(lambda: self._file.peek(1), b""):
            yield from pickle.load(self._file)  # written above, by this process

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def in_order(results: Iterable[tuple[int, list[Item]]], folder: Path) -> Iterator[list[Item]]:
    """Yield the results of numbered tasks in the order of their numbers; what comes early waits in a file."""
    due = 0
    for number, items in results:
        (folder / f"task-{number}").write_bytes(pickle.dumps(items, pickle.HIGHEST_PROTOCOL))
        while (waiting := folder / f"task-{due}").exists():
            yield pickle.loads(waiting.read_bytes())  # written above, by this process
            waiting.unlink()
            due += 1


def in_batches(items: Iterable[tuple[int, Item]]) -> Iterator[list[Item]]:
    """Group (characters, item) pairs so that a batch takes little memory, however long its texts are."""
    batch: list[Item] = []
    held = 0
    for characters, item in items:
        if batch and (len(batch) == ROWS or held + characters > CHARACTERS):
            yield batch
            batch, held = [], 0
        batch.append(item)
        held += characters
    if batch:
        yield batch
