"""Write durations as a person would."""

UNITS = (("days", 86_400.0), ("hours", 3_600.0), ("min", 60.0))


def spell_seconds(seconds: float) -> str:
    """Write seconds in the largest unit of which there are two: "90.0 s", "71.3 min", "6.9 hours", "2.1 days"."""
    for unit, size in UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"
