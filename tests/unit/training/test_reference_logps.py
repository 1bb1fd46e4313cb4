"""Reference log-probabilities of two drivers at once: the first that is stored counts."""

from speed_ray.storage.run import Run
from speed_ray.training import reference_logps


def test_a_chunk_that_another_driver_stored_stays(tmp_path, monkeypatch):
    store = Run(str(tmp_path / "run")).store
    monkeypatch.setattr(reference_logps, "_prepare_network", lambda trainer: None)
    monkeypatch.setattr(reference_logps, "_chunk_log_probs", lambda trainer, network, rows: {"row": [-2.0, -3.0]})
    name = reference_logps._chunk_name(0)
    store.put(f"reference/key/{name}", b'{"row": [-2.0, -3.0000001]}')
    reference_logps._compute(None, store, "reference/key", [(0, []), (1, [])])
    assert store.get(f"reference/key/{name}") == b'{"row": [-2.0, -3.0000001]}'
    assert store.get(f"reference/key/{reference_logps._chunk_name(1)}") == b'{"row": [-2.0, -3.0]}'
