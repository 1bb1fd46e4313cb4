"""What is trained from what, what decides its weights, and what is refused before anything is started."""

import json

import pytest
from typer.testing import CliRunner

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.storage.run import DRAFTS, REVISION_PAIRS, REVISIONS, VERDICTS, Run
from speed_ray.training import load_model, plan
from speed_ray.training.__main__ import app
from tests.helpers.tiny_training import tiny_model, tiny_recipe, tiny_rows, write_rows


@pytest.fixture
def base(tmp_path):
    return tiny_model(tmp_path / "base")


@pytest.fixture
def run(tmp_path):
    run = Run(str(tmp_path / "run"))
    write_rows(run, DRAFTS, tiny_rows(40))
    return run


def changed(recipe, **keys):
    """The recipe with other values, each written as key__below=value."""
    tree = recipe.model_dump(mode="json")
    for name, value in keys.items():
        *above, last = name.split("__")
        branch = tree
        for key in above:
            branch = branch[key]
        branch[last] = value
    return recipes.validate(tree, "the test")


def test_each_model_starts_where_the_paper_says(run, base):
    recipe = tiny_recipe(base)
    supervised, preferring = plan.plan_revisor(run, recipe)
    trainings = [plan.plan_junior(run, recipe), plan.plan_senior(run, recipe), supervised, preferring]
    assert [(each.name, each.method, each.start, each.data) for each in trainings] == [
        ("junior", "sft", None, DRAFTS),
        ("senior", "dpo", "junior", VERDICTS),
        ("revisor_sft", "sft", None, REVISIONS),
        ("revisor", "dpo", "revisor_sft", REVISION_PAIRS),
    ]


def test_the_papers_revisor_is_supervised_only(run, base):
    (only,) = plan.plan_revisor(run, changed(tiny_recipe(base), revisor__dpo=False))
    assert (only.name, only.method, only.key) == ("revisor", "sft", "revisor.sft")


def test_speed_is_no_part_of_the_identity_and_settings_are(run, base):
    recipe = tiny_recipe(base)
    before = plan.training_identity(plan.plan_junior(run, recipe))
    faster = changed(
        recipe,
        junior__workers__num_workers=8,
        junior__zero_stage=3,
        junior__micro_batch_size=1,
        junior__save_steps=5,
    )
    assert plan.training_identity(plan.plan_junior(run, faster)) == before
    for key, value in {"learning_rate": 1e-5, "global_batch_size": 16, "lora": {"r": 4}, "precision": "bf16"}.items():
        assert plan.training_identity(plan.plan_junior(run, changed(recipe, **{f"junior__{key}": value}))) != before, (
            key
        )


def test_data_must_be_there(tmp_path, base):
    training = plan.plan_junior(Run(str(tmp_path / "empty")), tiny_recipe(base))
    with pytest.raises(UserError, match="drafts is not finished, and junior is trained on it"):
        plan.training_identity(training)


def test_a_model_to_start_from_must_be_there(run, base):
    write_rows(run, VERDICTS, tiny_rows(40))
    with pytest.raises(UserError, match="models/junior is not trained yet"):
        plan.training_identity(plan.plan_senior(run, tiny_recipe(base)))


@pytest.mark.parametrize("lora", [None, {"r": 8}])
def test_one_model_has_one_adapter(run, base, lora):
    recipe = changed(tiny_recipe(base, lora={"r": 4}), senior__lora=lora)
    with pytest.raises(UserError, match=r"senior\.lora must equal junior\.lora"):
        plan.plan_senior(run, recipe)


def test_whole_weights_may_get_an_adapter(run, base):
    assert plan.plan_senior(run, changed(tiny_recipe(base), senior__lora={"r": 4})).start == "junior"


def test_a_revisor_may_begin_as_the_junior(run, base):
    supervised, preferring = plan.plan_revisor(run, changed(tiny_recipe(base), revisor__start="junior"))
    assert (supervised.start, preferring.start) == ("junior", "revisor_sft")


def test_a_revisor_that_begins_as_the_junior_has_its_adapter(run, base):
    recipe = changed(tiny_recipe(base, lora={"r": 4}), revisor__start="junior", revisor__sft__lora=None)
    with pytest.raises(UserError, match=r"revisor\.sft\.lora must equal junior\.lora"):
        plan.plan_revisor(run, recipe)


def test_smoothing_that_means_nothing_is_refused(run, base):
    with pytest.raises(UserError, match=r"senior\.label_smoothing: ipo has none"):
        plan.plan_senior(run, tiny_recipe(base, loss_type="ipo", label_smoothing=0.1))


def test_too_few_rows_are_told_before_anything_is_started(run, base):
    training = plan.plan_junior(run, tiny_recipe(base, global_batch_size=64))
    with pytest.raises(UserError, match=r"drafts has 40 rows to train junior on, and one step needs 64"):
        plan.training_identity(training)


@pytest.mark.parametrize(("batch", "micro_batch", "count"), [(8, 3, 1), (8, 4, 3), (4, 4, 8)])
def test_a_batch_that_cannot_be_shared_out(run, base, batch, micro_batch, count):
    recipe = tiny_recipe(base, global_batch_size=batch, micro_batch_size=micro_batch, workers={"num_workers": count})
    with pytest.raises(UserError, match=rf"A batch of {batch} rows cannot be divided among {count} workers"):
        plan.plan_junior(run, recipe)


def test_more_workers_hold_fewer_rows_each(base):
    settings = tiny_recipe(base, global_batch_size=8, micro_batch_size=4).junior
    assert [plan.per_device_batch_size(settings, workers) for workers in (1, 2, 4, 8)] == [4, 4, 2, 1]


def test_the_command_names_the_models_that_there_are(base, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipes.dump_yaml(tiny_recipe(base)))
    asked = ["jnior", "--recipe", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run")]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 2
    assert "this recipe trains no such model (did you mean 'junior'?)" in told.output
    assert not (tmp_path / "run").exists(), "a run was begun for nothing"


def test_only_weights_at_hand_are_trained(run, base):
    simulated = changed(tiny_recipe(base), generator={"engine": "simulated"})
    with pytest.raises(UserError, match=r"generator\.engine: simulated has no weights"):
        plan.plan_junior(run, simulated)
    adapted = changed(tiny_recipe(base), generator__adapter="/some/adapter")
    with pytest.raises(UserError, match=r"generator\.adapter"):
        plan.plan_junior(run, adapted)


def test_a_base_without_chat_template(run, tmp_path):
    bare = tiny_model(tmp_path / "bare", template=None)
    with pytest.raises(UserError, match=r"generator\.chat_template: .* has no chat template"):
        plan.plan_junior(run, tiny_recipe(bare))
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    training = plan.plan_junior(run, changed(tiny_recipe(bare), generator__chat_template=template))
    assert load_model.load_chat_tokenizer(training).chat_template == template


def test_a_tokenizer_without_an_end(run, tmp_path):
    endless = tiny_model(tmp_path / "endless", end=None)
    with pytest.raises(UserError, match=r"generator\.model: .* no end-of-sequence token"):
        load_model.load_chat_tokenizer(plan.plan_junior(run, tiny_recipe(endless)))


def test_a_tokenizer_without_padding_pads_with_the_end(run, tmp_path):
    folder = tiny_model(tmp_path / "base")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_model.load_chat_tokenizer(plan.plan_junior(run, tiny_recipe(folder)))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_a_training_finds_its_run_from_any_working_directory(base, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    training = plan.plan_junior(Run("run"), tiny_recipe(base))
    monkeypatch.chdir("/")
    assert training.model.where == str(tmp_path / "run" / "models" / "junior")
