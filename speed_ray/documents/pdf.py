"""Read the text of a PDF, page by page, where the extra `pdf` is installed."""

import importlib.util
from collections.abc import Sequence
from typing import Any

from speed_ray.documents.faults import Fault
from speed_ray.errors import UserError

FORMATS = (".pdf",)


def refuse_without_extra(names: Sequence[str]) -> None:
    """Raise UserError for PDFs that nothing here can read."""
    first = next((name for name in names if name.lower().endswith(FORMATS)), None)
    if first and importlib.util.find_spec("pypdfium2") is None:
        raise UserError(
            f"corpus.source: {first} is a PDF, which the extra `pdf` reads: pip install 'speed_ray[pdf]'.\n"
            "Or name the other files by a pattern, such as docs/**/*.md."
        )


def read_pdf(data: bytes) -> tuple[str, str]:
    """Return title and text of a PDF. Raises Fault for one that is damaged, locked, or holds nothing but pictures."""
    import pypdfium2  # an extra

    try:
        with pypdfium2.PdfDocument(data) as document:
            pages = [_page_text(page) for page in document]
            title = document.get_metadata_value("Title")
    except pypdfium2.PdfiumError as error:
        raise Fault("unreadable", f"it is no PDF, or is locked: {error}") from None
    if not any(map(str.strip, pages)):
        raise Fault("no_text", f"its {len(pages):,} pages hold no text, as scanned ones do not")
    return title, "\n\n".join(pages)


def _page_text(page: Any) -> str:
    text: str = page.get_textpage().get_text_bounded()
    return text
