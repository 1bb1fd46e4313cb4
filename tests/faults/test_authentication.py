"""The job API of a cluster that `speed-ray head` began: it runs code for who brings the token, and for nobody else.

`ray job submit` is the client of every user; the status codes are those of the API itself.
"""

import stat
import urllib.error
import urllib.request

import pytest

from tests.helpers.tiny_cluster import SUBMIT, Head, Submitted

pytestmark = pytest.mark.slow
WORDS = ("echo", "the job has run")


def status(head: Head, token: str | None) -> int:
    """What the API answers to a question for its jobs."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{head.jobs}/api/jobs/", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_a_cluster_of_ours_asks_for_its_token(ray_folder, drive, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # as a user's shell; an earlier test's Ray may have set it
    head = Head(ray_folder, cpus=1)
    cluster = drive(head, "head", RAY_AUTH_TOKEN_PATH=str(head.token))
    cluster.wait_until(lambda: "This is the head" in cluster.said())
    assert stat.S_IMODE(head.token.stat().st_mode) == 0o600

    assert status(head, None) == 401
    assert status(head, "0" * 64) == 403
    assert status(head, head.token.read_text()) == 200

    for token in (None, "0" * 64):
        refused = submit(drive, head, token)
        assert refused.ended() != 0, refused.said()
        assert WORDS[1] not in refused.said(), "it ran for somebody without the token"
    accepted = submit(drive, head, head.token.read_text())
    assert accepted.ended() == 0, accepted.said()
    assert f"{WORDS[1]}\n" in accepted.said()


def submit(drive, head, token):
    bring = {"RAY_AUTH_MODE": "disabled"} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return drive(Submitted(head, WORDS), "job", program=SUBMIT, **bring)
