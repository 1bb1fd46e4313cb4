"""Check that the doctor tells which models of the hub can be had, by a real local server in the hub's place."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from speed_ray.doctor import model_sizes
from speed_ray.doctor.hub_access import check_evaluation_data, check_hub
from speed_ray.doctor.model_sizes import NamedModel, size_of
from speed_ray.engines.weight_files import Size
from speed_ray.recipes import load_recipe

MODELS = {
    "org/open": (200, {"gated": False, "safetensors": {"parameters": {"BF16": 1000, "F32": 10}, "total": 1010}}, ""),
    "org/gated": (200, {"gated": "manual"}, ""),
    "org/missing": (404, {}, "RepoNotFound"),
}


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/api/models/").partition("/revision")[0]
            status, body, code = MODELS.get(name, (403, {}, "GatedRepo"))  # the last: whether access was granted
            if self.path.startswith("/api/datasets/mteb/"):
                name, (status, body, code) = "mteb/any", (200, {}, "")
            data = json.dumps({"id": name, **body}).encode()
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model_sizes.ask_hub.cache_clear()
    yield
    server.shutdown()
    server.server_close()
    model_sizes.ask_hub.cache_clear()


@pytest.mark.parametrize(
    ("name", "level", "said"),
    [
        ("org/open", "ok", "org/open can be fetched"),
        ("org/gated", "fail", "org/gated is gated, and this account has no access"),
        ("org/missing", "fail", "the hub has no org/missing"),
    ],
)
def test_what_the_hub_says(hub, name, level, said):
    [found] = check_hub([NamedModel("generator.model", name)])
    assert found.level == level and said in found.found and bool(found.advice) == (level == "fail")


def test_the_hub_tells_a_models_size(hub):
    assert size_of(NamedModel("generator.model", "org/open")) == Size(1010, 2040)


def test_a_hub_that_is_not_to_be_asked(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    [found] = check_hub([NamedModel("generator.model", "org/open")])
    assert found.level == "fail" and "HF_HUB_OFFLINE forbids" in found.found and "generator.model" in found.advice


def test_a_hub_out_of_reach(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    [found] = check_hub([NamedModel("embedder.model", "org/open")])
    assert found.level == "fail" and "the hub did not answer" in found.found


@pytest.fixture
def scored_on_sts12():
    return load_recipe("miniature", ["evaluate={mteb: [STS12]}"])


def test_evaluation_data_that_the_hub_has(hub, scored_on_sts12):
    [found] = check_evaluation_data(scored_on_sts12)
    assert (found.level, found.found) == ("ok", "evaluate.mteb: 1 data sets; 1 of them will be fetched from the hub")


def test_evaluation_data_that_is_here_is_not_asked_for(scored_on_sts12, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "datasets--mteb--sts12-sts" / "snapshots" / "1").mkdir(parents=True)
    [found] = check_evaluation_data(scored_on_sts12)
    assert found.level == "ok"


def test_evaluation_data_out_of_reach(hub, scored_on_sts12, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    [found] = check_evaluation_data(scored_on_sts12)
    assert found.level == "fail" and "the data of mteb/sts12-sts cannot be had" in found.found and found.advice


def test_folders_are_not_asked_for(tmp_path):
    assert not list(check_hub([NamedModel("generator.model", "package://smollm2")]))
