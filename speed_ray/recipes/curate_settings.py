"""Define the recipe's curation: which examples are kept for training, and how they get their negatives."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from speed_ray.recipes.setting import KindNames, LanguageNames, LocalPath, RuntimeOnly, Share, Similarity, Strict
from speed_ray.recipes.training_settings import Workers


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
    max_words: PositiveInt | None = None
    check_language: bool = False  # once more: 25 to 50 microseconds a text
    decontaminate: RuntimeOnly[list[str]] = []  # evaluation sets, files or folders, whose texts may not be learnt from
    reference: LocalPath | None = None  # a folder or hub name of sentence-transformers
    margin_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = (
        None  # of its cosines, see the docs
    )
    semantic_similarity: Similarity | None = None  # its cosine of two queries from which an example repeats another
    mine_negatives: NonNegativeInt = 0  # hard negatives for an example that has none, by the reference or by words
    workers: RuntimeOnly[Workers] = Workers()  # with more than one, or with GPUs, the reference embeds on Ray
    shard_rows: PositiveInt = 2_048

    @model_validator(mode="after")
    def margin_and_semantics_have_a_reference(self) -> "Curate":
        """Refuse rules that nobody could apply."""
        for key in ("margin_range", "semantic_similarity"):
            if getattr(self, key) is not None and self.reference is None:
                raise ValueError(f"{key} is told by an embedder: name one as curate.reference")
        if self.margin_range and self.margin_range[0] >= self.margin_range[1]:
            raise ValueError(
                f"margin_range is from {self.margin_range[0]} to {self.margin_range[1]}: give the lower bound first"
            )
        return self
