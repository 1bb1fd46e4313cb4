"""A model's card says where the scores of the model will be: its folder is fixed before it is scored."""

from types import SimpleNamespace

import pytest

from speed_ray.training import model_card


@pytest.mark.parametrize(("method", "is_evaluated"), [("contrastive", True), ("sft", False)])
def test_the_card_of_an_embedder_names_the_file_of_its_scores(method, is_evaluated):
    settings = SimpleNamespace(lora=None)
    training = SimpleNamespace(name="embedder", method=method, base="a/b", base_weights=None, settings=settings)
    card = model_card._render(training, {"code": "1.0"})
    assert ("`evaluation/embedder.json` of its run, with what each set left out" in card) == is_evaluated
