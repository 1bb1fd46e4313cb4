"""Answers in the forms of many endpoints: what is read, what is charged, what is asked otherwise or never again."""

import asyncio
import json
import re
from typing import Any

import pytest
from aiohttp import web

from speed_ray.engines import openai
from speed_ray.engines.base import EndpointFailsOnRow, FatalEngineError, PromptTooLong, TooLargeForEndpoint
from speed_ray.errors import UserError
from tests.helpers.tiny_endpoint import KEY, Answer, all_of, answers, cut, good, prompt, refusing, saying, texts

USAGE = {"prompt_tokens": 10, "completion_tokens": 20}


def sending(document: Any, status: int = 200) -> Answer:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return web.json_response(document, status=status)

    return answer


def only_for(row: str, special: Answer) -> Answer:
    """Answer one row in a special way and all others well."""

    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        return await (special if body["messages"][-1]["content"] == row else good)(body, request)

    return answer


def refusing_field(field: str, value: Any = None) -> Answer:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        refused = field in body and (value is None or body[field] != value)
        return await (refusing(400, f"Unsupported parameter: '{field}'") if refused else good)(body, request)

    return answer


@pytest.mark.parametrize("field", ["seed", "temperature", "top_p", "response_format"])
async def test_a_field_that_is_refused_is_left_out_and_said_once(endpoint, connect, caplog, field) -> None:
    endpoint.answer = refusing_field(field)
    client = await connect(max_concurrency=1)
    assert texts(await all_of(client, 5, schema={"type": "object"})) == answers(5)
    assert [field in body for body in endpoint.bodies] == [True] + [False] * 5
    assert caplog.text.count(f"asked without '{field}'") == 1


async def test_fields_of_the_recipe_go_with_every_request(endpoint, connect, monkeypatch) -> None:
    monkeypatch.setenv("SECOND_KEY", "second")
    thinking = {"chat_template_kwargs": {"enable_thinking": False}, "seed": 5}
    client = await connect(extra_body=thinking, headers={"api-key": "$SECOND_KEY", "X-Title": "t"}, query={"v": "1"})
    await all_of(client, 1, seed=7)
    assert endpoint.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert endpoint.bodies[0]["seed"] == 5
    assert (endpoint.headers[0]["api-key"], endpoint.headers[0]["X-Title"]) == ("second", "t")


async def test_a_secret_in_the_recipe_is_refused(connect) -> None:
    with pytest.raises(UserError, match=r"teacher\.headers\.api-key holds a secret"):
        await connect(headers={"api-key": KEY})


@pytest.mark.parametrize("headers", [{"X": "a\nb"}, {"X-é": "e"}, {"X": "é"}, {"X Y": "z"}])
async def test_a_header_that_cannot_be_sent_is_refused(connect, headers) -> None:
    with pytest.raises(UserError, match=r"teacher\.headers\."):
        await connect(headers=headers)


async def test_the_text_among_the_parts_of_a_message_is_the_reply(endpoint, connect) -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]
    choice = {"message": {"content": parts}, "finish_reason": "stop"}
    endpoint.answer = sending({"choices": [choice], "usage": USAGE})
    assert texts(await all_of(await connect(), 1)) == ["yes"]


async def test_an_answer_that_is_streamed_unasked_is_joined(endpoint, connect) -> None:
    chunks = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in ("one ", "two")]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}, {"choices": [], "usage": USAGE}]

    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
        return web.Response(text="".join(lines), content_type="text/event-stream")

    endpoint.answer = answer
    client = await connect()
    [reply] = await all_of(client, 1)
    assert (reply.samples[0].text, reply.samples[0].finish_reason, reply.prompt_tokens) == ("one two", "length", 10)


LEGACY = {"object": "text_completion", "choices": [{"text": "yes", "index": 0, "finish_reason": "length"}]}


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_text_of_a_legacy_completion_is_the_reply(endpoint, connect, streamed) -> None:
    body = json.dumps(LEGACY | {"usage": USAGE})
    endpoint.answer = saying(f"data: {body}\n\ndata: [DONE]\n\n".encode() if streamed else body.encode())
    [reply] = await all_of(await connect(), 1)
    assert (reply.samples[0].text, reply.samples[0].finish_reason, len(endpoint.asked)) == ("yes", "length", 1)


BLOCK_PAGE = b"<!DOCTYPE html><html><title>Attention Required! | Cloudflare</title>You have been blocked</html>"


