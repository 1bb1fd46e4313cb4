"""Define the rows that flow through a run: a TypedDict and the Arrow schema derived from it for each, ids and seeds.

Every row names its parent, so an example walks back to its task and its topic. Ids are content hashes: the same
recipe gives the same ids on any cluster. Schemas are explicit because an inferred one turns a shard of empty lists
into `list<null>`, which then cannot be read beside its neighbours.
"""

import hashlib
from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

import pyarrow as pa

Row = Mapping[str, Any]  # any of the rows below
TRAIN, HELD_OUT = "train", "held_out"  # a row's split
Int32 = Annotated[int, pa.int32()]
Logprobs = Literal["prompt", "first_token"]  # of what an engine is to tell log-probabilities


class Message(TypedDict):
    """One turn of a prompt."""

    role: str  # "system", "user" or "assistant"
    content: str


class TopicRow(TypedDict):
    """A topic from the user's list."""

    id: str
    topic: str  # the path, at most four parts (SPEED, appendix D.1)
    source: str  # the line as the user wrote it


class DocumentRow(TypedDict):
    """A document of the corpus."""

    id: str  # of its content and its own id
    document_id: str  # as the source names it: a BEIR _id, a column, or a path
    title: str  # may be ""
    text: str
    source: str  # its file, with the line where a file holds several
    digest: str  # sha256 of its words, by which exact duplicates are found
    split: str  # "train" or "held_out"


class PassageRow(TypedDict):
    """A passage of a document: the unit that queries are written about and that is searched for."""

    id: str
    parent_id: str  # of its DocumentRow
    document_id: str
    title: str  # the document's
    headings: str  # above it in the document, outermost first, one a line; may be ""
    text: str
    start: int  # characters of the document's text before it
    end: int
    tokens: Int32  # by the corpus's tokenizer, without special ones
    digest: str  # sha256 of its words
    split: str  # its document's


class NeighbourRow(PassageRow):
    """A passage with its nearest neighbour, which prompts about it show as well."""

    neighbour_id: str  # of its PassageRow; "" where it has none
    neighbour: str  # its text, after its title


def titled_text(row: DocumentRow | PassageRow) -> str:
    """Join title and text as mteb does: what is embedded, searched and learnt of a passage."""
    return f"{row['title']} {row['text']}".strip()


def format_query(instruction: str, text: str) -> str:
    """Prefix a query with its instruction; without an instruction return the text unchanged."""
    return f"Instruct: {instruction}\nQuery: {text}" if instruction else text


class PassageEmbeddingRow(TypedDict):
    """A passage's vector by the reference model."""

    id: str  # of its PassageRow
    vector: Annotated[list[float], pa.list_(pa.field("element", pa.float16(), nullable=False))]  # of length 1


class IdColumns(TypedDict):
    """The columns with which every row that answers a prompt begins."""

    id: str
    row_id: str  # the planned prompt that this record answers
    parent_id: str
    kind: str
    topic: str


class TaskRow(IdColumns):
    """A task that a teacher proposed for a topic and kind."""

    task: str
    model: str


class ExampleRow(IdColumns):
    """A training example for the embedder."""

    language: str
    instruction: str  # what the embedder is told about the query
    query: str
    positive: str
    negatives: list[str]  # may be empty
    model: str


class RankedRow(ExampleRow):
    """An example about a passage, and how soon its query finds it."""

    rank: Int32  # of its passage among all of the corpus, from 1; 0 where no query was written


class RewrittenRow(RankedRow):
    """An example whose query was written again, where it finds its passage late."""

    rewritten: str  # the query as it was written again, "" where it was not
    writer: str  # the model that wrote it
    kept_because: str  # why there is none, "" where there is


class RevisedRow(ExampleRow):
    """An example that the revisor has been asked to revise."""

    revised: bool  # False: the example as it was
    kept_because: str  # why the revision was not taken, "" where it was


class CuratedRow(ExampleRow):
    """An example to train on, or one of a held-out task."""

    split: str  # "train" or "held_out", by task


class JudgeScores(TypedDict):
    """The scores that one judge gave to a row's texts as answers to its query: the higher, the better."""

    judge: str
    positive: float
    further_positives: list[float]  # in the order of the row's
    negatives: list[float]  # likewise


class GateNumber(TypedDict):
    """A number by which a gate passes a row on or refuses it."""

    gate: str
    number: float


class ScoredRow(CuratedRow):
    """A curated example with the scores that judges gave it, past the gates."""

    further_positives: list[str]  # that answer the query too
    scores: list[JudgeScores]  # one of each judge
    gates: list[GateNumber]  # of each gate that could tell
    relabelled_from: str  # the positive as it was before a better one took its place, else ""
    dropped: list[str]  # negatives that were left out because they may well be right answers


class CandidateScores(TypedDict):
    """The scores that one judge gave to all texts that may answer a query.

    `mean` and `deviation` are of its scores of the other texts that they are held against, 0 where there are none.
    """

    judge: str
    scores: list[float]  # of the positive, each negative, each neighbour
    mean: float
    deviation: float


class PairScoresRow(TypedDict):
    """All that judges say of a curated example, before anything is decided by it."""

    id: str  # of its CuratedRow
    kind: str
    background: Int32  # number of the other texts
    neighbours: list[str]  # passages among which a better positive is sought
    judged: list[CandidateScores]  # by each judge but the mixture
    gains: list[float]  # nDCG@10 of a held-out query by the mixture at each weight tried; of other rows none
    copied: float  # largest share of a text's word triples that its prompt has


