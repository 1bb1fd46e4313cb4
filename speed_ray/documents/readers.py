"""Read the documents of one file: whatever it holds, each file or line comes out as a document or with its fault."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from speed_ray.documents import table_rows, text_files
from speed_ray.documents.faults import Fault
from speed_ray.recipes.corpus_settings import Columns
from speed_ray.records import content_id
from speed_ray.text.language import other_language
from speed_ray.text.language_names import name_of_code
from speed_ray.text.tables import file_format
from speed_ray.text.words import words_digest


class Parsed(NamedTuple):
    """Hold a file or a line of one as it was read; one with a `reason` is no document."""

    source: str
    document_id: str = ""
    title: str = ""
    text: str = ""
    reason: str = ""
    detail: str = ""
    digest: str = ""  # of the words of title and text
    language: str = ""  # the code of the one that it is in instead of those asked for

    @property
    def titled(self) -> str:
        """Return title and text, by which documents are compared."""
        return f"{self.title}\n{self.text}"


def parse_file(folder: Path, name: str, columns: Columns) -> Iterator[Parsed]:
    """Yield what one file holds, in order; a fault ends no other line's reading."""
    form = file_format(Path(name))
    try:
        if form in table_rows.FORMATS:
            yield from _of_table(folder, name, columns)
        elif form in text_files.FORMATS:
            title, text = text_files.read_text_file(folder / name, form)
            yield _checked(name, name, title, text)
        else:
            known = ", ".join((*table_rows.FORMATS, *text_files.FORMATS))
            raise Fault("other_format", f"its name ends in {form or 'nothing'}; read are {known}")
    except Fault as fault:
        yield Parsed(name, reason=fault.reason, detail=fault.detail)


def examine(parsed: Parsed, languages: Sequence[str]) -> Parsed:
    """Compute a document's digest, or say that it is in none of the languages."""
    if parsed.reason:
        return parsed
    found = [other_language(parsed.text, language) for language in languages]
    if not all(found):
        return parsed._replace(digest=words_digest(parsed.titled))
    code = str(found[0])
    detail = f"it is in {name_of_code(code)}; languages has {', '.join(languages)}"
    return parsed._replace(reason="wrong_language", detail=detail, language=code)


def _of_table(folder: Path, name: str, columns: Columns) -> Iterator[Parsed]:
    for line, row in table_rows.read_table_rows(folder / name):
        source = f"{name}, line {line}"
        try:
            if isinstance(row, Fault):
                raise row
            document_id, title, text = table_rows.pick_columns(row, columns)
            yield _checked(source, document_id or content_id(title, text), title, text)
        except Fault as fault:
            yield Parsed(source, reason=fault.reason, detail=fault.detail)


def _checked(source: str, document_id: str, title: str, text: str) -> Parsed:
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    title = " ".join(title.split())
    if "\0" in text or "\0" in title:
        raise Fault("binary", "it holds zero bytes")
    if not any(map(str.isalnum, text)):
        raise Fault("no_text", "it holds no letter and no digit")
    return Parsed(source, document_id, title, text)
