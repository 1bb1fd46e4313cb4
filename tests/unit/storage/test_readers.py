"""Examples are plain Parquet: every reader sees the same typed columns, also where no example has a negative."""

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speed_ray.records import EXAMPLE
from speed_ray.stages.synthesize import Synthesize
from speed_ray.storage.shards import RECORDS

COLUMNS = EXAMPLE.names


@pytest.fixture
def files(make_job):
    """The published shards. The mix spreads sts, which has no negatives, so the shards have one row each."""
    job = make_job(synthesize__examples=23, synthesize__shard_rows=1).begin().half_done(23)
    artifact = job.run.artifact("examples")
    artifact.publish(Synthesize(job.recipe).plan(job.run))
    paths = [job.examples / shard["files"][RECORDS]["path"] for shard in artifact.manifest()["shards"]]
    negatives = [pq.read_table(path)["negatives"].to_pylist()[0] for path in paths]
    assert [] in negatives and any(negatives), "the shards do not differ in what this test is about"
    return [str(path) for path in paths]


def test_pyarrow(files):
    for path in files:
        assert pq.read_schema(path).equals(EXAMPLE)
    assert len(pq.read_table(files)) == 23


def test_pandas(files):
    for path in files:
        frame = pandas.read_parquet(path, dtype_backend="pyarrow")
        assert list(frame.columns) == COLUMNS
        assert frame.dtypes["query"].pyarrow_dtype == pa.string()
        assert frame.dtypes["negatives"].pyarrow_dtype == EXAMPLE.field("negatives").type
    assert len(pandas.concat(map(pandas.read_parquet, files))) == 23


def test_datasets(files, tmp_path):
    datasets = pytest.importorskip("datasets")
    for only in ([path] for path in files):
        loaded = datasets.load_dataset("parquet", data_files=only, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.features["negatives"] == datasets.List(datasets.Value("string"))
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == COLUMNS
    assert loaded.features["query"] == datasets.Value("string")
    assert len(loaded) == 23


@pytest.mark.slow
def test_ray_data(files):
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        loaded = ray.data.read_parquet(files)
        types = dict(zip(loaded.schema().names, loaded.schema().types, strict=True))
        assert list(types) == COLUMNS
        assert types["query"] == pa.string()
        assert types["negatives"] == EXAMPLE.field("negatives").type
        assert sorted(map(len, (row["negatives"] for row in loaded.take_all())))[0] == 0
        assert loaded.count() == 23
    finally:
        ray.shutdown()
