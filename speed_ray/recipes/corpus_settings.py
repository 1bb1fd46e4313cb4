"""Define the recipe's corpus: the documents that queries are written about, and how they are split into passages."""

from pydantic import NonNegativeInt, PositiveInt, ValidationInfo
from pydantic import field_validator as validates

from speed_ray.recipes.setting import LocalPath, RuntimeOnly, Share, Similarity, Strict
from speed_ray.recipes.training_settings import Workers


class Columns(Strict):
    """Names the columns of a table, or the keys of its JSON objects."""

    id: str = "_id"  # where there is none, `id`; where that is missing too, a hash of title and text
    title: str = "title"  # the column of the title
    text: str = "text"  # the column of the text


class Corpus(Strict):
    """Names the documents, and sets their split into passages. null: the rule is off."""

    source: RuntimeOnly[str]  # a BEIR folder, a table, or a folder or glob of files, on any store
    columns: Columns = Columns()
    max_unreadable: RuntimeOnly[Share] = 0.1  # of the files and lines; beyond it the job stops
    held_out: Share = 0.1  # of the documents, with all that is made of them: never trained on
    duplicate_similarity: Similarity | None = 0.8  # Jaccard of word pairs from which a document repeats another
    tokenizer: LocalPath | None = None  # a model folder or name; null: the embedder's, else the reference's
    tokens: PositiveInt = 256  # of a passage, at most
    overlap: NonNegativeInt = 0  # tokens that a passage repeats of the one before it, in whole sentences
    examples: RuntimeOnly[LocalPath | None] = None  # a table of your own queries with their passages, shown in prompts
    workers: RuntimeOnly[Workers] = Workers()  # with more than one, files are read and documents split on Ray
    shard_rows: PositiveInt = 1_024  # documents, or passages, that are committed together

    @validates("overlap")
    @classmethod
    def overlap_is_less_than_a_passage(cls, overlap: int, others: ValidationInfo) -> int:
        """Refuse passages that would never get on."""
        if overlap >= others.data.get("tokens", overlap + 1):
            raise ValueError(f"overlap is {overlap} and tokens is {others.data['tokens']}: set overlap to less")
        return overlap
