"""A sentence-transformers model as the endpoint uses it: how many tokens a text has, and the vectors of some texts."""

from collections.abc import Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from speed_ray.serving.embedding_request import InputType

Vectors = np.ndarray  # (texts, width), float32

# Padded tokens of one forward. On two CPU cores MiniLM embeds a third fewer texts a second with four times as many.
FORWARD_ON_CPU = 256
FORWARD_ON_GPU = 16_384


class ServedModel:
    """`encode` and `count` may each be called by one thread at a time, and at once."""

    def __init__(self, folder: str, threads: int) -> None:
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = SentenceTransformer(
            folder, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
        self._tokenizer = _counting(self._model)
        self._prompts = _prompts(self._model)
        self.forward_tokens = FORWARD_ON_CPU if device == "cpu" else FORWARD_ON_GPU
        longest = self._model.get_max_seq_length()
        self.most_tokens = int(longest) if longest and longest < 10**9 else None  # some tokenizers' "any length"
        self.width = self.encode(["a first text, to warm up"], None).shape[1]

    def count(self, texts: Sequence[str], input_type: InputType) -> list[int]:
        """The tokens of each text with its prompt and special tokens, none cut off."""
        prompt = self._prompts[input_type]
        return [len(text) for text in self._tokenizer.encode_batch_fast([prompt + text for text in texts])]

    def encode(self, texts: list[str], input_type: InputType) -> Vectors:
        """Embed some texts in one forward, as the model's own encode, encode_query and encode_document do."""
        encoders = {"query": self._model.encode_query, "document": self._model.encode_document}
        encode = encoders[input_type] if input_type else self._model.encode
        vectors = encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)


def truncated(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` of each vector at length 1, as OpenAI does it; without a number they stay as they are."""
    if dimensions is None:
        return vectors
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.divide(cut, lengths, out=np.zeros_like(cut), where=lengths > 0)


def _counting(model: SentenceTransformer) -> Tokenizer:
    """A copy of the tokenizer that cuts nothing off. A copy, because the model's own is set anew for each forward."""
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _prompts(model: SentenceTransformer) -> dict[InputType, str]:
    """What is put before each text: the prompts that encode_query, encode_document and encode choose."""
    prompts = model.prompts
    documents = [prompts[name] for name in ("document", "passage", "corpus") if name in prompts]
    return {
        "query": prompts.get("query", ""),
        "document": documents[0] if documents else "",
        None: prompts.get(model.default_prompt_name or "", ""),
    }