async def blocked(body: dict, request: web.Request) -> web.StreamResponse:
    return web.Response(body=BLOCK_PAGE, status=403, content_type="text/html")


async def test_the_page_of_a_firewall_is_no_wrong_key(endpoint, connect) -> None:
    endpoint.answer = blocked
    [end] = await all_of(await connect(), 1)
    assert isinstance(end, FatalEngineError) and "key" not in str(end).replace(KEY, "")
    assert re.search(r"a firewall or proxy on the way refuses us.*\nIt said: HTTP 403: .*Cloudflare", str(end))
    assert len(endpoint.asked) == 1


async def test_a_prompt_that_a_firewall_blocks_while_others_are_answered_is_rejected(endpoint, connect) -> None:
    endpoint.answer = only_for("1", blocked)
    client = await connect(max_concurrency=1)
    assert texts(await all_of(client, 1)) == answers(1)
    ends = await all_of(client, 3)
    assert texts(ends) == ["answer to 0", "answer to 2"] and isinstance(ends[1], EndpointFailsOnRow)


@pytest.mark.parametrize(
    "stream",
    [
        '{"choices": 5}',
        '{"choices": [5]}',
        '{"choices": [{"index": [1], "delta": {"content": [{"type": "text", "text": "hi"}]}}]}',
        "data: " * 5000,
    ],
)
async def test_a_stream_of_anything_is_an_answer_or_a_fault(endpoint, connect, stream) -> None:
    endpoint.first(1, saying(f"data: {stream}\n\ndata: [DONE]\n\n".encode()))
    assert texts(await all_of(await connect(), 1)) in (["hi"], answers(1))


GOOD = b'{"choices": [{"message": {"content": "text"}}], "usage": {"prompt_tokens": 10, "completion_tokens": 20}}'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (GOOD, 201),
        (b"\xef\xbb\xbf" + GOOD, 200),
        (b"\n\n   \n" + GOOD, 200),
        (b": PROCESSING\n\n: PROCESSING\n\ndata: " + GOOD.replace(b"message", b"delta") + b"\n\ndata: [DONE]\n", 200),
        (b"event: message\ndata: " + GOOD.replace(b"message", b"delta") + b"\n\ndata: [DONE]\n", 200),
    ],
)
async def test_a_completion_is_read_in_what_proxies_make_of_it(endpoint, connect, body, status) -> None:
    async def answer(_: dict, request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status)

    endpoint.answer = answer
    client = await connect()
    assert texts(await all_of(client, 1)) == ["text"]
    assert client.ledger.spent.output_tokens == 20


async def test_a_refusal_by_the_model_says_so(endpoint, connect) -> None:
    message = {"content": None, "refusal": "I can't help with that."}
    endpoint.answer = sending({"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE})
    [reply] = await all_of(await connect(), 1)
    assert (reply.samples[0].text, reply.samples[0].finish_reason) == ("I can't help with that.", "refusal")


@pytest.mark.parametrize(
    ("usage", "output", "thoughts"),
    [
        ({"completion_tokens": 50, "total_tokens": 750}, 650, 600),  # thoughts are in the total alone
        ({"completion_tokens": 50, "total_tokens": 150}, 50, 0),
        ({"completion_tokens": 50.0}, 50, 0),
        ({"completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 40}}, 50, 40),
        ({"completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": "many"}}, 50, 0),
    ],
)
async def test_thoughts_are_charged(endpoint, connect, usage, output, thoughts) -> None:
    endpoint.answer = sending({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 100, **usage}})
    client = await connect()
    [reply] = await all_of(client, 1)
    assert (client.ledger.spent.output_tokens, reply.reasoning_tokens) == (output, thoughts)


async def test_a_text_of_no_tokens_is_charged_at_its_bound(endpoint, connect) -> None:
    zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    endpoint.answer = sending({"choices": [{"message": {"content": "x"}}], "usage": zero})
    client = await connect(budget={"tokens": 1000})
    await all_of(client, 1, max_tokens=100)
    assert client.ledger.spent.output_tokens == 100


@pytest.mark.parametrize(
    ("fault", "charged"),
    [
        (sending({"error": {"code": 429, "message": "Rate limit exceeded"}}), 1),
        (sending({"choices": [], "usage": USAGE}), 1),
        (sending({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "provider"}}]}), 1),
        (sending({"error": "bad gateway"}, 504), 1),
        (sending({"error": "busy"}, 503), 0),
    ],
)
async def test_a_failed_answer_is_asked_again_and_charged_where_it_may_be_billed(
    endpoint, connect, fault, charged
) -> None:
    endpoint.first(1, fault)
    client = await connect(max_concurrency=1)
    assert texts(await all_of(client, 1)) == answers(1)
    assert client.ledger.spent.calls == 1 + charged


