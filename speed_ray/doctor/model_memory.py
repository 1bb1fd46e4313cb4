"""Compare this machine's GPUs and memory with what the recipe's models and workers take."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from speed_ray.doctor.finding import Finding, gigabytes
from speed_ray.doctor.machine import memory_limit
from speed_ray.doctor.model_sizes import NamedModel, size_of
from speed_ray.doctor.wanted_places import WantedPlace, pool_of
from speed_ray.engines.weight_files import Size
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.recipes.schema import Recipe

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
DRIVER = "580"  # the first of CUDA 13
UTILIZATION = 0.9  # of a GPU's memory: what vLLM takes where gpu_memory_utilization does not say
TRAINED = 16  # bytes a parameter of a model that is trained whole: weights, gradients, two moments, in float32
LORA = 2  # the same beside an adapter: frozen weights in bfloat16


@dataclass(frozen=True)
class Gpu:
    """Holds one GPU as its driver names it."""

    name: str
    bytes: int
    driver: str


def find_gpus() -> list[Gpu]:
    """List this machine's NVIDIA GPUs; none where there is no driver."""
    if shutil.which(QUERY[0]) is None:
        return []
    try:
        told = subprocess.run(QUERY, capture_output=True, text=True, timeout=30, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines()]
    return [Gpu(row[0], int(row[1]) << 20, row[2]) for row in rows if len(row) == 3 and row[1].isdecimal()]


def check_gpus(gpus: Sequence[Gpu], places: Sequence[WantedPlace]) -> Finding:
    """Find whether this machine has the GPUs that the recipe asks for at once."""
    names = sorted({f"{gpu.name} of {gigabytes(gpu.bytes)}" for gpu in gpus})
    found = f"{len(gpus)} ({', '.join(names)}; driver {gpus[0].driver})" if gpus else "none"
    if gpus and gpus[0].driver.partition(".")[0] < DRIVER:
        return Finding("GPUs", "fail", found, f"Update the driver to {DRIVER} or newer: the packages want CUDA 13.")
    most = max(places, key=lambda place: place.gpus, default=None)
    if most is None or most.gpus <= len(gpus):
        return Finding("GPUs", "ok", found)
    asked = f"{most.key} asks for {most.gpus:g} at once"
    advice = f"Lower it by --set {most.key}.num_gpus=0, run on a machine or a cluster (RAY_ADDRESS) that has them."
    return Finding("GPUs", "fail", f"{found}, and {asked}", advice)


def check_memory(recipe: Recipe, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Find whether the engines' models and the embedder fit into a GPU, or into memory where they have none."""
    for role, config in (("generator", recipe.generator), ("teacher", recipe.teacher)):
        if isinstance(config, VllmEngine) and (role == "generator" or config != recipe.generator):
            yield from _check_engine(role, config, recipe, gpus)
    if embedder := recipe.embedder:
        key, workers = "embedder.model", embedder.workers
        if size := size_of(NamedModel(key, embedder.model, embedder.revision)):
            wanted = size.parameters * (LORA if embedder.lora else TRAINED)
            yield _compare(key, "training", wanted, workers.num_gpus, workers.num_workers, 1.0, gpus)


def _check_engine(role: str, config: VllmEngine, recipe: Recipe, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    named = NamedModel(f"{role}.model", config.model, config.revision)
    size = size_of(named)
    if size is None:
        if not config.model.startswith("miniature://"):  # which is trained on the spot, and tiny
            yield Finding("memory", "warn", f"{named.key}: nobody says how large {config.model} is")
        return
    kwargs, pool = config.engine_kwargs, pool_of(recipe, role)
    split = kwargs.get("tensor_parallel_size", 1) * kwargs.get("pipeline_parallel_size", 1)
    wanted = _loaded(size, kwargs.get("dtype", "auto")) / split + kwargs.get("kv_cache_memory_bytes", 0)
    share = kwargs.get("gpu_memory_utilization", UTILIZATION)
    yield _compare(named.key, "vLLM", wanted, pool.num_gpus, pool.max_size, share, gpus)


def _loaded(size: Size, dtype: str) -> int:
    """Return the bytes of weights as vLLM holds them: 16 bits a parameter where they are stored in 32."""
    return size.bytes if dtype in ("float", "float32") else min(size.bytes, 2 * size.parameters)


def _compare(
    key: str, what: str, wanted: float, num_gpus: float, count: int, share: float, gpus: Sequence[Gpu]
) -> Finding:
    """Compare the bytes that a model takes at the least with those of the smallest GPU, or of the machine."""
    if num_gpus and not gpus:
        return Finding("memory", "ok", f"{key}: {what} takes {gigabytes(wanted)} or more of each GPU")
    on_gpu = num_gpus > 0
    whole = min(gpu.bytes for gpu in gpus) * min(num_gpus, 1) if on_gpu else memory_limit()
    wanted, room = (wanted, whole * share) if on_gpu else (wanted * count, whole)
    each = "a GPU" if on_gpu else f"memory, for {count} on this machine" if count > 1 else "memory"
    found = f"{key}: {what} takes {gigabytes(wanted)} or more of {gigabytes(room)} of {each}"
    if wanted > room:
        advice = f"Name a smaller or quantized model as {key}, or more GPUs (engine_kwargs.tensor_parallel_size)."
        return Finding("memory", "fail", found, advice)
    if wanted > 0.8 * room:
        advice = "Little is left for prompts at work: lower max_concurrency and max_model_len, or micro_batch_size."
        return Finding("memory", "warn", found, advice)
    return Finding("memory", "ok", found)
