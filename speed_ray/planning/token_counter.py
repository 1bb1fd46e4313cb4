"""Count the tokens of prompts and replies as a recipe's engine will, or say that they are guessed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speed_ray.engines import model_folder
from speed_ray.engines.simulated import CHARACTERS_A_TOKEN
from speed_ray.errors import Interrupted, UserError
from speed_ray.recipes.engine_settings import EngineConfig, ScriptedEngine, SimulatedEngine, VllmEngine
from speed_ray.records import Message

OF_A_TOKENIZER = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]  # what of a hub's folder is fetched
ANSWERS_WITHIN = 5.0  # seconds; a hub that takes longer is not there


class TokenCounter(NamedTuple):
    """Count the tokens of messages as the engine is asked them, and of a reply's text."""

    basis: str  # by what they are counted, for a person
    is_exact: bool
    prompt: Callable[[Sequence[Message]], int]
    text: Callable[[str], int]


def counter_of(config: EngineConfig, role: str) -> TokenCounter:
    """Choose how the tokens of an engine are counted; `role` is its key in the recipe."""
    match config:
        case ScriptedEngine():
            return _by_text("words, which are the script's tokens", True, lambda text: len(text.split()))
        case SimulatedEngine():
            said = "characters, of which the simulation counts four a token"
            return TokenCounter(said, True, lambda messages: len("".join(_texts(messages))) // 4, _by_characters)
        case VllmEngine():
            try:
                return _by_tokenizer(config, role)
            except (UserError, Interrupted, OSError, ValueError, ImportError) as error:
                reason = str(error).strip().splitlines()[0]
                return _guess(f"{config.model} cannot be had here ({reason}), so its tokens are guessed: ")
    return _guess("no tokenizer of it is known: ")


def _guess(because: str) -> TokenCounter:
    return _by_text(f"{because}one for every {CHARACTERS_A_TOKEN} characters", False, _by_characters)


def _by_text(basis: str, is_exact: bool, count: Callable[[str], int]) -> TokenCounter:
    return TokenCounter(basis, is_exact, lambda messages: sum(map(count, _texts(messages))), count)


def _by_characters(text: str) -> int:
    return -(-len(text) // CHARACTERS_A_TOKEN)


def _texts(messages: Sequence[Message]) -> list[str]:
    return [message["content"] for message in messages]


def _by_tokenizer(config: VllmEngine, role: str) -> TokenCounter:
    """Load the tokenizer that vLLM will: it applies the chat template as engines/vllm.py does."""
    folder = _tokenizer_folder(config, role)
    from transformers import AutoTokenizer  # a second or two

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    template = model_folder.read_chat_template(config.chat_template, role) if config.chat_template else None

    def count(messages: Sequence[Message]) -> int:
        if config.completion:
            return len(tokenizer.encode("\n".join(_texts(messages))))
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=True, tokenize=False
        )
        return len(tokenizer.encode(text, add_special_tokens=False))

    return TokenCounter(
        f"the tokenizer of {config.model}",
        True,
        count,
        lambda text: len(tokenizer.encode(text, add_special_tokens=False)) + 1,  # and the end of the turn
    )


def _tokenizer_folder(config: VllmEngine, role: str) -> Path:
    """Return a folder with the model's tokenizer. A miniature model is not trained for it."""
    if config.model.startswith(model_folder.MINIATURE):
        from speed_ray.miniature.base_model import base_folder

        folder = base_folder(config.model.removeprefix(model_folder.MINIATURE))
        if not folder.is_dir():
            raise UserError("it is trained when it is first used")
        return folder
    found = model_folder.ensure_model_folder(config.model, f"{role}.model")
    if found is not None:
        return found
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                config.model,
                revision=config.revision,
                allow_patterns=OF_A_TOKENIZER,
                etag_timeout=ANSWERS_WITHIN,
            )
        )
    except Exception as error:  # of httpx, of the hub, or of the file system: none of them says for what
        raise Interrupted(f"the hub says: {error}") from error
