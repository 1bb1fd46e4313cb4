"""Format the output of `speed-ray quality`: numbers as tables, and nothing that a model wrote."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from speed_ray.evaluation.quality import BUCKETS, Margins, Quality

if TYPE_CHECKING:  # they bring torch, and the prompts
    from speed_ray.evaluation.win_rate import Wins


def quality_tables(quality: Quality) -> Iterator[RenderableType]:
    """Format yield, rejects, repetition and diversity, then a table of text lengths."""
    counts = quality.counts
    yield Text(
        f"{quality.artifact}: {counts.accepted:,} of {quality.planned:,} planned rows accepted ({quality.yielded:.1%})"
        f", {quality.records:,} examples"
    )
    for reason, count in sorted(counts.reasons.items(), key=lambda each: -each[1]):
        yield Text(f"  rejected, {reason}: {count:,}")
    parts = {
        "the same query and positive as another": f"{quality.duplicates:,}",
        "the same query as another": f"{quality.duplicate_queries:,}",
        "languages": ", ".join(f"{name} {count:,}" for name, count in sorted(quality.languages.items())),
        "clearly in another language": f"{quality.other_language:.1%}",
        "distinct words, pairs of words": f"{quality.distinct[1]:.3f}, {quality.distinct[2]:.3f}",
        "self-BLEU": f"{quality.self_bleu:.3f}",
    }
    for name, value in parts.items():
        yield Text(f"  {name}: {value}")
    yield Text(f"  (the last three of {quality.sample:,} examples, those with the lowest ids)")
    yield _lengths(quality)


def margin_tables(margins: Margins) -> Text:
    """Format the margins as one line."""
    left_out = (
        f"; {margins.without_negative:,} examples without a negative left out" if margins.without_negative else ""
    )
    return Text(
        f"margin of positive over negative, {margins.examples:,} examples: {margins.mean:.3f}, a tenth below "
        f"{margins.percentile_10:.3f}, a tenth above {margins.percentile_90:.3f}; "
        f"{margins.positive_share:.1%} of the positives are nearer; queries' diversity {margins.diversity:.3f}"
        f"{left_out}"
    )


def win_rate_tables(wins: "Wins", against: str) -> Text:
    """Format the win rate as one line."""
    left_out = {
        "verdicts could not be read": wins.unread,
        "pairs were one text twice": wins.alike,
        "examples were written for another prompt there": wins.pairing.other_prompt,
        "examples have none beside them there": wins.pairing.missing,
        "more pairs were not asked about": wins.pairing.beyond,
    }
    rest = "".join(f"; {count:,} {what}" for what, count in left_out.items() if count)
    if not wins.compared:
        return Text(f"no example of this run could be compared with one of {against}{rest}")
    share = f"{wins.rate:.1%} ± {wins.error:.1%}"
    return Text(f"{wins.judge} prefers this run to {against} in {share} of {wins.compared:,} pairs{rest}")


def _lengths(quality: Quality) -> Table:
    heads = [f"≤{most}" for most in BUCKETS] + [f">{BUCKETS[-1]}"]
    table = Table("kind", "text", *heads, title="Words")
    for column in table.columns[2:]:
        column.justify = "right"
    for kind, sides in sorted(quality.words.items()):
        for side, histogram in sides.items():
            table.add_row(kind, side, *(f"{count:,}" if count else "" for count in histogram))
    return table
