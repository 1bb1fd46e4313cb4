"""A GGUF file becomes a folder of the same model, and what is no whole model is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from speed_ray.engines import gguf_folder
from speed_ray.engines.gguf_folder import ensure_converted, gguf_digest
from speed_ray.engines.model_folder import check_model_folder, ensure_model_folder, identify_model
from speed_ray.engines.packaged_models import find_packaged_model
from speed_ray.errors import UserError

TOKENS = [*sorted(ByteLevel.alphabet()), "Ġt", "<|im_start|>", "<|im_end|>", "<eos>"]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
WIDTH, INNER = 32, 64
SHAPES = {
    "token_embd": (len(TOKENS), WIDTH),
    "output_norm": (WIDTH,),
    "blk.0.attn_norm": (WIDTH,),
    "blk.0.ffn_norm": (WIDTH,),
    "blk.0.attn_q": (WIDTH, WIDTH),
    "blk.0.attn_k": (WIDTH // 2, WIDTH),
    "blk.0.attn_v": (WIDTH // 2, WIDTH),
    "blk.0.attn_output": (WIDTH, WIDTH),
    "blk.0.ffn_gate": (INNER, WIDTH),
    "blk.0.ffn_up": (INNER, WIDTH),
    "blk.0.ffn_down": (WIDTH, INNER),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPEED_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_gguf(
    path: Path, architecture: str = "llama", lacking: str = "", template: str = TEMPLATE, **more: Any
) -> Path:
    """Write a Llama of one layer with random weights in Q8_0; `more` are string or integer fields, `_` for `.`."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * 257 + [3, 3, 3])
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(TOKENS.index("<|im_start|>"))
    writer.add_eos_token_id(TOKENS.index("<eos>"))
    writer.add_chat_template(template)
    for name, value in more.items():
        (writer.add_string if isinstance(value, str) else writer.add_uint16)(name.replace("_", "."), value)
    random = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        values = random.standard_normal(shape, np.float32)
        kind = GGMLQuantizationType.Q8_0 if len(shape) == 2 else GGMLQuantizationType.F32
        if name != lacking:
            writer.add_tensor(f"{name}.weight", quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(ids: torch.Tensor, folder: Path, **source: str) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source)(ids).logits


def test_the_folder_has_the_files_model(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    folder = ensure_model_folder(str(file))
    assert folder is not None
    check_model_folder(folder, None)
    ids = torch.arange(len(TOKENS))[None, :200]
    assert torch.equal(logits(ids, folder), logits(ids, tmp_path, gguf_file=file.name))


def test_template_tokens_and_ends_of_turns_come_along(tmp_path: Path) -> None:
    folder = ensure_converted(write_gguf(tmp_path / "tiny.gguf"), "k")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == TEMPLATE
    ids = tokenizer.apply_chat_template([{"content": "a t"}], return_dict=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|im_start|>", "a", "Ġt", "<|im_end|>"]
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    assert tokenizer.convert_ids_to_tokens(ends) == ["<|im_end|>", "<eos>"]


@pytest.mark.parametrize("pre", ["default", "llama-bpe"])
def test_a_text_begins_as_llama_cpp_begins_it(pre: str, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tokenizer_ggml_pre=pre)
    ids = AutoTokenizer.from_pretrained(ensure_converted(file, "k"))("a").input_ids
    assert [TOKENS[index] for index in ids] == [*(["<|im_start|>"] if pre == "llama-bpe" else []), "a"]


def test_a_file_is_known_by_its_content_and_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = write_gguf(tmp_path / "a.gguf"), write_gguf(tmp_path / "b.gguf", template="{{ messages }}")
    assert gguf_digest(first) != gguf_digest(other)
    folder = ensure_converted(first, "k")
    monkeypatch.setattr(gguf_folder, "_convert", lambda *_: pytest.fail("converted twice"))
    moved = first.rename(tmp_path / "moved.gguf")
    assert ensure_converted(moved, "k") == folder
    assert identify_model(str(moved), "k") == gguf_digest(moved)


def test_a_file_beside_it_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "another"}')
    (tmp_path / "config.json").write_text("broken")
    folder = ensure_converted(write_gguf(tmp_path / "tiny.gguf"), "k")
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"architecture": "unheard-of"}, "cannot load its architecture, unheard-of"),
        ({"lacking": "blk.0.ffn_up"}, "lacks 1 of llama's weights, model.layers.0.mlp.up_proj.weight"),
        ({"general_type": "adapter"}, "no model but something of type adapter"),
        ({"split_count": 3}, "one of 3 parts"),
        ({"llama_rope_scaling_type": "yarn"}, "scales its rotary positions"),
    ],
)
def test_what_is_no_whole_model_is_refused(given: dict[str, Any], told: str, tmp_path: Path, cache: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", **given)
    with pytest.raises(UserError, match=f"generator.model: {file} .*{told}"):
        ensure_converted(file, "generator.model")
    assert not [path for path in cache.iterdir() if path.is_dir()]


@pytest.mark.parametrize("share", [0, 0.1, 0.9])
def test_a_file_that_ends_early_is_refused(share: float, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(UserError, match=r"k: .*tiny\.gguf is no whole GGUF file"):
        ensure_converted(file, "k")


def test_a_file_that_is_not_there_is_no_hub_name() -> None:
    for refuse in (identify_model, ensure_model_folder):
        with pytest.raises(UserError, match=r"there is no GGUF file someone/gone\.gguf"):
            refuse("someone/gone.gguf", "k")


@pytest.mark.slow
def test_smollm2_says_what_its_file_says() -> None:
    file = find_packaged_model("package://smollm2", "k")
    folder = ensure_model_folder("package://smollm2")
    assert folder is not None
    check_model_folder(folder, None)
    ids = AutoTokenizer.from_pretrained(folder)("The capital of France is", return_tensors="pt").input_ids
    assert torch.equal(logits(ids, folder), logits(ids, file.parent, gguf_file=file.name))
    answer = AutoModelForCausalLM.from_pretrained(folder).generate(ids, max_new_tokens=1, do_sample=False)
    assert AutoTokenizer.from_pretrained(folder).decode(answer[0]).endswith("is Paris")
