"""Raw AsyncLLM on the prompts of a run's plan: the bound that `pool.py` measures against. Nothing parsed or stored."""

import asyncio
import json
import os
import sys
import time

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from benchmarks.prompts import planned
from speed_ray.engines.base import Request
from speed_ray.engines.model_folder import ensure_model_folder
from speed_ray.recipes.engine_settings import VllmEngine


async def main() -> None:
    recipe, requests = planned(sys.argv[1], json.loads(sys.argv[2]))
    config = recipe.generator
    assert isinstance(config, VllmEngine)
    os.environ["VLLM_CPU_OMP_THREADS_BIND"], os.environ["OMP_NUM_THREADS"] = "nobind", "1"  # as in an actor of one CPU
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=str(ensure_model_folder(config.model)),
            enable_prefix_caching=True,
            enable_chunked_prefill=False,
            disable_log_stats=True,
            kv_cache_memory_bytes=1 << 30,
            max_num_seqs=256,
            distributed_executor_backend=UniProcExecutor,
            **config.engine_kwargs,
        )
    )
    tokenizer = engine.get_tokenizer()
    slots = asyncio.Semaphore(2 * config.max_concurrency)  # as many as the stage keeps waiting at the engine

    async def ask(request: Request) -> int:
        async with slots:
            prompt = tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
            sampling = SamplingParams(
                temperature=request.temperature,
                top_p=request.top_p,
                max_tokens=request.max_tokens,
                seed=request.seed,
                structured_outputs=StructuredOutputsParams(json=json.dumps(request.schema)),
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            async for output in engine.generate(prompt, sampling, request.row_id):
                final = output
            return len(final.outputs[0].token_ids)

    began = time.perf_counter()
    tokens = sum(await asyncio.gather(*(ask(request) for request in requests)))
    seconds = time.perf_counter() - began
    engine.shutdown()
    print(json.dumps({"contender": "raw AsyncLLM", "tokens/s": tokens / seconds, "tokens": tokens}))


if __name__ == "__main__":
    asyncio.run(main())
