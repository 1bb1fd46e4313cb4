"""`speed-ray`: what is wrong with the input is said by name, with code 2, before anything is spent or written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from speed_ray import cli, pipeline
from speed_ray.console.job_end import find_rejecting
from speed_ray.errors import UserError
from speed_ray.stages.draft import Draft
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.fingerprint import identity_fields
from speed_ray.storage.run import DECIDED_BY
from tests.helpers.paths import ROOT


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("mix.retrival=1", "'retrival' (did you mean 'retrieval'?)"),
        ('mix={"sts": 0}', "all weights are zero"),
        ("synthesize.exampels=5", "synthesize.exampels: there is no such key (did you mean 'examples'?)"),
        ("synthesize.examples=many", "synthesize.examples"),
        ("synthesize.examples=0", "synthesize.examples"),
        ("teacher.engine=oracle", "teacher.engine: choose one of"),
        ("languages={}", "name at least one language"),
        ("examples", "write it as key=value"),
        ("seed.of=1", "seed is a value"),
        ("mix={sts", "not valid YAML"),
        ("revisor.dpo={bta: 0.2}", "revisor.dpo.bta: there is no such key (did you mean 'beta'?)"),
        ("revisor.dpo=true", "revisor.dpo"),
        (
            "generator={engine: vllm, model: x/y, engine_kwargs: {max_modellen: 3}}",
            "args.max_modellen: vLLM has no such argument",
        ),
        ("teacher={engine: vllm, model: /no/such/model}", "teacher.model: there is no model folder /no/such/model"),
        (
            "generator={engine: vllm, model: x/y, engine_kwargs: {max_model_len: 4k}}",
            "args.max_model_len: write a whole number",
        ),
        (
            "generator={engine: vllm, model: x/y, engine_kwargs: {model: x/z}}",
            "engine_kwargs.model: set generator.model instead",
        ),
        ("prompts=/no/such/folder", "/no/such/folder"),
        ("teacher={engine: openai, model: m, base_url: nonsense}", "teacher.base_url must look like"),
        (
            "teacher={engine: openai, model: m, base_url: 'http://h/v1', budget: {dollars: 1}}",
            "teacher.budget.dollars needs teacher.price",
        ),
    ],
)
def test_a_wrong_recipe(make_job, said, override, named):
    job = make_job()
    code, words = said(*job.arguments("brainstorm"), "--set", override)
    assert code == 2
    assert named in words
    assert not Path(job.uri).exists()


def test_a_run_without_a_name(said):
    code, words = said("brainstorm", "--recipe", "miniature", "--run", "")
    assert code == 2 and "is the variable in --run set?" in words


def test_an_unknown_recipe(said, tmp_path):
    code, words = said("brainstorm", "--recipe", "minature", "--run", str(tmp_path / "run"))
    assert code == 2
    assert "--recipe minature" in words and "did you mean 'miniature'?" in words
    assert not (tmp_path / "run").exists()


TOPICS = {
    "missing": (None, "there is no file"),
    "empty": (b"\n  \n# only a comment\n", "holds no topic"),
    "not-text": (b"\xff\xfe\x00broken", "is not UTF-8 text"),
    "too-long": (b"a" * 10_000 + b"\n///\n", "each of its 2 lines is longer than 300 characters, has no letter, or"),
}


@pytest.mark.parametrize("content", TOPICS)
def test_wrong_topics(make_job, said, tmp_path, content):
    data, named = TOPICS[content]
    source = tmp_path / "list.txt"
    if data is not None:
        source.write_bytes(data)
    job = make_job(topics__source=str(source))
    code, words = said(*job.arguments("brainstorm"))
    assert code == 2
    assert "topics.source" in words and str(source) in words and named in words
    assert not Path(job.uri).exists()


def files_of(job) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(job.uri).rglob("*") if path.is_file()}


def test_the_run_of_another_recipe(make_job, said):
    job = make_job().begin()
    before = files_of(job)
    code, words = said(*make_job(seed=8).arguments("synthesize"))
    assert code == 2
    assert "was begun with another recipe" in words and "seed: was 7, now 8" in words
    assert files_of(job) == before


def test_a_run_whose_names_are_refused_today_still_opens(make_job, said):
    """The first version froze `zh` as it was written, and looked at no name of a kind but the mix's."""
    job = make_job().begin()
    frozen = Path(job.uri, "recipe.yaml")
    tree = yaml.safe_load(frozen.read_text())
    tree["curate"] |= {"kinds": {"stss": 9}, "languages": {"english": 9}, "duplicate_similarity": 0}
    frozen.write_text(yaml.safe_dump(tree | {"languages": {"zh": 1}}))
    for command in (["status", job.uri], ["show", job.uri, "tasks"], ["verify", job.uri]):
        code, words = said(*command)
        assert code == 0, words


