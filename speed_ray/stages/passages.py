"""Split the documents into the `passages` artifact: what queries are written about, and what is searched."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from speed_ray.documents.splitter import Span, Splitter
from speed_ray.documents.spool import Spool, in_batches, in_order
from speed_ray.engines import model_folder
from speed_ray.errors import UserError
from speed_ray.executor.stage import artifact_identity
from speed_ray.recipes.corpus_settings import Corpus
from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.training_settings import Workers
from speed_ray.records import PASSAGE, DocumentRow, PassageRow, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.run import DOCUMENTS, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.text.words import words_digest


@dataclass(frozen=True)
class Split:
    """Hold how documents are split, and the identity of all that decides it."""

    recipe: Recipe
    splitter: Splitter
    identity: dict[str, object]


def prepare_split(recipe: Recipe) -> Split:
    """Load the tokenizer that passages are measured by. Raises UserError where none is named, or it is none."""
    corpus = recipe.corpus
    assert corpus is not None, "documents are read first"
    folder, key = _tokenizer_folder(recipe, corpus)
    digest = hashlib.sha256(model_folder.tokenizer_file(folder, key).read_bytes()).hexdigest()
    identity = {
        "code": code_digests(__name__),
        "tokenizer": digest,
        "tokens": corpus.tokens,
        "overlap": corpus.overlap,
    }
    splitter = Splitter(model_folder.load_tokenizer(folder, key), corpus.tokens, corpus.overlap)
    return Split(recipe, splitter, identity)


def _tokenizer_folder(recipe: Recipe, corpus: Corpus) -> tuple[Path, str]:
    embedder, reference = recipe.embedder, recipe.curate.reference
    if corpus.tokenizer:
        return model_folder.fetch_model_folder(corpus.tokenizer, None, "corpus.tokenizer"), "corpus.tokenizer"
    if embedder:
        return model_folder.fetch_model_folder(embedder.model, embedder.revision, "embedder.model"), "embedder.model"
    if reference:
        return model_folder.fetch_model_folder(reference, None, "curate.reference"), "curate.reference"
    raise UserError(
        "corpus.tokenizer: passages are measured in tokens, and the recipe names neither an embedder nor a "
        "reference.\nSet it to the model folder, or the name, of the embedder that will search the passages."
    )


def split_passages(run: Run, split: Split) -> Artifact:
    """Split all documents and publish their passages, unless that is done."""
    artifact, source = run.artifact(PASSAGES), run.artifact(DOCUMENTS)
    identity = {**split.identity, "input": artifact_identity(source)}
    existing = artifact.plan() if artifact.manifest() is not None else None
    if existing is not None and existing.identity == identity:
        return artifact
    corpus = split.recipe.corpus
    assert corpus is not None
    with tempfile.TemporaryDirectory(prefix="speed_ray-passages-") as folder:
        spool: Spool[PassageRow] = Spool(Path(folder) / "passages")
        for batch in _split(run, split, corpus.workers, Path(folder)):
            spool.add(batch)
        plan = Plan(PASSAGES, spool.items, corpus.shard_rows, input=DOCUMENTS, identity=identity)
        rows = (driver_stage.RowResult(row["id"], row, None) for row in spool)
        driver_stage.publish_rows(artifact, plan, PASSAGE, rows)
        spool.close()
    return artifact


def _split(run: Run, split: Split, workers: Workers, folder: Path) -> Iterator[list[PassageRow]]:
    """Yield the passages of all documents in their order, from this process or from Ray's workers."""
    if workers.num_workers == 1:
        return _split_here(run.artifact(DOCUMENTS).records(), split)
    return _split_on_ray(run, split.recipe, workers, folder)


def _split_here(documents: Iterable[DocumentRow], split: Split) -> Iterator[list[PassageRow]]:
    for batch in in_batches((len(document["text"]), document) for document in documents):
        yield list(passages_of(batch, split.splitter))


def _split_on_ray(run: Run, recipe: Recipe, workers: Workers, folder: Path) -> Iterator[list[PassageRow]]:
    from speed_ray.on_ray import map_tasks  # brings Ray, which one process does without

    paths = [file.path for file in run.artifact(DOCUMENTS).record_files().values()]
    tasks = map_tasks.map_tasks("corpus", paths, partial(ShardSplitter, run.uri, recipe), workers)
    yield from in_order(tasks, folder)


class ShardSplitter:
    """Split the documents of a shard in a worker."""

    def __init__(self, uri: str, recipe: Recipe) -> None:
        self.source = Run(uri).artifact(DOCUMENTS)
        self.split = prepare_split(recipe)

    def __call__(self, path: str) -> list[PassageRow]:
        batches = _split_here(self.source.read(path).to_pylist(), self.split)
        return [row for batch in batches for row in batch]


def passages_of(documents: Iterable[DocumentRow], splitter: Splitter) -> Iterator[PassageRow]:
    """Yield the passages of some documents, in order."""
    documents = list(documents)
    spans = splitter.split_documents([document["text"] for document in documents])
    for document, of_document in zip(documents, spans, strict=True):
        yield from (_passage(document, span) for span in of_document)


def _passage(document: DocumentRow, span: Span) -> PassageRow:
    text = document["text"][span.start : span.end]
    return {
        "id": content_id(document["id"], str(span.start), str(span.end)),
        "parent_id": document["id"],
        "document_id": document["document_id"],
        "title": document["title"],
        "headings": "\n".join(heading for heading in span.headings if heading != document["title"]),
        "text": text,
        "start": span.start,
        "end": span.end,
        "tokens": span.tokens,
        "digest": words_digest(text),
        "split": document["split"],
    }
