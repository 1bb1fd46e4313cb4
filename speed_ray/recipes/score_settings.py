"""Define the recipe's scoring: who judges each pair, which gates refuse a row, and what a better text may replace."""

from typing import Annotated

from pydantic import Field, NegativeFloat, NonNegativeFloat, PositiveInt, model_validator

from speed_ray.errors import nearest
from speed_ray.recipes.language_model_settings import Fluency, Llm
from speed_ray.recipes.setting import LocalPath, RuntimeOnly, Similarity, Strict
from speed_ray.recipes.training_settings import Workers

REFERENCE, BM25, MIXTURE, LLM = "reference", "bm25", "mixture", "llm"
BY_REFERENCE = (REFERENCE, MIXTURE)  # judges that need curate.reference


class Gates(Strict):
    """Sets the bounds of what refuses a row; each gate's number is kept with the row. null: the gate is off.

    A gate whose number cannot be had, such as one of a reference that the recipe does not name, refuses nothing.
    """

    relatedness: float | None = 1.5  # deviations of the positive's cosine above those of other texts, at least
    order: float | None = 0.0  # by which the deciding judge puts the positive above each negative, at least
    meaning: float | None = 0.0  # of sts: by how much the negative's cosine lies below the positive's, at least
    label: PositiveInt | None = 1  # other examples of its task that get a classification's label, at least
    copied: Similarity | None = 0.5  # share of a text's word triples that its prompt has, from which it is refused
    # Share of people's texts that are less likely, at least.
    fluency: Annotated[float, Field(gt=0, lt=1)] | None = 0.01
    logprob: NegativeFloat | None = None  # mean of a text's tokens by the base model in nats, at least


class Score(Strict):
    """Names the judges that score each curated pair, by which rows are refused, relabelled and learnt from."""

    judges: Annotated[list[str], Field(min_length=1)] | None = None  # null: all that can be had
    cross_encoders: dict[str, LocalPath] = {}  # by name: a folder of transformers with one logit
    llm: Llm | None = None  # the teacher as a judge; null: it is not asked
    judge: str | None = None  # who decides what is in order; null: the mixture, else the first of the judges
    relabel: bool = False  # a passage that the judge puts above the positive takes its place
    # A mined negative, or a neighbour, by so much above the positive is one more positive; null: it is left out.
    further_positives: NonNegativeFloat | None = None
    neighbours: PositiveInt = 10  # nearest passages by reference and by words, where a better positive is sought
    gates: Gates = Gates()
    fluency: Fluency = Fluency()
    max_length: PositiveInt = 512  # tokens of a query and a text together that a cross-encoder reads
    batch_size: RuntimeOnly[PositiveInt] = 32  # pairs that a cross-encoder reads at once
    workers: RuntimeOnly[Workers] = Workers()  # more than one, or GPUs: the judges are on Ray
    shard_rows: PositiveInt = 512  # examples that are committed together

    @model_validator(mode="after")
    def judges_are_known(self) -> "Score":
        """Refuse a judge that nobody knows, or that nobody asks."""
        if taken := {REFERENCE, BM25, MIXTURE, LLM} & set(self.cross_encoders):
            raise ValueError(f"cross_encoders: {min(taken)} is the name of another judge: choose a name of its own")
        known = (REFERENCE, BM25, MIXTURE, *self.asked_judges)
        for name in self.judges or ():
            if name not in known:
                raise ValueError(f"judges: there is no judge {name!r}{nearest(name, known)}")
        if idle := [name for name in self.asked_judges if self.judges and name not in self.judges]:
            key = LLM if idle[0] == LLM else "cross_encoders"
            raise ValueError(f"{key}: {idle[0]} is asked for nothing: add it to judges")
        return self

    @property
    def asked_judges(self) -> list[str]:
        """List the judges that the section itself names a model for."""
        return [*self.cross_encoders, *([LLM] if self.llm else [])]

    def judge_names(self, has_reference: bool) -> list[str]:
        """List the judges by name, each once; of a recipe without a reference those that do without."""
        built_in = (REFERENCE, BM25, MIXTURE) if has_reference else (BM25,)
        return list(dict.fromkeys(self.judges or (*built_in, *self.asked_judges)))

    def deciding_judge(self, has_reference: bool) -> str:
        """Name the judge that decides which text is the better one."""
        names = self.judge_names(has_reference)
        return self.judge or (MIXTURE if MIXTURE in names else names[0])
