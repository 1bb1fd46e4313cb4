"""Tell what refusals of many endpoints mean. Each is as the endpoint's users quote it."""

import json

import pytest

from speed_ray.engines.endpoint_errors import affordable_tokens, explain_refusal
from speed_ray.engines.openai_wire import parse_refusal


def openai(
    message: str, code: str | None = None, kind: str = "invalid_request_error", param: str | None = None
) -> dict:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


QUOTED = [
    # This row alone
    ("Azure", 400, openai("The response was filtered due to the prompt triggering Azure OpenAI's content management "
     "policy.", "content_filter", param="prompt"), "row", "filtered"),
    ("OpenAI", 400, openai("Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
     "invalid_prompt"), "row", "filtered"),
    ("OpenRouter", 403, {"error": {"code": 403, "message": "openai/gpt-4o requires moderation on OpenInference. Your "
     'input was flagged for "violence".', "metadata": {"reasons": ["violence"]}}}, "row", "filtered"),
    ("Alibaba", 400, openai("Input data may contain inappropriate content.", "data_inspection_failed"), "row",
     "filtered"),
    ("DeepSeek", 400, openai("Content Exists Risk"), "row", "filtered"),
    ("xAI", 403, {"code": "The caller does not have permission to execute the specified operation",
     "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_CSAM"}, "row", "filtered"),
    ("OpenAI", 400, openai("This model's maximum context length is 16385 tokens. However, your messages resulted in "
     "17000 tokens.", "context_length_exceeded", param="messages"), "row", "prompt_too_long"),
    ("llama.cpp", 400, {"error": {"code": 400, "message": "the request exceeds the available context size. try "
     "increasing the context size or enable context shift", "type": "exceed_context_size_error", "n_ctx": 4096}},
     "row", "prompt_too_long"),
    ("llama.cpp", 500, {"error": {"code": 500, "message": "the request exceeds the available context size",
     "type": "server_error"}}, "row", "prompt_too_long"),
    ("Gemini", 400, [{"error": {"code": 400, "message": "The input token count (1200000) exceeds the maximum number "
     "of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}], "row", "prompt_too_long"),
    ("TGI", 422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1300",
     "error_type": "validation"}, "row", "prompt_too_long"),
    ("Anthropic", 400, {"error": {"code": "invalid_request_error", "message": "prompt is too long: 210000 tokens > "
     "200000 maximum"}}, "row", "prompt_too_long"),
    ("Groq", 413, openai("Request too large for model `llama-3.1-8b-instant` in organization `org` service tier "
     "`on_demand` on tokens per minute (TPM): Limit 6000, Requested 7016", "rate_limit_exceeded", "tokens"),
     "row", "too_large_for_endpoint"),
    ("OpenAI", 429, openai("Request too large for gpt-4o in organization org on tokens per min (TPM): Limit 30000, "
     "Requested 32034.", "rate_limit_exceeded", "tokens"), "row", "too_large_for_endpoint"),
    ("Groq", 400, {"error": {"message": "Failed to generate JSON. Please adjust your prompt.", "type":
     "invalid_request_error", "code": "json_validate_failed", "failed_generation": "{"}}, "reply", "malformed"),
    ("Anthropic", 400, openai("Output blocked by content filtering policy"), "row", "filtered"),
    ("Zhipu", 400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}, "row",
     "filtered"),
    ("OpenRouter", 400, {"error": {"code": 400, "message": "Provider returned error", "metadata": {"provider_name":
     "Nvidia", "raw": '{"error":{"message":"This model\'s maximum context length is 262144 tokens. However, your '
     'messages resulted in 262897 tokens.","type":"Bad Request","code":400}}'}}}, "row", "prompt_too_long"),
    ("OpenRouter", 400, {"error": {"code": 400, "message": "Provider returned error", "metadata": {"provider_name":
     "Azure", "raw": {"error": {"message": "The response was filtered", "code": "content_filter"}}}}}, "row",
     "filtered"),
    ("nginx", 413, "<html><title>413 Request Entity Too Large</title></html>", "row", "too_large_for_endpoint"),
    ("Anthropic", 413, {"error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}}, "row",
     "too_large_for_endpoint"),
    # A shorter reply fits
    ("vLLM", 400, {"object": "error", "message": "'max_tokens' or 'max_completion_tokens' is too large: 800. This "
     "model's maximum context length is 512 tokens and your request has 20 input tokens (800 > 512 - 20). None",
     "type": "BadRequestError", "param": None, "code": 400}, "limit", "max_tokens"),
    ("OpenAI", 400, openai("This model's maximum context length is 4097 tokens. However, you requested 4927 tokens "
     "(127 in the messages, 4800 in the completion).", "context_length_exceeded"), "limit", "max_tokens"),
    ("TGI", 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1500 "
     "`inputs` tokens and 800 `max_new_tokens`", "error_type": "validation"}, "limit", "max_tokens"),
    ("OpenAI", 400, openai("max_tokens is too large: 32000. This model supports at most 16384 completion tokens, "
     "whereas you provided 32000.", param="max_tokens"), "limit", "max_tokens"),
    ("Groq", 400, openai("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is "
     "less than the `context_window` for this model", param="max_tokens"), "limit", "max_tokens"),
    ("DeepSeek", 400, openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"), "limit",
     "max_tokens"),
    ("Anthropic", 400, openai("max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for "
     "claude-sonnet-4-5"), "limit", "max_tokens"),
    ("Anthropic", 400, openai("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease "
     "input length or `max_tokens` and try again"), "limit", "max_tokens"),
    ("OpenRouter", 400, openai("This endpoint's maximum context length is 262000 tokens. However, you requested "
     "about 263390 tokens (658 of text input, 262732 in the output)."), "limit", "max_tokens"),
    ("vLLM", 400, openai("This model's maximum context length is 8192 tokens, however you requested 8977 tokens (977 "
     "in your prompt; 8000 for the completion)."), "limit", "max_tokens"),
    ("Gemini", 400, [{"error": {"code": 400, "message": "Unable to submit request because it has a maxOutputTokens "
     "value of 100000 but the supported range is from 1 (inclusive) to 65537 (exclusive).", "status":
     "INVALID_ARGUMENT"}}], "limit", "max_tokens"),
    # Not now
    ("Azure", 403, {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 00:20:00."},
     "later", ""),
    ("OpenAI", 429, openai("Rate limit reached for gpt-4o-mini on requests per min (RPM): Limit 3, Used 3, Requested "
     "1. Please try again in 20s.", "rate_limit_exceeded", "requests"), "later", ""),
    ("Gemini", 429, [{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and "
     "billing details.", "status": "RESOURCE_EXHAUSTED"}}], "later", ""),
    ("Anthropic", 529, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, "later", ""),
    ("Mistral", 429, {"message": "Requests rate limit exceeded"}, "later", ""),
    ("Ollama", 503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, "later", ""),
    ("LM Studio", 500, {"error": "Model is unloaded."}, "later", ""),
    ("nginx", 499, "client closed request", "later", ""),
    ("Cloudflare", 524, "<html>A timeout occurred</html>", "later", ""),
    ("TGI", 424, {"error": "Request failed during generation: Server error: out of memory", "error_type":
     "generation"}, "later", ""),
    ("Groq", 498, openai("Flex tier capacity exceeded", "capacity_exceeded"), "later", ""),
    ("OpenRouter", 429, {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-day. Add 10 credits "
     "to unlock 1000 free model requests per day"}}, "later", ""),
    # Never with this field
    ("OpenAI", 400, openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
     "'max_completion_tokens' instead.", "unsupported_parameter", param="max_tokens"), "field", "max_tokens"),
    ("OpenAI", 400, openai("Unsupported value: 'temperature' does not support 0.0 with this model. Only the default "
     "(1) value is supported.", "unsupported_value", param="temperature"), "field", "temperature"),
    ("Mistral", 422, {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"],
     "msg": "Extra inputs are not permitted", "input": 7}]}, "type": "invalid_request_error"}, "field", "seed"),
    ("Gemini", 400, [{"error": {"code": 400, "message": 'Invalid JSON payload received. Unknown name "seed": Cannot '
     'find field.', "status": "INVALID_ARGUMENT"}}], "field", "seed"),
    ("DeepSeek", 400, openai("This response_format type is unavailable now"), "field", "response_format"),
    ("Groq", 400, openai("response_format` `json_schema` is not supported with this model"), "field",
     "response_format"),
    ("Vertex", 501, [{"error": {"code": 501, "message": "Unable to submit request because the schema has an "
     "unsupported field: min_length", "status": "UNIMPLEMENTED"}}], "field", "response_format"),
    ("OpenAI", 400, openai("Invalid schema for response_format 'reply': 'minLength' is not permitted.",
     param="response_format"), "field", "response_format"),
    ("llama.cpp", 400, {"error": {"code": 400, "message": "Failed to parse grammar", "type":
     "invalid_request_error"}}, "field", "response_format"),
    ("Anthropic", 400, openai("`temperature` and `top_p` cannot both be specified for this model. Please use only "
     "one."), "field", "top_p"),
    # Never for this key, this model, this address
    ("OpenAI", 429, openai("You exceeded your current quota, please check your plan and billing details.",
     "insufficient_quota", "insufficient_quota"), "stop", "credit"),
    ("DeepSeek", 402, openai("Insufficient Balance"), "stop", "credit"),
    ("Anthropic", 400, {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to "
     "access the Anthropic API."}}, "stop", "credit"),
    ("OpenAI", 429, openai("Billing hard limit has been reached", "billing_hard_limit_reached"), "stop", "credit"),
    ("Anthropic", 400, openai("You have reached your specified API usage limits."), "stop", "credit"),
    ("xAI", 429, {"code": "quota", "error": "Your team has either used all available credits or reached its monthly "
     "spending limit."}, "stop", "credit"),
    ("xAI", 403, {"code": "permission", "error": "Your newly created team doesn't have any credits yet."}, "stop",
     "credit"),
    ("Gemini", 429, [{"error": {"code": 429, "message": "Your prepayment credits are depleted.", "status":
     "RESOURCE_EXHAUSTED"}}], "stop", "credit"),
    ("OpenAI", 401, openai("Incorrect API key provided: sk-1.", "invalid_api_key"), "stop", "key"),
    ("Gemini", 400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status":
     "INVALID_ARGUMENT"}}], "stop", "key"),
    ("xAI", 403, {"code": "permission", "error": "Team is not authorized to perform this action"}, "stop", "key"),
    ("OpenAI", 404, openai("The model `gpt-5o` does not exist or you do not have access to it.", "model_not_found"),
     "stop", "model"),
    ("Ollama", 404, {"error": {"message": "model 'qwen3' not found", "type": "api_error", "param": None,
     "code": None}}, "stop", "model"),
    ("Azure", 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not "
     "exist."}}, "stop", "model"),
    ("OpenRouter", 400, {"error": {"code": 400, "message": "foo/bar is not a valid model ID"}}, "stop", "model"),
    ("Mistral", 400, {"object": "error", "message": "Invalid model: mistral-foo", "type": "invalid_model"}, "stop",
     "model"),
    ("LM Studio", 400, openai("No models loaded. Please load a model in the developer page."), "stop", "model"),
    ("Gemini", 400, [{"error": {"code": 400, "message": "Logprobs is not enabled for models/gemini-2.5-pro", "status":
     "INVALID_ARGUMENT"}}], "stop", "logprobs"),
    ("Together", 400, openai("5 is greater than the maximum of 1 - 'logprobs'", param="logprobs"), "stop", "logprobs"),
    ("vLLM", 400, openai("Requested sample logprobs of 20, which is greater than max allowed: 5"), "stop", "logprobs"),
    ("OpenRouter", 404, {"error": {"code": 404, "message": "No endpoints found matching your data policy."}}, "stop",
     "other"),
    ("FastAPI", 404, {"detail": "Not Found"}, "stop", "address"),
    ("nginx", 405, "<html>405 Not Allowed</html>", "stop", "address"),
    ("Cloudflare", 403, "<!DOCTYPE html>\n<html><head><title>Attention Required! | Cloudflare</title></head><body>"
     "Sorry, you have been blocked. The action you just performed triggered the security solution, such as "
     "submitting a certain word, flagged content or a SQL command.</body></html>", "stop", "blocked"),
    ("Cloudflare", 403, "error code: 1020", "stop", "blocked"),
    ("Azure WAF", 403, "<html><head><title>403 Forbidden</title></head></html>", "stop", "blocked"),
    ("Squid", 407, "<HTML><TITLE>ERR_CACHE_ACCESS_DENIED</TITLE></HTML>", "stop", "blocked"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "meaning", "reason"),
    [case[1:] for case in QUOTED],
    ids=[f"{who}-{status}-{reason or meaning}" for who, status, _, meaning, reason in QUOTED],
)
def test_the_meaning_of_a_refusal(status, body, meaning, reason):
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    rule = explain_refusal(parse_refusal(status, raw))
    assert (rule.meaning, rule.reason) == (meaning, reason)


@pytest.mark.parametrize(
    ("quoted", "room"),
    list(
        zip(
            [case for case in QUOTED if case[3] == "limit"],
            [492, 3970, 548, 16384, 8192, 8192, 64000, 10000, 261342, 7215, 65536],
            strict=True,
        )
    ),
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_a_refused_limit_says_how_long_a_reply_may_be(quoted, room):
    refusal = parse_refusal(quoted[1], json.dumps(quoted[2]).encode())
    assert affordable_tokens(refusal.message) == room


def test_no_room_for_a_reply_is_none():
    message = "This model's maximum context length is 512 tokens and your request has 512 input tokens"
    assert affordable_tokens(message) is None
    assert affordable_tokens("max_tokens is too large") is None
