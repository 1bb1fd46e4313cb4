"""Ask a run's passages some questions, by the embedder before and after its training.

python jobs/ask.py runs/demo "How do I find where a function is zero?"
"""

import sys

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation import eval_models, metrics
from speed_ray.records import titled_text
from speed_ray.storage.run import EXAMPLES, PASSAGES, Run
from speed_ray.text.terminal import sanitize

SHOWN = 300  # characters of a passage
MODELS = {"base": "before", "embedder": "after"}


def answers(run: Run, questions: list[str]) -> dict[str, list[str]]:
    """Find the nearest passage to each question, by each model -> the passages' texts by model."""
    passages = list(run.artifact(PASSAGES).records())
    texts = [titled_text(row) for row in passages]
    found = {}
    for model in eval_models.models_of(run, run.recipe()):
        if model.name in MODELS:
            embed = eval_models.embed_with(eval_models.load_model(model, "cpu"), model.instructed, "")
            scores = metrics.unit(embed(questions, "query")) @ metrics.unit(embed(texts, "document")).T
            nearest = scores.argmax(1).tolist()
            found[model.name] = [f"{passages[place]['document_id']}: {texts[place]}" for place in nearest]
    return found


def answer_table(run: Run, questions: list[str]) -> Table:
    """Build a table of the questions and of the passage that each model puts first."""
    writers = {row["model"] for row in run.artifact(EXAMPLES).records()}
    table = Table("question", title=f"Trained on queries by {', '.join(sorted(writers))}", show_lines=True)
    found = answers(run, questions)
    for model in found:
        table.add_column(f"{MODELS[model]} training")
    for question, *passages in zip(questions, *found.values(), strict=True):
        table.add_row(sanitize(question), *(sanitize(passage[:SHOWN]) for passage in passages))
    return table


if __name__ == "__main__":
    disable_progress_bar()
    try:
        Console().print(answer_table(Run(sys.argv[1]), sys.argv[2:]))
    except (UserError, Interrupted) as error:
        sys.exit(f"ask: {error}")
