"""Define `speed-ray quality`, whose libraries are imported when it is called."""

from typing import Annotated

import typer

from speed_ray.errors import UserError


def quality(
    run: Annotated[str, typer.Argument(help="The run's folder.", metavar="RUN")],
    artifact: Annotated[str, typer.Argument(help="Examples, such as revised_examples.")] = "examples",
    against: Annotated[
        str | None, typer.Option("--against", help="Another run: have this one's teacher compare.", metavar="RUN2")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option("--embedder", help="A folder of sentence-transformers, or RUN/models/embedder.")
    ] = None,
) -> None:
    """Measure a run's examples: yield, repetition, diversity, lengths, languages; margins; win rate."""
    from rich.console import Console

    from speed_ray.console.judge_report import gate_table
    from speed_ray.console.quality_report import margin_tables, quality_tables, win_rate_tables
    from speed_ray.evaluation.quality import measure_margins, measure_quality, sample_rows
    from speed_ray.storage.run import ARTIFACTS, Run

    if artifact not in ARTIFACTS:
        raise UserError(f"there is no artifact {artifact!r}; a run has: {', '.join(ARTIFACTS)}")
    opened, console = Run(run), Console()
    for part in quality_tables(measure_quality(opened, artifact)):
        console.print(part)
    if table := gate_table(opened):
        console.print(table)
    if embedder:
        from speed_ray.evaluation import eval_models

        model = eval_models.model_at(embedder)
        embed = eval_models.embed_with(eval_models.load_model(model, "cpu"), model.instructed, "")
        found = measure_margins(embed, sample_rows(opened.artifact(artifact)), model.instructed)
        console.print(margin_tables(found), soft_wrap=True)
    if against:
        from speed_ray.evaluation.win_rate import measure_win_rate

        rate = measure_win_rate(opened, Run(against), artifact)
        console.print(win_rate_tables(rate, against), soft_wrap=True)
