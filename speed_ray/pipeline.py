"""Define the jobs in order, each a paragraph that reads like the paper (SPEED, section 3)."""

from collections.abc import Callable
from typing import Any

from rich.console import Console

from speed_ray.console.judge_report import judge_lines
from speed_ray.errors import UserError, nearest
from speed_ray.executor.preflight import check_api_key, check_recipe
from speed_ray.executor.stage import Stage
from speed_ray.on_ray import map_tasks, pool
from speed_ray.on_ray.pool import Step
from speed_ray.on_ray.train import train_on_ray
from speed_ray.recipes.needed_jobs import needed_jobs
from speed_ray.recipes.schema import Recipe
from speed_ray.stages import language_models
from speed_ray.stages.brainstorm import Brainstorm
from speed_ray.stages.changed_documents import refuse_changed_documents
from speed_ray.stages.critique import Critique
from speed_ray.stages.curate import prepare_curation, publish_curated, refuse_few_passages
from speed_ray.stages.documents import prepare_documents, publish_documents
from speed_ray.stages.draft import Draft
from speed_ray.stages.embed_passages import plan_embeddings
from speed_ray.stages.judge import Judge
from speed_ray.stages.judge_by_scores import publish_verdicts
from speed_ray.stages.lessons import prepare_lessons, publish_lessons
from speed_ray.stages.neighbours import publish_neighbours
from speed_ray.stages.pair_revisions import pair_revisions
from speed_ray.stages.passages import prepare_split, split_passages
from speed_ray.stages.propose import Propose
from speed_ray.stages.query_ranks import publish_ranked, publish_sooner_found
from speed_ray.stages.revise import Revise
from speed_ray.stages.rewrite import Rewrite
from speed_ray.stages.scored_examples import prepare_scoring, publish_scored
from speed_ray.stages.select_tasks import select_tasks
from speed_ray.stages.self_revise import SelfRevise
from speed_ray.stages.synthesize import Synthesize
from speed_ray.stages.topics import collect_topics, topics_of
from speed_ray.storage.rounds import of_round
from speed_ray.storage.run import PROPOSED_TASKS, Run
from speed_ray.storage.trained_models import generator_with_trained_weights
from speed_ray.training.contrastive.judge_scores import read_scale
from speed_ray.training.model_card import describe_choice
from speed_ray.training.plan import (
    JUNIOR,
    REVISOR,
    REVISOR_SFT,
    check_enough_rows,
    data_identity,
    plan_embedder,
    plan_junior,
    plan_revisor,
    plan_senior,
)
from speed_ray.training.train_model import train_model


def read_documents(run: Run, recipe: Recipe) -> None:
    """Read the documents, turn away what repeats or cannot be read, hold some out, and split them into passages.

    Each passage gets its nearest neighbour where prompts are to show it.
    """
    split = prepare_split(recipe)
    if recipe.is_grounded:
        check_recipe(recipe, Synthesize(recipe).shortest_requests())
    with prepare_documents(run, recipe) as prepared:
        refuse_changed_documents(run, prepared, split)
        run.freeze(recipe)
        publish_documents(run, prepared)
    refuse_few_passages(split_passages(run, split), recipe.curate)  # before a model is asked about them
    if recipe.synthesize.contrast:
        publish_neighbours(run, recipe.curate)


def brainstorm(run: Run, recipe: Recipe) -> None:
    """Truncate the topics; the teacher proposes tasks for each topic and kind; keep the few that differ."""
    topics = topics_of(recipe)
    check_recipe(recipe, Synthesize(recipe).shortest_requests())
    try:
        check_api_key(recipe.teacher, "teacher")
    except UserError:
        if run.artifact(PROPOSED_TASKS).manifest() is None:  # else it is asked no more
            raise
    run.freeze(recipe)
    collect_topics(run, topics)
    _run_stage(run, Brainstorm(recipe))
    select_tasks(run, recipe)


def align_junior(run: Run, recipe: Recipe) -> None:
    """The teacher writes examples of some tasks; on these the unaligned base is fine-tuned to the junior generator.

    Of documents the lessons may be pairs that there are already, which no teacher is asked for (`draft.lessons`).
    """
    draft, lessons = Draft(recipe), None
    if recipe.draft.lessons == "teacher":
        draft.plan(run)  # where there are no tasks this fails, before minutes go into fetching or making the base
    else:
        lessons = prepare_lessons(run, recipe)
    training = plan_junior(run, recipe)
    if recipe.synthesize.generator == "senior":  # settings that do not fit together fail before the teacher is paid
        plan_senior(run, recipe)
    if recipe.trains_revisor:
        plan_revisor(run, recipe)
    if lessons:
        said = f"There are no more of them by draft.lessons: {recipe.draft.lessons}.\n"
        check_enough_rows(training, lessons.plan.rows, said)  # while another choice needs no other run
        run.freeze(recipe)
        publish_lessons(run, lessons)
    else:
        _run_stage(run, draft)
    train_on_ray(training, train_model)


def align_senior(run: Run, recipe: Recipe) -> None:
    """The junior writes candidates; the teacher names the best and the worst; DPO makes the junior the senior.

    About documents the scores name them, and nobody is asked (`judge.engine`).
    """
    junior, training = generator_with_trained_weights(run, recipe, JUNIOR), plan_senior(run, recipe)
    if recipe.judge.engine == "scores":
        plan_embeddings(run, recipe.curate)  # fails before the junior writes where the reference cannot judge
    _run_stage(run, Propose(recipe, junior))
    if recipe.judge.engine == "scores":
        publish_verdicts(run, recipe)
    else:
        _run_stage(run, Judge(recipe))
    train_on_ray(training, train_model)


