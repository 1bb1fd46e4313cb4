"""Index the passages of a corpus, to look them up by id and by text, on some 40 bytes of memory each.

Their ids and texts lie in a file. Ids, documents and texts are told apart by 64 bits of a hash.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speed_ray.curation.near_duplicates import Flags, Pairs
from speed_ray.curation.scan import hash_texts
from speed_ray.records import HELD_OUT, PassageRow, Row, titled_text
from speed_ray.storage.shards import Artifact
from speed_ray.text.rules import is_plain
from speed_ray.text.token_hashes import Hashes, Places

NOWHERE = -1  # in the place of a passage where there is none
COLUMNS = ["id", "parent_id", "title", "text", "split"]


class PassageIndex:
    """Index published passages, in their order; `folder` takes the file of their ids and texts.

    documents   the document of each. (passages,)
    texts       hash of each text, without its title. (passages,)
    held_out    belongs to a document that is never trained on. (passages,)
    """

    def __init__(self, passages: Artifact, folder: Path) -> None:
        self._file = (folder / "passages").open("w+b")
        ends: list[int] = [0]
        parts = []
        for file in passages.record_files().values():
            rows = passages.read(file.path).select(COLUMNS).to_pylist()
            parts.append(_hashes(rows))
            for row in rows:
                ends.append(ends[-1] + self._file.write(f"{row['id']}\n{titled_text(row)}".encode()))
        self._file.flush()
        self._ends = np.array(ends)
        ids, self.documents, self.texts, self._joined, self.held_out = map(np.concatenate, zip(*parts, strict=True))
        self._by_id, self._by_text = np.argsort(ids), np.argsort(self.texts, kind="stable")
        self._sorted_ids, self._sorted_texts = ids[self._by_id], self.texts[self._by_text]

    def __len__(self) -> int:
        return len(self.texts)

    def text(self, place: int) -> str:
        """Read a passage's text, after its title."""
        return self.id_and_text(place)[1]

    def id_and_text(self, place: int) -> tuple[str, str]:
        """Read a passage's id, and its text after its title."""
        begin, end = self._ends[place : place + 2].tolist()
        name, _, text = os.pread(self._file.fileno(), end - begin, begin).decode().partition("\n")
        return name, text

    def parents_of(self, rows: Sequence[Row]) -> Places:
        """Find the passage that each example was written about, NOWHERE where there is none. -> (rows,)"""
        wanted = hash_texts([row["parent_id"] for row in rows])
        found = np.minimum(np.searchsorted(self._sorted_ids, wanted), len(self) - 1)
        return np.where(self._sorted_ids[found] == wanted, self._by_id[found], NOWHERE)

    def answers_of(self, rows: Sequence[Row], parents: Places) -> Places:
        """Return the passages that are their examples' positives: of a label, no passage is. -> (rows,)"""
        positives = hash_texts([is_plain(row["positive"]) for row in rows])
        same = (positives == self.texts[parents]) | (positives == self._joined[parents])
        return np.where(same & (parents != NOWHERE), parents, NOWHERE)

    def copies_of(self, texts: Hashes) -> Pairs:
        """Pair each of some hashes of a text with all passages of that text. -> (pairs, 2)"""
        begins, ends = (np.searchsorted(self._sorted_texts, texts, side=side) for side in ("left", "right"))
        counts = ends - begins
        owners = np.repeat(np.arange(len(texts)), counts)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.stack([owners, self._by_text[begins[owners] + offsets]], 1)


def _hashes(rows: list[PassageRow]) -> tuple[Hashes, Hashes, Hashes, Hashes, Flags]:
    """Hash ids, documents, texts, and texts after their titles; tell which are held out."""
    titled = [is_plain(titled_text(row)) for row in rows]
    columns = [row["id"] for row in rows], [row["parent_id"] for row in rows], [is_plain(row["text"]) for row in rows]
    ids, documents, texts = map(hash_texts, columns)
    return ids, documents, texts, hash_texts(titled), np.array([row["split"] == HELD_OUT for row in rows])
