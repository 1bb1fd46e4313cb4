"""A PDF's text is read where the extra is installed, and nothing is read without it."""

import importlib.util

import pytest

from speed_ray.documents.faults import Fault
from speed_ray.documents.pdf import read_pdf, refuse_without_extra
from speed_ray.errors import UserError

PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>endobj
4 0 obj<</Length 50>>stream
BT /F1 24 Tf 72 700 Td (Words of a page.) Tj ET
endstream endobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
trailer<</Root 1 0 R>>
"""
EMPTY = PDF.replace(b"(Words of a page.)", b"()")


def test_its_text_is_read() -> None:
    assert read_pdf(PDF) == ("", "Words of a page.")


@pytest.mark.parametrize(("data", "reason"), [(b"no PDF", "unreadable"), (EMPTY, "no_text")])
def test_a_damaged_or_empty_one_is_a_fault(data: bytes, reason: str) -> None:
    with pytest.raises(Fault) as found:
        read_pdf(data)
    assert found.value.reason == reason


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refuse_without_extra(["a.md"])
    with pytest.raises(UserError, match=r"b.PDF is a PDF, .* pip install 'speed_ray\[pdf\]'"):
        refuse_without_extra(["a.md", "b.PDF"])