def align_revisor(run: Run, recipe: Recipe) -> None:
    """The teacher revises the junior's candidates; on these the unaligned base is fine-tuned to revise, then by DPO.

    The paper stops after SFT (`revisor.dpo: false`); here the revisor also learns to prefer the teacher's revision to
    its own, and may start from the junior, which can write already (`revisor.start`).
    """
    junior = generator_with_trained_weights(run, recipe, JUNIOR)
    sft, *dpo = plan_revisor(run, recipe)
    _run_stage(run, Propose(recipe, junior))
    _run_stage(run, Critique(recipe))
    train_on_ray(sft, train_model)
    if dpo:
        _run_stage(run, SelfRevise(recipe, generator_with_trained_weights(run, recipe, REVISOR_SFT)))
        pair_revisions(run, recipe)
        train_on_ray(dpo[0], train_model)


def synthesize(run: Run, recipe: Recipe) -> None:
    """The generator writes one example for every planned prompt, and the revisor revises each of them once.

    Of documents the generator itself writes queries again that find their passages late; the better one stays.
    """
    name = recipe.synthesize.generator
    generator = recipe.generator if name == "base" else generator_with_trained_weights(run, recipe, name)
    writing = Synthesize(recipe, generator)
    steps = [Step(writing.plan(run), writing)]
    if recipe.trains_revisor:
        revising = Revise(recipe, generator_with_trained_weights(run, recipe, REVISOR))
        steps.append(Step(revising.plan(run, steps[0].plan), revising))
    run.freeze(recipe)
    pool.execute(run, *steps)
    if recipe.synthesize.revise and recipe.is_grounded:
        publish_ranked(run, recipe)
        _run_stage(run, Rewrite(recipe, generator))
        publish_sooner_found(run, recipe)


def curate(run: Run, recipe: Recipe) -> None:
    """Reject examples that repeat, leak or mislead, hold some tasks out, and keep the rest for training."""
    prepared = prepare_curation(run, recipe)
    run.freeze(recipe)
    publish_curated(run, prepared)


def score(run: Run, recipe: Recipe) -> None:
    """Judges score each pair and what may answer its query besides; gates refuse what teaches nothing."""
    judging = prepare_scoring(run, recipe)
    groups = [[Step(stage.plan(run), stage) for stage in stages] for stages in language_models.stages_of(recipe)]
    run.freeze(recipe)
    for steps in groups:
        for step in steps:
            language_models.replace_outdated(run, step.stage, step.plan)
        pool.execute(run, *steps)
    for line in judge_lines(publish_scored(run, judging, recipe)):
        Console().print(line, markup=False, soft_wrap=True)


def train_embedder(run: Run, recipe: Recipe) -> None:
    """Train the embedder: each query against its positive, its hard negatives and those of the whole batch.

    In later rounds (`rounds`) the embedder just trained finds and judges the pairs that the base is trained on anew.
    """
    _train_embedder(run, recipe)
    for number in range(2, recipe.rounds + 1):
        later, changed = of_round(run, recipe, number)
        Console().print(f"round {number}, in {later.uri}", markup=False, soft_wrap=True)
        curate(later, changed)
        if changed.score is not None:
            score(later, changed)
        _train_embedder(later, changed)


def _train_embedder(run: Run, recipe: Recipe) -> None:
    training = plan_embedder(run, recipe)
    data_identity(training)  # fails where there is nothing to train on yet
    read_scale(training)  # fails where scores that are to teach are missing or cannot
    run.freeze(recipe)
    train_on_ray(training, train_model)
    for line in describe_choice(training.model.published()["facts"]):
        Console().print(line, markup=False)


def evaluate(run: Run, recipe: Recipe) -> None:
    """Score the embedder on every evaluation set, beside the model that its training started from and BM25."""
    from speed_ray.evaluation import eval_models, results, score  # needs packages of the extra `train`

    scored, tasks = eval_models.models_of(run, recipe), score.list_tasks(run, recipe)
    workers = recipe.evaluate.workers
    run.freeze(recipe)
    missing = score.missing_scores(run, scored, tasks, "cuda" if workers.num_gpus else "cpu")
    try:
        for _ in map_tasks.map_tasks("evaluate", missing, lambda: score.score_task, workers):
            pass  # each task's scores are stored by its worker
    finally:
        results.publish_scores(run, scored, tasks)
        Console().print(results.score_table(run, scored, tasks))


ORDER = (
    *(read_documents, brainstorm, align_junior, align_senior, align_revisor),
    *(synthesize, curate, score, train_embedder, evaluate),
)
JOBS = {job.__name__: job for job in ORDER}


def up_to(last: str, recipe: Recipe) -> list[Callable[[Run, Recipe], None]]:
    """Return all jobs that a recipe needs, in order, up to one of them; each skips what is finished.

    Raises UserError for an unknown job, or one that this recipe does not need.
    """
    jobs = needed_jobs(recipe)
    if last not in jobs:
        said, valid = last.replace("_", "-"), [job.replace("_", "-") for job in jobs]
        raise UserError(f"--until {said}: this recipe needs no such job{nearest(said, valid)}")
    return [JOBS[name] for name in jobs[: jobs.index(last) + 1]]


def _run_stage(run: Run, stage: Stage[Any, Any]) -> None:
    """Execute one stage. The recipe is frozen once the stage can be planned: a refusal leaves nothing behind."""
    step = Step(stage.plan(run), stage)
    run.freeze(stage.recipe)
    pool.execute(run, step)
