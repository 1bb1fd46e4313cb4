"""An S3 server for the tests of stores."""

from collections.abc import Iterator

import pytest

from tests.helpers.s3_proxy import serve_s3


@pytest.fixture(scope="module")
def s3() -> Iterator[int]:
    """The port of an S3 server with a bucket named `bucket`."""
    server, port = serve_s3()
    yield port
    server.stop()
