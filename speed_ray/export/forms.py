"""List the forms of an export and make one: a form is how rows of artifacts, or a trained model, become files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from speed_ray import __version__
from speed_ray.errors import UserError, nearest
from speed_ray.export import beir_folder, flagembedding, hub, json_lines, tevatron, tuples
from speed_ray.export.dataset_card import render_card
from speed_ray.export.source import Source, all_artifacts, examples_alone, examples_and_corpus, named_artifact
from speed_ray.export.table import ExportedTable
from speed_ray.export.target_folder import is_finished, new_folder
from speed_ray.export.trained_embedder import MODEL_FORMS, export_embedder
from speed_ray.storage.run import Run


@dataclass(frozen=True)
class Form:
    """Hold what a form takes of a run, and what writes it."""

    choose: Callable[[Run, str | None], Source]
    write: Callable[[Source, Path], list[ExportedTable]]


FORMS = {
    "hub": Form(all_artifacts, hub.write_hub),
    "beir": Form(examples_and_corpus, beir_folder.write_beir),
    "sentence-transformers": Form(examples_alone, tuples.write_tuples),
    "flagembedding": Form(examples_alone, flagembedding.write_flagembedding),
    "tevatron": Form(examples_and_corpus, tevatron.write_tevatron),
    "jsonl": Form(named_artifact, json_lines.write_json_lines),
}


def export_run(run: Run, to: Path, name: str, artifact: str | None = None) -> list[str]:
    """Write rows of a run, or its embedder, into a new folder with a card; say what was written.

    Nothing is said, or written, where the folder is this very export already. Raises UserError for an unknown form,
    for what is not finished, and where another thing lies in the folder's place.
    """
    if name in MODEL_FORMS and artifact is None:
        return export_embedder(run, to, name)
    if name not in FORMS:
        if name in MODEL_FORMS:
            raise UserError(f"--artifact {artifact} is of rows, and --as {name} writes none.")
        raise UserError(f"--as {name}: there is no such form{nearest(name, [*FORMS, *MODEL_FORMS])}")
    return [line for table in export_rows(run, to, name, artifact) for line in table.describe()]


def export_rows(run: Run, to: Path, name: str, artifact: str | None = None) -> list[ExportedTable]:
    """Write a run's rows into a new folder in one of `FORMS`; no table where the folder is this export already."""
    source = FORMS[name].choose(run, artifact)
    contents = {
        "form": name,
        "speed_ray": __version__,
        "artifacts": {each.name: each.records_digest() for each in source.artifacts},
        "license": source.recipe.license,
    }
    if is_finished(to, contents):
        return []
    with new_folder(to, contents) as folder:
        tables = FORMS[name].write(source, folder)
        (folder / "README.md").write_text(render_card(source, name, tables), encoding="utf-8")
    return tables
