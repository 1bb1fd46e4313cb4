"""Score pairs of query and text with a cross-encoder: a model of transformers that reads both at once.

A score is the model's one logit as it stands, for a loss that learns margins: no sigmoid is put over it. Nothing in
the folder is run, and no hub is asked.
"""

from collections.abc import Sequence
from typing import Any

from speed_ray.engines import model_folder
from speed_ray.engines.cross_encoder_folder import check_cross_encoder


class CrossEncoder:
    """Score pairs with a loaded cross-encoder."""

    def __init__(self, name: str, key: str, max_length: int, batch_size: int, device: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer  # seconds; most runs have none
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = check_cross_encoder(name, key)
        with model_folder.explain_loading(folder, key):
            local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **local)
            model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True, **local)
            self.model = model.to(device).eval()
        window = getattr(model.config, "max_position_embeddings", max_length)
        self.max_length = min(max_length, window, self.tokenizer.model_max_length)
        self.batch_size = batch_size

    def score(self, queries: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Return the logit of each query with the text beside it; what is too long is cut."""
        import torch

        encoded = self.tokenizer(list(queries), list(texts), truncation=True, max_length=self.max_length)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        order, found = sorted(range(len(lengths)), key=lambda place: lengths[place]), [0.0] * len(lengths)
        for begin in range(0, len(order), self.batch_size):
            places = order[begin : begin + self.batch_size]
            rows = {name: [column[place] for place in places] for name, column in encoded.items()}
            batch = self.tokenizer.pad(rows, return_tensors="pt").to(self.model.device)
            with torch.inference_mode():
                logits = self.model(**batch).logits[:, 0].float().tolist()
            for place, logit in zip(places, logits, strict=True):
                found[place] = logit
        return found
