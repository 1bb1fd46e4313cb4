"""Write a commented recipe from a few answers."""

import os
import re
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.recipes.plain_yaml import parse_yaml
from speed_ray.recipes.written_values import check_written_values

Origin = Literal["topics", "documents"]
Teacher = Literal["endpoint", "local"]

SMALL_WRITER, MINILM = "package://smollm2", "package://minilm"
GPU_EMBEDDER = "BAAI/bge-base-en-v1.5"
# By the GB of one GPU from which on each fits, with room for prompts at work. A writer is trained as well.
WRITERS = {80: "Qwen/Qwen2.5-7B-Instruct", 24: "Qwen/Qwen2.5-1.5B-Instruct", 0: "Qwen/Qwen2.5-0.5B-Instruct"}
QUERY_WRITERS = {24: "Qwen/Qwen3-4B-Instruct-2507", 0: "Qwen/Qwen2.5-1.5B-Instruct"}
TEACHERS = {80: "Qwen/Qwen2.5-32B-Instruct", 24: "Qwen/Qwen2.5-7B-Instruct", 0: "Qwen/Qwen2.5-3B-Instruct"}
TOKENS_A_CALL = 2_000  # of prompt and reply, with room to spare
DEFAULT_EXAMPLES = 10_000


@dataclass(frozen=True)
class Answers:
    """Holds what a recipe is written from. `gpu` is the memory of one GPU in GB, 0 for none."""

    origin: Origin
    source: str
    gpu: int
    teacher: Teacher
    model: str = ""  # of the endpoint, as are the next two
    base_url: str = ""
    api_key_env: str | None = None
    examples: int | None = None  # None: as many as there is to write about, of topics 10,000


def write_recipe(answers: Answers, path: Path) -> None:
    """Write a recipe that loads. Raises UserError where a file is there, or where the answers do not fit together."""
    refuse_to_overwrite(path)
    text = render_recipe(answers, str(path))
    tree = parse_yaml(text.encode(), str(path))
    check_written_values(tree, str(path))
    recipes.validate(tree, str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None


def refuse_to_overwrite(path: Path) -> None:
    """Raise UserError where a file is there already."""
    if os.path.lexists(path):
        raise UserError(f"{path} is there already, and is left as it is. Name another file, or delete it first.")


def render_recipe(answers: Answers, file: str) -> str:
    """Return the text of a recipe, whose comments name its `file`. Raises UserError."""
    import jinja2  # here, because every command imports this file

    _refuse_what_does_not_fit(answers)
    template = resources.files(recipes).joinpath("new_recipe.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    text = environment.from_string(template).render(_values(answers, file))
    return re.sub(r"\n{3,}", "\n\n", text)  # where a section is left out


def _values(answers: Answers, file: str) -> dict[str, Any]:
    of_documents, at_endpoint = answers.origin == "documents", answers.teacher == "endpoint"
    aligned = not of_documents and answers.gpu > 0
    small_writer = of_documents and not at_endpoint and not answers.gpu
    writer_model = _fitting(QUERY_WRITERS if of_documents else WRITERS, answers.gpu)
    examples = answers.examples or (None if of_documents else DEFAULT_EXAMPLES)
    drafts, lists = (max(100, min(most, (examples or most) // 4)) for most in (6_000, 3_000))
    written_there = 0 if aligned else examples or 50_000
    calls = written_there if of_documents else written_there + drafts + 2 * lists + 5_000
    writer = answers.model if at_endpoint and not aligned else SMALL_WRITER if small_writer else writer_model
    return {
        "title": " ".join(_title(answers, aligned, writer).split()),
        "file": shlex.quote(" ".join(file.split())),
        "of_documents": of_documents,
        "at_endpoint": at_endpoint,
        "aligned": aligned,
        "small_writer": small_writer,
        "writes_on_gpu": answers.gpu > 0 and (aligned or not at_endpoint),
        "gpu": answers.gpu,
        "writer_model": _quoted(writer_model),
        "teacher_model": _quoted(_fitting(TEACHERS, answers.gpu)),
        "source": _quoted(answers.source),
        "model": _quoted(answers.model),
        "base_url": _quoted(answers.base_url),
        "api_key_env": answers.api_key_env and _quoted(answers.api_key_env),
        "tokens": calls * TOKENS_A_CALL,
        "examples": examples,
        "drafts": drafts,
        "lists": lists,
        "embedder": _quoted(GPU_EMBEDDER if answers.gpu else MINILM),
    }


def _refuse_what_does_not_fit(answers: Answers) -> None:
    if not answers.source.strip():
        raise UserError(f"--source: name the {answers.origin} to write about.")
    if answers.teacher == "endpoint" and not (answers.model.strip() and answers.base_url.strip()):
        raise UserError("--model and --base-url: name the endpoint's model and its address, such as https://host/v1.")
    if answers.origin == "topics" and answers.teacher == "local" and not answers.gpu:
        raise UserError(
            "--teacher local: topics need a teacher that follows instructions, which no machine without a GPU runs in "
            "useful time.\nName an endpoint (--teacher endpoint), a GPU (--gpu 24), or write about documents."
        )


def _fitting(models: dict[int, str], gpu: int) -> str:
    return next(model for least, model in models.items() if gpu >= least)


def _quoted(value: str) -> str:
    """Write a string as YAML reads it within a line."""
    return yaml.safe_dump([value], default_flow_style=True, width=1 << 30, allow_unicode=True).strip()[1:-1]


def _title(answers: Answers, aligned: bool, writer: str) -> str:
    if answers.origin == "documents":
        return (
            f"Your own documents: {writer} writes queries about passages; what finds its passage again is learnt from."
        )
    if aligned:
        return f"Your own topics: a teacher's examples align {writer}, which writes all the others."
    return f"Your own topics: {writer} writes the examples that the embedder learns from."
