"""Tell how long one engine takes for a stage's tokens: measured, simulated, or by public figures of GPUs."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from speed_ray.engines import model_folder
from speed_ray.engines.weight_files import read_size
from speed_ray.errors import Interrupted, UserError
from speed_ray.recipes.engine_settings import EngineConfig, OpenAIEngine, ScriptedEngine, SimulatedEngine, VllmEngine
from speed_ray.recipes.stage_settings import Pool

SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s?([bBmM])(?![a-zA-Z])")  # of a model, in its name
LATENCY = 10.0  # seconds of one call to an endpoint that nobody has timed
QUANTIZED = ("fp8", "int8", "awq", "gptq", "w8a8", "w4a16", "nvfp4")


@dataclass(frozen=True)
class Published:
    """Holds two figures of a GPU at full load, in output tokens/s: 128 tokens in and 2,048 out, and 2,048 and 128."""

    parameters: float
    bits: int
    long_reply: float
    long_prompt: float
    source: str

    @property
    def rates(self) -> tuple[float, float]:
        """Return the prompt and the output tokens a second by which both figures come out."""
        seconds = 2048 / self.long_reply, 128 / self.long_prompt  # of one request: 128/p + 2048/o, 2048/p + 128/o
        determinant = 128 * 128 - 2048 * 2048
        of_prompt = (128 * seconds[0] - 2048 * seconds[1]) / determinant
        of_output = (128 * seconds[1] - 2048 * seconds[0]) / determinant
        return 1 / of_prompt, 1 / of_output


_LLAMA_31 = "NVIDIA, TensorRT-LLM 1.0 performance overview, Llama 3.1 8B"
_LLAMA_7B = "NVIDIA, TensorRT-LLM {} performance, LLaMA 7B"
GPUS = {
    "H200": Published(8.0e9, 8, 26_221, 3_538, f"{_LLAMA_31}, FP8"),
    "H100": Published(8.0e9, 8, 22_714, 3_450, f"{_LLAMA_31}, FP8"),
    "A100": Published(6.7e9, 16, 1_928, 591, f"{_LLAMA_7B.format('0.6.1')}, FP16"),
    "L40S": Published(6.7e9, 8, 1_622, 581, f"{_LLAMA_7B.format('0.5')}, FP8"),
}
ASSUMED = "H100"


class Pace(NamedTuple):
    """Hold the seconds that one engine takes for a stage, None where nothing is known, and what that is taken from."""

    seconds: float | None
    basis: str


class Work(NamedTuple):
    """Hold what a stage asks of its engines."""

    calls: float
    prompt_tokens: float
    output_tokens: float
    seconds_a_call: float  # as sampled; 0 where nothing was
    tokens_a_second: float  # of output by one engine, likewise


def pace_of(config: EngineConfig, pool: Pool, work: Work) -> Pace:
    """Return how long one engine takes for a stage."""
    match config:
        case ScriptedEngine():
            return Pace(0.0, "the script takes no time")
        case SimulatedEngine():
            read = work.prompt_tokens / config.prefill
            written = work.output_tokens / min(config.decode, config.max_concurrency * config.max_tokens_per_stream)
            return Pace(max(read, written), "the rates of the simulation")
        case OpenAIEngine():
            latency = work.seconds_a_call or LATENCY
            said = "as sampled" if work.seconds_a_call else "a guess: nobody has timed it"
            seconds = work.calls * latency / config.max_concurrency
            return Pace(seconds, f"{latency:.1f} s a call, {said}, {config.max_concurrency} at once")
        case VllmEngine():
            if work.tokens_a_second:
                said = f"{work.tokens_a_second:,.0f} output tokens/s of one engine, as sampled"
                return Pace(work.output_tokens / work.tokens_a_second, said)
            return _by_figures(config, pool, work)


def _by_figures(config: VllmEngine, pool: Pool, work: Work) -> Pace:
    if not pool.num_gpus:
        return Pace(None, "no figure is known of CPUs: --sample measures")
    parameters = count_parameters(config)
    if parameters is None:
        return Pace(None, f"the size of {config.model} is not known: --sample measures")
    named = pool.accelerator_type or ASSUMED
    gpu = next((name for name in GPUS if name in named.upper()), None)
    if gpu is None:
        return Pace(None, f"no public figure of a {named} is kept here: --sample measures")
    published = GPUS[gpu]
    scale = pool.num_gpus * published.parameters / parameters * min(1.0, published.bits / _bits(config))
    prompt, output = (rate * scale for rate in published.rates)
    assumed = "" if pool.accelerator_type else ", which the pool does not name"
    said = f"as on an {gpu}{assumed}: {published.source}, scaled to {parameters / 1e9:.3g}B at {_bits(config)} bits"
    return Pace(work.prompt_tokens / prompt + work.output_tokens / output, said)


def _bits(config: VllmEngine) -> int:
    said = f"{config.engine_kwargs.get('quantization', '')} {config.model}".lower()
    return 8 if any(name in said for name in QUANTIZED) else 16


def count_parameters(config: VllmEngine) -> float | None:
    """Return a model's parameters: by its weights where these are here, else by its name; None where it says none."""
    folder = _folder_here(config)
    if folder and (size := read_size(folder)):
        return size.parameters
    sizes = [float(number) * (1e9 if unit in "bB" else 1e6) for number, unit in SIZE.findall(config.model)]
    return sizes[-1] if sizes else None


def _folder_here(config: VllmEngine) -> Path | None:
    if config.model.startswith(model_folder.MINIATURE):
        return None
    try:
        return model_folder.ensure_model_folder(config.model)
    except (UserError, Interrupted):
        return None
