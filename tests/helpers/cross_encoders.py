"""Folders of cross-encoders of random weights, small enough to score in milliseconds."""

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from tests.helpers.grounded_run import MINILM


def tiny_cross_encoder(folder: Path, labels: int = 1, head: float | None = None) -> Path:
    """Save a Bert with MiniLM's tokenizer; `head` is what every weight of its head is set to."""
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(num_labels=labels, max_position_embeddings=64, **shape))
    if head is not None:
        with torch.no_grad():
            for weight in model.classifier.parameters():
                weight.fill_(head)
    model.save_pretrained(folder)
    return folder


def change_config(folder: Path, **changes: object) -> Path:
    """Write other values into the folder's config.json; None takes a key out."""
    file = folder / "config.json"
    tree = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))
    return folder
