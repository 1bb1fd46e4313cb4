"""Make text that a model or a stranger wrote safe to show: on a terminal, and in a page."""

import unicodedata

from rich.text import Text

JOINERS = "\u200c\u200d"  # Persian, Hindi and emoji are misspelt without them, and they move nothing


def disarm(text: str) -> str:
    """Replace control and format characters by their code points, so that no text can drive what shows it."""
    if text.isascii() and text.isprintable():
        return text
    kept = "\n\t" + JOINERS
    return "".join(c if c in kept or unicodedata.category(c) not in ("Cc", "Cf") else f"\\u{ord(c):04x}" for c in text)


def sanitize(text: str) -> Text:
    """Return disarmed text without markup."""
    return Text(disarm(text))
