"""Score pairs of query and text with a cross-encoder: a model of transformers that reads both at once.

A score is the model's one logit as it stands, for a loss that learns margins: no sigmoid is put over it. Nothing in
the folder is run, and no hub is asked.
"""

from collections.abc import Sequence
from typing import Any

from speed_ray.engines import model_folder
from speed_ray.engines.cross_encoder_folder import check_cross_encoder
from speed_ray.errors import UserError

ENOUGH_TOKENS = 200  # to tell a language that a model cannot read from a name or two


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
        self.key = key
        self._tokens = self._unknown = 0  # of all texts so far

    def score(self, queries: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Return the logit of each query with the text beside it; what is too long is cut.

        Raises UserError where most of what the model was given to read are no words to it.
        """
        import torch

        encoded = self.tokenizer(list(queries), list(texts), truncation=True, max_length=self.max_length)
        self._refuse_unknown(encoded["input_ids"], queries[0])
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

    def _refuse_unknown(self, texts: Sequence[Sequence[int]], such_as: str) -> None:
        self._tokens += sum(map(len, texts))
        self._unknown += sum(ids.count(self.tokenizer.unk_token_id) for ids in texts)
        if self._tokens >= ENOUGH_TOKENS and self._unknown > self._tokens / 2:
            raise UserError(
                f"{self.key}: {self._unknown / self._tokens:.0%} of the tokens of these texts are unknown to this "
                f"cross-encoder, such as in {such_as[:80]!r}: it was trained on another language.\n"
                "Name one that was trained on the language of the texts, or leave it out."
            )
