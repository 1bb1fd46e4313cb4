"""Write the documents that examples are searched among, each text once, under an id that is a hash of it."""

from collections.abc import Callable
from typing import Any

from speed_ray.export.source import Source, read_tables
from speed_ray.records import content_id, titled_text
from speed_ray.storage.run import PASSAGES

Document = dict[str, Any]  # title, text, and as metadata the ids of its passage and document, where it is one


class CorpusFile:
    """Hands on the id, the text and the document of each text that it has not had before.

    What it had it remembers by 16 bytes each: a million texts take 90 MB.
    """

    def __init__(self, write: Callable[[str, str, Document], object]) -> None:
        self._write = write
        self._had: set[bytes] = set()

    def add_passages(self, source: Source) -> None:
        """Add all passages of a run of documents; none of a run of topics, which has no documents."""
        for artifact in source.artifacts:
            if artifact.name == PASSAGES:
                for table in read_tables(artifact):
                    for row in table.to_pylist():
                        ids = {"passage_id": row["id"], "document_id": row["document_id"]}
                        self._add(titled_text(row), {"title": row["title"], "text": row["text"], "metadata": ids})

    def add(self, text: str) -> str:
        """Add a text of an example; return its id, which is that of a passage of the same words."""
        return self._add(text, {"title": "", "text": text, "metadata": {}})

    def _add(self, text: str, document: Document) -> str:
        name = content_id(text)
        if (short := bytes.fromhex(name)) not in self._had:
            self._had.add(short)
            self._write(name, text, document)
        return name
