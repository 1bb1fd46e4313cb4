"""Check every value of a recipe as it was written, whatever its key: none is a secret, and each can be a path."""

import re
from collections.abc import Iterator
from typing import Any

from speed_ray.errors import UserError
from speed_ray.text import tables

# Of keys: hf_token, api_key, x-api-key, Authorization, aws_secret_access_key; not max_num_batched_tokens, api_key_env.
SECRET_KEY = re.compile(
    r"(^|[_-])(token|secret|password|passwd|passphrase|credentials?|authorization|(api|access|private)[_-]?key)$", re.I
)
# Of values: what OpenAI, Groq, Hugging Face, xAI, Google and AWS hand out.
SECRET_VALUE = re.compile(
    r"(Bearer )?((sk|pk)-[\w-]{20,}|(gsk_|hf_|xai-)[A-Za-z0-9]{20,}|AIza[\w-]{30,}|AKIA[A-Z0-9]{16})"
)
# A password in an address, or a key in its query.
SECRET_IN_URL = re.compile(
    r"\w[\w+.-]*://([^/\s:@]*:[^/\s@]+@|[^\s]*[?&](sig|(api[_-]?|access[_-])?(key|token))=)", re.I
)
VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*\}?")  # the name of an environment variable in the place of its value


def check_written_values(tree: dict[str, Any], origin: str) -> None:
    """Raise UserError for a secret, which would be frozen into the run and its plans, and for a text that is none."""
    for path, value in _strings(tree):
        key = ".".join(path)
        if "\0" in value:
            raise UserError(f"{origin}: {key} holds a zero character, which no path and no text has.")
        if lone := tables.lone_surrogate(value):
            raise UserError(f"{origin}: {key} holds {lone}, half of a character: write the whole one.")
        named = SECRET_KEY.search(path[-1]) and not VARIABLE.fullmatch(value)
        if named or SECRET_VALUE.fullmatch(value) or SECRET_IN_URL.match(value):
            raise UserError(
                f"{origin}: {key} holds a secret, and a recipe is frozen into its run, for all to see.\n{_way(path)}"
            )


def _way(path: tuple[str, ...]) -> str:
    if path[-1] == "hf_token":
        return "Leave it out and set the environment variable HF_TOKEN, which vLLM reads by itself."
    if "api_key_env" in path:
        return "Set an environment variable to it, and write that variable's name here."
    if "headers" in path:
        return 'Write "$NAME" for the value, with the name of an environment variable that holds it.'
    return "Leave it out, and give it by the environment. An endpoint's key is in the variable that api_key_env names."


def _strings(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _strings(below, (*path, str(key)))
    elif isinstance(value, list):
        for below in value:
            yield from _strings(below, path)
