"""`plan` foretells what a run then takes: rows and exact prompts, sampled replies, what is spent of it and left."""

from pathlib import Path

import huggingface_hub
import pytest

from speed_ray import recipes
from speed_ray.console.plan_report import plan_lines, plan_table
from speed_ray.console.spending_report import spending_lines
from speed_ray.planning.kept_plan import PLANNED, keep_plan, kept_plan
from speed_ray.planning.run_plan import plan_run
from speed_ray.recipes.schema import Recipe
from speed_ray.records import HELD_OUT
from speed_ray.stages.brainstorm import Brainstorm
from speed_ray.stages.select_tasks import select_tasks
from speed_ray.stages.synthesize import Synthesize
from speed_ray.stages.topics import collect_topics, topics_of
from speed_ray.storage.run import Run
from tests.helpers.passages import grounded_recipe, passage, publish_passages
from tests.helpers.tiny_endpoint import asked, mock

SCRIPT = ("generator={engine: scripted}", "synthesize.generator=base", "synthesize.revise=false", "topics.limit=12")
ALL_STAGES = ["proposed_tasks", "drafts", "candidates", "verdicts", "revisions", "examples", "revised_examples"]


def by_stage(recipe: Recipe, run: Run | None = None, sample: int | None = None) -> dict:
    return {stage.stage: stage for stage in plan_run(recipe, run, sample).stages}


def test_what_a_script_answers_is_foretold(begin_alignment) -> None:
    recipe = recipes.load_recipe("miniature", [*SCRIPT, "synthesize.examples=46", "embedder=null"])
    foretold = by_stage(recipe)
    made = begin_alignment(*SCRIPT)
    made.make(Synthesize(recipe))
    for name, each in foretold.items():
        counts = made.run.artifact(name).manifest()["counts"]
        assert (each.rows, each.calls) == (counts["accepted"] + counts["rejected"], counts["calls"])
        assert each.output_tokens.low <= counts["output_tokens"] <= each.output_tokens.high
    first = made.run.artifact("proposed_tasks").manifest()["counts"]
    assert (foretold["proposed_tasks"].prompts, foretold["proposed_tasks"].prompt_tokens) == (
        "exact",
        first["prompt_tokens"],
    )


def test_prompts_are_exact_once_their_inputs_are_there(begin_alignment) -> None:
    made = begin_alignment(*SCRIPT)
    recipe = made.recipe.model_copy(update={"embedder": None})
    foretold = by_stage(recipe, made.run)
    made.make(Synthesize(recipe))
    counts = made.run.artifact("examples").manifest()["counts"]
    assert foretold["proposed_tasks"].replies == "done"
    assert (foretold["examples"].prompts, counts["retries"]) == ("exact", 0)
    assert foretold["examples"].prompt_tokens == counts["prompt_tokens"]


def test_every_stage_of_the_alignment_has_its_line(tmp_path: Path) -> None:
    recipe = recipes.load_recipe("miniature", ["generator={engine: simulated}", "topics.limit=12"])
    plan = plan_run(recipe)
    assert [stage.stage for stage in plan.stages] == ALL_STAGES
    rows = {stage.stage: stage.rows for stage in plan.stages}
    assert (rows["drafts"], rows["candidates"], rows["examples"]) == (1_500, 300, 460)
    assert rows["revisions"] == pytest.approx(3 * rows["verdicts"], abs=2)
    assert [line.split()[0] for line in plan_table(plan)[1:-1]] == ALL_STAGES and list(plan_lines(plan))


def test_rows_about_passages_are_counted_and_their_prompts_rendered(run) -> None:
    publish_passages(run, [passage(number, HELD_OUT if number % 5 == 0 else "train") for number in range(20)])
    (stage,) = plan_run(grounded_recipe(synthesize={"per_passage": 3}), run).stages
    assert (stage.rows, stage.calls, stage.prompts) == (60, 60, "exact")


def test_a_model_that_cannot_be_had_is_guessed_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    for model in ("someone/model-8B", "/no/such/folder"):
        generator = f"generator={{engine: vllm, model: {model}}}"
        plan = plan_run(recipes.load_recipe("miniature", [*SCRIPT[1:], generator, "prompts=null"]))
        assert any("cannot be had here" in note and model in note for note in plan.notes)
        assert plan.stages[-1].replies == "guessed" and plan.stages[-1].prompt_tokens > 0


def endpoint_recipe(url: str) -> Recipe:
    endpoint = f"{{engine: openai, model: mock, base_url: '{url}', price: {{input: 100, output: 200}}}}"
    sizes = ["topics.limit=6", "synthesize.examples=46", "embedder=null", "prompts=null"]
    return recipes.load_recipe("miniature", [*SCRIPT[1:3], *sizes, f"teacher={endpoint}", f"generator={endpoint}"])


def test_a_sample_is_paid_for_once_and_taken_over_by_the_run(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    with mock("--latency-ms", "0") as url:
        recipe = endpoint_recipe(url)
        sampled = plan_run(recipe, run, sample=2)
        after_sample = asked(url)["requests"]
        again = plan_run(recipe, run)
        smaller = plan_run(recipe, run, sample=1)
        assert asked(url)["requests"] == after_sample > 0
        assert sampled.sampled == again.sampled == smaller.sampled == 2
        assert [stage.replies for stage in sampled.stages] == ["sampled", "sampled"]
        answer_all(run, recipe)
        prompts = asked(url)["prompts"].values()
    assert run.artifact("proposed_tasks").manifest()["counts"]["calls"] < sampled.stages[0].calls
    calls = sum(run.artifact(name).manifest()["counts"]["calls"] for name in ("proposed_tasks", "examples"))
    assert sum(times for times, _ in prompts) == after_sample + calls


def answer_all(run: Run, recipe: Recipe) -> None:
    from speed_ray.planning.rehearsal import answer_paid

    collect_topics(run, topics_of(recipe))
    for stage in (Brainstorm(recipe), Synthesize(recipe)):
        answer_paid(run, stage, stage.plan(run))
        if stage.name == "proposed_tasks":
            select_tasks(run, recipe)


@pytest.mark.parametrize("damaged", [b"{", b"[]", b'{"stages": [1]}', b'{"stages": [{"stage": "examples"}]}', b"7"])
def test_a_damaged_plan_counts_for_none(run, damaged: bytes) -> None:
    run.store.put(PLANNED, damaged)
    assert kept_plan(run) is None


def test_status_tells_planned_spent_and_left(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    with mock("--latency-ms", "0") as url:
        recipe = endpoint_recipe(url)
        plan = plan_run(recipe, run, sample=1)
    keep_plan(run, plan.to_json())
    tasks = plan.stages[0]
    line = next(line for line in spending_lines(run, recipe) if "proposed_tasks" in line)
    assert f"{tasks.calls:,} calls, spent 4, left {tasks.calls - 4:,}" in line and "$" in line
