"""A user's own examples are read from any table, or refused with the line."""

import json
from pathlib import Path

import pytest

from speed_ray.errors import UserError
from speed_ray.kinds.kind import Shot
from speed_ray.prompts.own_examples import read_own_examples

WANTED = (Shot("A saw cuts.", {"query": "what cuts"}), Shot("Clamp holds.", {"query": "what holds"}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "pairs.jsonl",
            '{"query": "what cuts", "passage": "A saw cuts."}\n{"query": "what holds", "positive": "Clamp\\nholds."}',
        ),
        ("pairs.csv", "query,passage\nwhat cuts,A saw cuts.\nwhat holds,Clamp holds.\n"),
        ("pairs.tsv", "id\tQuery\tPassage\n1\twhat cuts\tA saw cuts.\n2\twhat holds\tClamp holds.\n"),
    ],
)
def test_a_table_is_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_own_examples(str(tmp_path / name)).shots == WANTED


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("pairs.jsonl", '{"query": "a", "passage": "b"}\n{"query": "a"}\n', "line 2: there is no passage"),
        ("pairs.jsonl", '{"query": ["a"], "passage": "b"}\n', "line 1: there is no query, or it is no text"),
        ("pairs.jsonl", "no json\n", "line 1: this is not JSON"),
        ("pairs.jsonl", "", "holds no example"),
        ("pairs.csv", "a,b\nc,d\n", "line 2: there is no query"),
        ("pairs.txt", "a\n", "is no table"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_line(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said) as refused:
        read_own_examples(str(tmp_path / name))
    assert str(refused.value).startswith(f"corpus.examples: {tmp_path / name}")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_own_examples(str(tmp_path / "pairs.jsonl"))


def test_the_digest_is_of_what_they_say(tmp_path: Path) -> None:
    pairs = [{"query": "what cuts", "passage": "A saw cuts."}]
    digests = []
    for name, row in (("a", pairs[0]), ("b", pairs[0] | {"note": 1}), ("c", pairs[0] | {"query": "cuts what"})):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
        digests.append(read_own_examples(str(tmp_path / f"{name}.jsonl")).digest)
    assert digests[0] == digests[1] != digests[2]
