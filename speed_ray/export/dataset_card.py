"""Render the card of exported rows: metadata, how to open them, what was refused, who wrote, what was measured."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from speed_ray import __version__
from speed_ray.evaluation import quality
from speed_ray.export.card import identity_yaml, languages_of, render, to_yaml
from speed_ray.export.source import Source
from speed_ray.export.table import ExportedTable
from speed_ray.storage.run import ARTIFACTS
from speed_ray.text.language import other_language
from speed_ray.text.words import split_words

SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
SPEED = "arxiv:2410.18634"  # a tag by which the hub links the paper


def render_card(source: Source, form: str, tables: list[ExportedTable]) -> str:
    """Render README.md of an export in Markdown with the hub's YAML before it."""
    return render(
        "dataset_card.jinja",
        metadata=to_yaml(_metadata(source, tables)),
        form=form,
        tables=tables,
        rows=_rows(source),
        default=tables[0],
        grounded=source.recipe.is_grounded,
        version=__version__,
        license=source.recipe.license,
        judge=source.judge,
        unfinished=source.unfinished,
        funnel=_funnel(source),
        writers=_writers(source),
        measured=_measure(source) if source.examples else None,
        recipe=identity_yaml(source.recipe),
    )


def _rows(source: Source) -> int:
    return sum(file.rows for file in (source.examples or source.artifacts[0]).record_files().values())


def _metadata(source: Source, tables: list[ExportedTable]) -> dict[str, Any]:
    loaded = [table for table in tables if table.loads]
    return {
        **({"license": source.recipe.license} if source.recipe.license else {}),
        "language": languages_of(source.recipe),
        "pretty_name": source.run.uri.rstrip("/").rpartition("/")[2],
        "size_categories": [SIZES[min(max(len(str(_rows(source))) - 3, 0), len(SIZES) - 1)]],
        "task_categories": ["sentence-similarity", "text-retrieval"],
        "annotations_creators": ["machine-generated"],
        "tags": ["synthetic", "embeddings", "speed-ray", *([] if source.recipe.is_grounded else [SPEED])],
        "configs": [_config(table) | ({"default": True} if table is loaded[0] else {}) for table in loaded],
    }


def _config(table: ExportedTable) -> dict[str, Any]:
    splits = sorted(table.rows, reverse=True)  # train before held_out
    files = [{"split": split, "path": table.pattern.format(split=split)} for split in splits]
    return {"config_name": table.name, "data_files": files}


def _funnel(source: Source) -> list[tuple[str, int, dict[str, Any]]]:
    """List the finished artifacts with their planned rows and counts, in the order of making."""
    manifests = ((name, source.run.artifact(name).manifest()) for name in ARTIFACTS)
    return [(name, manifest["planned"], manifest["counts"]) for name, manifest in manifests if manifest]


def _writers(source: Source) -> dict[str, str]:
    """Name for each finished artifact that a model was asked for the model, as its plan has it."""
    found = {}
    for name in ARTIFACTS:
        plan = source.run.artifact(name).plan()
        finished = source.run.artifact(name).manifest() is not None
        if plan and finished and (engine := plan.identity.get("engine")):
            adapter = f" with the adapter {engine['adapter']}" if engine.get("adapter") else ""
            found[name] = f"{engine['model']}{adapter} ({engine['engine']})"
    return found


def _measure(source: Source) -> dict[str, Any]:
    """Measure a sample of the examples: the rows with the lowest ids, which are hashes."""
    assert source.examples is not None
    rows = quality.sample_rows(source.examples)
    texts = [split_words(f"{row['query']} {row['positive']}") for row in rows]
    others = sum(other_language(row["positive"], row["language"]) is not None for row in rows)
    return {
        "rows": len(rows),
        "kinds": _shares(row["kind"] for row in rows),
        "languages": _shares(row["language"] for row in rows),
        "negatives": _shares(str(len(row["negatives"])) for row in rows),
        "query_words": _median_words(row["query"] for row in rows),
        "positive_words": _median_words(row["positive"] for row in rows),
        "other_language": others / len(rows),
        "distinct": quality.distinct_n(texts, 2),
        "self_bleu": quality.self_bleu(texts[: quality.SELF_BLEU_TEXTS]),
    }


def _shares(values: Iterable[str]) -> dict[str, float]:
    counted = Counter(values)
    ordered = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
    return {name: count / counted.total() for name, count in ordered}


def _median_words(texts: Iterable[str]) -> int:
    lengths = sorted(len(split_words(text)) for text in texts)
    return lengths[len(lengths) // 2]
