"""ray.data.llm on the prompts of a run's plan, its engine at the same settings, batches small and many at once."""

import json
import os
import sys
import time

import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig

from benchmarks.prompts import planned
from speed_ray.engines.model_folder import find_model
from speed_ray.recipe import VllmEngine


def main() -> None:
    recipe, requests = planned(sys.argv[1], json.loads(sys.argv[2]))
    config = recipe.generator
    assert isinstance(config, VllmEngine)
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    engine = {
        "enable_prefix_caching": True,
        "enable_chunked_prefill": False,
        "kv_cache_memory_bytes": 1 << 30,
        "max_num_seqs": 256,
        **config.args,
    }
    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=str(find_model(config.model)),
            engine_kwargs=engine,
            batch_size=16,
            max_concurrent_batches=2 * config.in_flight // 16,
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
        postprocess=lambda row: {
            "tokens": row["num_generated_tokens"],
            "asked": time.time() - row["time_taken_llm"],
            "answered": time.time(),
        },
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
    # Loading the engine does not count: the clock runs from the first request to the last reply.
    done = processor(ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // 64))).take_all()
    tokens = sum(row["tokens"] for row in done)
    rate = tokens / (max(row["answered"] for row in done) - min(row["asked"] for row in done))
    ray.shutdown()
    print(json.dumps({"contender": "ray.data.llm", "tokens/s": rate, "tokens": tokens}))


if __name__ == "__main__":
    main()
