"""The metrics of a training where people look for them: `metrics.jsonl` and TensorBoard's files beside the model."""

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from speed_ray.storage.trained_models import Model

LOGGED = 100  # times in a training, at most about that often


class MetricsLog:
    """Keeps what rank 0 logs; on the other ranks, which have no folder, it keeps nothing."""

    def __init__(self, model: Model, folder: Path | None) -> None:
        self.model = model
        self.folder = folder
        self._events = SummaryWriter(str(folder)) if folder else None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self._events is not None:
            self._events.close()

    def add(self, logged: dict[str, Any]) -> None:
        """Take the numbers of one logged step."""
        if self._events is not None:
            for name, value in logged.items():
                self._events.add_scalar(name.replace("eval_", "eval/", 1), value, logged["step"])

    def upload(self, history: list[dict[str, Any]]) -> None:
        """Store all of this start's TensorBoard files, and the whole history, those of earlier starts included."""
        if self._events is None or self.folder is None:
            return
        self._events.flush()
        for file in self.folder.iterdir():
            self.model.store.upload(f"{self.model.path}/logs/{file.name}", file)
        lines = "".join(json.dumps(logged, sort_keys=True) + "\n" for logged in history)
        self.model.store.put(f"{self.model.path}/metrics.jsonl", lines.encode())
