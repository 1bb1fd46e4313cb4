"""Read a request to /v1/embeddings: OpenAI's parameters, and `input_type` for the prompt."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from speed_ray.recipes.setting import Strict
from speed_ray.serving.http_errors import APIError

MAX_INPUTS = 2048  # OpenAI's
# A text with more characters to each of the model's tokens is no language; it is refused before it is tokenized.
MAX_CHARS_PER_TOKEN = 32

InputType = Literal["query", "document"] | None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _document(value: Any) -> Any:
    return "document" if value == "passage" else value  # NVIDIA's name for it


class EmbeddingRequest(Strict):
    """Holds one request. `dimensions` None means as many as the model has."""

    model_config = ConfigDict(hide_input_in_errors=True)

    model: str
    input: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(_as_list),
        Field(min_length=1, max_length=MAX_INPUTS),
    ]
    input_type: Annotated[InputType, BeforeValidator(_document)] = None
    dimensions: Annotated[int | None, Field(ge=1)] = None
    encoding_format: Literal["float", "base64"] | None = None
    truncate: Literal["NONE"] | None = None  # NVIDIA's clients send it; nothing is ever cut here
    user: Any = None
    metadata: Any = None  # a proxy's, for its own log


def parse_request(body: bytes, model: str, width: int, max_tokens: int | None) -> EmbeddingRequest:
    """Read a body for the served model, whose vectors have `width` numbers. Raises APIError."""
    try:
        request = EmbeddingRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(str(part)[:64] for part in first["loc"])
        tokens = path.startswith("input.") and first["type"] == "string_type"
        hint = " (token ids are not taken; LangChain: check_embedding_ctx_length=False)" if tokens else ""
        param = path.partition(".")[0] or None
        raise APIError(400, f"{path or 'The body'}: {first['msg']}{hint}.", param) from None
    if request.model != model:
        message = f"The model {request.model[:200]!r} does not exist here; {model!r} does."
        raise APIError(404, message, "model", "model_not_found")
    if request.dimensions is not None and request.dimensions > width:
        raise APIError(400, f"dimensions: the model's vectors have {width}.", "dimensions")
    for index, text in enumerate(request.input):
        if max_tokens is not None and len(text) > max_tokens * MAX_CHARS_PER_TOKEN:
            raise _too_long(index, max_tokens, f"{len(text)} characters")
    return request


def check_tokens(tokens: list[int], max_tokens: int | None) -> None:
    """Refuse a text that the model would cut. `tokens` are each text's, with its prompt and special tokens."""
    for index, count in enumerate(tokens):
        if max_tokens is not None and count > max_tokens:
            raise _too_long(index, max_tokens, f"{count} tokens with the model's prompt and special tokens")


def _too_long(index: int, max_tokens: int, length: str) -> APIError:
    message = (
        f"This model's maximum context length is {max_tokens} tokens, and input[{index}] has {length}. Shorten it."
    )
    return APIError(400, message, "input", "context_length_exceeded")