def test_pools_and_addresses_may_change(make_job, said):
    make_job().begin().half_done(46)
    code, words = said(
        *make_job(generator__max_concurrency=3, synthesize__pool={"max_size": 5}).arguments("synthesize")
    )
    assert code == 0, words


def test_a_run_folder_that_cannot_be_written(make_job, said, tmp_path):
    (tmp_path / "file").write_text("a file is no folder, not even for root")
    code, words = said(*make_job(uri=str(tmp_path / "file" / "run")).arguments("brainstorm"))
    assert code == 2
    assert f"Cannot write {tmp_path / 'file' / 'run'}" in words


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["align-junior"], "Run `speed-ray brainstorm` first"),
        (["align-senior"], "models/junior is not trained yet: run `speed-ray align-junior` first"),
        (["align-revisor"], "models/junior is not trained yet"),
        (["run", "--until", ""], "--until : this recipe needs no such job"),
        (["run", "--until", "align-senor"], "did you mean 'align-senior'?"),
    ],
)
def test_alignment_before_its_time(make_job, said, command, named):
    model = {"engine": "vllm", "model": "some/model"}
    job = make_job(generator=model, synthesize__generator="senior")
    code, words = said(*command, *job.arguments("run")[1:])
    assert code == 2 and named in words


def test_only_vllm_serves_what_a_run_trained(make_job, said):
    code, words = said(*make_job(synthesize__generator="junior").begin().arguments("synthesize"))
    assert code == 2 and "generator.engine is simulated, which cannot load what this run trained" in words


def test_synthesize_before_brainstorm(make_job, said):
    code, words = said(*make_job().arguments("synthesize"))
    assert code == 2
    assert "tasks is not finished" in words


