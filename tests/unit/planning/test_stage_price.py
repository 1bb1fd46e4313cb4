"""The arithmetic of a plan: rows by kind times what a few took, and GPUs by their published figures."""

import pytest

from speed_ray.planning.row_facts import RowFact
from speed_ray.planning.stage_price import tokens_of
from speed_ray.planning.storage_load import storage_load
from speed_ray.planning.throughput import GPUS, Work, pace_of
from speed_ray.recipes.engine_settings import OpenAIEngine, VllmEngine
from speed_ray.recipes.stage_settings import Pool


def fact(kind: str, calls: int = 1, output: float = 10.0, records: int = 1) -> RowFact:
    return RowFact(kind, calls, 100.0 * calls, output, 2.0 * calls, records)


def test_each_kind_counts_by_its_rows() -> None:
    facts = [fact("a"), fact("a", calls=2, output=30), fact("b", calls=0, output=0), fact("b", records=0)]
    tokens = tokens_of({"a": 100.0, "b": 1_000.0}, facts, {}, guessed=False)
    assert (tokens.rows, tokens.calls, tokens.retries) == (1_100, 150 + 500, 50)
    assert (tokens.prompt_tokens, tokens.output_tokens.expected) == (15_000 + 50_000, 2_000 + 5_000)
    assert tokens.records == {"a": 100, "b": 500} and tokens.seconds_a_call == 2


def test_rendered_prompts_count_in_the_place_of_sampled_ones() -> None:
    tokens = tokens_of({"a": 10.0}, [fact("a"), fact("a", calls=2)], {"a": 7.0}, guessed=False)
    assert tokens.prompt_tokens == 15 * 7


def test_what_a_sample_took_beyond_the_run_is_paid_and_leaves_no_records() -> None:
    tokens = tokens_of({"a": 10.0}, [fact("a")] * 32, {}, guessed=False, surplus={"a": 22.0})
    assert (tokens.rows, tokens.calls, tokens.records) == (10, 32, {"a": 10})


def test_equal_replies_leave_no_doubt_and_guesses_much() -> None:
    facts = [fact("a")] * 4
    sure = tokens_of({"a": 10.0}, facts, {}, guessed=False).output_tokens
    guessed = tokens_of({"a": 10.0}, facts, {}, guessed=True).output_tokens
    assert (sure.low, sure.high, guessed.low, guessed.high) == (100, 100, 50, 200)


@pytest.mark.parametrize("name", GPUS)
def test_rates_give_the_published_figures_back(name: str) -> None:
    gpu = GPUS[name]
    prompt, output = gpu.rates
    assert 2048 / (128 / prompt + 2048 / output) == pytest.approx(gpu.long_reply)
    assert 128 / (2048 / prompt + 128 / output) == pytest.approx(gpu.long_prompt)


WORK = Work(calls=1_000, prompt_tokens=1e6, output_tokens=1e6, seconds_a_call=0.0, tokens_a_second=0.0)


def vllm(model: str) -> VllmEngine:
    return VllmEngine(engine="vllm", model=model)


def test_half_the_model_is_twice_as_fast_and_the_source_is_named() -> None:
    pool = Pool(num_gpus=1, accelerator_type="H100")
    large, small = (pace_of(vllm(f"none/model-{size}B"), pool, WORK) for size in (8, 4))
    assert large.seconds == pytest.approx(2 * small.seconds) and "TensorRT-LLM" in large.basis


@pytest.mark.parametrize(
    ("model", "pool"),
    [
        ("none/model", Pool(num_gpus=1)),
        ("none/model-8B", Pool()),
        ("none/model-8B", Pool(num_gpus=1, accelerator_type="T4")),
    ],
)
def test_what_nobody_has_measured_has_no_hours(model: str, pool: Pool) -> None:
    pace = pace_of(vllm(model), pool, WORK)
    assert pace.seconds is None and "--sample measures" in pace.basis


def test_an_endpoint_takes_its_latency_over_what_it_answers_at_once() -> None:
    endpoint = OpenAIEngine(engine="openai", model="m", base_url="http://localhost", max_concurrency=10)
    assert pace_of(endpoint, Pool(), WORK._replace(seconds_a_call=3.0)).seconds == 300
    assert "guess" in pace_of(endpoint, Pool(), WORK).basis


def test_paid_calls_are_journalled() -> None:
    free, paid = (storage_load(1_000, 100, 50.0, calls) for calls in (0.0, 1_600.0))
    assert (free.shards, free.requests, free.bytes) == (10, 110, 50_000)
    assert paid.requests == 110 + 30 + 100
