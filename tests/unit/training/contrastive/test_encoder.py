"""The embedder in training is the one that sentence-transformers loads from its folder."""

import json
import shutil

import pytest
import torch
from sentence_transformers import SentenceTransformer

from speed_ray.errors import UserError
from speed_ray.recipes.training_settings import Embedder, Lora
from speed_ray.training.contrastive import encoder
from speed_ray.training.contrastive.encoder import Encoder
from tests.helpers.tiny_training import tiny_model

INSTRUCTED = encoder.format_query(encoder.DEFAULT_INSTRUCTION, "")
TEXTS = ["a lamp", "the lamp on the table hums at night, and nobody sleeps", "b"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("encoder") / "base")


def embedded(model, texts):
    tokenizer = model.tokenizer
    ids = [tokenizer(text, truncation=True, max_length=model.max_seq_length).input_ids for text in texts]
    with torch.no_grad():
        return Encoder(model.eval())(**encoder.pad_batch(ids, tokenizer.pad_token_id))


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_the_saved_folder_answers_as_it_was_trained(base, tmp_path, pooling):
    model = encoder.load_encoder(base, pooling, max_length=16)
    model.save(str(tmp_path / "embedder"))
    loaded = SentenceTransformer(str(tmp_path / "embedder"), device="cpu")
    assert loaded.encode(TEXTS, convert_to_tensor=True).sub(embedded(model, TEXTS)).abs().max() < 1e-5
    again = encoder.load_encoder(tmp_path / "embedder")
    assert embedded(again, TEXTS).sub(embedded(model, TEXTS)).abs().max() < 1e-6


def test_a_text_ends_with_the_token_that_stands_for_it_also_when_cut(base):
    model = encoder.load_encoder(base, "last", max_length=8)
    tokenizer = model.tokenizer
    for text in ("", *TEXTS):
        ids = tokenizer(text, truncation=True, max_length=8).input_ids
        assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1 and len(ids) <= 8


def test_padding_changes_no_vector(base):
    model = encoder.load_encoder(base, "last", max_length=32)
    together = embedded(model, TEXTS)
    alone = torch.cat([embedded(model, [text]) for text in TEXTS])
    assert together.sub(alone).abs().max() < 1e-5


def test_only_queries_carry_their_instruction():
    assert encoder.format_query("Find it", "lamp") == "Instruct: Find it\nQuery: lamp"
    assert encoder.format_query("", "lamp") == "lamp"


def saved(base, folder, **changes):
    """The same model as a folder of sentence-transformers: mean pooling, with prompts or in another type."""
    model = encoder.load_encoder(base, "mean", max_length=32)
    model.prompts = changes.get("prompts", model.prompts)
    model.default_prompt_name = changes.get("default")
    model.set_pooling_include_prompt(changes.get("include_prompt", True))
    model.similarity_fn_name = changes.get("similarity", "cosine")
    model.to(changes.get("dtype", torch.float32)).save(str(folder))
    return folder


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pooling", [None, "mean"])
def test_weights_stored_in_half_precision_are_trained_in_that_of_the_recipe(base, tmp_path, stored, pooling):
    folder = saved(base, tmp_path / "half", dtype=stored)
    settings = Embedder(model="m", precision="fp32", lora=None)
    model = encoder.load_encoder(folder, pooling, dtype=encoder.trained_dtype(settings))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert {weight.dtype for weight in encoder.load_encoder(folder, pooling).parameters()} == {stored}


@pytest.mark.parametrize(
    ("precision", "lora", "dtype"),
    [("fp32", Lora(), torch.float32), ("bf16", None, torch.float32), ("bf16", Lora(), torch.bfloat16)],
)
def test_only_frozen_weights_are_held_in_bf16(precision, lora, dtype):
    assert encoder.trained_dtype(Embedder(model="m", precision=precision, lora=lora)) == dtype


PROMPTS = {"query": "query: ", "document": "passage: ", "clustering": "cluster: "}


@pytest.mark.parametrize(
    ("prompts", "default", "instructed", "published", "named"),
    [
        (PROMPTS, None, False, {"query": "query: ", "document": "passage: "}, None),
        (PROMPTS, "clustering", False, {"query": "query: ", "document": "passage: "}, None),
        (PROMPTS, "query", False, {"query": "query: ", "document": "passage: "}, "query"),
        ({**PROMPTS, "own": "passage: "}, "own", False, {"query": "query: ", "document": "passage: "}, "document"),
        (PROMPTS, "query", True, {"query": INSTRUCTED, "document": "passage: "}, None),
        ({"retrieval": "represent: "}, "retrieval", True, {"query": INSTRUCTED, "document": ""}, None),
    ],
)
def test_a_trained_folder_has_the_prompts_it_was_trained_with(
    base, tmp_path, prompts, default, instructed, published, named
):
    model = encoder.load_encoder(saved(base, tmp_path / "base", prompts=prompts, default=default))
    encoder.set_trained_prompts(model, instructed)
    model.save(str(tmp_path / "trained"))
    loaded = SentenceTransformer(str(tmp_path / "trained"), device="cpu")
    assert (loaded.prompts, loaded.default_prompt_name) == (published, named)


def test_what_is_trained_by_cosine_says_so(base, tmp_path):
    model = encoder.load_encoder(saved(base, tmp_path / "base", similarity="dot"))
    assert model.similarity_fn_name == "dot"
    encoder.set_trained_prompts(model, False)
    assert model.similarity_fn_name == "cosine"


def test_modules_that_the_model_does_not_have(base):
    model = encoder.load_encoder(base, "mean")
    with pytest.raises(UserError, match=r"embedder\.lora\.target_modules: \['q_prj'\](.|\n)*q_proj"):
        encoder.add_lora(model, Lora(target_modules=["q_prj"]), 0)


class Experts(torch.nn.Module):
    """Four experts; a text goes to one by its first token. And weights that nothing uses."""

    def __init__(self):
        super().__init__()
        self.experts = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(4))
        self.unused = torch.nn.Linear(64, 64)

    def forward(self, features):
        chosen = (features["input_ids"][:, 0] % 4).tolist()
        pairs = zip(chosen, features["sentence_embedding"], strict=True)
        vectors = [self.experts[expert](vector) for expert, vector in pairs]
        return {**features, "sentence_embedding": torch.stack(vectors)}


def test_what_only_some_texts_use_is_trained_and_what_none_uses_is_frozen(base):
    model = encoder.load_encoder(base, "mean", max_length=32)
    model.append(experts := Experts())
    encoder.freeze_unused_parameters(model)
    assert all(weight.requires_grad for weight in experts.experts.parameters())
    assert not any(weight.requires_grad for weight in experts.unused.parameters())


def without(base, folder, *names):
    """The same model, whose tokenizer lacks some special tokens."""
    shutil.copytree(base, folder)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / file
        if path.is_file():
            path.write_text(
                json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in names})
            )
    return folder


def test_a_tokenizer_that_cannot_end_a_text(base, tmp_path):
    folder = without(base, tmp_path / "endless", "eos_token")
    with pytest.raises(UserError, match=r"embedder\.pooling: last takes the vector of the end-of-sequence token"):
        encoder.load_encoder(folder, "last")
    assert encoder.load_encoder(folder, "mean").encode("a").shape == (64,)


def test_a_tokenizer_that_has_nothing_to_pad_with(base, tmp_path):
    with pytest.raises(UserError, match=r"embedder\.model: .* neither a pad token nor an end-of-sequence token"):
        encoder.load_encoder(without(base, tmp_path / "padless", "eos_token", "pad_token"), "mean")