@pytest.fixture
def model(tmp_path):
    """The folder of a model that nobody could load, but that has all that is looked at before."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def engine(model: Path, **args: int) -> dict:
    return {"engine": "vllm", "model": str(model), "engine_kwargs": args}


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("config.json", "holds no config.json"),
        ("tokenizer.json", "holds no tokenizer"),
        ("tokenizer_config.json", "generator.chat_template"),
        ("model.safetensors", "holds no weights"),
    ],
)
def test_a_model_folder_without(make_job, said, model, file, named):
    job = make_job(generator=engine(model)).begin()
    (model / file).unlink()
    code, words = said(*job.arguments("synthesize"))
    assert code == 2
    assert str(model) in words and named in words
    assert not job.examples.exists(), "the plan already holds on to a model that cannot be used"


def test_no_model_folder(make_job, said, model):
    job = make_job(generator=engine(model / "deeper")).begin()
    code, words = said(*job.arguments("synthesize"))
    assert code == 2
    assert "generator.model: there is no model folder" in words
    assert not job.examples.exists()


def test_a_window_smaller_than_the_prompts(make_job, said, model):
    job = make_job(generator=engine(model, max_model_len=20)).begin()
    code, words = said(*job.arguments("synthesize"))
    assert code == 2
    assert "generator.engine_kwargs.max_model_len: 20 tokens cannot hold the prompts" in words
    assert not job.examples.exists()


def test_a_window_that_no_prompt_fits_costs_no_brainstorm(make_job, said, model):
    job = make_job(generator=engine(model, max_model_len=20))
    code, words = said(*job.arguments("brainstorm"))
    assert code == 2
    assert "generator.engine_kwargs.max_model_len: 20 tokens cannot hold the prompts of examples" in words
    assert not Path(job.uri).exists()


def test_a_window_put_right_keeps_the_tasks(make_job, model):
    job = make_job(generator=engine(model, max_model_len=20)).begin()
    wider = make_job(generator=engine(model, max_model_len=2000))
    wider.run.freeze(wider.recipe)
    assert wider.run.recipe().generator.engine_kwargs == {"max_model_len": 2000}
    job.run.freeze(job.recipe)


def test_what_decides_tasks_cannot_be_put_right(make_job):
    job = make_job().begin()
    for change in ({"seed": 8}, {"mix": {"sts": 1}}, {"slots": {"sts": {"min_words": 4}}}):
        with pytest.raises(UserError, match=rf"was begun with another recipe:\n  {next(iter(change))}"):
            job.run.freeze(make_job(**change).recipe)


@pytest.mark.parametrize("command", [(), ("brainstorm",), ("synthesize",), ("verify",), ("status",), ("show",)])
def test_help(said, command):
    code, words = said(*command, "--help")
    assert code == 0
    assert "Usage:" in words


def test_the_installed_command():
    command = Path(sys.executable).with_name("speed-ray")
    answered = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "synthesize" in answered.stdout


def test_status_after_a_crash(make_job, said):
    job = make_job().begin().half_done(20)
    code, words = said("status", job.uri)
    assert code == 0
    assert "examples: last commit" in words and "20 of 46 shards" in words and "200 accepted" in words
    code, words = said("verify", job.uri)
    assert code == 1
    assert "missing 260" in words


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff\xfe\x80"])
def test_a_damaged_recipe_of_a_run(make_job, said, damage):
    job = make_job().begin()
    (Path(job.uri) / "recipe.yaml").write_bytes(damage)
    code, words = said("status", job.uri)
    assert code == 2 and f"{job.uri}/recipe.yaml is damaged" in words


@pytest.mark.parametrize("command", [("status",), ("verify",), ("show", "examples")])
@pytest.mark.parametrize("damage", [b"", b"{", b'{"rows": 3}'])
def test_a_damaged_plan(make_job, said, command, damage):
    job = make_job().begin().half_done(1)
    (job.examples / "plan.json").write_bytes(damage)
    code, words = said(command[0], job.uri, *command[1:])
    assert code == 3 and "examples/plan.json is damaged" in words


@pytest.mark.parametrize("command", ["status", "verify"])
def test_no_run_there(said, tmp_path, command):
    code, words = said(command, str(tmp_path / "nowhere"))
    assert code == 2
    assert str(tmp_path / "nowhere") in words


def test_quality_of_examples(make_job, said):
    job = make_job().begin().half_done(46)
    code, words = said("quality", job.uri)
    assert code == 0
    for part in ("460 of 460 planned rows accepted (100.0%)", "English 460", "self-BLEU", "matching_long"):
        assert part in words


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["exampels"], "there is no artifact 'exampels'"),
        (["tasks"], "holds no examples"),
        (["examples", "--embedder", "/no/such/model"], "there is no model folder /no/such/model"),
        (["examples", "--against", "/no/such/run"], "examples is not finished"),
    ],
)
def test_quality_of_something_else(make_job, said, arguments, named):
    job = make_job().begin().half_done(46)
    code, words = said("quality", job.uri, *arguments)
    assert code == 2 and named in words


@pytest.mark.parametrize("command", ["align-junior", "align-senior", "align-revisor", "curate", "train-embedder"])
def test_a_job_that_comes_too_early_begins_no_run(command, tmp_path, said) -> None:
    code, words = said(command, "--recipe", "miniature", "--run", str(tmp_path / "run"))
    assert code == 2 and str(tmp_path / "run") in words
    assert not (tmp_path / "run").exists()


def test_trainings_that_do_not_fit_are_told_before_the_teacher_is_paid(make_job, said, model) -> None:
    changes = {"junior": {"lora": {"r": 4}}, "revisor": {"start": "junior"}, "synthesize__revise": True}
    job = make_job(generator=engine(model), synthesize__generator="junior", **changes).begin()
    code, words = said(*job.arguments("align-junior"))
    assert code == 2 and "revisor.sft.lora must equal junior.lora" in words
    assert job.run.artifact("drafts").plan() is None


def test_a_ctrl_c_while_the_program_is_still_read(tmp_path):
    (tmp_path / "typer.py").write_text("import time\nprint('reading', flush=True)\ntime.sleep(600)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    program = [sys.executable, "-m", "speed_ray", "status", str(tmp_path)]
    reading = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    assert reading.stdout.readline() == "reading\n"

    reading.send_signal(signal.SIGINT)

    assert reading.communicate() == ("", "")
    assert reading.returncode == -signal.SIGINT


def test_a_job_that_is_done_is_not_suggested(make_job, said):
    job = make_job(synthesize__generator="base", synthesize__revise=False).begin()
    code, before = said(*job.arguments("brainstorm"))
    assert code == 0 and "next: speed-ray synthesize" in before, before
    job.make(Synthesize(job.recipe, job.recipe.generator))

    _, after = said(*job.arguments("brainstorm"))

    assert "next: speed-ray curate" in after, after


def test_every_job_is_a_command():
    assert list(cli.JOBS) == list(pipeline.JOBS)


def test_a_key_may_change_until_what_it_decides_is_there(make_job):
    job = make_job().begin()
    job.make(Draft(job.recipe))
    later = {"junior__learning_rate": 1e-3, "judge__sampling": {"temperature": 1.0}, "embedder": None}
    job.run.freeze(make_job(**later).recipe)
    assert job.run.recipe().junior.learning_rate == 1e-3
    with pytest.raises(UserError, match=r"draft.examples: was .*\n  draft is held by drafts, of which \d+ rows"):
        job.run.freeze(make_job(**later, draft__examples=7).recipe)
    assert job.run.recipe().draft.examples == job.recipe.draft.examples


def test_the_newest_budget_is_kept_in_the_run(make_job):
    teacher = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "KEY"}
    for calls in (10, 99):
        job = make_job(teacher=teacher | {"budget": {"calls": calls}})
        job.run.freeze(job.recipe)
    assert job.run.recipe().teacher.budget.calls == 99


def test_every_key_that_decides_rows_names_what_it_decides(make_job):
    assert set(identity_fields(make_job().recipe)) == set(DECIDED_BY)


def test_a_plan_of_which_nothing_is_answered_gives_way(make_job):
    job = make_job().begin()
    job.run.artifact("examples").ensure_plan(Synthesize(job.recipe).plan(job.run))
    other = make_job(synthesize__examples=7)
    other.run.freeze(other.recipe)
    other.run.artifact("examples").ensure_plan(Synthesize(other.recipe).plan(other.run))
    assert other.run.artifact("examples").plan().rows == 7


def test_the_rejects_of_an_empty_artifact_are_looked_for_where_they_are(make_job):
    broken = {"engine": "simulated", "faults": {"malformed": 1.0}}
    job = make_job(teacher=broken, mix={"retrieval": 1}, brainstorm__max_retries=0).begin()
    assert not job.run.artifact("tasks").record_files()
    assert find_rejecting(job.run, "tasks") == "proposed_tasks"
