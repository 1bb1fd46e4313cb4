"""Define the recipe's curation: which examples are kept for training, and how they get their negatives."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from speed_ray.recipes.setting import KindNames, LanguageNames, LocalPath, RuntimeOnly, Share, Similarity, Strict
from speed_ray.recipes.training_settings import Workers

Retriever = Literal["reference", "bm25"]


class FoundAgain(Strict):
    """Keeps an example whose passage its query finds again among the first of the whole corpus."""

    top: PositiveInt = 20  # the ranks that count as found
    by: Annotated[list[Retriever], Field(min_length=1)] = ["reference", "bm25"]  # which look for it
    all: bool = False  # by each of these, else by one


class MineNegatives(Strict):
    """Mines hard negatives for an example that has none; in a recipe their number alone will do. null: a rule is off.

    They come from the corpus where there is one, else from the positives of other examples.
    """

    count: NonNegativeInt = 0  # of each retriever
    by: list[Retriever] | None = None  # null: the reference, or bm25 where there is none
    depth: PositiveInt = 100  # nearest texts that are looked at
    skip_nearest: NonNegativeInt = 5  # of those that no other rule refuses: the likeliest to be right answers
    max_of_positive: Similarity | None = 0.95  # of the positive's cosine with the query; nearer ones may be right
    absolute_margin: NonNegativeFloat | None = None  # by which a text's cosine is to be lower than the positive's
    max_near_positive: Similarity | None = 0.9  # of the same cosine, for a text's with the positive: it says the same
    fallback: Literal["random"] | None = None  # what fills up where too few are left

    @model_validator(mode="before")
    @classmethod
    def count_alone(cls, value: Any) -> Any:
        """Take a plain number for the count."""
        return {"count": value} if isinstance(value, int) else value


class Curate(Strict):
    """Sets which examples are kept for training; each other one is a reject with its reason. null: the rule is off."""

    examples: PositiveInt | None = None  # at most so many to train on
    kinds: KindNames[dict[str, PositiveInt]] = {}  # at most so many of a kind to train on
    languages: LanguageNames[dict[str, PositiveInt]] = {}  # likewise
    label_share: Share | None = None  # of the classification examples kept that one label may have
    held_out: Share = 0.02  # of the tasks, with all their examples: never trained on
    duplicate_similarity: Similarity | None = 0.6  # Jaccard of word pairs from which an example repeats another
    max_overlap: Similarity | None = 0.8  # of a text's word triples, found in its query or positive; not for sts
    min_words: PositiveInt | None = None  # of query and positive together
    max_words: PositiveInt | None = None  # of both together
    check_language: bool = False  # once more: 25 to 50 microseconds a text
    decontaminate: RuntimeOnly[list[str]] = []  # evaluation sets, files or folders, whose texts may not be learnt from
    reference: LocalPath | None = None  # a folder or hub name of sentence-transformers
    margin_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = (
        None  # of its cosines, see the docs
    )
    semantic_similarity: Similarity | None = None  # its cosine of two queries from which an example repeats another
    found_again: FoundAgain | None = None  # of examples about passages
    mine_negatives: MineNegatives = MineNegatives()
    workers: RuntimeOnly[Workers] = Workers()  # with more than one, or with GPUs, the reference is on Ray
    shard_rows: PositiveInt = 2_048  # examples that are committed together

    @model_validator(mode="after")
    def margin_and_semantics_have_a_reference(self) -> "Curate":
        """Refuse rules that nobody could apply."""
        for key in ("margin_range", "semantic_similarity"):
            if getattr(self, key) is not None and self.reference is None:
                raise ValueError(f"{key} is told by an embedder: name one as curate.reference")
        for key, by in (("found_again", self.found_again and self.found_again.by), ("mine_negatives", self.miners)):
            if "reference" in (by or ()) and self.reference is None:
                raise ValueError(f"{key}.by names the reference: name one as curate.reference, or set by to [bm25]")
        if self.margin_range and self.margin_range[0] >= self.margin_range[1]:
            raise ValueError(
                f"margin_range is from {self.margin_range[0]} to {self.margin_range[1]}: give the lower bound first"
            )
        return self

    @property
    def miners(self) -> list[Retriever]:
        """List the retrievers that negatives are mined by."""
        return self.mine_negatives.by or ["reference" if self.reference else "bm25"]
