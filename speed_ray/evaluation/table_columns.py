"""Read the columns of an STS or classification table: by the names of its heading, or by their order without one."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from speed_ray.errors import UserError
from speed_ray.text import tables

NO_TABLES = (".jsonl", ".json", ".parquet", ".xlsx")


@dataclass(frozen=True)
class Columns:
    """Lists the columns that a table needs, each by all its names in lower case, the usual one first."""

    texts: tuple[tuple[str, ...], ...]
    value: tuple[str, ...]  # the last column: it tells a heading from a row

    @property
    def usual(self) -> str:
        """Return the heading to write."""
        return ",".join(names[0] for names in (*self.texts, self.value))

    def is_heading(self, row: list[str]) -> bool:
        """Test whether a first row names the column of values."""
        return any(cell.strip().lower() in self.value for cell in row)

    def find(self, heading: list[str]) -> list[int] | None:
        """Return the columns' places in a heading; None where they cannot be told, or one name stands there twice.

        Where the heading has just as many columns as are needed, those of unknown names are the texts, in their order.
        """
        cells = [cell.strip().lower() for cell in heading]
        found = [next((cells.index(name) for name in names if name in cells), None) for names in self.texts]
        value = next(cells.index(name) for name in self.value if name in cells)
        others = [place for place in range(len(cells)) if place not in (*found, value)]
        if len(cells) == len(self.texts) + 1:
            found = [others.pop(0) if place is None else place for place in found]
        places = [place for place in found if place is not None]
        is_told = len(places) == len(self.texts) and all(cells.count(cells[place]) == 1 for place in (*places, value))
        return [*places, value] if is_told else None


STS = Columns(
    texts=(
        ("sentence1", "sentence_1", "sentence_a", "text1", "text_1", "s1"),
        ("sentence2", "sentence_2", "sentence_b", "text2", "text_2", "s2"),
    ),
    value=("score", "similarity_score", "relatedness_score", "similarity", "label"),
)
CLASSIFICATION = Columns(
    texts=(("text", "sentence", "query", "utterance", "content"),),
    value=("label", "category", "intent", "class", "labels", "label_text"),
)


def read_columns(path: Path, columns: Columns) -> list[tuple[int, list[str]]]:
    """Read the wanted cells of all rows, each with its line. Raises UserError with the line, or for an empty table."""
    form = tables.file_format(path)
    if form in NO_TABLES:
        raise UserError(f"{path} is neither CSV nor TSV. Save it as one of them, with the heading {columns.usual}.")
    read = list(tables.read_file(path, str(path), tables.READERS[".tsv" if form == ".tsv" else ".csv"]))
    width = len(columns.texts) + 1
    places: list[int] | None = list(range(width))
    headed = bool(read) and columns.is_heading(read[0][1])
    if headed:
        line, heading = read.pop(0)
        places, width = columns.find(heading), len(heading)
        if places is None:
            raise UserError(f"{path}, line {line}: the heading does not name each of {columns.usual} once")
    if not read:
        raise UserError(f"{path} is empty")
    faults = [f"line {line}: {len(row)} columns, and {width} are wanted" for line, row in read if len(row) != width]
    tables.refuse_faults(str(path), faults)
    rows = [(line, [row[place] for place in places or ()]) for line, row in read]
    if not headed:
        _refuse_unknown_heading(path, columns, rows)
    if form == ".tsv" and all(row[0][:1] == row[0][-1:] == '"' for _, row in rows):
        raise UserError(f"{path} is a TSV, which has no quotes, and all of its texts have them. Save it as CSV.")
    return rows


def _refuse_unknown_heading(path: Path, columns: Columns, rows: list[tuple[int, list[str]]]) -> None:
    """Refuse a first row of which a cell is a column's name, or whose value alone stands in no other row."""
    line, first = rows[0]
    others = Counter(row[-1] for _, row in rows[1:])
    is_alone = first[-1] not in others and len(others) > 1 and min(others.values()) > 1
    is_name = any(cell.strip().lower() in names for cell in first for names in columns.texts)
    if is_name or (is_alone and first[-1].strip("+-.0123456789")):
        raise UserError(
            f"{path}, line {line}: {','.join(first)!r} looks like a heading of unknown names.\n"
            f"Name its columns {columns.usual}; if it is a row, put that heading before it."
        )
