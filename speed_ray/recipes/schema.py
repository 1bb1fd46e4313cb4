"""The recipe: every key, its type, its default, and what must hold between keys. `recipes/` reads one from YAML."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    model_validator,
)
from pydantic import field_validator as validates

from speed_ray import kinds
from speed_ray.errors import nearest

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class RuntimeMark:
    """Mark a setting, or the named keys of a mapping, that determines no row or weight and may change in a resume."""

    keys: Collection[str] | None = None  # None: the whole setting


Setting = TypeVar("Setting")
RuntimeOnly = Annotated[Setting, RuntimeMark()]
VLLM_RESOURCES = RuntimeMark(
    (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "gpu_memory_utilization",
        "max_num_seqs",
        "max_num_batched_tokens",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "download_dir",
    )
)


class Strict(BaseModel):
    """No unknown key, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Topics(Strict):
    """Names the source of topics: a file or URI (one path a line, or CSV/Parquet with a `topic` column)."""

    source: RuntimeOnly[str]
    limit: PositiveInt | None = None


class Budget(Strict):
    """A hard limit on what an endpoint may be asked for, over the whole run and all its restarts."""

    calls: PositiveInt | None = None
    tokens: PositiveInt | None = None
    dollars: PositiveFloat | None = None


class Price(Strict):
    """Dollars per million tokens."""

    input: NonNegativeFloat
    output: NonNegativeFloat


class VllmEngine(Strict):
    """vLLM inside a Ray actor. `engine_kwargs` is vLLM's own; `model` is a folder or a hub name."""

    engine: Literal["vllm"]
    model: str
    revision: str | None = None
    adapter: str | None = None  # a LoRA folder
    chat_template: str | None = None  # Jinja text or file, for a model without one
    structured_outputs: bool = True  # hold replies to the kind's JSON schema
    max_concurrency: RuntimeOnly[PositiveInt] = 256
    engine_kwargs: Annotated[dict[str, Any], VLLM_RESOURCES] = {}


class OpenAIEngine(Strict):
    """Any OpenAI-compatible endpoint. The key is read from the environment variable that `api_key_env` names."""

    engine: Literal["openai"]
    model: str
    base_url: RuntimeOnly[str]
    api_key_env: RuntimeOnly[str | None] = None
    structured_outputs: bool = True
    max_concurrency: RuntimeOnly[PositiveInt] = 64  # the most at once; lowered by itself when the endpoint pushes back
    timeout: RuntimeOnly[PositiveFloat] = 600.0  # seconds for one answer
    budget: RuntimeOnly[Budget] = Budget()
    price: RuntimeOnly[Price | None] = None


class Faults(Strict):
    """Sets a simulated engine's faults, as shares of its replies. Drawn from the request's seed."""

    malformed: Share = 0.0
    die: Share = 0.0  # the whole engine dies, once per row
    hang: Share = 0.0


class SimulatedEngine(Strict):
    """An engine without a model: vLLM's shape in time, replies that parse. For tests and for planning a cluster."""

    engine: Literal["simulated"]
    model: str = "simulated"
    max_concurrency: RuntimeOnly[PositiveInt] = 256
    prefill: PositiveFloat = 50_000.0  # prompt tokens a second
    decode: PositiveFloat = 6_400.0  # output tokens a second with all requests in flight
    max_tokens_per_stream: PositiveFloat = 100.0  # output tokens a second of one request alone
    output_tokens: PositiveInt = 350
    spread: Share = 0.0  # of output_tokens, by which an answer may be longer or shorter
    faults: RuntimeOnly[Faults] = Faults()
    request_log: RuntimeOnly[str | None] = None  # a folder: gets each asked row's id, so that work done twice shows
    utilization_log: RuntimeOnly[str | None] = None  # a folder: gets each second the tokens that each engine decoded


class ScriptedEngine(Strict):
    """The scripted teacher of the miniature world: no model at all, and named so wherever its output is shown."""

    engine: Literal["scripted"]
    model: str = "scripted-teacher"
    max_concurrency: RuntimeOnly[PositiveInt] = 64


EngineConfig = Annotated[VllmEngine | OpenAIEngine | SimulatedEngine | ScriptedEngine, Field(discriminator="engine")]