class FluencyRow(IdColumns):
    """The log-probability by the base model of a text of a curated example."""

    side: str  # "query" or "positive"
    tokens: Int32  # that have a log-probability; 0: the text was not asked about, or is one token
    logprob: float  # their mean, in nats


class ReferenceFluencyRow(IdColumns):
    """The log-probabilities by the base model of a text that people wrote: a passage, from one of its sentences on."""

    text: str
    logprobs: list[float]  # of each token but a first that has none, in nats


class RelevanceRow(IdColumns):
    """The log-odds by which a model says that a text of a curated example answers its query."""

    place: Int32  # 0: the positive; then the negatives in order
    log_odds: float  # of yes against no, in nats
    model: str


class PromptRow(IdColumns):
    """The columns with which rows for the training of a generator or revisor begin.

    Below, `reply`, `chosen`, `rejected`, `candidates` and `example` are an example's fields as JSON text, in the order
    of their kind, or a line for a generator that continues lines: the form that a model is to learn.
    """

    messages: list[Message]  # as the model will be asked


class SftRow(PromptRow):
    """A prompt and the reply to learn."""

    reply: str
    model: str


class CandidatesRow(PromptRow):
    """A prompt and the replies that a junior wrote to it."""

    task: str
    language: str
    candidates: list[str]  # different from each other, each past its kind's checks
    model: str


class PreferenceRow(PromptRow):
    """A prompt, the reply to prefer and the one to avoid."""

    chosen: str
    rejected: str
    model: str


class VerdictRow(PromptRow):
    """A preference pair with the verdict of a judge, or of scores, from which it was made."""

    chosen: str
    rejected: str
    order: list[Int32]  # the candidates' indices as they were shown
    best: Int32  # position as shown, from 1
    worst: Int32
    reason: str
    model: str


class RevisionRow(PromptRow):
    """A prompt for a revision, and the teacher's revision with its remarks."""

    example: str  # what was criticised
    reply: str  # the teacher's revision of it
    relevance: str
    completeness: str
    accuracy: str
    model: str


class TokenLogprob(TypedDict):
    """A token as text, and its log-probability in nats."""

    token: str
    logprob: float


class ReplyRow(TypedDict):
    """One raw sample of a model's reply."""

    row_id: str
    trial: Int32  # 0, then one more for each malformed reply
    sample: Int32  # 0 .. n-1 of one request
    messages: list[Message]
    text: str
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    seed: int
    model: str
    adapter: str | None
    logprobs: list[TokenLogprob]  # of the prompt or of the likeliest first tokens, where they were asked for


class RejectRow(TypedDict):
    """A planned row that became no record."""

    row_id: str
    parent_id: str
    stage: str
    kind: str
    reason: str  # one word or two, counted: "not_json", "label_in_text"
    detail: str  # a sentence for a person
    text: str  # the raw reply, "" when there was none


_ARROW_TYPES = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


def arrow_schema(row: type) -> pa.Schema:
    """Derive the Arrow schema of a TypedDict: columns in its order, not nullable unless annotated `X | None`."""
    return pa.schema([_arrow_field(name, hint) for name, hint in get_type_hints(row, include_extras=True).items()])


def _arrow_field(name: str, hint: Any) -> pa.Field:
    options = get_args(hint)
    if NoneType in options:
        return pa.field(name, _ARROW_TYPES[options[0]])
    if get_origin(hint) is Annotated:
        arrow = options[1]
    elif get_origin(hint) is list:
        arrow = pa.list_(_arrow_field("element", options[0]))
    else:
        arrow = pa.struct(list(arrow_schema(hint))) if is_typeddict(hint) else _ARROW_TYPES[hint]
    return pa.field(name, arrow, nullable=False)


TOPIC, TASK, REPLY, REJECT = map(arrow_schema, (TopicRow, TaskRow, ReplyRow, RejectRow))
DOCUMENT, PASSAGE, NEIGHBOUR = map(arrow_schema, (DocumentRow, PassageRow, NeighbourRow))
PASSAGE_EMBEDDING = arrow_schema(PassageEmbeddingRow)
RANKED, REWRITTEN = map(arrow_schema, (RankedRow, RewrittenRow))
EXAMPLE, REVISED, CURATED, SCORED = map(arrow_schema, (ExampleRow, RevisedRow, CuratedRow, ScoredRow))
JUDGED_PAIR = arrow_schema(PairScoresRow)
SFT_EXAMPLE, CANDIDATE_LIST, PREFERENCE_PAIR = map(arrow_schema, (SftRow, CandidatesRow, PreferenceRow))
VERDICT, REVISION = map(arrow_schema, (VerdictRow, RevisionRow))
FLUENCY_ROW, REFERENCE_FLUENCY_ROW = map(arrow_schema, (FluencyRow, ReferenceFluencyRow))
RELEVANCE_ROW = arrow_schema(RelevanceRow)


class Rejected(Exception):
    """A reply that cannot become a record. `reason` is counted in the funnel, `detail` is read by a person."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def content_id(*parts: str) -> str:
    """Hash strings to the 32 hex digits that name a row: the same parts, the same id, anywhere."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def is_in_share(item_id: str, salt: str, share: float) -> bool:
    """Select a `share` of all ids by a hash of the id and a salt: the same ones whatever other ids there are."""
    return int(content_id(item_id, salt)[:8], 16) < share * 2**32


def seed_of(recipe_seed: int, row_id: str, purpose: str) -> int:
    """Return the 31-bit seed of one row for one purpose ("slots", "trial 0", ...): never a global random state."""
    return int(content_id(str(recipe_seed), row_id, purpose)[:8], 16) & 0x7FFFFFFF
