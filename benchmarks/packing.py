"""Tokens a second of SFT with and without packing, on the lengths that the miniature's drafts really have.

    python -m benchmarks.packing --steps 60 --rounds 3

Packing saves the padding: at most the share of a batch that the table gives. On a CPU, attention takes a packed row as
one long sequence under a mask, which costs the square of its length; the table shows what that leaves.
"""

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import miniature, report, training
from speed_ray import recipes
from speed_ray.storage.run import Run
from speed_ray.training import load_model, plan, tokenize


def overrides(steps: int, drafts: int, packing: bool) -> list[str]:
    """One worker, nothing held out, no checkpoint but the last."""
    return [
        f"draft.examples={drafts}",
        f"junior.max_steps={steps}",
        "junior.num_train_epochs=1000",
        "junior.eval_fraction=0",
        "junior.save_steps=1000000",
        "junior.workers={num_workers: 1}",
        f"junior.packing={str(packing).lower()}",
    ]


def trained(run: Run, changes: list[str], contender: str) -> dict[str, Any]:
    """One training from its beginning."""
    training.train(run, plan.JUNIOR, changes)
    return {"contender": contender, "tokens/s": training.tokens_per_second(run, plan.JUNIOR)}


def lengths(run: Run, changes: list[str]) -> dict[str, Any]:
    """What the rows are like, and what share of the unpacked batches is padding."""
    junior = plan.plan_junior(run, recipes.load_recipe("miniature", changes))
    read = tokenize.tokenize_rows(
        junior, load_model.load_chat_tokenizer(junior), load_model.context_length(junior)
    ).train
    tokens = [len(row["prompt_ids"]) + len(row["reply_ids"]) for row in read]
    size = junior.settings.micro_batch_size
    places = tokenize.sort_by_length_within_batch(
        tokenize.shuffled_order(len(read), len(read), junior.seed), read, junior.settings.global_batch_size
    )
    ordered = [tokens[place] for place in places]
    batches = [ordered[first : first + size] for first in range(0, len(ordered), size)]
    return {
        "contender": "lengths of the rows",
        "median tokens": statistics.median(tokens),
        "most tokens": max(tokens),
        "padding": 1 - sum(tokens) / sum(max(batch) * len(batch) for batch in batches),
    }


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--drafts", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    padded, packed = (overrides(options.steps, options.drafts, packing) for packing in (False, True))
    details = []
    with tempfile.TemporaryDirectory(prefix="packing-") as folder:
        run = miniature.with_drafts(Path(folder) / "padded", padded)
        # Packing is part of a run's recipe, so it takes a run of its own, with the same drafts.
        shutil.copytree(run.uri, f"{folder}/packed", ignore=shutil.ignore_patterns("recipe.yaml"))
        for turn in range(options.rounds):
            report.say(f"packing: round {turn + 1} of {options.rounds}")
            details.append(trained(Run(f"{folder}/packed"), packed, "packed"))
            details.append(trained(run, padded, "padded"))
        table = [*details, lengths(run, padded)]
    speed = [row["tokens/s"] for row in details]
    figure = statistics.median(a / b for a, b in zip(speed[::2], speed[1::2], strict=True))
    report.emit_against("> 1", "packing", figure, "tokens/s, packed / padded", table, options.json)


if __name__ == "__main__":
    main()
