"""Say why a file, or a line of one, is no document."""

import codecs

MAX_BYTES = 50 << 20  # of a file or a line: ten thousand pages of text

CUT_OFF = "cut_off"  # the reason of a table whose rest cannot be read
UNREADABLE = ("unreadable", CUT_OFF, "binary", "not_utf8", "too_large", "not_json")  # of a damaged source
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class Fault(Exception):
    """A file or a line that is no document. `reason` is counted, `detail` is read by a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def too_large(what: str) -> Fault:
    """Return the fault of a file or a line that is not read to its end."""
    return Fault("too_large", f"the {what} is longer than {MAX_BYTES >> 20} MB")


def decode(data: bytes) -> str:
    """Decode UTF-8, without a byte order mark. Raises Fault for other text, with a guess at its encoding."""
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    if marked:
        raise Fault("not_utf8", f"it is {marked}; save it as UTF-8")
    if b"\0" in data:
        raise Fault("binary", "it holds zero bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Fault("not_utf8", f"{error.reason} at byte {error.start:,}{_guess(data)}") from None


def _guess(data: bytes) -> str:
    controls = sum(byte < 9 or 13 < byte < 32 for byte in data[:4096])
    if controls > len(data[:4096]) / 50:
        return "; perhaps it is no text at all"
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "; save it as UTF-8"
    return "; perhaps it is Windows-1252: iconv -f WINDOWS-1252 -t UTF-8"
