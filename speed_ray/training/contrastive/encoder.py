"""The embedder: a transformer, how one vector is made of a text, and the folder that sentence-transformers loads.

Queries carry their instruction, documents nothing: "Instruct: {instruction}\\nQuery: {query}" (SPEED, section 3.5).
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, set_seed

from speed_ray.errors import UserError
from speed_ray.recipes.schema import Lora
from speed_ray.training import load_model

TokenIds = np.ndarray  # int32: a list takes nine times as much memory
DEFAULT_INSTRUCTION = "Given a question, find the passage that answers it"  # of a query without


def load_encoder(
    folder: str | Path, pooling: Literal["last", "mean", "cls"] | None = None, max_length: int = 512
) -> SentenceTransformer:
    """Load an embedder to train, or make one of a language model.

    Without `pooling` the folder must be one of sentence-transformers, which says itself how it pools. Raises UserError
    where it does not, and where a tokenizer has nothing to pad with or, pooling the last token, to end a text with.
    """
    if pooling is None:
        if not Path(folder, "modules.json").is_file():
            raise UserError(
                f"embedder.pooling: {folder} does not say how to make one vector of its tokens.\n"
                "Set it to last, as is usual for a language model, or to mean or cls."
            )
        model = SentenceTransformer(str(folder), trust_remote_code=False, device="cpu")
        model.max_seq_length = min(max_length, model.get_max_seq_length() or max_length)
    else:
        # Text as it is: with a chat template sentence-transformers 6 writes every text as a user's message.
        plain = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
        transformer = Transformer(
            str(folder),
            max_seq_length=max_length,
            model_kwargs={"use_safetensors": True},
            modality_config=plain,
            module_output_name="token_embeddings",
        )
        mode = "lasttoken" if pooling == "last" else pooling
        width = transformer.get_embedding_dimension()
        modules = [transformer, Pooling(width, pooling_mode=mode), Normalize()]
        model = SentenceTransformer(modules=modules, device="cpu")
    _prepare_tokenizer(load_tokenizer(model), str(folder), ends=pooling == "last")
    return model


def load_tokenizer(model: SentenceTransformer) -> PreTrainedTokenizerBase:
    """The tokenizer that texts are read with, here and once the model is saved."""
    read: PreTrainedTokenizerBase = model.tokenizer
    return read


def format_query(instruction: str, text: str) -> str:
    """Put the instruction before a query; without one the text is as it was."""
    return f"Instruct: {instruction}\nQuery: {text}" if instruction else text


class Encoder(nn.Module):
    """What is trained, and shared out among workers: texts as padded token ids -> their vectors (texts, width).

    With `bf16` it is computed in that precision over weights of any.
    """

    def __init__(self, model: SentenceTransformer, bf16: bool = False) -> None:
        super().__init__()
        self.model = model
        self.bf16 = bf16

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed one mini-batch."""
        texts = {"input_ids": input_ids, "attention_mask": attention_mask}
        with torch.autocast(input_ids.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            vectors: Tensor = self.model(texts)["sentence_embedding"]
        return vectors


def add_lora(model: SentenceTransformer, settings: Lora, seed: int, bf16: bool) -> None:
    """Freeze the weights, in bf16 where that is the precision, and put fresh adapters in fp32 on them."""
    set_seed(seed)  # an adapter begins with random numbers
    if bf16:
        model.to(torch.bfloat16)
    model[0].model = get_peft_model(model[0].model, load_model.lora_config(settings, "FEATURE_EXTRACTION"))


def merge_lora(model: SentenceTransformer) -> None:
    """Add adapters, where there are any, to the weights that they are on: the model is a plain one again."""
    if isinstance(model[0].model, PeftModel):
        model[0].model = model[0].model.merge_and_unload()


def freeze_unused_parameters(model: SentenceTransformer) -> None:
    """Freeze weights that no vector depends on, such as BERT's own pooler: workers would wait for their gradient."""
    text = pad_batch([load_tokenizer(model)("a").input_ids], 0)
    Encoder(model)(**{name: tensor.to(model.device) for name, tensor in text.items()}).sum().backward()
    for weight in model.parameters():
        if weight.requires_grad and weight.grad is None:
            weight.requires_grad_(False)
        weight.grad = None


def pad_batch(texts: Sequence[TokenIds | list[int]], pad: int) -> dict[str, Tensor]:
    """Return texts of any length as a mini-batch, filled up on the right."""
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), pad)
    mask = torch.zeros_like(ids)
    for place, text in enumerate(texts):
        ids[place, : len(text)] = torch.as_tensor(text)
        mask[place, : len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: str, ends: bool) -> None:
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"embedder.model: the tokenizer of {folder} has neither a pad token nor an end-of-sequence token.\n"
                "Name one as pad_token in the folder's tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    if ends:
        _append_end_token(tokenizer, folder)


def _append_end_token(tokenizer: PreTrainedTokenizerBase, folder: str) -> None:
    """Have every text end with the end-of-sequence token, whose vector stands for it, also where a text is cut.

    In the tokenizer's own file: `add_eos_token` is dropped by transformers 5 for some models, and takes the first
    token with it for others (mteb's e5_instruct.py tells of both).
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
