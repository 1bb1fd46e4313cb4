"""Define the recipe's trainings: their workers, SFT, DPO, and the embedder's contrastive training."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    model_validator,
)
from pydantic import field_validator as validates

from speed_ray.recipes.actor_resources import Resources
from speed_ray.recipes.setting import KindNames, LocalPath, RuntimeOnly, Share, Strict

Loss = Literal["infonce", "kl", "margin_mse"]


class Lora(Strict):
    """Low-rank adapters on the named modules; all others stay as they are."""

    r: PositiveInt = 16  # rank of the matrices
    lora_alpha: PositiveInt = 32  # their product is scaled by lora_alpha / r
    lora_dropout: Share = 0.0  # of their input
    target_modules: str | list[str] = "all-linear"  # names of layers


class Workers(Resources):
    """Sets the workers of one training, and what each takes."""

    num_workers: PositiveInt = 1  # processes, a GPU or CPUs each
    max_failures: NonNegativeInt = 3  # lost workers that are made up for before the job ends


class TrainingWorkers(Workers):
    """The same, and whether fewer will do: then workers come and go with the nodes, each time from a checkpoint."""

    min_workers: PositiveInt | None = None  # goes on with so few where nodes are lost

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

    learning_rate: PositiveFloat  # the highest
    global_batch_size: PositiveInt = 16  # rows a step, over all workers (SPEED, appendix B)
    micro_batch_size: RuntimeOnly[PositiveInt] = 4  # rows a worker at once: TRL's per_device_train_batch_size
    num_train_epochs: PositiveFloat = 1.0  # passes over the rows
    max_steps: PositiveInt | None = None  # ends it earlier
    warmup_ratio: Share = 0.03  # of the steps
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = "linear"  # after the warmup
    weight_decay: NonNegativeFloat = 0.0  # of AdamW
    max_grad_norm: PositiveFloat = 1.0  # gradients are clipped to it
    max_length: PositiveInt = 2_048  # tokens; a longer row is counted and left out, never cut
    lora: Lora | None = Lora()  # null: all weights are trained
    precision: Literal["bf16", "fp32"] = "bf16"  # of the computation
    gradient_checkpointing: RuntimeOnly[bool] = False  # less memory, more time
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
    loss_type: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"  # TRL's name
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0  # the share of wrong preferences that is assumed


class Revisor(Strict):
    """The revisor: SFT on revisions, of the unaligned base as in the paper or of the junior, then DPO or none."""

    start: Literal["base", "junior"] = "base"  # the model that is trained
    sft: Sft = Sft(learning_rate=5e-6, global_batch_size=24)  # SPEED, appendix B
    dpo: Dpo | Literal[False] = Dpo()


class Guide(Strict):
    """A frozen embedder that tells which documents of a batch are no negatives of a query (arXiv 2402.16829).

    The names of the margins, and their sign, are those of sentence-transformers' mine_hard_negatives.
    """

    model: LocalPath | None = None  # a folder or hub name of sentence-transformers; null: embedder.model, untrained
    absolute_margin: float = 0.0  # masked is what has more than the positive's similarity less this,
    relative_margin: float = 0.0  # and less this share of it


class Guard(Strict):
    """A set that a merge may not lose much on: an STS table or a BEIR folder."""

    path: LocalPath
    max_drop: Share = 0.01  # of its score, below the base's


class Merge(Strict):
    """A mean of the trained weights and the base's: what training costs elsewhere it gives back (arXiv 2311.13534)."""

    shares: Annotated[list[Share], Field(min_length=1)] = [0.0, 0.3, 0.5, 0.7, 1.0]  # of the trained weights, to try
    fallback_share: Share = 0.5  # where no row is held out to choose by; 1: the trained weights as they are
    guards: RuntimeOnly[list[Guard]] = []  # their contents and bounds are in the model's plan


class Embedder(TrainingConfig):
    """The embedder: a loss over a global batch. What SPEED leaves open is as in E5 (arXiv 2401.00368)."""

    model: LocalPath  # a folder or hub name: one of sentence-transformers, or a language model
    revision: str | None = None  # the hub's branch, tag or commit
    pooling: Literal["last", "mean", "cls"] | None = None  # null: as the folder says
    learning_rate: PositiveFloat = 1e-4  # the highest
    global_batch_size: PositiveInt = 1_536  # SPEED, appendix B
    micro_batch_size: RuntimeOnly[PositiveInt] = 32  # texts a worker embeds at once: with GradCache any batch fits
    weight_decay: NonNegativeFloat = 0.1  # of AdamW
    max_length: PositiveInt = 512  # tokens; a longer text is cut, in training as in use, and counted
    temperature: PositiveFloat = 0.02  # an embedder's logit is a cosine over this
    loss: Loss = "infonce"
    infonce_weight: NonNegativeFloat = 0.1  # of InfoNCE beside kl or margin_mse (CADET, arXiv 2505.19274)
    judge: str | None = None  # of those that scored the rows, the one to learn from; null: there is only one
    teacher_temperature: PositiveFloat = 1.0  # of its scores; at 1 as sharp as the base's logits, above 1 flatter
    weight_by_score: bool = False  # a row weighs as much as the judge is sure of its positive
    guide: Guide | None = None  # null: masked are copies of the positive and of the query alone
    load_best_model_at_end: bool = False  # the checkpoint with the best nDCG@10 on held-out queries, not the last one
    merge: Merge | None = None  # with embedder.model; null: the trained weights as they are
    matryoshka_dims: list[PositiveInt] = []  # Matryoshka: the first so many of a vector are to do alone as well
    no_in_batch_negatives: KindNames[list[str]] = [
        "classification"
    ]  # kinds whose positives answer other rows' queries too
    stream: bool = False  # begin while examples are still being written, and take each shard once, uncurated

    @property
    def learns_from_scores(self) -> bool:
        """Return whether the rows must have scores."""
        return self.loss != "infonce" or self.weight_by_score

    @model_validator(mode="after")
    def scores_are_there_and_used(self) -> "Embedder":
        """Refuse a judge that nothing listens to, and scores of rows that are not curated yet."""
        if self.judge is not None and not self.learns_from_scores:
            raise ValueError("judge names whose scores are learnt from, which takes loss kl or margin_mse, or weights")
        if self.stream and self.learns_from_scores:
            raise ValueError("rows that are being written have no scores: set stream to false or loss to infonce")
        return self
