"""Define the recipe: every key, its type, its default, and what must hold between keys. `recipes/` reads one."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    model_validator,
)
from pydantic import field_validator as validates

from speed_ray import kinds
from speed_ray.errors import nearest
from speed_ray.recipes.corpus_settings import Corpus
from speed_ray.recipes.curate_settings import Curate
from speed_ray.recipes.engine_settings import EngineConfig, continues_lines
from speed_ray.recipes.score_settings import BY_REFERENCE, Score
from speed_ray.recipes.setting import (
    FROZEN,
    LanguageNames,
    LocalPath,
    RuntimeOnly,
    Similarity,
    Strict,
    refuse_unknown_kind,
)
from speed_ray.recipes.stage_settings import SampledStage, Sampling
from speed_ray.recipes.training_settings import Dpo, Embedder, Revisor, Sft, Workers


class Topics(Strict):
    """Names the source of topics: a file or URI (one path a line, or a table with a `topic` column)."""

    source: RuntimeOnly[str]  # a file or a URI
    limit: PositiveInt | None = None  # the first so many; all, by default


class Brainstorm(SampledStage):
    """Topics to tasks. About five are asked for, one is kept: 62.6 MTEB; three 61.6, five 60.9 (SPEED, table 3)."""

    tasks_per_prompt: PositiveInt = 5  # that the teacher is asked for at once
    tasks_per_topic: PositiveInt = 1  # that are kept of each topic and kind
    duplicate_similarity: Similarity = 0.7  # Jaccard of word pairs above which a task repeats another of its kind


class Draft(SampledStage):
    """The junior's lessons: the teacher's own examples (SPEED, section 3.1; 25K calls, section 4.5).

    Of documents they may be had without a teacher: titles and headings with their passages, or the user's own queries.
    """

    examples: PositiveInt = 1_000  # prompts to plan, or pairs to take
    lessons: Literal["teacher", "corpus", "examples"] = "teacher"  # whose; the last: those of corpus.examples


class Propose(SampledStage):
    """The junior's root data: a list of candidates for every prompt (SPEED, section 3.2)."""

    lists: PositiveInt = 400  # prompts to plan; each list is judged once
    candidates: Annotated[int, Field(ge=2)] = 5  # SPEED, figure 5; the text does not say


class Judge(SampledStage):
    """The teacher names the best and the worst candidate of a prompt (SPEED, section 3.2; T=0, appendix B).

    Of documents the scores do: how well each candidate finds its passage again.
    """

    engine: Literal["teacher", "scores"] = "teacher"
    sampling: Sampling = Sampling(temperature=0.0)


class Critique(SampledStage):
    """The teacher betters candidates: the revisor's lessons (SPEED, section 3.3)."""

    candidates: PositiveInt = 1  # of each list, drawn at random (SPEED: 10K revisions, as many as judgements)


class Synthesize(SampledStage):
    """Tasks, or passages of documents, to examples."""

    examples: PositiveInt | None = 1_000  # prompts to plan; each ends as an example or a reject
    per_passage: PositiveInt = 2  # prompts about each passage of a recipe of documents, whose `examples` is null
    contrast: bool = False  # show the passage's nearest neighbour, which is not to answer the query
    generator: Literal["base", "junior", "senior"] = "base"  # the recipe's generator as it is, or trained in this run
    revise: bool = False  # the run's revisor goes over each example once


class Revise(SampledStage):
    """The revisor goes over each example once: one whose revision fails its checks stays as it was (single pass).

    Of documents the generator writes queries again that find their passages late.
    """

    found_after: PositiveInt = 20  # others: a query about a passage with a higher rank than this is written again
    max_retries: NonNegativeInt = 0


class EvaluationSet(Strict):
    """A file, a folder or `miniature://retrieval`; in a recipe its path alone will do."""

    path: str
    instruction: str | None = None  # before each query; null: the usual one of such sets, "": none

    @model_validator(mode="before")
    @classmethod
    def path_alone(cls, value: Any) -> Any:
        """Take a plain string for the path."""
        return {"path": value} if isinstance(value, str) else value


class ClassificationSet(Strict):
    """Two tables of text and label: a regression learns from a few rows of the one and is tested on the other."""

    train: str  # the table to fit a classifier on
    test: str  # the table to score it on
    instruction: str | None = None  # before each text


