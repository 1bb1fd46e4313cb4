"""Decontaminate: find examples that share a run of 13 words, or a whole shorter text, with an evaluation set.

Sets come as BEIR folders, or as files of text, CSV, TSV, JSON lines or Parquet, alone or in a folder, each of them
perhaps gzipped. Of a BEIR folder the queries count and the documents that its qrels name: the rest of a corpus is no
answer to anything.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from speed_ray.errors import UserError
from speed_ray.text import beir, rules, tables, token_hashes
from speed_ray.text.token_hashes import Hashes, Places, Words

NGRAM = 13  # words (GPT-3's rule, arXiv 2005.14165, appendix C)
BATCH = 4_096  # texts
KEY = "curate.decontaminate: "


class EvaluationNgrams:
    """Hold the hashed word n-grams of evaluation sets, by the name of the set, sorted."""

    def __init__(self, sets: dict[str, Hashes]) -> None:
        self.sets = sets

    @property
    def digest(self) -> str:
        """Hash the n-grams of all sets, wherever their files lie."""
        digest = hashlib.blake2b(digest_size=16)
        for runs in sorted(runs.tobytes() for runs in self.sets.values()):
            digest.update(hashlib.blake2b(runs).digest())
        return digest.hexdigest()

    def find(self, read: Words) -> dict[int, str]:
        """Map the index of each text that shares an n-gram with a set to that set's name."""
        if not self.sets:
            return {}
        runs, owners = word_runs(read)
        found: dict[int, str] = {}
        for name, known in self.sets.items():
            indices = np.minimum(np.searchsorted(known, runs), len(known) - 1)
            found |= {int(owner): name for owner in np.unique(owners[known[indices] == runs])}
        return found


def read_evaluation_texts(paths: Iterable[str]) -> EvaluationNgrams:
    """Read and hash evaluation sets. Raises UserError for one that is missing, unreadable or without text."""
    return EvaluationNgrams({path: _known(path) for path in paths})


def _known(path: str) -> Hashes:
    texts = _texts(Path(os.path.expanduser(path)))
    known = [np.empty(0, np.uint64)]
    while some := list(islice(texts, BATCH)):
        known.append(np.unique(word_runs(token_hashes.hash_tokens(some))[0]))
    found = np.unique(np.concatenate(known))
    if not len(found):
        raise UserError(f"curate.decontaminate: {path} holds no text of {rules.FEWEST_TO_COPY} words or more.")
    return found


def word_runs(read: Words) -> tuple[Hashes, Places]:
    """Hash every run of 13 words, and every whole text of 4 to 12. -> hashes (n,), the text of each (n,)"""
    counts = read.counts()
    found = [read.grams(NGRAM)]
    for length in range(rules.FEWEST_TO_COPY, NGRAM):
        mine = counts[read.owners] == length
        found.append(Words(read.hashes[mine], read.owners[mine], read.texts).grams(length))
    return np.concatenate([each.hashes for each in found]), np.concatenate([each.owners for each in found])


def _texts(path: Path) -> Iterator[str]:
    if path.is_file():
        yield from _read(path)
    elif not path.is_dir():
        raise UserError(f"{KEY}there is no file or folder {path}.")
    elif beir.has_beir_files(path):
        yield from _beir(path)
    else:
        files = [file for file in sorted(path.rglob("*")) if tables.file_format(file) in tables.READERS]
        if not files:
            raise UserError(f"{KEY}{path} holds no file of these: {', '.join(tables.READERS)}.")
        for file in files:
            yield from _read(file)


def _beir(folder: Path) -> Iterator[str]:
    corpus, queries = beir.find_files(folder, beir.CORPUS, beir.QUERIES, where=KEY)
    qrels = [file for file in sorted(folder.glob("qrels/*")) if tables.file_format(file) == ".tsv"]
    if not qrels:
        raise UserError(f"{KEY}{folder} is no BEIR folder: it has no qrels/*.tsv")
    judged = {document for file in qrels for _, _, document, _ in beir.read_judgements(file, KEY)}
    yield from (text for _, _, row in beir.read_rows(queries, KEY) for text in _strings(row))
    found = False
    for _, name, row in beir.read_rows(corpus, KEY):
        if name in judged:
            found = True
            yield from _strings(row)
    if not found:
        raise UserError(f"{KEY}no document that {folder}/qrels names is in {corpus.name}: are they of another corpus?")


def _read(path: Path) -> Iterator[str]:
    reader = tables.READERS.get(tables.file_format(path))
    if reader is None:
        raise UserError(f"{KEY}{path} is none of these: {', '.join(tables.READERS)}.")
    yield from (text for _, row in tables.read_file(path, f"{KEY}{path}", reader) for text in _strings(row))


def _strings(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
