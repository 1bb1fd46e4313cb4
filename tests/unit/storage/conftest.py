"""An S3 server, and a finished run, for the tests of storage."""

from collections.abc import Iterator

import pytest

from speed_ray.storage.run import Run
from tests.helpers.s3_proxy import serve_s3
from tests.helpers.small_worlds import SMALL, drive


@pytest.fixture(scope="module")
def s3() -> Iterator[int]:
    """The port of an S3 server with a bucket named `bucket`."""
    server, port = serve_s3()
    yield port
    server.stop()


@pytest.fixture
def finished(run) -> Run:
    """A run whose two artifacts are published."""
    drive(run, SMALL)
    return run