class Evaluate(Strict):
    """Lists the evaluation sets, on which the embedder and its base are scored."""

    sts: list[EvaluationSet] = []  # tables of text, text, score
    classification: list[ClassificationSet] = []
    retrieval: list[EvaluationSet] = []  # BEIR folders
    mteb: list[str] = []  # tasks, types of task, or a whole benchmark: "MTEB(eng, v2)"
    workers: RuntimeOnly[Workers] = Workers()


class Recipe(Strict):
    """The whole recipe, as it is frozen into a run."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # numpy's seeds end there
    topics: Topics | None = None
    corpus: Corpus | None = None  # without topics: what queries are written about
    reuse: RuntimeOnly[str | None] = None  # a run's folder, whose replies to the same prompts are taken over
    teacher: EngineConfig  # where it is left out, the generator
    generator: EngineConfig  # who writes the examples
    languages: LanguageNames[dict[str, PositiveInt]] = {"English": 1}  # weights
    mix: dict[str, NonNegativeInt] = {
        "classification": 7,
        "sts": 7,
        "retrieval": 7,
        "matching_short": 1,
        "matching_long": 1,
    }  # 7 : 7 : 7 : 2, matching split evenly (SPEED, appendix)
    slots: dict[str, dict[str, str | int | float | None]] = {}  # by kind: slots that are not to vary
    prompts: RuntimeOnly[LocalPath | None] = None  # a folder whose templates replace ours, name by name
    brainstorm: Brainstorm = Brainstorm()
    draft: Draft = Draft()
    junior: Sft = Sft()
    propose: Propose = Propose()
    judge: Judge = Judge()
    senior: Dpo = Dpo()
    critique: Critique = Critique()
    revisor: Revisor = Revisor()
    synthesize: Synthesize = Synthesize()
    revise: Revise = Revise()
    curate: Curate = Curate()
    score: Score | None = None  # null: the embedder is trained on curated examples as they are
    embedder: Embedder | None = None  # null: the run ends with its examples
    rounds: RuntimeOnly[PositiveInt] = 1  # of curation, scoring and training, each by the embedder of the one before
    evaluate: RuntimeOnly[Evaluate] = Evaluate()
    license: RuntimeOnly[str | None] = None  # of the rows and models made, for the cards of exports: cc-by-4.0

    @model_validator(mode="before")
    @classmethod
    def defaults_of_documents(cls, tree: Any) -> Any:
        """Give a recipe of documents its own defaults: its teacher is the generator, each passage is asked about once.

        A query that repeats its passage is rejected when it is written, by a bound that leaves keywords alone. With no
        teacher named, lessons are pairs that there are already; what is written is judged by scores.
        """
        if not isinstance(tree, dict) or not tree.get("corpus"):
            return tree
        defaults = {"teacher": tree["generator"]} if "generator" in tree else {}
        if not tree.get("topics"):
            defaults["mix"] = {"retrieval": 1}
            own: dict[str, dict[str, Any]] = {"synthesize": {"examples": None}, "curate": {"max_overlap": None}}
            if "teacher" not in tree:
                own["draft"] = {"lessons": "examples" if _has_examples(tree["corpus"]) else "corpus"}
            for key, values in (own | {"judge": {"engine": "scores"}}).items():
                given = tree.get(key, {})
                tree = {**tree, key: values | given if isinstance(given, dict) else given}
        return defaults | tree

    @model_validator(mode="after")
    def there_is_a_source(self) -> "Recipe":
        """Refuse a recipe that writes about nothing."""
        if self.topics is None and self.corpus is None:
            raise ValueError("topics.source or corpus.source is required: name a list of topics, or documents")
        if self.topics is not None and self.synthesize.examples is None:
            raise ValueError("synthesize.examples is null, which is for documents: say how many to write of the tasks")
        return self

    @model_validator(mode="after")
    def what_is_asked_of_passages_can_be_written(self) -> "Recipe":
        """Refuse what cannot be written about a passage, or not by the model that is to write it."""
        asked = [kinds.load_kind(name) for name, weight in self.mix.items() if weight]
        completes = continues_lines(self.generator)
        if not self.is_grounded:
            if completes:
                raise ValueError("generator.completion: only what is written about documents is written by a line")
            if self.curate.found_again:
                raise ValueError("curate.found_again is for examples about passages: name a corpus, and no topics")
            return self
        if self.synthesize.revise and not self.has_reference:
            raise ValueError(
                "synthesize.revise: of documents those queries are written again that find their passages late, by a "
                "reference and BM25: name an embedder as curate.reference"
            )
        if self.synthesize.revise and self.embedder and self.embedder.stream:
            raise ValueError("embedder.stream: queries that are ranked are no stream: set it to false")
        for kind in asked:
            if kind.grounded is None:
                raise ValueError(
                    f"mix: {kind.name} cannot be written about a passage: its two sides are matched by a task, and "
                    f"documents come with none. Of documents there are {', '.join(kinds.grounded_names())}"
                )
            if completes and len(kind.grounded.fields) > 1:
                raise ValueError(f"generator.completion: {kind.name} has several fields, and one line is one field")
        return self

    @model_validator(mode="after")
    def a_neighbour_is_shown_where_a_passage_answers(self) -> "Recipe":
        """Refuse to show neighbours of passages where nothing that is asked for is answered by a passage."""
        if not self.synthesize.contrast:
            return self
        if not self.is_grounded:
            raise ValueError("synthesize.contrast is for examples about passages: name a corpus, and no topics")
        asked = [kinds.load_grounded(name) for name, weight in self.mix.items() if weight]
        if not any(kind.answered_by_passage for kind in asked):
            raise ValueError(
                f"synthesize.contrast: no passage answers what is written of {', '.join(kind.name for kind in asked)}."
                " Give retrieval a weight in the mix, or leave the key out"
            )
        return self

    @model_validator(mode="after")
    def scores_can_be_had(self, info: ValidationInfo) -> "Recipe":
        """Refuse scores that nobody gives, and judges who lack what they judge by."""
        if self.score is None:
            if self.embedder and self.embedder.learns_from_scores and info.context != FROZEN:
                raise ValueError(
                    "embedder: loss kl and margin_mse, and weight_by_score, learn scores that no stage gives: add "
                    "`score: {}`, or set embedder.loss to infonce and weight_by_score to false"
                )
            return self
        names, has_reference = self.score.judge_names(self.has_reference), self.has_reference
        if not has_reference and (needing := [name for name in names if name in BY_REFERENCE]):
            raise ValueError(f"score.judges: {needing[0]} judges by an embedder: name one as curate.reference")
        learnt_from = self.embedder and self.embedder.judge
        for key, name in (("score.judge", self.score.judge), ("embedder.judge", learnt_from)):
            if name and name not in names:
                raise ValueError(f"{key}: {name} scores no row{nearest(name, names)}")
        if self.score.relabel and self.corpus is None:
            raise ValueError("score.relabel seeks better passages in a corpus: name one as corpus.source")
        if info.context != FROZEN:
            self._refuse_mute_models(self.score)
        if self.embedder:
            self._refuse_unheard_scores(self.embedder, names)
        return self

    def _refuse_mute_models(self, score: Score) -> None:
        """Raise ValueError for engines that do not tell the log-probabilities that gates or a judge ask for."""
        asked = [
            key for key in ("fluency", "logprob") if key in score.gates.model_fields_set and getattr(score.gates, key)
        ]
        if asked and "prompt" not in self.generator.logprobs:
            raise ValueError(
                f"score.gates.{asked[0]}: the generator is to tell how likely a text is, which an engine "
                f"{self.generator.engine} does not: set the gate to null, or generator.engine to vllm"
            )
        if "fluency" in asked and self.corpus is None:
            raise ValueError(
                "score.gates.fluency compares with texts of a corpus: name one as corpus.source, or set "
                "score.gates.logprob, a bound in nats, and fluency to null"
            )
        if score.llm and "first_token" not in self.teacher.logprobs:
            raise ValueError(
                f"score.llm: the teacher is to tell the log-probabilities of yes and no, which an engine "
                f"{self.teacher.engine} does not: leave the key out, or set teacher.engine to vllm or openai"
            )
        if score.llm and score.relabel:
            raise ValueError("score.relabel seeks among passages that the llm is not asked about: leave score.llm out")

    @staticmethod
    def _refuse_unheard_scores(embedder: Embedder, names: list[str]) -> None:
        if embedder.stream:
            raise ValueError("score: rows that are streamed are not scored: set embedder.stream to false")
        if embedder.learns_from_scores and embedder.judge is None and len(names) > 1:
            said = ", ".join(names)
            raise ValueError(f"embedder.judge: the rows are scored by {said}: name the one to learn from")

    @model_validator(mode="after")
    def later_rounds_find_other_pairs(self) -> "Recipe":
        """Refuse rounds in which nothing would be mined or judged by the embedder of the one before."""
        if self.rounds == 1:
            return self
        if self.embedder is None or self.embedder.stream:
            raise ValueError("rounds: later ones train on what an embedder found: name embedder.model, and no stream")
        if not self.has_reference:
            raise ValueError(
                "rounds: in later ones the trained embedder takes the place of curate.reference: name one, by which "
                "the first mines and judges"
            )
        return self

    @property
    def has_reference(self) -> bool:
        """Return whether an embedder is at hand that tells how near two texts are."""
        return self.curate.reference is not None

    @model_validator(mode="after")
    def alignment_has_what_it_goes_by(self) -> "Recipe":
        """Refuse lessons and scores that there are not, or that say nothing about what is to be written."""
        lessons, scores, trained = self.draft.lessons, self.judge.engine == "scores", self.synthesize.generator
        if not self.is_grounded:
            if lessons != "teacher":
                raise ValueError(f"draft.lessons: {lessons} is for recipes of documents: set it to teacher")
            if scores:
                raise ValueError("judge.engine: scores is for recipes of documents: set it to teacher")
            return self
        if trained == "base":
            return self
        if trained == "senior" and not scores:
            raise ValueError("judge.engine: what is written about documents is judged by scores: set it to scores")
        if trained == "senior" and not self.has_reference:
            raise ValueError("judge.engine: scores are by a reference and BM25: name an embedder as curate.reference")
        if lessons == "examples" and self.corpus and self.corpus.examples is None:
            raise ValueError("draft.lessons: examples are those of corpus.examples: name your table of queries there")
        if lessons == "teacher" and trained == "junior":
            return self
        others = [name for name, weight in self.mix.items() if weight and not kinds.load_grounded(name).writes_queries]
        if others:
            key = "draft.lessons" if lessons != "teacher" else "judge.engine"
            raise ValueError(
                f"{key}: {others[0]} writes no query that its passage answers, so that neither headings teach it nor "
                "scores judge it: leave it out of the mix, or set synthesize.generator to base"
            )
        return self

    @property
    def is_grounded(self) -> bool:
        """Return whether examples are written about passages of the corpus, not about tasks of topics."""
        return self.topics is None

    @property
    def trains_revisor(self) -> bool:
        """Return whether a model is trained to revise examples of tasks."""
        return self.synthesize.revise and not self.is_grounded

    @validates("mix")
    @classmethod
    def mix_names_kinds_and_has_weight(cls, mix: dict[str, int]) -> dict[str, int]:
        """Refuse a kind that has no file and a mix that sums to nothing."""
        for name in mix:
            refuse_unknown_kind(name)
        if sum(mix.values()) == 0:
            raise ValueError("all weights are zero: give at least one kind a weight")
        return mix

    @validates("slots")
    @classmethod
    def slots_are_those_of_their_kind(
        cls, slots: dict[str, dict[str, Any]], info: ValidationInfo
    ) -> dict[str, dict[str, Any]]:
        """Refuse to fix what the kind does not draw, or what cannot be beside the rest that it draws."""
        for kind, fixed in slots.items():
            refuse_unknown_kind(kind)
            grounded = (
                kinds.load_kind(kind).grounded if info.data.get("topics") is None and info.data.get("corpus") else None
            )
            (grounded or kinds.load_kind(kind)).refuse_fixed(fixed)
        return slots

    @validates("languages")
    @classmethod
    def languages_not_empty(cls, languages: dict[str, int]) -> dict[str, int]:
        """Refuse a recipe that writes in no language."""
        if not languages:
            raise ValueError("name at least one language")
        return languages

    @validates("curate")
    @classmethod
    def curated_languages_are_written(cls, curate: Curate, info: ValidationInfo) -> Curate:
        """Refuse to limit the examples in a language that no row is written in."""
        written = info.data.get("languages", curate.languages)
        for name in curate.languages if info.context != FROZEN else ():
            if name not in written:
                raise ValueError(f"languages limits {name}, but the recipe's languages are {', '.join(written)}")
        return curate


def _has_examples(corpus: Any) -> bool:
    """Tell if a corpus, as it was written, names a table of the user's queries."""
    return isinstance(corpus, dict) and bool(corpus.get("examples"))
