"""An embedder as ONNX gives the vectors that sentence-transformers gives, without torch."""

import re
from pathlib import Path

import pytest

from speed_ray.errors import Interrupted, UserError
from speed_ray.export import onnx_model
from speed_ray.export.forms import export_run
from speed_ray.export.onnx_model import FILES, refuse_without_packages, write_onnx
from speed_ray.storage.run import SCORED_EXAMPLES
from speed_ray.storage.trained_models import Model
from speed_ray.training.contrastive import encoder
from tests.helpers.exported_run import finished_run
from tests.helpers.tiny_training import tiny_model

TEXTS = ["one", "a text of several words", "words " * 40]
FACTS = {"base_model": "some/base", "data": {"artifact": SCORED_EXAMPLES}, "rows": {}}


def saved_embedder(folder: Path, pooling: str) -> Path:
    """A model of random weights that reads 32 tokens."""
    model = encoder.load_encoder(tiny_model(folder / "base"), pooling, max_length=32)
    encoder.save_encoder(model, folder / "model")
    return folder / "model"


@pytest.mark.parametrize(("pooling", "form", "least"), [("last", "onnx", 0.9999), ("mean", "int8", 0.98)])
def test_the_cards_code_gives_the_vectors_of_the_original(tmp_path, pooling, form, least):
    weights = saved_embedder(tmp_path / "weights", pooling)
    run = finished_run(str(tmp_path / "run"))
    Model(run, "embedder").publish(weights, FACTS)
    _, checked, *_ = export_run(run, tmp_path / "to", form)
    assert checked.startswith(f"{form}: {FILES[form]}, ")
    assert not list((tmp_path / "to").rglob("*.safetensors"))
    card = (tmp_path / "to" / "README.md").read_text()
    assert f"{checked[1:]}." in card
    code = re.search("```python\\n(.*?)```", card, re.DOTALL)[1].replace("FOLDER", str(tmp_path / "to"))
    assert "torch" not in code
    names = {}
    exec(code, names)
    theirs = encoder.load_encoder(weights, None, max_length=32).encode(TEXTS)
    assert ((names["embed"](TEXTS) * theirs).sum(1) > least).all()


def test_vectors_that_are_not_the_originals_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(onnx_model.LEAST_COSINE, "int8", 1.1)
    with pytest.raises(Interrupted, match=r"where 1\.1 is wanted.*\nExport it with --as onnx instead"):
        write_onnx(saved_embedder(tmp_path, "last"), tmp_path, "int8", TEXTS)


def test_missing_packages_are_told_with_their_extra(monkeypatch):
    monkeypatch.setattr(onnx_model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx, onnxruntime, onnxscript: run `pip install 'speed_ray\[onnx\]'`"):
        refuse_without_packages("int8")
