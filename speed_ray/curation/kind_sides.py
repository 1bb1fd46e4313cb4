"""Tell what may stand in the places of a kind's texts, by what the kind says of itself."""

from speed_ray import kinds


def answers_are_passages(name: str) -> bool:
    """Tell whether a passage may answer the queries of a kind: not where its positive is a label or a likeness."""
    kind = kinds.load_kind(name)
    return not (kind.positive_is_label or kind.shares_words)


def negatives_are_mined(name: str, grounded: bool) -> bool:
    """Tell whether a kind's negatives were mined, not written with the positive."""
    kind = kinds.load_grounded(name) if grounded else kinds.load_kind(name)
    return kind.negative is None
