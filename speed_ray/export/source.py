"""Name what of a run is exported, and read it a shard at a time, each file checked by its sha256 first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from speed_ray.errors import Interrupted, UserError, nearest
from speed_ray.recipes.schema import Recipe
from speed_ray.records import HELD_OUT, TRAIN, JudgeScores
from speed_ray.storage.run import (
    ARTIFACTS,
    OF_EXAMPLES,
    PASSAGE_EMBEDDINGS,
    PASSAGES,
    PRODUCED_BY,
    SCORED_EXAMPLES,
    Run,
    finished_pairs,
)
from speed_ray.storage.shards import Artifact


@dataclass(frozen=True)
class Source:
    """Hold what is exported: published artifacts, and the one among them whose rows are the examples to learn from."""

    run: Run
    recipe: Recipe
    artifacts: tuple[Artifact, ...]
    examples: Artifact | None
    unfinished: tuple[str, ...] = ()  # artifacts that were begun, and would be exported once they are finished

    @property
    def judge(self) -> str | None:
        """Name the judge whose scores go along: the one that the embedder learns from, else the one that decides."""
        if self.examples is None or self.examples.name != SCORED_EXAMPLES or self.recipe.score is None:
            return None
        learnt_from = self.recipe.embedder.judge if self.recipe.embedder else None
        return learnt_from or self.recipe.score.deciding_judge(self.recipe.has_reference)

    def shards(self) -> Iterator[list[Any]]:
        """Yield the examples in the order of their plan, the rows of a shard at a time."""
        assert self.examples is not None, "a form of examples has some"
        for table in read_tables(self.examples):
            yield table.to_pylist()


def all_artifacts(run: Run, name: str | None) -> Source:
    """Choose one artifact, or all that are published but vectors, which anybody can compute again.

    Raises UserError where nothing is published, or not what is named.
    """
    recipe = run.recipe()
    names = [each for each in ARTIFACTS if each != PASSAGE_EMBEDDINGS] if name is None else [name]
    found = [published(run, each) for each in names if name or run.artifact(each).manifest() is not None]
    filled = tuple(artifact for artifact in found if artifact.record_files())
    if not filled:
        raise UserError(
            f"{run.uri} holds nothing finished to export yet. See how far it is: speed-ray status {run.uri}"
        )
    of_examples = {artifact.name: artifact for artifact in filled if artifact.name in OF_EXAMPLES}
    examples = next((of_examples[each] for each in OF_EXAMPLES if each in of_examples), None)
    begun = (run.artifact(each) for each in names)
    unfinished = tuple(each.name for each in begun if each.plan() is not None and each.manifest() is None)
    return Source(run, recipe, filled, examples, unfinished)


def examples_alone(run: Run, name: str | None) -> Source:
    """Choose the run's finished examples, or those that are named. Raises UserError where they are not published."""
    recipe = run.recipe()
    chosen = published(run, name or finished_pairs(recipe))
    if chosen.name not in OF_EXAMPLES:
        raise UserError(f"--artifact {name} holds no examples, which this form is made of: {', '.join(OF_EXAMPLES)}")
    if not chosen.record_files():
        raise UserError(f"{chosen.where} holds no row. See why: speed-ray show {run.uri} {chosen.name} --rejects")
    return Source(run, recipe, (chosen,), chosen)


def named_artifact(run: Run, name: str | None) -> Source:
    """Choose any artifact by its name, or the run's finished examples. Raises UserError as the others do."""
    return examples_alone(run, None) if name is None else all_artifacts(run, name)


def examples_and_corpus(run: Run, name: str | None) -> Source:
    """Choose the finished examples, and with them the passages of a run of documents. Raises as `examples_alone`."""
    source = examples_alone(run, name)
    if not source.recipe.is_grounded:
        return source
    return Source(run, source.recipe, (*source.artifacts, published(run, PASSAGES)), source.examples)


def published(run: Run, name: str) -> Artifact:
    """Return an artifact of a run. Raises UserError where it has none of that name, or it is not finished."""
    if name not in ARTIFACTS:
        raise UserError(f"there is no artifact {name!r}{nearest(name, ARTIFACTS)}")
    artifact = run.artifact(name)
    if artifact.manifest() is None:
        earlier = [each for each in OF_EXAMPLES if run.artifact(each).manifest() is not None]
        instead = f", or export what there is with --artifact {earlier[0]}" if name in OF_EXAMPLES and earlier else ""
        raise UserError(f"{artifact.where} is not finished: run `speed-ray {PRODUCED_BY[name]}` first{instead}.")
    return artifact


def read_tables(artifact: Artifact) -> Iterator[pa.Table]:
    """Yield a published artifact's rows, a shard at a time. Raises Interrupted where a file is damaged."""
    for file in artifact.record_files().values():
        if damage := artifact.damage(file):
            raise Interrupted(
                f"{artifact.where}/{file.path}: {damage}.\n"
                f"Nothing was exported. Have it made anew: speed-ray verify {artifact.store.uri} --repair"
            )
        yield artifact.read(file.path)


def tables_by_split(artifact: Artifact, otherwise: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield rows with their split, a shard at a time; those of an artifact without splits as `otherwise`."""
    for table in read_tables(artifact):
        if "split" not in table.column_names:
            yield otherwise, table
            continue
        for split in (TRAIN, HELD_OUT):
            part = table.filter(pc.equal(table["split"], split))
            if len(part):
                yield split, part


def positives_of(row: dict[str, Any]) -> list[str]:
    """Return a row's positive and the further ones that a judge found (`score.further_positives`)."""
    return [row["positive"], *row.get("further_positives", ())]


def scores_by(judge: str | None, scores: list[JudgeScores]) -> JudgeScores | None:
    """Return a judge's scores of a row; None without a judge."""
    return next((each for each in scores if each["judge"] == judge), None)
