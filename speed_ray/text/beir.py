"""Read BEIR folders: corpus.jsonl {_id, title, text}, queries.jsonl {_id, text}, and qrels/<split>.tsv.

Ids are text, whatever JSON type they have, and `id` will do for `_id`. Qrels are query, document and score, or TREC's
four columns (query, iteration, document, score), between tabs or spaces; a heading may name them in another order.
Each file may be gzipped.
"""

import re
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from speed_ray.errors import UserError
from speed_ray.text import tables

CORPUS, QUERIES, TEST = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"
HEADINGS = (  # of the three columns of qrels, without "-" and "_"
    ("queryid", "qid", "query", "topic"),
    ("corpusid", "docid", "documentid", "docno", "doc", "document", "passageid", "pid"),
    ("score", "relevance", "rel", "label", "grade"),
)

Relevant = dict[str, dict[str, int]]


def has_beir_files(folder: Path) -> bool:
    """Test whether a folder holds a corpus or queries, so that it is read as one of BEIR."""
    return any(find_file(folder, name) for name in (CORPUS, QUERIES))


def find_file(folder: Path, name: str) -> Path | None:
    """Find a file by its name in a folder, plain or gzipped."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def find_files(folder: Path, *names: str, where: str = "") -> list[Path]:
    """Find all of these files. Raises UserError, which begins with `where`, and names those that are missing."""
    found = {name: find_file(folder, name) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        raise UserError(f"{where}{folder} is no BEIR folder: it has no {', no '.join(missing)}")
    return [path for path in found.values() if path]


def read_rows(path: Path, where: str = "") -> Iterator[tuple[int, str, tables.Json]]:
    """Yield the line, the id and the object of each line of a corpus or of queries. Raises UserError with the line."""
    name = f"{where}{path}"
    for line, row in tables.read_file(path, name, tables.read_json_lines):
        given = row.get("_id", row.get("id"))
        if given is None or given == "":
            raise UserError(f"{name}, line {line}: the JSON object has no _id")
        if not isinstance(given, str | int) or isinstance(given, bool):
            raise UserError(f"{name}, line {line}: the _id {given!r} is neither a text nor a whole number")
        yield line, str(given), row  # qrels hold text alone


def read_texts(path: Path, *keys: str) -> dict[str, str]:
    """Read the texts of a corpus or of queries by id; those under several keys are joined as mteb joins them.

    Empty ones are kept. Raises UserError for a line that has none of the keys, and for two texts with one id.
    """
    texts: dict[str, str] = {}
    faults = []
    for line, name, row in read_rows(path):
        given = [None if value != value else value for value in map(row.get, keys)]  # NaN: pandas' empty cell
        text = " ".join(str(value) for value in given if value is not None)
        text = text.strip() if len(keys) > 1 else text
        if not any(key in row for key in keys):
            faults.append(f"line {line}: {name!r} has no {' and no '.join(keys)}")
        elif any(isinstance(value, list | dict) for value in given):
            faults.append(f"line {line}: {name!r} has a list or an object where its text should be")
        elif texts.setdefault(name, text) != text:
            faults.append(f"line {line}: {name!r} is the id of another text already")
    tables.refuse_faults(str(path), faults)
    return texts


def read_judgements(path: Path, where: str = "") -> Iterator[tuple[int, str, str, int]]:
    """Yield the line, query, document and grade of each line of qrels. Raises UserError with the faulty lines."""
    name, faults = f"{where}{path}", []
    columns: tuple[int, ...] | None = None
    for line, [text] in tables.read_file(path, name, tables.read_text):
        cells = [cell.strip() for cell in text.split("\t")] if "\t" in text else text.split()
        if not any(cells):
            continue
        if columns is None:
            columns = _named_columns(cells)
            _, _, grade = _picked(cells, columns)
            if columns or (grade is not None and not re.search(r"\d", grade)):
                continue
        query, document, grade = _picked(cells, columns)
        if grade is None:
            faults.append(f"line {line}: {len(cells)} columns, and 3 are wanted (or 4, as in TREC)")
        elif not re.fullmatch(r"-?\d{1,9}(\.0*)?", grade):  # a larger one does not fit into trec_eval's
            faults.append(f"line {line}: {grade!r} is not a whole number of at most nine digits")
        else:
            yield line, query, document, int(float(grade))
    tables.refuse_faults(name, faults)


def _named_columns(cells: list[str]) -> tuple[int, ...]:
    """Find the columns of query, document and score in a heading; () where it does not name them all."""
    names = [re.sub("[-_ ]", "", cell.lower()) for cell in cells]
    found = [next((names.index(alias) for alias in aliases if alias in names), None) for aliases in HEADINGS]
    return tuple(place for place in found if place is not None) if None not in found else ()


def _picked(cells: list[str], columns: tuple[int, ...]) -> tuple[str, str, str | None]:
    places = columns or ((0, 2, 3) if len(cells) == 4 else (0, 1, 2))
    if len(cells) <= max(places) or (not columns and len(cells) > 4):
        return "", "", None
    query, document, grade = (cells[place] for place in places)
    return query, document, grade


def read_relevant(path: Path, queries: Container[str], documents: Mapping[str, str]) -> Relevant:
    """Read the grade of each judged document by query, of documents that the corpus lacks as well.

    Raises UserError for a query that is not there, for a document that is judged in two ways, and for qrels of which
    no document is there.
    """
    relevant: Relevant = defaultdict(dict)
    faults, found = [], False
    for line, query, document, grade in read_judgements(path):
        found = found or document in documents
        if query not in queries:
            faults.append(f"line {line}: {query!r} is not in {QUERIES}")
        elif relevant[query].setdefault(document, grade) != grade:
            faults.append(f"line {line}: {document!r} has another grade for {query!r} already")
    tables.refuse_faults(str(path), faults)
    if relevant and not found:
        raise UserError(f"{path} names no document that is in {CORPUS}: are these the qrels of another corpus?")
    return dict(relevant)
