"""Define `speed-ray init`: it asks on a terminal for what is missing of its options; elsewhere it names them."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from speed_ray.errors import UserError

if TYPE_CHECKING:
    from speed_ray.recipes.new_recipe import Answers, Origin, Teacher

BASE_URL, API_KEY_ENV = "https://api.openai.com/v1", "OPENAI_API_KEY"


def init(
    file: Annotated[Path, typer.Argument(help="Where to write the recipe.")] = Path("recipe.yaml"),
    origin: Annotated[
        Literal["topics", "documents"] | None, typer.Option("--from", help="What there is to write about.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="Where that is: a file, a folder, a URI.")] = None,
    gpu: Annotated[int | None, typer.Option("--gpu", min=0, help="GB of one GPU's memory; 0: there is none.")] = None,
    teacher: Annotated[
        Literal["endpoint", "local"] | None, typer.Option("--teacher", help="Who teaches, or writes the queries.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The endpoint's model.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="The endpoint's address.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="The variable that holds the endpoint's key; -: none.")
    ] = None,
    examples: Annotated[int | None, typer.Option("--examples", min=1, help="How many to write.")] = None,
) -> None:
    """Write a commented recipe; what is not given as an option is asked on a terminal."""
    from speed_ray.recipes.new_recipe import refuse_to_overwrite, write_recipe

    refuse_to_overwrite(file)
    write_recipe(complete_answers(origin, source, gpu, teacher, model, base_url, api_key_env, examples), file)
    print(f"{file} is written.\nnext: speed-ray doctor --recipe {shlex.quote(str(file))}")


def complete_answers(
    origin: "Origin | None",
    source: str | None,
    gpu: int | None,
    teacher: "Teacher | None",
    model: str | None,
    base_url: str | None,
    api_key_env: str | None,
    examples: int | None,
) -> "Answers":
    """Return the answers given as options, and ask for the rest. Raises UserError where nobody can answer."""
    from speed_ray.recipes.new_recipe import Answers

    if origin is None:
        chosen = _ask("--from", "Write from topics or documents?", "documents", ("topics", "documents"))
        origin = cast("Origin", chosen)
    source = source or _ask("--source", f"Where are the {origin}?", "docs" if origin == "documents" else "topics.txt")
    if gpu is None:
        gpu = int(_ask("--gpu", "GB of one GPU here (0: there is none)?", str(_gpu_here()), is_number=True))
    if teacher is None:
        said = "Who is the teacher" if origin == "topics" else "Who writes the queries"
        default = "local" if gpu or origin == "documents" else "endpoint"
        chosen = _ask("--teacher", f"{said}: an endpoint, or a local model?", default, ("endpoint", "local"))
        teacher = cast("Teacher", chosen)
    if teacher == "local":
        return Answers(origin, source, gpu, teacher, examples=examples)
    model = model or _ask("--model", "Which model of the endpoint?", "gpt-4o-mini")
    if base_url is None:
        base_url = _ask("--base-url", "The endpoint's address?", BASE_URL)
    if api_key_env is None:
        api_key_env = _ask("--api-key-env", "Which environment variable holds its key (-: none)?", API_KEY_ENV)
    return Answers(origin, source, gpu, teacher, model, base_url, api_key_env.strip("-") or None, examples)


def _ask(option: str, question: str, default: str, choices: Sequence[str] = (), is_number: bool = False) -> str:
    """Ask until the answer is one of the choices, or a number."""
    if not sys.stdin.isatty():
        raise UserError(f"{option} is missing, and nobody is at a terminal to be asked: {question}")
    while True:
        answer: str = typer.prompt(f"{question}{' ' + '/'.join(choices) if choices else ''}", default=default).strip()
        if (not choices or answer in choices) and (not is_number or answer.isdecimal()):
            return answer


def _gpu_here() -> int:
    """Return the GB of the smallest GPU of this machine, 0 where it has none."""
    from speed_ray.doctor.model_memory import find_gpus

    return min((gpu.bytes >> 30 for gpu in find_gpus()), default=0)
