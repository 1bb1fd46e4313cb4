"""Examples a second of our contrastive training against sentence-transformers' own, same MiniLM, rows and batches.

    python -m benchmarks.contrastive --steps 12 --rounds 2

The rival is its trainer with CachedMultipleNegativesRankingLoss, batch and mini-batch alike; each contender in a
process of its own, on as many threads. Real docstrings: title, description, and another description as the negative.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from typing import Any

from benchmarks import embedding, process, report

BATCH, MINI_BATCH, WARM = 64, 16, 2  # rows, texts, steps that are not timed


def ours(steps: int) -> float:
    """Seconds a step of ours."""
    rows = embedding.examples(steps * BATCH)
    with tempfile.TemporaryDirectory() as folder:
        run = embedding.Run(folder)
        embedding.write_curated(run, iter(rows), len(rows))
        return embedding.seconds_a_step(
            run, embedding.recipe(global_batch_size=BATCH, micro_batch_size=MINI_BATCH), WARM
        )


def theirs(steps: int) -> float:
    """Seconds a step of sentence-transformers."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    model = SentenceTransformer(str(embedding.MINILM), device="cpu")
    model.max_seq_length = 128
    triples = [(row["query"], row["positive"], *row["negatives"]) for row in embedding.examples(steps * BATCH)]
    data = Dataset.from_dict({name: [each[place] for each in triples] for place, name in enumerate(("q", "p", "n"))})
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=2e-5,
            report_to="none",
            save_strategy="no",
            logging_steps=1_000_000,
            disable_tqdm=True,
            use_cpu=True,
        )
        loss = CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=MINI_BATCH)
        SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss, callbacks=[Clock()]).train()
    return (times[-1] - times[WARM - 1]) / (len(times) - WARM)


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--contender", choices=("ours", "theirs"), help="one contender, in this process")
    options = parser.parse_args()
    if options.contender:
        print(json.dumps((ours if options.contender == "ours" else theirs)(options.steps)))
        return
    details: list[dict[str, Any]] = []
    threads = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), "TOKENIZERS_PARALLELISM": "false"}
    for turn in range(options.rounds):
        report.say(f"contrastive: round {turn + 1} of {options.rounds}")
        for name in ("ours", "theirs"):
            asked = ("--contender", name, "--steps", str(options.steps))
            seconds = json.loads(
                process.module("benchmarks.contrastive", *asked, environment=threads).splitlines()[-1]
            )
            contender = "speed_ray" if name == "ours" else "sentence-transformers"
            details.append({"contender": contender, "examples/s": BATCH / seconds, "s a step": seconds})
    speed = [row["examples/s"] for row in details]
    figure = statistics.median(a / b for a, b in zip(speed[::2], speed[1::2], strict=True))
    report.emit_against(">= 1.1", "contrastive", figure, "examples/s, ours / theirs", details, options.json)


if __name__ == "__main__":
    sys.exit(main())
