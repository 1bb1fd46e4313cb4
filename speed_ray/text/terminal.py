"""Text that a model or a stranger wrote, made fit for a terminal."""

import unicodedata

from rich.text import Text


def sanitize(text: str) -> Text:
    """Text that cannot drive a terminal: control and format characters are shown as their code points."""
    kept = (c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else f"\\u{ord(c):04x}" for c in text)
    return Text("".join(kept))
