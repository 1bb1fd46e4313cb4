"""What tests of serving share: an embedder small enough to start in seconds, and `speed-ray serve` on a free port."""

import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from speed_ray.training.contrastive import encoder
from tests.helpers.tiny_training import tiny_model

PROMPTS = {"query": "Instruct: find it\nQuery: ", "document": ""}


def tiny_embedder(folder: Path) -> Path:
    """A sentence-transformers folder as a training leaves it: 64 wide, 96 tokens at most, a prompt for queries."""
    model = encoder.load_encoder(tiny_model(folder / "base"), "last", max_length=96)
    model.prompts = dict(PROMPTS)
    model.save(str(folder / "embedder"))
    return folder / "embedder"


@dataclass(frozen=True)
class Endpoint:
    """A command that `drive` starts, and where it answers."""

    model: Path
    port: int
    options: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """What a client takes as its base URL, less `/v1`."""
        return f"http://127.0.0.1:{self.port}"

    def arguments(self, command: str) -> list[str]:
        """What follows `speed-ray` on a command line."""
        return [command, str(self.model), "--port", str(self.port), *self.options]

    def healthy(self) -> bool:
        """Whether a replica answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=15) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
