"""The same engine on a GPU: what differs there is seeds in batches, chunked prefill, CUDA graphs, and memory held."""

import asyncio
from dataclasses import replace

import psutil
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

from speed_ray.engines.base import PromptTooLong, Request  # noqa: E402
from speed_ray.engines.vllm import Vllm  # noqa: E402
from speed_ray.recipes.schema import VllmEngine  # noqa: E402

ASK = Request("row", [{"role": "user", "content": "Write one sentence."}], max_tokens=32, seed=1)


@pytest.mark.slow
async def test_it_answers_many_seeded_requests_and_gives_its_processes_back() -> None:
    args = {"gpu_memory_utilization": 0.3, "max_model_len": 512}
    engine = Vllm(VllmEngine(engine="vllm", model="miniature://base", engine_kwargs=args))
    await engine.start()
    replies = await asyncio.gather(*(engine.generate(replace(ASK, n=2, seed=seed)) for seed in range(300)))
    assert all(len(reply.samples) == 2 for reply in replies)
    with pytest.raises(PromptTooLong):
        await engine.generate(replace(ASK, messages=[{"role": "user", "content": "word " * 5000}]))
    assert (await engine.generate(ASK)).samples
    processes = [child for child in psutil.Process().children(recursive=True) if "VLLM" in child.name()]
    await engine.close()
    assert processes
    assert not psutil.wait_procs(processes, timeout=60)[1]
