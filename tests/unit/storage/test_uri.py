"""A URI names one folder: what a store would read as another name is refused before anything is opened."""

import pytest

from speed_ray.errors import UserError
from speed_ray.storage.store import ObjectStore, open_store
from speed_ray.storage.uri import check_uri


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://bucket/run#1", "has '#' in it"),
        ("gs://bucket/run?v=2", r"has '\?' in it"),
        ("az://bucket/a%20b", "has '%' in it"),
        ("file:///x/a#b", "has '#' in it"),
        ("file:///x/a%20b", "has '%' in it"),
        ("s3://bucket/../x", r"has '\.\.' in it"),
        ("s3://bucket/a/./x", r"has '\.' in it"),
        ("s3://bucket/run ", "has a space at one end"),
        ("s3://bucket/a\nb", "has a line break"),
        ("s3://bucket:9000/run", "the bucket's name alone"),
        ("file://host/run", "names a machine, 'host'"),
    ],
)
def test_an_ambiguous_uri_is_refused_with_its_reason(uri, reason):
    with pytest.raises(UserError, match=reason):
        open_store(uri)


def test_a_key_in_a_uri_is_refused_and_not_shown():
    with pytest.raises(UserError, match="without a key") as caught:
        open_store("s3://user:secret@bucket/run")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://bucket/ä + ö/日本", "gs://bucket", "abfss://container@account.host/x"])
def test_other_uris_are_taken_as_they_are(uri):
    check_uri(uri)


def test_a_local_path_may_have_any_name(tmp_path):
    odd = tmp_path / "100% #1?" / ".." / "run"
    open_store(str(odd)).create("a", b"x")
    assert (tmp_path / "run" / "a").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["x" * 300, "~no-such-person/run", "a\0b"])
def test_a_path_that_no_folder_can_have_is_explained(name):
    with pytest.raises(UserError, match=r"cannot be opened|one that no folder can have"):
        open_store(name)


@pytest.mark.parametrize("endpoint", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
@pytest.mark.parametrize(("set_", "expected"), [(None, "true"), ("", "true"), ("true", None), ("false", None)])
def test_plain_http_is_allowed_for_an_endpoint_of_ones_own_unless_the_user_says(monkeypatch, endpoint, set_, expected):
    for name in ("AWS_ALLOW_HTTP", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(endpoint, "http://127.0.0.1:9")
    if set_ is not None:
        monkeypatch.setenv("AWS_ALLOW_HTTP", set_)
    store = open_store("s3://bucket/run")
    assert isinstance(store, ObjectStore)
    assert (store.backend.client_options or {}).get("allow_http") == expected
