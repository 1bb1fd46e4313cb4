"""The embedder's encoder: a transformer and a pooling, loaded from and saved to a sentence-transformers folder.

A query is "Instruct: {instruction}\\nQuery: {query}" (SPEED, section 3.5), a document its text alone. A folder's own
prompts stand before documents, and before queries without an instruction.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from sentence_transformers.sentence_transformer.modules import Normalize, Transformer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, set_seed

from speed_ray.engines.embedder_folder import Pooling, load_embedder
from speed_ray.engines.model_folder import explain_loading
from speed_ray.errors import UserError
from speed_ray.recipes.training_settings import Embedder, Lora
from speed_ray.records import format_query
from speed_ray.training import load_model

TokenIds = np.ndarray  # int32 (tokens,): a list takes nine times as much memory
PROBED_TOKENS, PROBED_LENGTH = 512, 32  # tokens that show which parameters are used, and those of one text
DEFAULT_INSTRUCTION = "Given a question, find the passage that answers it"  # of a query that comes without one


def load_encoder(
    folder: str | Path,
    pooling: Pooling | None = None,
    max_length: int = 512,
    dtype: torch.dtype | None = None,
    key: str = "embedder.model",
) -> SentenceTransformer:
    """Load an embedder, or make one from a language model; texts are cut at `max_length` tokens.

    `dtype` is of the weights; None leaves them as they are stored, in half precision in many folders. Without
    `pooling` the folder must be one of sentence-transformers, which names its pooling. `key` names the model in
    messages. Raises UserError where it cannot be loaded, and where the tokenizer has no pad token or, for pooling by
    the last token, no end-of-sequence token.
    """
    model_kwargs = {"use_safetensors": True, **({"dtype": dtype} if dtype else {})}
    if pooling is None:
        model = load_embedder(str(folder), key, device="cpu", model_kwargs=model_kwargs)
        if isinstance(model[0], Transformer):  # static embeddings take texts of any length
            model.max_seq_length = min(max_length, model.get_max_seq_length() or max_length)
    else:
        with explain_loading(folder, key):
            model = _pooled_transformer(str(folder), pooling, max_length, model_kwargs)
    if isinstance(model[0], Transformer):
        _prepare_tokenizer(model.tokenizer, str(folder), needs_end=pooling == "last")
    return model.to(dtype) if dtype else model  # the modules after the transformer have no such argument


def _pooled_transformer(
    folder: str, pooling: Pooling, max_length: int, model_kwargs: dict[str, Any]
) -> SentenceTransformer:
    # Plain text: with a chat template sentence-transformers 6 would write every text as a user's message.
    plain = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    transformer = Transformer(
        folder,
        max_seq_length=max_length,
        model_kwargs=model_kwargs,
        modality_config=plain,
        module_output_name="token_embeddings",
    )
    mode = "lasttoken" if pooling == "last" else pooling
    width = transformer.get_embedding_dimension()
    return SentenceTransformer(
        modules=[transformer, modules.Pooling(width, pooling_mode=mode), Normalize()], device="cpu"
    )


def trained_dtype(settings: Embedder) -> torch.dtype:
    """Return the type of the weights in training: frozen ones below LoRA are bf16 where the recipe's precision is."""
    return torch.bfloat16 if settings.lora is not None and settings.precision == "bf16" else torch.float32


class TextPrompts(NamedTuple):
    """Hold what an embedder's folder puts before a query without an instruction, and before a document."""

    query: str = ""
    document: str = ""

    def format_query(self, instruction: str, text: str) -> str:
        """Write a query as it is trained: with its instruction, or else with the folder's prompt."""
        return format_query(instruction, text) if instruction else self.query + text


def folder_prompts(model: SentenceTransformer) -> TextPrompts:
    """Return the prompts that texts are trained with, as encode_query and encode_document choose them."""
    return TextPrompts(model.prompts["query"], model.prompts["document"])


def set_trained_prompts(model: SentenceTransformer, instructed: bool) -> None:
    """Leave a trained embedder the prompts and the similarity that it was trained with, and no others.

    `instructed` says that its queries had instructions. A default prompt stays one where it is of these prompts.
    """
    default = model.prompts.get(model.default_prompt_name or "", "")
    query = format_query(DEFAULT_INSTRUCTION, "") if instructed else model.prompts["query"]
    model.prompts = {"query": query, "document": model.prompts["document"]}
    same = [name for name, text in model.prompts.items() if default and text == default]
    model.default_prompt_name = same[0] if same else None
    model.similarity_fn_name = "cosine"


