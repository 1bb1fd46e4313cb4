"""An exported embedder has the published weights, and a card that says what it was made of and how it does."""

import json
from pathlib import Path

import pytest
import yaml

from speed_ray.errors import UserError
from speed_ray.export.forms import export_run
from speed_ray.storage.run import SCORED_EXAMPLES, Run
from speed_ray.storage.trained_models import Model
from tests.helpers.exported_run import finished_run

SHARES = [{"share": share, "ndcg_at_10": 0.5 + share, "guards": {}} for share in (0.0, 0.5)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = finished_run(str(tmp_path / "run"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "README.md").write_text("the run's own card, with paths")
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"weights")
    facts = {
        "base_model": "some/base",
        "data": {"artifact": SCORED_EXAMPLES},
        "rows": {"trained": {"retrieval": 1_234}, "left_out/too_long": 5},
        "merge": {"share": 0.5, "queries": 8, "shares": SHARES},
    }
    Model(run, "embedder").publish(tmp_path / "weights", facts)
    results = [{"kind": "retrieval", "name": "faq", "sources": ["faq"], "scores": {"ndcg_at_10": 0.625}, "facts": {}}]
    run.store.put("evaluation/embedder.json", json.dumps({"results": results}).encode())
    return run


def test_the_card_says_base_data_merge_and_scores(run, tmp_path):
    said = export_run(run, tmp_path / "to", "embedder")
    assert "evaluation, faq: embedder 0.6250" in said
    assert (tmp_path / "to" / "model.safetensors").read_bytes() == b"weights"
    _, header, text = (tmp_path / "to" / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert (metadata["base_model"], metadata["library_name"]) == ("some/base", "sentence-transformers")
    for words in ("retrieval 1,234", "too_long 5", "| 0.5 | 1.0000 |", "faq: embedder 0.6250", "0.5 of the trained"):
        assert words in text
    assert str(tmp_path) not in text
    assert export_run(run, tmp_path / "to", "embedder") == []


def test_an_embedder_that_is_not_trained_and_rows_of_a_model_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="writes none"):
        export_run(run, tmp_path / "to", "embedder", SCORED_EXAMPLES)
    run.store.delete("models/embedder/_MANIFEST.json")
    with pytest.raises(UserError, match="run `speed-ray train-embedder` first"):
        export_run(run, tmp_path / "to", "embedder")
    with pytest.raises(UserError, match=r"no such form \(did you mean 'beir'\?\)"):
        export_run(run, tmp_path / "to", "bier")
