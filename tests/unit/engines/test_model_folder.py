"""A model folder is refused, told apart and measured without loading a model."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from speed_ray.engines import model_folder
from speed_ray.engines.model_folder import (
    check_adapter_folder,
    check_model_folder,
    ensure_model_folder,
    folder_digest,
    identify_model,
    read_modules,
)
from speed_ray.errors import UserError
from speed_ray.miniature import base_model
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import Model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The least that counts as a model folder."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    tokenizer = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_whole_folder_passes(folder: Path) -> None:
    check_model_folder(folder, None)


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("config.json", "config.json"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors", "no weights"),
        ("tokenizer_config.json", "generator.chat_template"),
    ],
)
def test_a_missing_file_is_named(folder: Path, missing: str, told: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(UserError, match=told):
        check_model_folder(folder, None)


def test_a_base_model_passes_with_the_recipes_template(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    check_model_folder(folder, "{{ messages[0].content }}")


def test_a_template_beside_the_weights_counts(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    check_model_folder(folder, None)


def test_a_template_that_is_neither_text_nor_file_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="neither Jinja text nor a file"):
        check_model_folder(folder, "templates/gone.jinja")


def test_a_shard_of_the_weights_is_missing(folder: Path) -> None:
    names = ["model.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="lacks 1 of the 2 files of its weights, model-00002"):
        check_model_folder(folder, None)


def test_pickled_weights_are_refused_with_the_way_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="save_pretrained"):
        check_model_folder(folder, None)


def test_a_path_to_nothing_is_refused_and_a_hub_name_passes(tmp_path: Path) -> None:
    assert identify_model("someone/some-model-0.5B", "k") is None is ensure_model_folder("someone/some-model-0.5B")
    assert ensure_model_folder(str(tmp_path)) == tmp_path
    assert identify_model(str(tmp_path), "k") == folder_digest(tmp_path)
    for gone in (str(tmp_path / "gone"), "./gone", "../gone", "a/b/c"):
        for refuse in (identify_model, ensure_model_folder):
            with pytest.raises(UserError, match="no model folder"):
                refuse(gone, "generator.model")


def test_a_miniature_and_a_trained_model_are_identified_without_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEED_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Model, "fetch", lambda self: pytest.fail("an identity fetches nothing"))
    assert identify_model("miniature://base", "k") == base_model.base_digest("base")
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"weights")
    trained = Model(Run(str(tmp_path / "run")), "junior")
    with pytest.raises(UserError, match="not trained yet"):
        identify_model(f"file://{tmp_path}/run/models/junior", "k")
    trained.publish(weights, {})
    assert identify_model(trained.where, "k") == trained.published()["digest"]
    assert not (tmp_path / "cache").exists()


def test_an_adapter_tells_its_rank(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no adapter_config"):
        check_adapter_folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4}))
    with pytest.raises(UserError, match="no weights"):
        check_adapter_folder(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    assert check_adapter_folder(tmp_path) == 4


def test_the_digest_follows_content_and_not_place(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    elsewhere.mkdir()
    for file in folder.iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes())
    (elsewhere / "README.md").write_text("a note changes no answer")
    assert folder_digest(folder) == folder_digest(elsewhere)
    for name in ("model.safetensors", "tokenizer_config.json"):
        before = folder_digest(elsewhere)
        (elsewhere / name).write_bytes(b"{}")
        assert folder_digest(elsewhere) != before


@pytest.mark.parametrize(
    "name",
    [
        *("config_sentence_transformers.json", "sentence_bert_config.json", "vocab.txt", "special_tokens_map.json"),
        *("chat_template.jinja", "spiece.model", "pytorch_model.bin", "1_Pooling/config.json", "1_Pooling/vocab.txt"),
        *("1_Pooling/model.safetensors", "1_Pooling/query/model.safetensors"),
    ],
)
def test_the_digest_is_of_all_that_decides_a_vector_or_a_text(folder: Path, name: str) -> None:
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "-", "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    digests = [folder_digest(folder)]
    for content in ("one", "two"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
        digests.append(folder_digest(folder))
    assert len(set(digests)) == 3


@pytest.mark.parametrize("name", ["README.md", ".git/config.json", "checkpoint-5/model.safetensors", "onnx/a.json"])
def test_what_no_model_is_made_of_leaves_the_digest(folder: Path, name: str) -> None:
    before = folder_digest(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    assert folder_digest(folder) == before


@pytest.mark.parametrize("modules", ["{", "[{}]", '[{"type": "a"}]', '[{"type": "a", "path": "../other"}]'])
def test_modules_that_are_none(folder: Path, modules: str) -> None:
    (folder / "modules.json").write_text(modules)
    with pytest.raises(UserError, match=r"modules\.json .*Save the model anew"):
        read_modules(folder)


@pytest.mark.parametrize("place", [0, 465, 999])
def test_the_digest_sees_both_ends_and_the_windows_between(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(model_folder, "WINDOW", 10)  # 16 windows of 10 bytes begin at 0, 66, .. 462, .. 990
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(1000))
    before = folder_digest(folder)
    weights.write_bytes(bytes(place) + b"1" + bytes(999 - place))
    assert folder_digest(folder) != before


def test_tokens_are_counted_by_the_folders_tokenizer(folder: Path) -> None:
    assert model_folder.count_tokens(folder, ["one two", "two", ""]) == [2, 1, 0]
