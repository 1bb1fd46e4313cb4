"""A replica killed under load: no wrong answer, a lost request may be asked again, and the replica comes back."""

import asyncio
import contextlib
import random
import signal
from pathlib import Path

import numpy as np
import openai
import psutil
import pytest
from sentence_transformers import SentenceTransformer

from tests.helpers.tiny_serving import Endpoint, free_port, tiny_embedder

pytestmark = pytest.mark.slow

WORDS = ["lamp", "hums", "night", "nobody", "sleeps", "duck"]
REQUESTS = 1024


def replicas(driver) -> dict[int, psutil.Process]:
    named = {process.pid: process for process in driver.left()}
    return {pid: each for pid, each in named.items() if each.cmdline()[:1] == ["ray::ServeReplica:speed-ray:embed"]}


def haproxies(driver) -> list[psutil.Process]:
    return [each for each in driver.left() if Path(each.cmdline()[0]).name == "haproxy"]


def test_a_killed_command_leaves_no_haproxy(tmp_path, drive, nothing_left):
    endpoint = Endpoint(tiny_embedder(tmp_path), free_port())
    driver = drive(endpoint, "serve")
    driver.wait_until(lambda: "is served at" in driver.said())
    assert haproxies(driver), "no HAProxy is there that could be left"
    driver.kill()
    nothing_left(driver)
    assert not endpoint.healthy()


def listened(driver) -> set[int]:
    """The ports that a driver's processes listen on."""
    found = set()
    for process in driver.left():
        with contextlib.suppress(psutil.Error):  # it has just ended
            found |= {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    return found


def test_no_other_commands_model_can_answer_for_a_lost_replica(tmp_path, drive):
    folder = tiny_embedder(tmp_path)
    drivers = [drive(Endpoint(folder, free_port(), ("--cpus", "0.5")), "serve") for _ in range(2)]
    for driver in drivers:
        driver.wait_until(lambda driver=driver: "is served at" in driver.said())
    ours, others = map(listened, drivers)
    assert ours and others and not ours & others, "HAProxy knows its replicas by their ports"


def test_a_replica_killed_under_64_clients(tmp_path, drive, nothing_left):
    folder = tiny_embedder(tmp_path)
    endpoint = Endpoint(folder, free_port(), ("--replicas", "2", "--cpus", "0.5"))
    driver = drive(endpoint, "serve")
    reference = SentenceTransformer(str(folder), device="cpu")
    rng = random.Random(0)
    asked_for = [[" ".join(rng.choices(WORDS, k=9)) for _ in range(rng.randint(1, 8))] for _ in range(REQUESTS)]
    expected = [reference.encode(texts) for texts in asked_for]
    driver.wait_until(lambda: "is served at" in driver.said())
    before = replicas(driver)
    assert len(before) == 2

    lost: list[Exception] = []
    waiting: set[int] = set()
    answered = 0
    victim = next(iter(before.values()))

    async def ask(client: openai.AsyncOpenAI, number: int) -> float:
        nonlocal answered
        while True:
            waiting.add(number)
            try:
                answer = await client.embeddings.create(model="embedder", input=asked_for[number])
            except (openai.APIStatusError, openai.APIConnectionError) as error:
                lost.append(error)
                await asyncio.sleep(0.1)
                continue
            finally:
                waiting.discard(number)
            answered += 1
            assert [item.index for item in answer.data] == list(range(len(expected[number])))
            return float(np.abs(np.array([item.embedding for item in answer.data]) - expected[number]).max())

    async def kill_with_requests_at_it() -> None:
        while answered < REQUESTS // 4:
            await asyncio.sleep(0.01)
        victim.suspend()  # what it is sent from here on waits for it, while the other replica answers
        await asyncio.sleep(1)
        sent = set(waiting)
        await asyncio.sleep(1)
        victim.kill()
        assert sent & waiting, "no request was at the replica when it was killed: the test proves nothing"

    async def ask_all() -> list[float]:
        todo = iter(range(REQUESTS))
        async with openai.AsyncOpenAI(
            base_url=f"{endpoint.url}/v1", api_key="none", timeout=120, max_retries=0
        ) as client:

            async def work() -> list[float]:
                return [await ask(client, number) for number in todo]

            killing = asyncio.create_task(kill_with_requests_at_it())
            differences = [worst for each in await asyncio.gather(*(work() for _ in range(64))) for worst in each]
            await killing
            return differences

    differences = asyncio.run(ask_all())
    assert len(differences) == REQUESTS and max(differences) < 1e-4
    for error in lost:
        if isinstance(error, openai.APIStatusError):
            assert error.status_code == 503 and error.response.headers["retry-after"], error
            assert error.body and error.body["type"] == "server_error"
    driver.wait_until(lambda: len(replicas(driver)) == 2 and set(replicas(driver)) != set(before))
    assert endpoint.healthy()

    driver.process.send_signal(signal.SIGINT)
    assert driver.ended() == 0, driver.said()
    assert "Traceback" not in driver.said(), driver.said()
    nothing_left(driver)
