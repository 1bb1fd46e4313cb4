"""The front page: each job as a paragraph that reads like the paper (SPEED, section 3)."""

from collections.abc import Callable
from functools import partial
from types import ModuleType

from rich.console import Console

from speed_ray.errors import UserError, nearest
from speed_ray.executor import preflight
from speed_ray.on_ray import map_tasks, pool, train
from speed_ray.on_ray.pool import Step
from speed_ray.recipes.schema import EngineConfig, Evaluate, Recipe
from speed_ray.stages import brainstorm as brainstorming
from speed_ray.stages import critique, draft, judge, pair_revisions, propose, revise, select_tasks, self_revise, topics
from speed_ray.stages import curate as curation
from speed_ray.stages import synthesize as synthesis
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import generator_with_trained_weights
from speed_ray.training import plan as trainings
from speed_ray.training.plan import JUNIOR, REVISOR, REVISOR_SFT


def brainstorm(run: Run, recipe: Recipe) -> None:
    """Topics are truncated; a teacher proposes tasks for each topic and kind; the few that differ are kept."""
    listed = topics.read_topics(recipe.topics.source, recipe.topics.limit)
    preflight.check_recipe(recipe, synthesis.shortest(recipe))
    run.freeze(recipe)
    topics.collect_topics(run, listed)
    _ask(run, brainstorming, recipe)
    select_tasks.select_tasks(run, recipe)


def align_junior(run: Run, recipe: Recipe) -> None:
    """The teacher writes examples of some tasks; from these the unaligned base learns to be the junior generator."""
    draft.plan(run, recipe)  # says that there are no tasks, before minutes go into fetching or making the base
    training = trainings.plan_junior(run, recipe)
    if recipe.synthesize.generator == "senior":  # what does not fit together is said before the teacher is paid
        trainings.plan_senior(run, recipe)
    if recipe.synthesize.revise:
        trainings.plan_revisor(run, recipe)
    _ask(run, draft, recipe)
    train.train_on_ray(training)


def align_senior(run: Run, recipe: Recipe) -> None:
    """The junior lists candidates; the teacher names the best and the worst; DPO makes the junior the senior."""
    junior, training = generator_with_trained_weights(run, recipe, JUNIOR), trainings.plan_senior(run, recipe)
    _ask(run, propose, recipe, junior)
    _ask(run, judge, recipe)
    train.train_on_ray(training)


def align_revisor(run: Run, recipe: Recipe) -> None:
    """The teacher betters the junior's candidates; from that the unaligned base learns to revise, and then by DPO.

    The paper stops after SFT (`revisor.dpo: false`); here the revisor also learns to prefer the teacher's revision to
    its own, and may begin as the junior, which can write already (`revisor.start`).
    """
    junior = generator_with_trained_weights(run, recipe, JUNIOR)
    supervised, *preferring = trainings.plan_revisor(run, recipe)
    _ask(run, propose, recipe, junior)
    _ask(run, critique, recipe)
    train.train_on_ray(supervised)
    if preferring:
        _ask(run, self_revise, recipe, generator_with_trained_weights(run, recipe, REVISOR_SFT))
        pair_revisions.pair_revisions(run, recipe)
        train.train_on_ray(preferring[0])


def synthesize(run: Run, recipe: Recipe) -> None:
    """A small generator writes one example for every planned prompt, and a revisor goes over each of them once."""
    name = recipe.synthesize.generator
    writer = recipe.generator if name == "base" else generator_with_trained_weights(run, recipe, name)
    examples = synthesis.plan(run, recipe, writer)
    steps = [Step(examples, partial(synthesis.stage, recipe, writer))]
    if recipe.synthesize.revise:
        revisor = generator_with_trained_weights(run, recipe, REVISOR)
        steps.append(Step(revise.plan(examples, recipe, revisor), partial(revise.stage, recipe, revisor)))
    run.freeze(recipe)
    pool.execute(run, *steps)


def curate(run: Run, recipe: Recipe) -> None:
    """What repeats, leaks or misleads is turned away, some tasks are held out, and the rest is to be learnt from."""
    prepared = curation.prepare(run, recipe)
    run.freeze(recipe)
    curation.publish(run, prepared)


def train_embedder(run: Run, recipe: Recipe) -> None:
    """The embedder learns from the examples, each query against its positive, its hard negatives and all others'."""
    training = trainings.plan_embedder(run, recipe)
    trainings.data_identity(training)  # says so where there is nothing to learn from yet
    run.freeze(recipe)
    train.train_on_ray(training)


def evaluate(run: Run, recipe: Recipe) -> None:
    """The embedder is scored on every set, beside the model that its training began with, and beside BM25."""
    from speed_ray.evaluation import eval_models, results, scoring  # with what no other job needs: an extra, `train`

    scored, tasks = eval_models.models_of(run, recipe), scoring.all_tasks(recipe.evaluate)
    workers = recipe.evaluate.workers
    run.freeze(recipe)
    missing = scoring.missing_scores(run, scored, tasks, "cuda" if workers.gpus else "cpu")
    try:
        for _ in map_tasks.map_tasks("evaluate", missing, lambda: scoring.score_task, workers):
            pass  # each task's scores are stored by its worker
    finally:
        results.publish_scores(run, scored, tasks)
        Console().print(results.score_table(run, scored, tasks))


ORDER = (brainstorm, align_junior, align_senior, align_revisor, synthesize, curate, train_embedder, evaluate)
JOBS = {job.__name__: job for job in ORDER}


def needed(recipe: Recipe) -> list[str]:
    """The jobs that a recipe is for, by name, in order: up to its examples, or to its embedder where it has one."""
    wanted = recipe.synthesize
    jobs = {
        "brainstorm": True,
        "align_junior": wanted.generator != "base" or wanted.revise,
        "align_senior": wanted.generator == "senior",
        "align_revisor": wanted.revise,
        "synthesize": True,
        "curate": recipe.embedder is not None and not recipe.embedder.follow,
        "train_embedder": recipe.embedder is not None,
        "evaluate": recipe.embedder is not None and recipe.evaluate != Evaluate(),
    }
    return [job for job, is_needed in jobs.items() if is_needed]


def up_to(last: str, recipe: Recipe) -> list[Callable[[Run, Recipe], None]]:
    """All jobs that a recipe needs, in order, up to one of them; each skips what is finished.

    Raises UserError for a job that there is not, or that this recipe has no need of.
    """
    jobs = needed(recipe)
    if last not in jobs:
        said, valid = last.replace("_", "-"), [job.replace("_", "-") for job in jobs]
        raise UserError(f"--until {said}: this recipe needs no such job{nearest(said, valid)}")
    return [JOBS[name] for name in jobs[: jobs.index(last) + 1]]


def _ask(run: Run, stage: ModuleType, recipe: Recipe, *engine: EngineConfig) -> None:
    """Work off one stage, by the recipe's teacher or by the engine that is named.

    A run is begun, or found to be the recipe's, once the stage can be planned: what is refused leaves nothing behind.
    """
    plan = stage.plan(run, recipe, *engine)
    run.freeze(recipe)
    pool.execute(run, Step(plan, partial(stage.stage, recipe, *engine)))