class Pool(Strict):
    """The actors of one stage: how many engines, and what each takes. Never part of a row's identity."""

    min_size: PositiveInt = 1
    max_size: PositiveInt = 1
    num_cpus: NonNegativeFloat = 1.0
    num_gpus: NonNegativeFloat = 0.0
    accelerator_type: str | None = None  # a GPU type as Ray names it: "H100"
    label_selector: dict[str, str] = {}  # of the nodes that engines may run on, as Ray knows them
    watchdog_minutes: PositiveFloat = 30.0  # without a commit the job ends with a diagnosis
    grace_seconds: NonNegativeFloat = 20.0  # for shards at work to be committed when the job is told to end

    @model_validator(mode="after")
    def min_size_is_at_most_max_size(self) -> "Pool":
        """Refuse a pool that can never be made."""
        if self.min_size > self.max_size:
            raise ValueError(
                f"min_size is {self.min_size} and max_size is {self.max_size}: set max_size to {self.min_size} or more"
            )
        return self


class Sampling(Strict):
    """Sets how an engine samples tokens (SPEED, 4.1: temperature 1, top_p 1; appendix B: at most 800 new ones)."""

    temperature: NonNegativeFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: PositiveInt = 800


class StageSettings(Strict):
    """Holds the settings that every stage with a model has."""

    sampling: Sampling = Sampling()
    shard_rows: PositiveInt = 256
    max_retries: NonNegativeInt = 2  # new seeds for a malformed reply, before it is rejected for good
    pool: RuntimeOnly[Pool] = Pool()

    @property
    def key(self) -> str:
        """Return the recipe's key of these settings."""
        return type(self).__name__.lower()


class Brainstorm(StageSettings):
    """Topics to tasks. About five are asked for, one is kept: 62.6 MTEB; three 61.6, five 60.9 (SPEED, table 3)."""

    tasks_per_prompt: PositiveInt = 5
    tasks_per_topic: PositiveInt = 1
    duplicate_similarity: Share = 0.7  # Jaccard of word pairs above which a task repeats another of its kind


class Draft(StageSettings):
    """The teacher's own examples, the junior's lessons (SPEED, section 3.1; 25K calls, section 4.5)."""

    examples: PositiveInt = 1_000  # prompts to plan


class Propose(StageSettings):
    """The junior's root data: a list of candidates for every prompt (SPEED, section 3.2)."""

    lists: PositiveInt = 400  # prompts to plan; each list is judged once
    candidates: Annotated[int, Field(ge=2)] = 5  # SPEED, figure 5; the text does not say


class Judge(StageSettings):
    """The teacher names the best and the worst candidate of a prompt (SPEED, section 3.2; T=0, appendix B)."""

    sampling: Sampling = Sampling(temperature=0.0)


class Critique(StageSettings):
    """The teacher betters candidates: the revisor's lessons (SPEED, section 3.3)."""

    candidates: PositiveInt = 1  # of each list, drawn at random (SPEED: 10K revisions, as many as judgements)


class Synthesize(StageSettings):
    """Tasks to examples."""

    examples: PositiveInt = 1_000  # prompts to plan; each ends as an example or a reject
    generator: Literal["base", "junior", "senior"] = "base"  # the recipe's generator as it is, or trained in this run
    revise: bool = False  # the run's revisor goes over each example once


class Revise(StageSettings):
    """The revisor goes over each example once: one whose revision fails its checks stays as it was (single pass)."""

    max_retries: NonNegativeInt = 0


class Lora(Strict):
    """Low-rank adapters on the named modules; all others stay as they are."""

    r: PositiveInt = 16
    lora_alpha: PositiveInt = 32
    lora_dropout: Share = 0.0
    target_modules: str | list[str] = "all-linear"


class Workers(Strict):
    """Sets the workers of one training and their resources. Never part of a model's identity."""

    num_workers: PositiveInt = 1
    num_cpus: NonNegativeFloat = 1.0  # each
    num_gpus: NonNegativeFloat = 0.0  # each
    accelerator_type: str | None = None  # a GPU type as Ray names it: "H100"
    label_selector: dict[str, str] = {}  # of the nodes that they may run on, as Ray knows them
    max_failures: NonNegativeInt = 3  # lost workers that are made up for before the job ends
    watchdog_minutes: PositiveFloat = 30.0  # without a worker at work a training ends with a diagnosis


