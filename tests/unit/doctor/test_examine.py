"""`speed-ray doctor`: every line has a level, one failure makes the exit code 1, and nothing stops the rest."""

import json

import pytest

from speed_ray.console.examination import show_examination
from speed_ray.doctor.finding import Finding


def test_a_machine_alone(said):
    code, words = said("doctor")
    assert code == 0 and "ok   python: Python 3.11" in words and " 0 fail" in words


def test_a_recipe_and_a_store_as_json(said, make_job):
    job = make_job()
    code, words = said(*job.arguments("doctor"), "--json")
    found = json.loads(words)
    names = {each["name"] for each in found["checks"]}
    assert code == 0 and {"recipe", "topics", "store", "disk", "cluster", "packages"} <= names
    assert found["fail"] == 0 and found["ok"] + found["warn"] == len(found["checks"])
    assert not (job.run.store.root).exists()


def test_what_is_wrong_is_told_all_at_once(said, make_job, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    teacher = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "NO_SUCH_KEY"}
    job = make_job(topics__source="/no/such/topics", teacher=teacher, generator={"engine": "vllm", "model": "x/y"})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, words = said(*job.arguments("doctor"))
    assert code == 1
    for fault in (
        "nobody answers at 127.0.0.1:9 (RAY_ADDRESS)",
        "NO_SUCH_KEY, which is not set",
        "there is no file '/no/such/topics'",
        "x/y is not in this machine's cache",
    ):
        assert fault in words


def test_an_unknown_recipe_is_a_users_error(said):
    code, words = said("doctor", "--recipe", "documets")
    assert code == 2 and "did you mean 'documents'?" in words


def test_a_strangers_words_cannot_drive_the_terminal(capsys):
    from rich.console import Console

    hostile = Finding("teacher", "fail", "\x1b[2J[red]it said", "\u202eadvice")
    assert not show_examination([hostile], Console(), False)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\u202e" not in shown and "[red]it said" in shown


@pytest.mark.parametrize(("level", "passes"), [("ok", True), ("warn", True), ("fail", False)])
def test_only_a_failure_fails(level, passes, capsys):
    from rich.console import Console

    assert show_examination([Finding("a", level, "b")], Console(), True) is passes
    assert json.loads(capsys.readouterr().out)[level] == 1
