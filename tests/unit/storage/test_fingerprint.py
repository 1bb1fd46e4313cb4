"""A run goes on only where all that determines its rows is as it was: recipe settings and our own code."""

import json
import re
from collections.abc import Callable, Iterator

import pytest
from pydantic import BaseModel

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.recipes.setting import RuntimeMark
from speed_ray.records import content_id, is_in_share, seed_of
from speed_ray.stages import curate, select_tasks, topics
from speed_ray.stages.brainstorm import Brainstorm
from speed_ray.stages.judge import Judge
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage import fingerprint
from speed_ray.storage.attempt import Attempt
from speed_ray.storage.run import PROPOSED_TASKS, Run
from speed_ray.storage.shards import Counts
from speed_ray.storage.verify import verify

RULES = {"curation.semantic", "curation.negatives", "curation.reference_model", "curation.contamination"}
RULES |= {"curation.near_duplicates", "text.language"}

Edit = Callable[[str, Callable[[str], str]], None]


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Edit:
    """Change the source of a module as it is read for its digest."""
    read = fingerprint.module_source

    def change(module: str, new: Callable[[str], str]) -> None:
        def source(name: str) -> str:
            return new(read(name)) if name == f"speed_ray.{module}" else read(name)

        assert source(f"speed_ray.{module}") != read(f"speed_ray.{module}")
        monkeypatch.setattr(fingerprint, "module_source", source)

    return change


@pytest.fixture
def brainstormed(make_job) -> tuple[Brainstorm, Run]:
    """A run whose brainstorm is begun, and the stage."""
    job = make_job()
    run, stage = job.run, Brainstorm(job.recipe)
    run.freeze(job.recipe)
    topics.collect_topics(run, topics.topics_of(job.recipe))
    artifact, plan = run.artifact(PROPOSED_TASKS), stage.plan(run)
    artifact.ensure_plan(plan)
    assert Attempt(artifact, plan, 0, 0).commit([], Counts(accepted=1))
    return stage, run


def resume(stage: Brainstorm, run: Run) -> None:
    run.artifact(PROPOSED_TASKS).ensure_plan(stage.plan(run))


def with_a_statement(source: str) -> str:
    return f"{source}\nFEWEST_WORDS = 3\n"


def with_a_comment(source: str) -> str:
    return "# A comment.\n" + source.replace("\n\n\ndef ", "\n\n\n# Why.\n\ndef ")


def with_other_docstrings(source: str) -> str:
    return source.replace('."""\n', '. Otherwise said."""\n')


@pytest.mark.parametrize(
    "module",
    ["text.rules", "text.language", "prompts.parse", "prompts.render", "kinds.kind", "kinds.sts", "stages.brainstorm"],
)
def test_a_changed_rule_refuses_the_resume_and_is_named(brainstormed, edit: Edit, module: str) -> None:
    edit(module, with_a_statement)
    with pytest.raises(UserError) as caught:
        resume(*brainstormed)
    differences = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert len(differences) == 1 and differences[0].startswith(f"  identity.code.{module}: was '")


@pytest.mark.parametrize("module", ["text.rules", "prompts.parse", "kinds.sts", "stages.brainstorm"])
@pytest.mark.parametrize("change", [with_a_comment, with_other_docstrings])
def test_a_changed_comment_or_docstring_does_not(brainstormed, edit: Edit, module: str, change) -> None:
    edit(module, change)
    resume(*brainstormed)


def test_a_string_that_is_no_docstring_is_code(brainstormed, edit: Edit) -> None:
    edit("prompts.parse", lambda source: source.replace('"best_is_worst"', '"the_same"'))
    with pytest.raises(UserError, match=r"identity\.code\.prompts\.parse: was"):
        resume(*brainstormed)


def test_a_module_that_determines_no_row_of_a_stage_is_not_in_its_plan(brainstormed, edit: Edit) -> None:
    edit("curation.quotas", with_a_statement)
    edit("executor.usage", with_a_statement)
    resume(*brainstormed)


def test_where_slots_are_sampled_that_code_is_part(brainstormed) -> None:
    _, run = brainstormed
    for stage in (Judge, Synthesize):
        assert "stages.example_request" in stage(run.recipe()).identity({})["code"]


def test_the_drivers_own_stages_name_their_rules() -> None:
    assert {"stages.select_tasks", "text.words"} <= set(fingerprint.code_digests(select_tasks.__name__))
    assert "stages.topics" in fingerprint.code_digests(topics.__name__)


