"""Select the recipe settings that determine rows, which a resume may not change, and label models."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from speed_ray.recipes.schema import EngineConfig, VllmEngine

# What may change between two drives of one run: where and how fast, never what. What lies at a path (topics, prompts,
# weights) is in the plans by its digest, so the path itself is not: folders move, and nodes mount them elsewhere.
_WHERE_AND_HOW_FAST = {
    "api_key_env",
    "request_log",
    "base_url",
    "budget",
    "utilization_log",
    "save_steps",
    "decontaminate",
    "evaluate",  # decides no row and no weight: a run is scored on other sets whenever one likes
    "faults",
    "gradient_checkpointing",
    "max_concurrency",
    "micro_batch_size",
    "offload_optimizer",
    "offload_param",
    "pool",
    "price",
    "prompts",
    "source",
    "timeout",
    "workers",
    "zero_stage",
}
_PATHS = ("/", "./", "../", "~")
_VLLM_RESOURCES = {
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "gpu_memory_utilization",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enforce_eager",
    "kv_cache_memory_bytes",
    "download_dir",
}


def identity_fields(model: BaseModel) -> dict[str, Any]:
    """Return the settings of a recipe, or of one engine in it, that determine its rows."""
    tree = model.model_dump(mode="json", exclude=_WHERE_AND_HOW_FAST)
    return {key: _decides(key, value) for key, value in tree.items()}


def _decides(key: str, value: Any) -> Any:
    if isinstance(value, str) and _is_path(value):
        return "(a path)"
    if not isinstance(value, dict):
        return value
    dropped = _VLLM_RESOURCES if key == "engine_kwargs" else _WHERE_AND_HOW_FAST
    return {name: _decides(name, below) for name, below in value.items() if name not in dropped}


def _is_path(value: str) -> bool:
    return value.startswith(_PATHS) or "/models/" in value  # the second: a run's own model, on any storage


def without_adapter(config: EngineConfig) -> EngineConfig:
    """Return the config without its LoRA adapter; configs equal after this can share one engine."""
    return config.model_copy(update={"adapter": None}) if isinstance(config, VllmEngine) else config


def model_label(config: EngineConfig) -> str:
    """Return the model's name in records: "junior" for a model of a run, else its full name."""
    model = (config.adapter if isinstance(config, VllmEngine) else None) or config.model
    return Path(model).name if _is_path(model) else model