def save_encoder(model: SentenceTransformer, folder: Path) -> None:
    """Save a model as sentence-transformers loads it, without the truncation and padding of its tokenizer's last call.

    A training that was resumed after its last step has not called it, and is to publish the same files.
    """
    model.tokenizer.backend_tokenizer.no_truncation()
    model.tokenizer.backend_tokenizer.no_padding()
    model.eval().save(str(folder), create_model_card=False)


class Encoder(nn.Module):
    """Embeds padded token ids with a sentence-transformers model; `bf16` computes in it by autocast."""

    def __init__(self, model: SentenceTransformer, bf16: bool = False) -> None:
        super().__init__()
        self.model = model
        self.bf16 = bf16

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed int64 token ids and mask (texts, longest) as vectors (texts, width)."""
        texts = {"input_ids": input_ids, "attention_mask": attention_mask}
        with torch.autocast(input_ids.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            vectors: Tensor = self.model(texts)["sentence_embedding"]
        return vectors


def add_lora(model: SentenceTransformer, settings: Lora, seed: int) -> None:
    """Freeze the weights, and add freshly initialized fp32 LoRA adapters."""
    set_seed(seed)  # adapters are initialized randomly
    model[0].model = load_model.add_adapters(model[0].model, settings, "FEATURE_EXTRACTION", "embedder")


def merge_lora(model: SentenceTransformer) -> None:
    """Merge LoRA adapters, where there are any, into the weights that they adapt."""
    if isinstance(model[0].model, PeftModel):
        model[0].model = model[0].model.merge_and_unload()


def freeze_unused_parameters(model: SentenceTransformer) -> None:
    """Freeze parameters without a gradient, such as BERT's pooler: DistributedDataParallel would wait for it.

    The texts are of tokens from the whole vocabulary, so that every expert of a mixture is asked for some of them.
    """
    vocabulary = min(len(model.tokenizer), model[0].model.get_input_embeddings().num_embeddings)
    tokens = np.linspace(0, vocabulary - 1, PROBED_TOKENS, dtype=np.int32)
    text = pad_batch(list(tokens.reshape(-1, PROBED_LENGTH)), 0)
    Encoder(model)(**{name: tensor.to(model.device) for name, tensor in text.items()}).sum().backward()
    for weight in model.parameters():
        if weight.requires_grad and weight.grad is None:
            weight.requires_grad_(False)
        weight.grad = None


def pad_batch(texts: Sequence[TokenIds | list[int]], pad_id: int) -> dict[str, Tensor]:
    """Pad texts of token ids on the right: `input_ids` and `attention_mask`, int64 (texts, longest)."""
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), pad_id)
    mask = torch.zeros_like(ids)
    for index, text in enumerate(texts):
        ids[index, : len(text)] = torch.as_tensor(text)
        mask[index, : len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: str, needs_end: bool) -> None:
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"embedder.model: the tokenizer of {folder} has neither a pad token nor an end-of-sequence token.\n"
                "Name one as pad_token in the folder's tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    if needs_end:
        _append_end_token(tokenizer, folder)


def _append_end_token(tokenizer: PreTrainedTokenizerBase, folder: str) -> None:
    """Have the tokenizer end every text, cut or not, with the end-of-sequence token, whose vector is the embedding.

    It is set in the tokenizer's own file: transformers 5 drops `add_eos_token` for some models, and for others takes
    away the first token with it (see mteb's e5_instruct.py on both).
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"embedder.pooling: last takes the vector of the end-of-sequence token, and the tokenizer of {folder} has "
            "none.\nName one as eos_token in the folder's tokenizer_config.json, or pool by mean."
        )
    ids = tokenizer("a").input_ids
    if ids[-1] != tokenizer.eos_token_id:
        first = tokenizer.bos_token if tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id else ""
        special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (first, tokenizer.eos_token) if token]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{first} $A {tokenizer.eos_token}".strip(), special_tokens=special
        )
    assert tokenizer("a").input_ids[-1] == tokenizer.eos_token_id, "a text does not end with the end-of-sequence token"
