"""Peak memory of a contrastive step, from a batch of 64 rows to one of 16,384, a mini-batch of 32 texts fixed.

    python -m benchmarks.memory

Each batch in a process of its own, on the miniature base. Apart from the batch itself (token ids, embeddings and their
gradient, whose bytes are taken off) memory is to be flat.
"""

import json
import resource
import sys
from typing import Any

from benchmarks import process, report

SIZES = (64, 1_024, 16_384)
MINI_BATCH, TOKENS = 32, 16
GOAL = 1.1


def step(rows: int) -> dict[str, Any]:
    """Take one step on so many rows of random words; return the peak of this process in MB."""
    import numpy as np
    import torch

    from speed_ray.miniature import base_model
    from speed_ray.recipes.training_settings import Embedder
    from speed_ray.training.contrastive import encoder, loop, train_step
    from speed_ray.training.contrastive.batch_loss import ContrastiveConfig
    from speed_ray.training.contrastive.train_step import TokenizedExample

    model = encoder.load_encoder(base_model.ensure_base_model("base"), "mean", 64)
    network = encoder.Encoder(model.train())
    settings = Embedder(model="miniature://base", lora=None, precision="fp32", micro_batch_size=MINI_BATCH)
    strategy = loop.make_strategy(network, settings, 2)

    def batch(count: int) -> list[TokenizedExample]:
        ids = np.random.default_rng(0).integers(10, 3_000, (count, 2, TOKENS), dtype=np.int32)
        return [
            TokenizedExample(str(place), tuple(map(np.copy, ids[place])), (2 * place, 2 * place + 1))
            for place in range(count)
        ]

    def take(triples: list[TokenizedExample]) -> None:
        config = ContrastiveConfig(0.05, MINI_BATCH)
        train_step.train_step(network, triples, False, config, 2, strategy.backward, strategy.no_sync)
        strategy.step()

    take(batch(MINI_BATCH))  # the optimizer's own states, and what libraries take at first
    triples = batch(rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    take(triples)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    width = model.get_embedding_dimension()
    # fp32, at most four at once: first the embeddings, normalised, and the gradient by these; then the gradient by
    # queries and by documents, and joined.
    embeddings = 2 * rows * width * torch.float32.itemsize * 4 / 2**20
    return {
        "rows": rows,
        "peak MB": peak / 1024,
        "of it embeddings MB": embeddings,
        "before the step MB": before / 1024,
    }


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rows", type=int, help="one batch, in this process")
    options = parser.parse_args()
    if options.rows:
        print(json.dumps(step(options.rows)))
        return
    details = []
    for rows in SIZES:
        report.say(f"memory: {rows:,} rows")
        details.append(json.loads(process.module("benchmarks.memory", "--rows", str(rows)).splitlines()[-1]))
    for row in details:
        row["rest MB"] = row["peak MB"] - row["of it embeddings MB"]
    figure = details[-1]["rest MB"] / details[0]["rest MB"]
    unit = "peak memory without the embeddings, 16,384 rows / 64 rows"
    report.emit_against(f"<= {GOAL}", "memory", figure, unit, details, options.json)


if __name__ == "__main__":
    sys.exit(main())
