"""Define the recipe's engines: vLLM, an OpenAI-compatible endpoint, and the two without a model."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from speed_ray.recipes.setting import LocalPath, RuntimeMark, RuntimeOnly, Share, Strict
from speed_ray.records import Logprobs

VLLM_RESOURCES = RuntimeMark(
    (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "gpu_memory_utilization",
        "max_num_seqs",
        "max_num_batched_tokens",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "download_dir",
    )
)


class Budget(Strict):
    """A hard limit on what an endpoint may be asked for, over the whole run and all its restarts."""

    calls: PositiveInt | None = None  # the most, over the whole run
    tokens: PositiveInt | None = None  # the most, of prompts and replies
    dollars: PositiveFloat | None = None  # the most, by the engine's price
    ask_above: PositiveFloat | None = None  # dollars that `run` is to cost from which on it asks first, on a terminal


class Price(Strict):
    """Dollars per million tokens."""

    input: NonNegativeFloat  # dollars per million tokens of prompts
    output: NonNegativeFloat  # dollars per million tokens of replies


class VllmEngine(Strict):
    """vLLM inside a Ray actor. `engine_kwargs` is vLLM's own; `model` is a folder or a hub name."""

    logprobs: ClassVar[tuple[Logprobs, ...]] = ("prompt", "first_token")

    engine: Literal["vllm"]
    model: LocalPath
    revision: str | None = None  # the hub's branch, tag or commit
    adapter: LocalPath | None = None  # a LoRA folder
    chat_template: LocalPath | None = None  # Jinja text or file, for a model without one
    completion: bool = False  # continue a plain text by a line, without a chat template: for base and tiny models
    structured_outputs: bool = True  # hold replies to the kind's JSON schema
    max_concurrency: RuntimeOnly[PositiveInt] = 256  # calls at once of one engine
    engine_kwargs: Annotated[dict[str, Any], VLLM_RESOURCES] = {}


class OpenAIEngine(Strict):
    """Any OpenAI-compatible endpoint. The key is read from the environment variable that `api_key_env` names."""

    logprobs: ClassVar[tuple[Logprobs, ...]] = ("first_token",)

    engine: Literal["openai"]
    model: str
    base_url: RuntimeOnly[str]  # up to /v1
    api_key_env: RuntimeOnly[str | None] = None  # the variable that holds the key
    structured_outputs: bool = True  # replies are held to a JSON schema
    max_concurrency: RuntimeOnly[PositiveInt] = 64  # the most at once; lowered by itself when the endpoint pushes back
    timeout: RuntimeOnly[PositiveFloat] = 600.0  # seconds for one answer
    extra_body: dict[str, Any] = {}  # fields of every request beside ours, or over them: {"reasoning_effort": "low"}
    headers: RuntimeOnly[dict[str, str]] = {}  # of every request; "$NAME" stands for an environment variable
    query: RuntimeOnly[dict[str, str]] = {}  # of the address: {"api-version": "2024-10-21"} on Azure
    budget: RuntimeOnly[Budget] = Budget()
    price: RuntimeOnly[Price | None] = None


class Faults(Strict):
    """Sets a simulated engine's faults, as shares of its replies. Drawn from the request's seed."""

    malformed: Share = 0.0  # of replies that follow no schema
    die: Share = 0.0  # the whole engine dies, once per row
    hang: Share = 0.0  # of calls that are never answered


class SimulatedEngine(Strict):
    """An engine without a model: vLLM's shape in time, replies that parse. For tests and for planning a cluster."""

    logprobs: ClassVar[tuple[Logprobs, ...]] = ("prompt", "first_token")

    engine: Literal["simulated"]
    model: str = "simulated"
    max_concurrency: RuntimeOnly[PositiveInt] = 256  # calls at once of one engine
    prefill: PositiveFloat = 50_000.0  # prompt tokens a second
    decode: PositiveFloat = 6_400.0  # output tokens a second with all requests in flight
    max_tokens_per_stream: PositiveFloat = 100.0  # output tokens a second of one request alone
    output_tokens: PositiveInt = 350  # of a reply
    spread: Share = 0.0  # of output_tokens, by which an answer may be longer or shorter
    faults: RuntimeOnly[Faults] = Faults()
    request_log: RuntimeOnly[str | None] = None  # a folder: gets each asked row's id, so that work done twice shows
    utilization_log: RuntimeOnly[str | None] = None  # a folder: gets each second the tokens that each engine decoded


class ScriptedEngine(Strict):
    """The scripted teacher of the miniature world: no model at all, and named so wherever its output is shown."""

    logprobs: ClassVar[tuple[Logprobs, ...]] = ()

    engine: Literal["scripted"]
    model: str = "scripted-teacher"
    max_concurrency: RuntimeOnly[PositiveInt] = 64  # calls at once of one engine


EngineConfig = Annotated[VllmEngine | OpenAIEngine | SimulatedEngine | ScriptedEngine, Field(discriminator="engine")]


def continues_lines(config: EngineConfig) -> bool:
    """Tell if an engine continues plain texts by a line, and does not chat."""
    return isinstance(config, VllmEngine) and config.completion
