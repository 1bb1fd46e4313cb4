"""Write an embedder as an ONNX graph, with float32 or int8 weights, for those who serve it on CPUs without torch.

The graph holds the pooling and the normalization of the folder too, so that `sentence_embedding` is what
`SentenceTransformer.encode` returns; sentence-transformers' own ONNX backend takes `last_hidden_state` of the same
file. Each file is opened with onnxruntime, and its vectors of some texts are held against the original's.
"""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speed_ray.errors import Interrupted, UserError

FILES: dict[str, str] = {"onnx": "onnx/model.onnx", "int8": "onnx/model_qint8.onnx"}
LEAST_COSINE: dict[str, float] = {"onnx": 0.999, "int8": 0.9}  # mean of the vectors with the original's
NEEDED = ("onnx", "onnxruntime", "onnxscript")
INPUTS, OUTPUTS = ["input_ids", "attention_mask"], ["last_hidden_state", "sentence_embedding"]
MOST_BYTES = 1_500_000_000  # of weights in one file with the graph, which may have 2 GB
TEXTS_AT_ONCE = 8


def refuse_without_packages(form: str) -> None:
    """Raise UserError where the packages that write ONNX are not installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"--as {form} needs {', '.join(missing)}: run `pip install 'speed_ray[onnx]'`.")


def write_onnx(weights: Path, folder: Path, form: str, texts: Sequence[str]) -> str:
    """Write an embedder's folder `weights` as ONNX into `folder`; say how near its vectors of `texts` are.

    Raises UserError for a model that cannot be written so, and Interrupted where its vectors are not the original's.
    """
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = SentenceTransformer(str(weights), device="cpu", local_files_only=True)
    path = folder / FILES[form]
    path.parent.mkdir(exist_ok=True)
    full = path if form == "onnx" else path.with_name("float32.onnx")
    large = sum(each.numel() for each in model.parameters()) * 4 > MOST_BYTES
    with _silence():
        _export_graph(model, full, large)
        if form == "int8":
            _quantize(full, path, large)
    if form == "int8":
        for each in path.parent.glob("float32.onnx*"):
            each.unlink()
    cosines = _cosines(model, path, texts)
    of = f"cosine with the original's vectors of {len(texts)} texts"
    said = f"{of}: {cosines.mean():.4f}, at least {cosines.min():.4f}"
    if not cosines.mean() >= LEAST_COSINE[form]:
        raise Interrupted(
            f"--as {form}: {said}, where {LEAST_COSINE[form]} is wanted: it would not find what the embedder finds.\n"
            f"Export it with --as {'onnx' if form == 'int8' else 'embedder'} instead."
        )
    return f"{form}: {FILES[form]}, {path.stat().st_size / 1e6:,.1f} MB; {said}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide what PyTorch and onnxruntime warn of while they convert: packages of others, names of axes, speed."""
    with warnings.catch_warnings(action="ignore"):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _export_graph(model: Any, path: Path, large: bool) -> None:
    import torch

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
            return found["token_embeddings"], found["sentence_embedding"]

    tokens = model.tokenizer(["a text", "another text of several words"], padding=True, return_tensors="pt")
    shape = {0: "batch", 1: "sequence"}
    try:
        torch.onnx.export(
            Embedding().float().eval(),
            tuple(tokens[name] for name in INPUTS),
            str(path),
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes={name: shape for name in INPUTS},
            dynamo=True,
            external_data=large,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(
            f"PyTorch cannot write this model as ONNX: {str(error).strip().splitlines()[0]}\n"
            "Export it with --as embedder, which sentence-transformers serves."
        ) from error


def _quantize(full: Path, path: Path, large: bool) -> None:
    """Make matrices int8, each column with a scale of its own; activations are scaled while they are computed.

    Weights take 7 of the 8 bits: in products of 8 bits CPUs without VNNI overflow.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(full),
        str(path),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        use_external_data_format=large,
    )


def _cosines(model: Any, path: Path, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Compute the cosines of the file's vectors of texts with the original's -> (texts,)."""
    import onnxruntime

    from speed_ray.evaluation.metrics import unit

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    length, found = model.get_max_seq_length(), []
    for begin in range(0, len(texts), TEXTS_AT_ONCE):
        some = list(texts[begin : begin + TEXTS_AT_ONCE])
        tokens = model.tokenizer(some, padding=True, truncation=True, max_length=length, return_tensors="np")
        ours = session.run(["sentence_embedding"], {name: tokens[name].astype(np.int64) for name in INPUTS})[0]
        theirs = model.encode(some, show_progress_bar=False)
        found.append((unit(ours) * unit(theirs)).sum(1))
    return np.concatenate(found).astype(np.float64)