class TrainingWorkers(Workers):
    """The same, and whether fewer will do: then workers come and go with the nodes, each time from a checkpoint."""

    min_workers: PositiveInt | None = None

    @property
    def counts(self) -> range:
        """Return the numbers of workers allowed."""
        return range(self.min_workers or self.num_workers, self.num_workers + 1)

    @model_validator(mode="after")
    def min_workers_is_at_most_num_workers(self) -> "TrainingWorkers":
        """Refuse workers that there can never be."""
        if not self.counts:
            raise ValueError(
                f"min_workers is {self.min_workers} and num_workers is {self.num_workers}: "
                f"set num_workers to {self.min_workers} or more"
            )
        return self


class TrainingConfig(Strict):
    """Holds the settings that every training has."""

    learning_rate: PositiveFloat
    global_batch_size: PositiveInt = 16  # rows a step, over all workers (SPEED, appendix B)
    micro_batch_size: RuntimeOnly[PositiveInt] = 4  # rows a worker at once: TRL's per_device_train_batch_size
    num_train_epochs: PositiveFloat = 1.0
    max_steps: PositiveInt | None = None
    warmup_ratio: Share = 0.03  # of the steps
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    max_length: PositiveInt = 2_048  # tokens; a longer row is counted and left out, never cut
    lora: Lora | None = Lora()  # null: all weights are trained
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: RuntimeOnly[bool] = False
    zero_stage: RuntimeOnly[Annotated[int, Field(ge=0, le=3)]] = 0  # DeepSpeed's stage
    offload_optimizer: RuntimeOnly[bool] = False  # to the CPU's memory; from stage 1 on
    offload_param: RuntimeOnly[bool] = False  # to the CPU's memory; stage 3
    save_steps: RuntimeOnly[PositiveInt] = 100  # steps
    workers: RuntimeOnly[TrainingWorkers] = TrainingWorkers()

    @validates("workers")
    @classmethod
    def workers_that_come_and_go_hold_whole_states(
        cls, workers: TrainingWorkers, others: ValidationInfo
    ) -> TrainingWorkers:
        """Refuse states that only as many workers can take over as there were before."""
        if workers.min_workers and others.data.get("zero_stage"):
            raise ValueError("min_workers needs zero_stage: 0, where every worker holds all states")
        return workers


class Alignment(TrainingConfig):
    """Holds the settings that SFT and DPO share."""

    eval_fraction: Share = 0.02  # of the rows, never trained on


class Sft(Alignment):
    """Supervised fine-tuning on prompts and replies; the loss is on the reply alone."""

    learning_rate: PositiveFloat = 1e-4  # the junior's (SPEED, appendix B)
    packing: bool = False  # several rows in one sequence, none seeing another


class Dpo(Alignment):
    """Direct preference optimisation; the reference is the model that training begins with."""

    learning_rate: PositiveFloat = 1e-5  # SPEED, appendix B
    beta: PositiveFloat = 0.1  # the best of .05 to .3 (SPEED, section 4.3.4)
    loss_type: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0


class Revisor(Strict):
    """The revisor: SFT on revisions, of the unaligned base as in the paper or of the junior, then DPO or none."""

    start: Literal["base", "junior"] = "base"
    sft: Sft = Sft(learning_rate=5e-6, global_batch_size=24)  # SPEED, appendix B
    dpo: Dpo | Literal[False] = Dpo()


class Curate(Strict):
    """Sets which examples are kept for training; each other one is a reject with its reason. null: the rule is off."""

    examples: PositiveInt | None = None  # at most so many to train on
    kinds: dict[str, PositiveInt] = {}  # at most so many of a kind to train on
    languages: dict[str, PositiveInt] = {}  # likewise
    label_share: Share | None = None  # of the classification examples that one label may have
    held_out: Share = 0.02  # of the tasks, with all their examples: never trained on
    duplicate_similarity: Share | None = 0.6  # Jaccard of word pairs from which an example repeats another
    max_overlap: Share | None = 0.8  # of a text's word triples, found in its query or positive; not for sts
    min_words: PositiveInt | None = None  # of query and positive together
    max_words: PositiveInt | None = None
    check_language: bool = False  # once more: 25 microseconds a text
    decontaminate: RuntimeOnly[list[str]] = []  # evaluation sets, files or folders, whose texts may not be learnt from
    reference: str | None = None  # a folder or hub name of sentence-transformers
    margin_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = (
        None  # of its cosines, see the docs
    )
    semantic_similarity: Share | None = None  # its cosine of two queries from which an example repeats another
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

    train: str
    test: str
    instruction: str | None = None


