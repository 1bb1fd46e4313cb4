"""Cut and disarm what models and strangers wrote, so that a page stays small and no text in it moves another."""

from typing import Any

from speed_ray.text.terminal import disarm

NAME = 80  # characters of a kind, a reason, a model, a topic's part
TEXT = 600  # of a text that stands for many
LONG = 2_400  # of an example's text
WHOLE = 6_000  # of a text that is to be read


def shown_text(value: Any, limit: int = NAME) -> str:
    """Return a value as disarmed text, cut to so many characters with a note of its length."""
    text = str(value)
    cut = disarm(text[:limit])
    return cut if len(text) <= limit else f"{cut} … (cut: {len(text):,} characters)"


def most(counted: dict[str, int], number: int) -> list[tuple[str, int]]:
    """List the largest counts by name; what is left is added up under the last name."""
    ordered = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in ordered[number:])
    found = [(shown_text(name), count) for name, count in ordered[:number]]
    return [*found, (f"{len(ordered) - number:,} others", rest)] if rest else found
