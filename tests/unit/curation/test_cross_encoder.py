"""Cross-encoders: one logit for a pair, and folders that are none refused by what is in them."""

from pathlib import Path

import pytest
import torch

from speed_ray.curation.cross_encoder import CrossEncoder
from speed_ray.engines.cross_encoder_folder import check_cross_encoder
from speed_ray.errors import UserError
from tests.helpers.cross_encoders import change_config, tiny_cross_encoder
from tests.helpers.grounded_run import MINILM

KEY = "score.cross_encoders.mine"
QUERIES = ["which lamp", "what do dogs do at night when nobody looks", "lamp"]
TEXTS = ["a red lamp", "dogs sleep", "a lamp " * 200]


def loaded(folder: Path, batch_size: int = 2) -> CrossEncoder:
    return CrossEncoder(str(folder), KEY, max_length=512, batch_size=batch_size, device="cpu")


def test_a_score_is_the_logit_of_the_pair_alone(tmp_path: Path) -> None:
    model = loaded(tiny_cross_encoder(tmp_path))
    for query, text, score in zip(QUERIES, TEXTS, model.score(QUERIES, TEXTS), strict=True):
        encoded = model.tokenizer(query, text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            assert score == pytest.approx(model.model(**encoded).logits.item(), abs=1e-5)


def test_texts_of_a_script_that_the_model_cannot_read_are_refused(tmp_path: Path) -> None:
    model = loaded(tiny_cross_encoder(tmp_path))
    model.score(["ምን ነው"], ["ውሻ"])  # a word or two say nothing about a model
    with pytest.raises(UserError, match=rf"^{KEY}: \d\d% of the tokens .* such as in 'ውሻ ምን ይበላል': .* another lang"):
        model.score(["ውሻ ምን ይበላል"] * 40, ["ውሻ ሥጋ ይበላል እንጂ ሣር አይበላም"] * 40)


def test_a_pair_is_cut_at_what_the_model_can_read(tmp_path: Path) -> None:
    assert loaded(tiny_cross_encoder(tmp_path)).max_length == 64


@pytest.mark.parametrize(
    ("changes", "labels", "said"),
    [
        ({"architectures": ["BertModel"]}, 1, "is no cross-encoder: its architecture is BertModel"),
        ({"architectures": None}, 1, "its architecture is not named"),
        ({}, 3, r"has 3 outputs \(id2label in config\.json\), and one is needed"),
        ({"id2label": None}, 2, r"has 2 outputs"),
        ({"id2label": 4}, 1, "is no configuration of transformers"),
    ],
)
def test_a_folder_of_another_model_is_refused(tmp_path: Path, changes: dict, labels: int, said: str) -> None:
    folder = change_config(tiny_cross_encoder(tmp_path, labels), **changes)
    with pytest.raises(UserError, match=rf"^{KEY}: .*{said}"):
        check_cross_encoder(str(folder), KEY)


def test_an_embedder_is_no_cross_encoder() -> None:
    with pytest.raises(UserError, match=rf"^{KEY}: .* is no cross-encoder: its architecture is BertModel"):
        check_cross_encoder(MINILM, KEY)


def test_weights_that_run_code_are_refused(tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=rf"^{KEY}: .* holds its weights as pickle"):
        check_cross_encoder(str(folder), KEY)


def test_a_name_of_the_hub_is_not_fetched() -> None:
    with pytest.raises(UserError, match=rf"^{KEY}: some/reranker is no folder on this machine"):
        check_cross_encoder("some/reranker", KEY)


def test_damaged_weights_are_told_by_the_recipes_key(tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=rf"^{KEY}: .* cannot be loaded"):
        loaded(folder)