class Evaluate(Strict):
    """Lists the evaluation sets, on which the embedder and its base are scored."""

    sts: list[EvaluationSet] = []  # tables of text, text, score
    classification: list[ClassificationSet] = []
    retrieval: list[EvaluationSet] = []  # BEIR folders
    mteb: list[str] = []  # tasks, types of task, or a whole benchmark: "MTEB(eng, v2)"
    workers: RuntimeOnly[Workers] = Workers()


class Embedder(TrainingConfig):
    """The embedder: InfoNCE over a global batch. What SPEED leaves open is as in E5 (arXiv 2401.00368)."""

    model: str  # a folder or hub name: one of sentence-transformers, or a language model
    revision: str | None = None
    pooling: Literal["last", "mean", "cls"] | None = None  # null: as the folder says
    learning_rate: PositiveFloat = 1e-4
    global_batch_size: PositiveInt = 1_536  # SPEED, appendix B
    micro_batch_size: RuntimeOnly[PositiveInt] = 32  # texts a worker embeds at once: with GradCache any batch fits
    weight_decay: NonNegativeFloat = 0.1
    max_length: PositiveInt = 512  # tokens; a longer text is cut, in training as in use, and counted
    temperature: PositiveFloat = 0.02
    matryoshka_dims: list[PositiveInt] = []  # Matryoshka: the first so many of a vector are to do alone as well
    no_in_batch_negatives: list[str] = ["classification"]  # kinds whose positives answer other rows' queries too
    stream: bool = False  # begin while examples are still being written, and take each shard once, uncurated


class Recipe(Strict):
    """The whole recipe, as it is frozen into a run."""

    seed: NonNegativeInt = 0
    topics: Topics
    teacher: EngineConfig
    generator: EngineConfig
    languages: dict[str, PositiveInt] = {"English": 1}  # weights
    mix: dict[str, NonNegativeInt] = {
        "classification": 7,
        "sts": 7,
        "retrieval": 7,
        "matching_short": 1,
        "matching_long": 1,
    }  # 7 : 7 : 7 : 2, matching split evenly (SPEED, appendix)
    slots: dict[str, dict[str, str | int | float | None]] = {}  # by kind: slots that are not to vary
    prompts: RuntimeOnly[str | None] = None  # a folder whose templates replace ours, name by name
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
    embedder: Embedder | None = None  # null: the run ends with its examples
    evaluate: RuntimeOnly[Evaluate] = Evaluate()

    @validates("mix")
    @classmethod
    def mix_names_kinds_and_has_weight(cls, mix: dict[str, int]) -> dict[str, int]:
        """Refuse a kind that has no file and a mix that sums to nothing."""
        for name in mix:
            if name not in kinds.kind_names():
                raise ValueError(f"there is no kind {name!r}{nearest(name, kinds.kind_names())}")
        if sum(mix.values()) == 0:
            raise ValueError("all weights are zero: give at least one kind a weight")
        return mix

    @validates("slots")
    @classmethod
    def slots_are_those_of_their_kind(cls, slots: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Refuse to fix what the kind does not draw, or what cannot be beside the rest that it draws."""
        for kind, fixed in slots.items():
            if kind not in kinds.kind_names():
                raise ValueError(f"there is no kind {kind!r}{nearest(kind, kinds.kind_names())}")
            kinds.load_kind(kind).refuse_fixed(fixed)
        return slots

    @validates("languages")
    @classmethod
    def languages_not_empty(cls, languages: dict[str, int]) -> dict[str, int]:
        """Refuse a recipe that writes in no language. Sorts them: a row draws by place, whatever order was written."""
        if not languages:
            raise ValueError("name at least one language")
        return dict(sorted(languages.items()))