@pytest.mark.parametrize(
    ("override", "used"),
    [
        ("decontaminate=[sets]", {"curation.contamination"}),
        ("duplicate_similarity=0.5", {"curation.near_duplicates"}),
        ("mine_negatives=1", {"curation.negatives"}),
        ("reference=a/model", {"curation.reference_model"}),
        ("check_language=true", {"text.language"}),
    ],
)
def test_of_curation_only_the_rules_that_are_on_count(override: str, used: set[str]) -> None:
    off = ["decontaminate=[]", *(f"{key}=null" for key in ("duplicate_similarity", "reference"))]
    off += ["mine_negatives=0", "check_language=false"]
    recipe = recipes.load_recipe("miniature", [f"curate.{each}" for each in (*off, override)])
    code = set(curate.code_identity(recipe.curate, has_corpus=False))
    assert code & RULES == used
    assert {"stages.curate", "curation.filters", "curation.scan", "curation.quotas", "text.token_hashes"} <= code


FIRST_VERSION = "0.1." + "0"  # not the present version, which is written in one place


def test_a_run_of_the_first_version_can_be_read_and_is_not_resumed(make_job, said, monkeypatch) -> None:
    job = make_job()
    with monkeypatch.context() as first_version:
        first_version.setattr("speed_ray.executor.stage.code_digests", lambda *modules: FIRST_VERSION)
        job.begin().make(Synthesize(job.recipe))
    assert all(found.holds for found in verify(job.run))
    for command in (("status", job.uri), ("verify", job.uri), ("show", job.uri, "examples")):
        code, words = said(*command)
        assert code == 0, words
    with pytest.raises(UserError, match=rf"identity\.code: was '{re.escape(FIRST_VERSION)}', now"):
        resume(Brainstorm(job.recipe), job.run)


def test_ids_seeds_and_shares_are_those_of_the_first_version() -> None:
    assert content_id("a", "b") == "6a93c5780b9861cdd8d2761a748d9591"
    assert seed_of(7, "row", "slots") == 256384245
    assert [number for number in range(8) if is_in_share(f"row {number}", "salt", 0.5)] == [0, 1, 4]


ENGINES: dict[str, dict[str, object]] = {
    "vllm": {"model": "org/model", "adapter": "org/adapter", "chat_template": "{{ messages }}"},
    "openai": {"model": "model", "base_url": "http://localhost/v1", "price": {"input": 1.0, "output": 2.0}},
    "simulated": {},
    "scripted": {},
}


def leaves(model: BaseModel, is_marked: bool = False) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield the path of every setting that is no group of settings, and whether it or a group of it is marked."""
    for name, field in type(model).model_fields.items():
        marked = is_marked or RuntimeMark() in field.metadata
        value = getattr(model, name)
        below = leaves(value, marked) if isinstance(value, BaseModel) else [((), marked)]
        yield from (((name, *path), marked) for path, marked in below)


def with_another_value(model: BaseModel, path: tuple[str, ...]) -> BaseModel:
    """Change one setting, unchecked."""
    name, *rest = path
    value = getattr(model, name)
    return model.model_copy(update={name: with_another_value(value, tuple(rest)) if rest else another(value)})


def another(value: object) -> object:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value} changed"
        case list():
            return [*value, "more"]
        case dict():
            return {**value, "more": 1}
    assert value is None
    return 1


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("engine", ENGINES)
def test_every_setting_is_in_the_identity_or_marked(engine: str) -> None:
    own = json.dumps({"engine": engine, **ENGINES[engine]})
    embedder = 'embedder={"model": "org/embedder"}'
    recipe = recipes.load_recipe("speed_8b", [f"teacher={own}", f"generator={own}", embedder])
    before = fingerprint.identity_fields(recipe)
    marked = {path for path, is_marked in leaves(recipe) if is_marked}
    without_effect = {
        path for path, _ in leaves(recipe) if fingerprint.identity_fields(with_another_value(recipe, path)) == before
    }
    assert without_effect == marked
    assert len(marked) > 50 and ("topics", "source") in marked and ("seed",) not in marked


def test_a_language_may_be_named_like_a_marked_setting() -> None:
    tree = recipes.load_recipe("miniature").model_dump(mode="json")
    identities = [
        fingerprint.identity_fields(recipes.validate_frozen(tree | {"languages": {name: 1}}, "recipe.yaml"))
        for name in ("workers", "prompts")
    ]
    assert identities[0] != identities[1]