@pytest.mark.parametrize(
    "fault",
    [
        refusing(500, "the model crashed on this prompt"),
        sending({"error": {"message": "Provider returned error", "code": 500}}),
        sending({"choices": []}),
        cut,
    ],
)
async def test_a_row_on_which_the_endpoint_fails_while_others_are_answered_is_rejected(
    endpoint, connect, fault
) -> None:
    endpoint.answer = only_for("1", fault)
    ends = await all_of(await connect(), 3)
    assert texts(ends) == ["answer to 0", "answer to 2"]
    assert isinstance(ends[1], EndpointFailsOnRow) and "after 8 tries" in str(ends[1])
    assert endpoint.asked.count("1") == openai.MAX_ROW_FAULTS


@pytest.mark.parametrize("status", [400, 422])
async def test_a_row_that_is_refused_for_what_nobody_knows_stops_no_job_that_goes_on(
    endpoint, connect, monkeypatch, status
) -> None:
    monkeypatch.setattr(openai, "LONGEST_BACKOFF", 0.01)
    endpoint.answer = only_for("1", refusing(status, "computer says no"))
    client = await connect(max_concurrency=1)
    assert texts(await all_of(client, 1)) == answers(1)
    ends = await asyncio.gather(
        client.generate(prompt(1)), *(client.generate(prompt(row)) for row in range(2, 20)), return_exceptions=True
    )
    assert isinstance(ends[0], EndpointFailsOnRow) and "computer says no" in str(ends[0])
    assert len(texts(ends)) == 18


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("SAFETY", "content_filter"),
        ("content_filter: RECITATION", "content_filter"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
    ],
)
async def test_finish_reasons_of_other_names_are_read(endpoint, connect, said, reason) -> None:
    endpoint.answer = sending({"choices": [{"message": {"role": "assistant"}, "finish_reason": said}], "usage": USAGE})
    ends = await all_of(await connect(), 1)
    assert [sample.finish_reason for sample in ends[0].samples] == [reason]


@pytest.mark.parametrize("reason", ["abort", "insufficient_system_resource"])
async def test_an_answer_that_broke_off_is_asked_again(endpoint, connect, reason) -> None:
    endpoint.first(
        1, sending({"choices": [{"message": {"content": "half"}, "finish_reason": reason}], "usage": USAGE})
    )
    assert texts(await all_of(await connect(max_concurrency=1), 1)) == answers(1)


async def test_a_row_that_no_minute_has_room_for_is_rejected(endpoint, connect) -> None:
    message = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 32034."
    endpoint.answer = only_for("1", refusing(429, message, "rate_limit_exceeded"))
    ends = await all_of(await connect(), 3)
    assert isinstance(ends[1], TooLargeForEndpoint) and len(texts(ends)) == 2


async def test_a_flagged_prompt_stops_no_other(endpoint, connect) -> None:
    flagged = "gpt-4o requires moderation on OpenInference. Your input was flagged for violence."
    endpoint.answer = only_for("1", refusing(403, flagged))
    ends = await all_of(await connect(), 3)
    assert [end.samples[0].finish_reason for end in ends] == ["stop", "content_filter", "stop"]


async def test_a_reply_that_the_window_has_no_room_for_is_asked_shorter(endpoint, connect) -> None:
    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        message = "This model's maximum context length is 512 tokens and your request has 20 input tokens"
        return await (refusing(400, message) if body["max_tokens"] > 492 else good)(body, request)

    endpoint.answer = answer
    assert texts(await all_of(await connect(), 2, max_tokens=800)) == answers(2)
    assert {body["max_tokens"] for body in endpoint.bodies} == {800, 492}


async def test_a_window_without_room_for_any_reply_rejects_the_row(endpoint, connect) -> None:
    message = "This model's maximum context length is 512 tokens and your request has 530 input tokens"
    endpoint.answer = only_for("1", refusing(400, message))
    ends = await all_of(await connect(), 2)
    assert isinstance(ends[1], PromptTooLong) and texts(ends) == ["answer to 0"]


async def test_a_text_that_did_not_fit_its_schema_is_the_reply(endpoint, connect) -> None:
    error = {"message": "Failed to generate JSON.", "code": "json_validate_failed", "failed_generation": '{"a": '}
    endpoint.answer = sending({"error": error}, 400)
    assert texts(await all_of(await connect(), 1)) == ['{"a": ']


