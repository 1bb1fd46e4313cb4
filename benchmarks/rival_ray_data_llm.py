"""ray.data.llm on the prompts of a run's plan, its engine at the same settings, batches small and many at once.

Its rows leave the pipeline only after the last of them is answered, so a time taken there says nothing about the
first request: the clock stands in its engine, around each step of the model. The third argument "ours" gives the
engine our executor; else it has the one that it comes with.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig

from benchmarks.clocked_executor import CLOCK, OneProcess, OwnProcess, seconds
from benchmarks.prompts import planned
from speed_ray.engines.model_folder import ensure_model_folder
from speed_ray.recipes.engine_settings import VllmEngine


def main() -> None:
    recipe, requests = planned(sys.argv[1], json.loads(sys.argv[2]))
    config = recipe.generator
    assert isinstance(config, VllmEngine)
    ours = sys.argv[3:] == ["ours"]
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ[CLOCK] = tempfile.mkstemp(prefix="clock-")[1]
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    engine = {
        "enable_prefix_caching": True,
        "enable_chunked_prefill": False,
        "kv_cache_memory_bytes": 1 << 30,
        "max_num_seqs": 256,
        "distributed_executor_backend": OneProcess if ours else OwnProcess,
        **config.engine_kwargs,
    }
    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=str(ensure_model_folder(config.model)),
            engine_kwargs=engine,
            batch_size=16,
            max_concurrent_batches=2 * config.max_concurrency // 16,
            concurrency=1,
            placement_group_config={"bundles": [{"CPU": 1}]},
        ),
        preprocess=lambda row: {
            "messages": row["messages"],
            "sampling_params": {
                "temperature": row["temperature"],
                "top_p": row["top_p"],
                "max_tokens": row["max_tokens"],
                "seed": row["seed"],
                "structured_outputs": {"json": row["schema"]},
            },
        },
        postprocess=lambda row: {"tokens": row["num_generated_tokens"]},
    )
    rows = [
        {
            "messages": request.messages,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
            "schema": json.dumps(request.schema),
        }
        for request in requests
    ]
    # Loading the engine does not count: the clock runs from the first step to the last.
    done = processor(ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // 64))).take_all()
    ray.shutdown()
    tokens = sum(row["tokens"] for row in done)
    clock = Path(os.environ[CLOCK])
    name = "ray.data.llm, our executor" if ours else "ray.data.llm"
    print(json.dumps({"contender": name, "tokens/s": tokens / seconds(clock), "tokens": tokens}))
    clock.unlink()


if __name__ == "__main__":
    main()
