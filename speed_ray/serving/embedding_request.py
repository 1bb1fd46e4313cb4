"""What a client may ask of /v1/embeddings: OpenAI's parameters and its errors, and `input_type` for the prompt."""

from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import orjson
from starlette.responses import Response

from speed_ray.serving.haproxy import RETRY_SECONDS

MAX_BODY_BYTES = 8 * 2**20  # of a body
MOST_INPUTS = 2048  # OpenAI's
# A text with more bytes to each of the model's tokens is no language; it is refused before it is tokenised.
MOST_BYTES_OF_A_TOKEN = 32

InputType = Literal["query", "document"] | None
PARAMETERS = ("input", "model", "encoding_format", "dimensions", "user", "input_type")


class APIError(Exception):
    """A request that gets an error in OpenAI's form; `param` and `code` are OpenAI's too."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, "type": _kind(status), "param": param, "code": code}

    def response(self) -> Response:
        """The answer. One that is worth asking again says when."""
        headers = {"retry-after": str(RETRY_SECONDS)} if self.status == 503 else {}
        content = orjson.dumps({"error": self.body})
        return Response(content, self.status, headers, media_type="application/json")


@dataclass(frozen=True)
class EmbeddingRequest:
    """One request that may be answered, but for the number of its tokens."""

    texts: list[str]
    input_type: InputType
    dimensions: int | None  # None: as many as the model has
    base64: bool


def parse_request(body: bytes, model: str, width: int, most_tokens: int | None) -> EmbeddingRequest:
    """Read a body for the served model, whose vectors have `width` numbers. Raises Refused."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise APIError(400, f"The body is not valid JSON in UTF-8: {error}.") from None
    if not isinstance(given, dict):
        raise APIError(400, "The body is not a JSON object.")
    for name in given:
        if name not in PARAMETERS:
            raise APIError(400, f"There is no parameter {name[:64]!r}; there are {', '.join(PARAMETERS)}.", name[:64])
    _check_model(given.get("model"), model)
    return EmbeddingRequest(
        _texts(given.get("input"), most_tokens),
        _choice(given, "input_type", None, "query", "document"),
        _dimensions(given.get("dimensions"), width),
        _choice(given, "encoding_format", None, "float", "base64") == "base64",
    )


def check_tokens(tokens: list[int], most: int | None) -> None:
    """Refuse a text that the model would read only the beginning of. `tokens` are each text's, with its prompt."""
    for place, count in enumerate(tokens):
        if most is not None and count > most:
            _too_long(place, most, f"it has {count} tokens with the model's prompt and special tokens")


def too_large() -> APIError:
    """What is said to a body over the limit."""
    return APIError(413, f"The body is larger than {MAX_BODY_BYTES} bytes. Send fewer texts at a time.")


def _check_model(asked: Any, served: str) -> None:
    if not isinstance(asked, str):
        _wrong("model", f"name the model, which is {served!r}")
    if asked != served:
        message = f"The model {asked[:200]!r} does not exist here; {served!r} does."
        raise APIError(404, message, "model", "model_not_found")


def _texts(given: Any, most_tokens: int | None) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        _wrong("input", "it must be a text or a list of texts")
    if not 1 <= len(texts) <= MOST_INPUTS:
        _wrong("input", f"it must hold between 1 and {MOST_INPUTS} texts, and holds {len(texts)}")
    for place, text in enumerate(texts):
        if isinstance(text, int | list):
            _wrong("input", "token ids are not taken, because they depend on the client's tokenizer: send texts")
        if not isinstance(text, str):
            _wrong("input", f"input[{place}] is not a text")
        if not text:
            _wrong("input", f"input[{place}] is an empty text")
        if most_tokens is not None and len(text) > most_tokens * MOST_BYTES_OF_A_TOKEN:
            _too_long(place, most_tokens, f"it has {len(text)} characters")
    return texts


def _dimensions(given: Any, width: int) -> int | None:
    if given is None:
        return None
    if type(given) is not int or not 1 <= given <= width:  # a bool is an int too
        _wrong("dimensions", f"it must be a whole number from 1 to {width}, the model's own")
    return int(given)


def _choice(given: dict[str, Any], name: str, *choices: str | None) -> Any:
    if (chosen := given.get(name)) not in choices:
        _wrong(name, f"it must be {' or '.join(repr(choice) for choice in choices if choice)}")
    return chosen


def _too_long(place: int, most: int, what: str) -> NoReturn:
    raise APIError(
        400,
        f"This model's maximum context length is {most} tokens, and input[{place}] is longer: {what}. Shorten it.",
        "input",
        "context_length_exceeded",
    )


def _wrong(param: str, what: str) -> NoReturn:
    raise APIError(400, f"Invalid value of {param!r}: {what}.", param)


def _kind(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"