async def test_an_endless_answer_fills_no_memory(endpoint, connect, monkeypatch) -> None:
    monkeypatch.setattr(openai, "MAX_ANSWER_BYTES", 1 << 16)

    async def endless(body: dict, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 4096)

    endpoint.answer = only_for("1", endless)
    ends = await all_of(await connect(), 3)
    assert texts(ends) == ["answer to 0", "answer to 2"]
    assert "an answer of more than" in str(ends[1])


async def test_completions_with_and_without_choices_are_told_apart(endpoint, connect) -> None:
    endpoint.first(3, sending({"choices": [{"finish_reason": "stop"}], "usage": USAGE}))
    client = await connect(max_concurrency=1)
    assert texts(await all_of(client, 1)) == answers(1)
    assert client.ledger.spent.output_tokens == 80


@pytest.mark.parametrize(("open_rows", "rejected"), [(3, True), (8, False)])
async def test_an_outage_rejects_no_row_and_a_few_last_rows_are_no_outage(
    endpoint, connect, monkeypatch, open_rows, rejected
) -> None:
    monkeypatch.setattr(openai, "ROW_FAULT_SECONDS", 0.05)
    client = await connect()
    await all_of(client, 1)
    fails, tries = refusing(500, "out of order"), openai.MAX_ROW_FAULTS

    async def answer(body: dict, request: web.Request) -> web.StreamResponse:
        over = len(endpoint.asked) > 1 + open_rows * (tries + 4)
        return await (good if over else fails)(body, request)

    endpoint.answer = answer
    ends = await all_of(client, open_rows)
    assert any(isinstance(end, EndpointFailsOnRow) for end in ends) == rejected


LIKELY = [{"token": " Yes", "logprob": -0.2, "bytes": None}, {"token": "no", "logprob": -9999.0}]


async def test_the_likeliest_first_tokens_are_asked_for_and_read(endpoint, connect) -> None:
    told = {"content": [{"token": " Yes", "logprob": -0.2, "top_logprobs": LIKELY}, {"token": "."}]}
    choice = {"message": {"content": " Yes."}, "finish_reason": "length", "logprobs": told}
    endpoint.answer = sending({"choices": [choice], "usage": USAGE})
    [reply] = await all_of(await connect(), 1, logprobs="first_token")
    assert (endpoint.bodies[0]["logprobs"], endpoint.bodies[0]["top_logprobs"]) == (True, 20)
    assert reply.samples[0].logprobs == [{"token": " Yes", "logprob": -0.2}, {"token": "no", "logprob": -9999.0}]


async def test_no_logprobs_are_asked_for_where_none_are_wanted(endpoint, connect) -> None:
    [reply] = await all_of(await connect(), 1)
    assert not {"logprobs", "top_logprobs"} & set(endpoint.bodies[0]) and reply.samples[0].logprobs == []


@pytest.mark.parametrize(
    "told",
    [
        None,
        5,
        {"content": None},
        {"content": [5]},
        {"content": [{"top_logprobs": {"a": 1}}]},
        {"content": [{"top_logprobs": [5, {"token": 1, "logprob": -1}, {"token": "a", "logprob": "-1"}]}]},
        {"content": [{"top_logprobs": [{"token": "a", "logprob": -1e9}, {"token": "b", "logprob": 10**400}]}]},
    ],
)
async def test_logprobs_that_are_none_are_no_fault(endpoint, connect, told) -> None:
    choice = {"message": {"content": "Yes"}, "finish_reason": "stop", "logprobs": told}
    endpoint.answer = saying(json.dumps({"choices": [choice], "usage": USAGE}).encode())
    [reply] = await all_of(await connect(), 1, logprobs="first_token")
    assert (reply.samples[0].text, reply.samples[0].logprobs) == ("Yes", [])


async def test_an_endpoint_that_refuses_logprobs_stops_the_job_with_the_key_to_change(endpoint, connect) -> None:
    endpoint.answer = refusing(400, "Logprobs is not enabled for models/gemini-2.5-pro")
    [end] = await all_of(await connect(), 1, logprobs="first_token")
    assert isinstance(end, FatalEngineError) and len(endpoint.asked) == 1
    assert re.search(r"likeliest first tokens.*teacher\.extra_body\.top_logprobs.*\nIt said: .*not enabled", str(end))
