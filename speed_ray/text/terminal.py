"""Make text that a model or a stranger wrote safe to print on a terminal."""

import unicodedata

from rich.text import Text


def sanitize(text: str) -> Text:
    """Replace control and format characters by their code points, so that no text can drive a terminal."""
    kept = (c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else f"\\u{ord(c):04x}" for c in text)
    return Text("".join(kept))
