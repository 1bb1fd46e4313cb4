"""Split the documents into the `passages` artifact: what queries are written about, and what is searched."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from speed_ray.documents.splitter import Span, Splitter
from speed_ray.documents.spool import Spool, in_batches
from speed_ray.engines import model_folder
from speed_ray.errors import UserError
from speed_ray.executor.stage import artifact_identity
from speed_ray.recipes.corpus_settings import Corpus
from speed_ray.recipes.schema import Recipe
from speed_ray.records import PASSAGE, DocumentRow, PassageRow, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.run import DOCUMENTS, PASSAGES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.text.words import words_digest


@dataclass(frozen=True)
class Split:
    """Hold how documents are split, and the identity of all that decides it."""

    splitter: Splitter
    identity: dict[str, object]
    shard_rows: int


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
    return Split(splitter, identity, corpus.shard_rows)


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


def split_passages(run: Run, split: Split) -> None:
    """Split all documents and publish their passages, unless that is done."""
    artifact, source = run.artifact(PASSAGES), run.artifact(DOCUMENTS)
    identity = {**split.identity, "input": artifact_identity(source)}
    existing = artifact.plan() if artifact.manifest() is not None else None
    if existing is not None and existing.identity == identity:
        return
    with tempfile.TemporaryDirectory(prefix="speed_ray-passages-") as folder:
        spool: Spool[PassageRow] = Spool(Path(folder) / "passages")
        for batch in in_batches((len(document["text"]), document) for document in source.records()):
            spool.add(list(passages_of(batch, split.splitter)))
        plan = Plan(PASSAGES, spool.items, split.shard_rows, input=DOCUMENTS, identity=identity)
        rows = (driver_stage.RowResult(row["id"], row, None) for row in spool)
        driver_stage.publish_rows(artifact, plan, PASSAGE, rows)
        spool.close()


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
