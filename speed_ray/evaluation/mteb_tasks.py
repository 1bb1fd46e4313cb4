"""Score models on MTEB's own tasks, with the task's instruction before each query: mteb's entry of SPEED has none.

A task's own prompt is its instruction, else that of its type (mteb's `AbsEncoder.get_instruction`). Scores are mteb's;
what it had finished of a task when a worker was lost lies in the machine's cache and is not done again.
"""

import difflib
from typing import TYPE_CHECKING, Any

import mteb
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.results import TaskResult
from mteb.types import PromptType

from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation import eval_models
from speed_ray.evaluation.datasets import EvaluationTask
from speed_ray.evaluation.eval_models import EvalModel
from speed_ray.evaluation.metrics import Vectors
from speed_ray.records import content_id
from speed_ray.storage.store import cache_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BENCHMARKS = ("MTEB(eng, v1)", "MTEB(eng, v2)")
TYPES_OF = "MTEB(eng, v2)"  # the benchmark whose tasks a type stands for


def mteb_tasks(entries: list[str]) -> list[EvaluationTask]:
    """List the tasks of a recipe's entries, in order; one that two entries name is done once. Raises UserError."""
    found: dict[str, EvaluationTask] = {}
    for entry in entries:
        for task in _of(entry):
            digest = content_id(mteb.__version__, task.metadata.name, str(task.eval_splits), str(task.hf_subsets))
            found.setdefault(digest, EvaluationTask("mteb", task.metadata.name, (entry,), None, digest))
    return list(found.values())


def find_task(entry: str, name: str) -> AbsTask:
    """Find a task in an entry: a benchmark may take fewer splits or languages of it than there are."""
    return next(task for task in _of(entry) if task.metadata.name == name)


def data_of(entries: list[str]) -> list[str]:
    """Name the data sets of the hub that a recipe's entries are scored on. Raises UserError for an unknown entry."""
    return sorted({task.metadata.dataset["path"] for entry in entries for task in _of(entry)})


def score_mteb(model: "SentenceTransformer", described: EvalModel, task: AbsTask) -> dict[str, Any]:
    """Score a model on a task: its main score and mteb's whole result. Raises Interrupted without its data."""
    try:
        result = _evaluate(MtebEncoder(model, described), task)
    except OSError as error:  # what `datasets` raises without a network, and for sets that the hub does not have
        raise Interrupted(
            f"evaluate.mteb: the data of {task.metadata.name} could not be loaded: {error}\n"
            f"It is {task.metadata.dataset['path']} on the Hugging Face hub. Run the same command again with a"
            "\nnetwork, or where HF_HOME holds it; what is scored is kept. Or take the task out of the recipe."
        ) from error
    return {"main_score": float(result.get_score()), "result": result.model_dump(mode="json")}


def _evaluate(encoder: "MtebEncoder", task: AbsTask) -> TaskResult:
    results = mteb.evaluate(
        encoder,
        task,
        cache=mteb.ResultCache(cache_folder() / "mteb"),
        overwrite_strategy="only-missing",
        co2_tracker=False,
        encode_kwargs={"batch_size": eval_models.BATCH},
        show_progress_bar=False,
        public_only=False,
    )
    # Another entry may have had more splits or languages of this task: they lie in the same cache.
    return results.task_results[0].validate_and_filter_scores(task)


class MtebEncoder(AbsEncoder):
    """Adapt a sentence-transformers model to mteb's encoder protocol."""

    def __init__(self, model: "SentenceTransformer", described: EvalModel) -> None:
        self.model = model
        self.instructed = described.instructed
        name = {"name": f"speed_ray/{described.name}", "revision": described.digest}
        self.mteb_model_meta = ModelMeta.create_empty(overwrites=name)

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Vectors:
        """Embed a data loader's texts; those of tasks that know no sides (STS, classification) count as queries."""
        texts = [text for batch in inputs for text in batch["text"]]
        if prompt_type == PromptType.document:
            return eval_models.embed_with(self.model, self.instructed, "")(texts, "document")
        instruction = self.get_instruction(task_metadata, PromptType.query) if self.instructed else ""
        return eval_models.embed_with(self.model, self.instructed, instruction)(texts, "query")


def _of(entry: str) -> list[AbsTask]:
    if entry in BENCHMARKS:
        return list(mteb.get_benchmark(entry).tasks)
    of_type = [task for task in mteb.get_benchmark(TYPES_OF).tasks if task.metadata.type == entry]
    if of_type:
        return of_type
    try:
        return [mteb.get_task(entry)]
    except KeyError:
        types = sorted({task.metadata.type for task in mteb.get_benchmark(TYPES_OF).tasks})
        known = [*BENCHMARKS, *types, *(task.metadata.name for task in mteb.get_tasks(languages=["eng"]))]
        meant = difflib.get_close_matches(entry, known, n=1)
        raise UserError(
            f"evaluate.mteb: {entry!r} is no task of mteb"
            + (f" (did you mean {meant[0]!r}?)" if meant else "")
            + f".\nName tasks, types ({', '.join(types)}) or a benchmark ({' or '.join(BENCHMARKS)})."
        ) from None
