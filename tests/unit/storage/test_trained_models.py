"""A trained model: planned once, published once and whole, fetched only whole."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from speed_ray.errors import Interrupted, UserError
from speed_ray.storage import trained_models
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import Model


def trained(folder: Path, weights: bytes = b"weights") -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def model(tmp_path):
    return Model(Run(str(tmp_path / "run")), "junior")


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A run on S3, and a cache of its own for what is fetched from there."""
    server = ThreadedMotoServer(port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "SPEED_RAY_CACHE": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket/run"
    server.stop()


def test_another_plan_is_refused_with_the_difference(model):
    digest = model.ensure_plan({"seed": 0, "base": {"name": "a"}})
    assert model.ensure_plan({"base": {"name": "a"}, "seed": 0}) == digest
    with pytest.raises(UserError, match=r"base\.name: was 'a', now 'b'"):
        model.ensure_plan({"seed": 0, "base": {"name": "b"}})


def test_settings_may_change_until_a_model_is_trained(model, tmp_path):
    model.ensure_plan({"seed": 0, "settings": {"learning_rate": 1e-3}})
    model.ensure_plan({"seed": 0, "settings": {"learning_rate": 1e-4}})
    assert model.plan() == {"seed": 0, "settings": {"learning_rate": 1e-4}}
    model.publish(trained(tmp_path / "a"), {"seed": 0, "settings": {"learning_rate": 1e-4}})
    with pytest.raises(UserError, match=r"settings\.learning_rate: was 0\.0001, now 0\.1"):
        model.ensure_plan({"seed": 0, "settings": {"learning_rate": 0.1}})


def test_a_damaged_plan_is_named_with_the_way_on(model):
    model.ensure_plan({"seed": 0})
    model.store.put("models/junior/plan.json", b"{")
    with pytest.raises(Interrupted, match=r"models/junior/plan\.json is damaged (.|\n)*Delete that one file"):
        model.ensure_plan({"seed": 0})


def test_weights_of_another_plan_are_no_result_of_this_one(model, tmp_path):
    model.ensure_plan({"seed": 0})
    model.publish(trained(tmp_path / "a"), {"seed": 0, "loss": 1.5})
    model.store.delete("models/junior/plan.json")
    with pytest.raises(UserError, match=r"begun differently(.|\n)*seed: was 0, now 1"):
        model.ensure_plan({"seed": 1})
    model.store.delete("models/junior/plan.json")
    model.ensure_plan({"seed": 0})


def test_nothing_is_fetched_before_publication(model):
    assert model.manifest() is None
    with pytest.raises(UserError, match="run `speed-ray align-junior` first"):
        model.fetch()


def test_the_first_publication_counts(model, tmp_path):
    assert model.publish(trained(tmp_path / "a"), {"loss": 1.5})
    assert not model.publish(trained(tmp_path / "b", b"others"), {})
    assert (model.fetch() / "deep" / "model.safetensors").read_bytes() == b"weights"
    assert model.published()["facts"] == {"loss": 1.5}


def test_a_local_model_is_its_own_folder(model, tmp_path):
    model.publish(trained(tmp_path / "a"), {})
    assert trained_models.fetch_model(f"{tmp_path}/run/models/junior").is_relative_to(
        tmp_path / "run" / "models" / "junior"
    )


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"weighty"), Path.unlink])
def test_a_damaged_model_is_not_served(model, tmp_path, damage):
    model.publish(trained(tmp_path / "a"), {})
    damage(model.fetch() / "deep" / "model.safetensors")
    with pytest.raises(Interrupted, match=r"deep/model\.safetensors is missing or damaged"):
        model.fetch()


def test_a_manifest_that_is_no_json(model, tmp_path):
    model.publish(trained(tmp_path / "a"), {})
    model.store.put("models/junior/_MANIFEST.json", b"{")
    with pytest.raises(Interrupted, match=r"_MANIFEST\.json is damaged"):
        model.fetch()


def test_a_remote_model_is_copied_once_for_all_who_want_it(bucket, tmp_path):
    model = Model(Run(bucket), "junior")
    model.publish(trained(tmp_path / "a", b"w" * 20_000_000), {})
    with ThreadPoolExecutor(4) as processes:
        folders = set(processes.map(lambda _: Model(Run(bucket), "junior").fetch(), range(8)))
    (folder,) = folders
    assert (folder / "deep" / "model.safetensors").stat().st_size == 20_000_000
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_a_damaged_remote_model_is_not_cached(bucket, tmp_path):
    model = Model(Run(bucket), "junior")
    model.publish(trained(tmp_path / "a"), {})
    model.store.put(f"models/junior/{model.published()['weights']}/config.json", b"[]")
    with pytest.raises(Interrupted, match=r"config\.json is missing or damaged"):
        model.fetch()
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


@pytest.mark.parametrize("uri", ["junior", "run/junior", "/models/junior", "run/models/junior/deep"])
def test_an_address_that_names_no_model(uri):
    with pytest.raises(UserError, match="does not name a trained model"):
        trained_models.fetch_model(uri)


def test_the_digest_is_of_the_weights_not_of_the_facts(tmp_path):
    digests = set()
    for name in ("a", "b"):
        model = Model(Run(str(tmp_path / f"run-{name}")), "junior")
        model.publish(trained(tmp_path / name), {"name": name})
        digests.add(json.dumps(model.published()["digest"]))
    assert len(digests) == 1
