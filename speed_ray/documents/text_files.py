"""Read a file that is one document: plain text, Markdown, HTML or PDF."""

import gzip
import zlib
from pathlib import Path

from speed_ray.documents import html, pdf
from speed_ray.documents.faults import MAX_BYTES, Fault, decode, too_large
from speed_ray.documents.headings import find_headings

MARKDOWN = (".md", ".markdown")
FORMATS = (".txt", *MARKDOWN, *html.FORMATS, *pdf.FORMATS)


def read_text_file(path: Path, form: str) -> tuple[str, str]:
    """Return title and text of a file; a title may be "". Raises Fault, without reading more than the limit."""
    data = _read(path)
    if form in pdf.FORMATS:
        return pdf.read_pdf(data)
    if form in html.FORMATS:
        title, text = html.read_html(data)
    else:
        title, text = "", decode(data)
    first = None if title or form == ".txt" else next(find_headings(text), None)
    return first.heading if first else title, text


def _read(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Fault("unreadable", getattr(error, "strerror", None) or str(error)) from None
    if len(data) > MAX_BYTES:
        raise too_large("file")
    return data
