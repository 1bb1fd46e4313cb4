"""The endpoint answers as the model's own encode does, in OpenAI's form, and refuses a wrong request by name."""

import asyncio
import base64
import contextlib
import random
import re
import signal
import socket
from pathlib import Path

import httpx
import numpy as np
import openai
import orjson
import pytest
from ray import cloudpickle
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE
from sentence_transformers import SentenceTransformer
from starlette.requests import Request

from speed_ray.cli import main
from speed_ray.on_ray import serve_env
from speed_ray.serving import haproxy, http_errors
from speed_ray.serving.app import EMBEDDER, last_error, resolve_source
from speed_ray.serving.batcher import FORWARDS_PER_BATCH, DynamicBatcher
from speed_ray.serving.replica import MAX_BODY_BYTES, Embed
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import Model
from tests.helpers.tiny_serving import PROMPTS, Endpoint, free_port, tiny_embedder

TEXTS = ["a lamp", "the lamp hums at night", "b", "nobody sleeps", "🦆 ducks, 灯 and \x00 and e\u0301"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_embedder(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="module")
def reference(folder):
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def replica(folder):
    return Embed(lambda: str(folder), "tiny", threads=1)


@pytest.fixture
async def http(replica):
    async with http_to(replica) as client:
        yield client


@contextlib.asynccontextmanager
async def http_to(replica):
    """A client of one replica in this process, behind what the proxy adds."""

    async def app(scope, receive, send):
        answer = await replica(Request(scope, receive))
        await answer(scope, receive, send)

    transport = httpx.ASGITransport(http_errors.JsonErrors(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://replica/v1") as client:
        yield client


@pytest.fixture
def client(http):
    return openai_by(http)


def openai_by(http):
    return openai.AsyncOpenAI(base_url=str(http.base_url), api_key="none", http_client=http, max_retries=0)


def vectors(answer):
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data])


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
async def test_the_openai_client_gets_what_encode_returns(client, reference, encoding):
    answer = await client.embeddings.create(model="tiny", input=TEXTS, **encoding)
    if encoding.get("encoding_format") == "base64":
        raw = [base64.b64decode(item.embedding) for item in answer.data]
        found = np.stack([np.frombuffer(data, "<f4") for data in raw])
    else:
        found = vectors(answer)
    assert np.abs(found - reference.encode(TEXTS)).max() < 1e-4
    assert answer.model == "tiny"
    tokens = sum(len(ids) for ids in reference.tokenizer(TEXTS).input_ids)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens


async def test_the_model_is_named_in_a_list_and_alone(folder):
    async with http_to(Embed(lambda: str(folder), "org/tiny", threads=1)) as http:
        client = openai_by(http)
        (listed,) = (await client.models.list()).data
        assert listed == await client.models.retrieve("org/tiny")
        assert (listed.id, listed.owned_by) == ("org/tiny", "speed_ray")
        with pytest.raises(openai.NotFoundError, match="nothing at"):
            await client.models.retrieve("other")


async def test_a_single_text(client, reference):
    answer = await client.embeddings.create(model="tiny", input="a lamp")
    assert np.abs(vectors(answer) - reference.encode(["a lamp"])).max() < 1e-4


@pytest.mark.parametrize(("input_type", "prompt"), PROMPTS.items())
async def test_the_input_type_chooses_the_prompt(client, reference, input_type, prompt):
    answer = await client.embeddings.create(model="tiny", input=TEXTS, extra_body={"input_type": input_type})
    assert np.abs(vectors(answer) - reference.encode([prompt + text for text in TEXTS])).max() < 1e-4
    tokens = sum(len(ids) for ids in reference.tokenizer([prompt + text for text in TEXTS]).input_ids)
    assert answer.usage.prompt_tokens == tokens


async def test_fewer_dimensions_have_length_one(client, reference):
    answer = await client.embeddings.create(model="tiny", input=TEXTS, dimensions=7)
    expected = reference.encode(TEXTS, truncate_dim=7, normalize_embeddings=True)
    assert np.abs(vectors(answer) - expected).max() < 1e-4


async def test_requests_that_wait_together_get_their_own_vectors(client, reference):
    rng = random.Random(0)
    asked_for = [[" ".join(rng.choices(TEXTS[:4], k=rng.randint(1, 2))) for _ in range(n % 5 + 1)] for n in range(64)]
    kinds = [({}, ""), *(({"input_type": kind}, prompt) for kind, prompt in PROMPTS.items())]

    async def ask(texts, number):
        extra, prompt = kinds[number % 3]
        answer = await client.embeddings.create(model="tiny", input=texts, extra_body=extra)
        return np.abs(vectors(answer) - reference.encode([prompt + text for text in texts])).max()

    assert max(await asyncio.gather(*(ask(texts, number) for number, texts in enumerate(asked_for)))) < 1e-4


ASK = {"model": "tiny", "input": "a lamp"}
WRONG = {
    "no JSON": (b"{", 400, None, "Invalid JSON"),
    "invalid UTF-8": (b'{"model": "tiny", "input": "\xff\xfe"}', 400, None, "Invalid JSON: invalid unicode"),
    "half an emoji": (b'{"model": "tiny", "input": "\\ud83e"}', 400, None, "Invalid JSON"),
    "deeply nested": (b"[" * 100_000, 400, None, "Invalid JSON"),
    "no object": ([1], 400, None, "should be an object"),
    "no model": ({"input": "a"}, 400, "model", "Field required"),
    "another model": ({**ASK, "model": "ada"}, 404, "model", "'ada' does not exist here; 'tiny' does"),
    "no input": ({"model": "tiny"}, 400, "input", "Field required"),
    "an empty list": ({**ASK, "input": []}, 400, "input", "at least 1 item"),
    "too many texts": ({**ASK, "input": ["a"] * 2049}, 400, "input", "at most 2048 items"),
    "an empty text": ({**ASK, "input": ["a", ""]}, 400, "input", "input.1: String should have at least 1 character"),
    "token ids": ({**ASK, "input": [1, 2, 3]}, 400, "input", "token ids are not taken"),
    "lists of token ids": ({**ASK, "input": [[1, 2], [3]]}, 400, "input", "token ids are not taken"),
    "an object as text": ({**ASK, "input": ["a", {}]}, 400, "input", "input.1: Input should be a valid string"),
    "too many tokens": ({**ASK, "input": ["a", "b " * 96]}, 400, "input", "maximum context length is 96 tokens"),
    "a very long text": ({**ASK, "input": "a" * 1_000_000}, 400, "input", "input[0] has 1000000 characters"),
    "too many dimensions": ({**ASK, "dimensions": 65}, 400, "dimensions", "the model's vectors have 64"),
    "no dimensions": ({**ASK, "dimensions": 0}, 400, "dimensions", "greater than or equal to 1"),
    "half a dimension": ({**ASK, "dimensions": 1.5}, 400, "dimensions", "should be a valid integer"),
    "true dimensions": ({**ASK, "dimensions": True}, 400, "dimensions", "should be a valid integer"),
    "another encoding": ({**ASK, "encoding_format": "hex"}, 400, "encoding_format", "'float' or 'base64'"),
    "another input type": ({**ASK, "input_type": ["query"]}, 400, "input_type", "'query' or 'document'"),
    "a typing error": ({**ASK, "dimension": 5}, 400, "dimension", "Extra inputs are not permitted"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_request_is_refused_by_name(http, what):
    body, status, param, words = WRONG[what]
    answer = await http.post("/embeddings", content=body if isinstance(body, bytes) else orjson.dumps(body))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert words in error["message"] and len(error["message"]) < 400
    assert "retry-after" not in answer.headers


async def test_a_text_of_exactly_as_many_tokens_as_the_model_reads(client, reference):
    text = "b" * 95
    assert len(reference.tokenizer(text).input_ids) == 96
    answer = await client.embeddings.create(model="tiny", input=text)
    assert np.abs(vectors(answer) - reference.encode([text])).max() < 1e-4
    with pytest.raises(openai.BadRequestError, match="maximum context length is 96") as refused:
        await client.embeddings.create(model="tiny", input=f"{text}b")
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("declared", [True, False])
async def test_ten_megabytes_are_refused(http, declared):
    body = orjson.dumps({**ASK, "input": "a" * 10_000_000})

    async def pieces():
        for first in range(0, len(body), 65_536):
            yield body[first : first + 65_536]

    answer = await http.post("/embeddings", content=body if declared else pieces())
    assert answer.status_code == 413 and "larger than 8388608 bytes" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/embeddings", 405), ("POST", "/chat", 404)])
async def test_another_path_or_method(http, method, path, status):
    answer = await http.request(method, path, json=ASK)
    assert answer.status_code == status and "/v1/embeddings" in answer.json()["error"]["message"]


async def test_a_probe_may_ask_for_the_head_alone_and_for_what_is_allowed(http):
    assert (await http.head("http://replica/health")).status_code == 200
    allowed = await http.options("/embeddings")
    assert (allowed.status_code, allowed.headers["allow"]) == (204, "POST, OPTIONS")
    assert (await http.head("/embeddings")).status_code == 405


async def test_fields_of_other_clients_are_taken(client, reference):
    others = {"input_type": "passage", "truncate": "NONE", "metadata": {"proxy": "its own"}}
    answer = await client.embeddings.create(model="tiny", input=TEXTS, extra_body=others)
    assert np.abs(vectors(answer) - reference.encode(TEXTS, prompt=PROMPTS["document"])).max() < 1e-4


async def test_health_and_the_list_of_models(http, client):
    assert (await http.get("http://replica/health")).json() == {"status": "ok"}
    assert [model.id async for model in client.models.list()] == ["tiny"]


@pytest.mark.parametrize("ending", ["nothing was answered", "text/plain 500", "text/plain 408"])
async def test_what_ray_serve_could_not_answer_may_be_asked_again(ending):
    async def app(scope, receive, send):
        if ending != "nothing was answered":
            kind, status = ending.split()
            headers = [(b"content-type", kind.encode())]
            await send({"type": "http.response.start", "status": int(status), "headers": headers})
            await send({"type": "http.response.body", "body": b"Internal Server Error"})

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(http_errors.JsonErrors(app)), base_url="http://lost"
    ) as http:
        answer = await http.post("/v1/embeddings", json=ASK)
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["type"] == "server_error"


def test_haproxy_answers_for_a_lost_replica_as_the_middleware_does():
    head, _, body = haproxy.error_page().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    expected = http_errors.APIError(503, haproxy.NO_REPLICA).response()
    assert status.split()[:2] == ["HTTP/1.1", "503"] and orjson.loads(body) == orjson.loads(expected.body)
    headers = dict(line.split(": ") for line in lines)
    assert headers.pop("content-length") == str(len(body))
    assert headers == {name: expected.headers[name] for name in ("retry-after", "content-type")}


def test_haproxy_opens_no_port_but_the_one_that_is_served():
    config = HAPROXY_CONFIG_TEMPLATE.replace("{{ config.metrics_port }}", "9101")
    config = config.replace("{{ config.stats_port }}", "8404").replace("{{ config.frontend_port }}", "8000")
    ports = re.compile(r"^\s*bind (?!unix@)(.*)$", re.MULTILINE)
    assert len(ports.findall(config)) == 4, "Ray's template has another port: look at what it is"
    served, grpc = ports.findall(haproxy.close_ports(config, Path("/tmp/folder")))
    assert served == "{{ config.frontend_host }}:8000" and grpc.startswith("{{ config.grpc_frontend_host }}")


def test_two_rays_on_one_machine_share_no_port():
    first = serve_env.ports()
    low, high, fallback = map(int, first.values())
    assert low < high < fallback
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", low))
        taken.listen()
        assert not set(serve_env.ports().values()) & set(first.values())


class Counted:
    """An encoder that keeps what it was given: one number a text, its length."""

    def __init__(self):
        self.forwards = []

    def encode(self, texts, input_type):
        self.forwards.append((input_type, texts))
        if "poison" in texts:
            raise RuntimeError("out of memory")
        return np.array([[len(text)] for text in texts], dtype=np.float32)

    def forward_of(self, text):
        return next(place for place, (_, texts) in enumerate(self.forwards) if text in texts)


async def test_a_small_request_does_not_wait_for_a_large_one():
    counted = Counted()
    batcher = DynamicBatcher(counted.encode, forward_tokens=20)
    large = asyncio.create_task(batcher.embed(["large"] * 2048, [2] * 2048, None))
    await asyncio.sleep(0)
    await batcher.embed(["s"], [2], None)
    assert counted.forward_of("s") <= 2 * FORWARDS_PER_BATCH and not large.done()
    assert (await large).tolist() == [[5.0]] * 2048


async def test_a_forward_has_texts_of_like_length_and_one_type_and_no_more_than_its_tokens():
    counted = Counted()
    batcher = DynamicBatcher(counted.encode, forward_tokens=20)
    rng = random.Random(0)

    async def ask(input_type):
        texts = ["x" * rng.randint(1, 30) for _ in range(9)]
        found = await batcher.embed(texts, [len(text) for text in texts], input_type)
        assert found[:, 0].tolist() == [len(text) for text in texts]
        return [(input_type, text) for text in texts]

    sent = await asyncio.gather(*(ask(kind) for kind in [None, "query", "document"] * 5))
    seen = [(kind, text) for kind, texts in counted.forwards for text in texts]
    assert sorted(map(str, seen)) == sorted(str(each) for texts in sent for each in texts)
    for _, texts in counted.forwards:
        assert len(texts) == 1 or len(texts) * max(map(len, texts)) <= 20


async def test_a_forward_that_fails_takes_only_its_own_requests_with_it():
    batcher = DynamicBatcher(Counted().encode, forward_tokens=20)
    lost, kept = await asyncio.gather(
        batcher.embed(["poison"], [20], None), batcher.embed(["fine"], [1], None), return_exceptions=True
    )
    assert isinstance(lost, RuntimeError) and kept.tolist() == [[4.0]]
    assert batcher.failure is None, "a model that answers again is well"


async def test_a_model_that_only_fails_is_reported_to_ray_serve(replica, http, monkeypatch):
    monkeypatch.setattr(replica._model._model, "forward", None)
    answer = await http.post("/embeddings", json=ASK)
    assert answer.status_code == 503 and answer.headers["retry-after"]
    with pytest.raises(TypeError):
        replica.check_health()
    monkeypatch.undo()
    assert (await http.post("/embeddings", json=ASK)).status_code == 200
    replica.check_health()


async def test_a_cancelled_request_is_not_embedded():
    counted = Counted()
    batcher = DynamicBatcher(counted.encode, forward_tokens=2)
    first = asyncio.create_task(batcher.embed(["first"] * 5, [2] * 5, None))
    gone = asyncio.create_task(batcher.embed(["gone"] * 100, [2] * 100, None))
    await asyncio.sleep(0)
    gone.cancel()
    await first
    await asyncio.gather(gone, return_exceptions=True)
    assert sum("gone" in texts for _, texts in counted.forwards) <= FORWARDS_PER_BATCH


@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        ("nosuch/model", (), "nosuch/model is no folder here"),
        ("EMPTY", (), "is neither a run (it has no recipe.yaml) nor a sentence-transformers model"),
        ("RUN", (), "models/embedder is not trained yet"),
        ("nosuch/model", ("--replicas", "4..2"), "--replicas 4..2: write a number, as 2, or a range, as 1..4."),
        ("nosuch/model", ("--replicas", "many"), "--replicas many"),
        ("nosuch/model", ("--cpus", "inf"), "--cpus inf: Input should be a finite number"),
        ("nosuch/model", ("--port", "TAKEN"), "Address already in use"),
    ],
)
def test_a_wrong_command_is_told_its_options_before_its_model(
    tmp_path, folder, capsys, monkeypatch, model, options, named
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("seed: 1")
    places = {"EMPTY": tmp_path / "empty", "RUN": tmp_path / "run", "MODEL": folder}
    endpoint = Endpoint(places.get(model, model), free_port())
    with listening() as taken, pytest.raises(SystemExit) as ended:
        main([*endpoint.arguments("serve"), *(str(taken) if each == "TAKEN" else each for each in options)])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and named in said and "Traceback" not in said


def test_the_embedder_of_a_run_is_served(tmp_path, folder, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("seed: 1")
    Model(Run(str(run)), EMBEDDER).publish(folder, {})
    monkeypatch.chdir(tmp_path)
    found = resolve_source("run")
    monkeypatch.chdir("/")  # a replica has a working directory of its own
    fetch = cloudpickle.loads(cloudpickle.dumps(found.fetch))
    assert resolve_source(str(run), "mine").name == "mine"
    assert found.name == "embedder" and (Path(fetch()) / "modules.json").is_file()


@contextlib.contextmanager
def listening():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.slow
def test_more_than_this_machine_has_is_refused(folder, drive):
    driver = drive(Endpoint(folder, free_port(), ("--gpus", "64")), "serve")
    assert driver.ended() == 2, driver.said()
    assert "--replicas asks for CPU 1, GPU 64 on one node" in driver.said() and "Traceback" not in driver.said()


@pytest.mark.slow
def test_a_served_model_under_64_clients(folder, reference, drive):
    endpoint = Endpoint(folder, free_port(), ("--replicas", "2", "--cpus", "0.5"))
    driver = drive(endpoint, "serve")
    driver.wait_until(lambda: "is served at" in driver.said())
    rng = random.Random(1)
    asked_for = [[" ".join(rng.choices(TEXTS[:4], k=2)) for _ in range(rng.randint(1, 8))] for _ in range(256)]
    expected = [reference.encode(texts) for texts in asked_for]

    async def ask() -> float:
        todo, worst = iter(range(256)), 0.0
        async with openai.AsyncOpenAI(base_url=f"{endpoint.url}/v1", api_key="none", timeout=120) as client:

            async def work():
                nonlocal worst
                for number in todo:
                    answer = await client.embeddings.create(model="embedder", input=asked_for[number])
                    worst = max(worst, float(np.abs(vectors(answer) - expected[number]).max()))

            await asyncio.gather(*(work() for _ in range(64)))
        return worst

    assert asyncio.run(ask()) < 1e-4
    large = httpx.post(f"{endpoint.url}/v1/embeddings", content=b"a" * (MAX_BODY_BYTES + 1), timeout=60)
    assert large.status_code == 413
    driver.process.send_signal(signal.SIGTERM)
    assert driver.ended() == 0, driver.said()
    assert "Traceback" not in driver.said(), driver.said()


def test_why_a_replica_failed_is_what_its_constructor_raised_last():
    traceback = "The deployment failed to start 3 times in a row.\nTraceback (most recent call last):\n  File x\n"
    cause = "safetensors_rust.SafetensorError: header too large\n\nDuring handling of the above exception:\n"
    raised = "speed_ray.errors.UserError: MODEL: it cannot be loaded: header too large\nName another model."
    said = "MODEL: it cannot be loaded: header too large\nName another model."
    assert last_error(traceback + cause + traceback + raised) == said
    assert last_error("It went\nquite wrong") == "quite wrong"
    assert last_error("") == ""
