"""Rows that were exported train a model with sentence-transformers alone."""

import pytest
import torch
from datasets import load_dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import modules
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from speed_ray.export.forms import export_rows
from tests.helpers.exported_run import finished_run
from tests.helpers.tiny_training import tiny_model

pytestmark = pytest.mark.slow


def test_a_few_steps(tmp_path):
    tables = export_rows(finished_run(str(tmp_path / "run")), tmp_path / "rows", "sentence-transformers")
    rows = {
        table.name: load_dataset(str(tmp_path / "rows"), table.name, split="train", cache_dir=str(tmp_path / "cache"))
        for table in tables
    }
    transformer = modules.Transformer(str(tiny_model(tmp_path / "tiny")))
    model = SentenceTransformer(modules=[transformer, modules.Pooling(64, pooling_mode="mean")], device="cpu")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    settings = SentenceTransformerTrainingArguments(
        str(tmp_path / "out"),
        max_steps=4,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
    )
    trainer = SentenceTransformerTrainer(model, settings, train_dataset=rows, loss=MultipleNegativesRankingLoss(model))
    assert torch.isfinite(torch.tensor(trainer.train().training_loss))
    assert any(not torch.equal(before[name], weight) for name, weight in model.named_parameters())
