"""Topics come from whatever file a user has: a line is a topic or a reject, a useless file an error that helps."""

import gzip
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speed_ray.errors import UserError
from speed_ray.records import Row
from speed_ray.stages.topics import collect_topics, read_topics, truncate
from speed_ray.storage.run import TOPICS, Run
from speed_ray.storage.shards import RECORDS, REJECTS
from speed_ray.storage.verify import verify
from tests.helpers.paths import SHARED

TOPICS_FILE = SHARED / "data" / "topics.txt"


def parquet(column: pa.Array, name: str = "topic") -> bytes:
    sink = BytesIO()
    pq.write_table(pa.table({name: column}), sink)
    return sink.getvalue()


@pytest.fixture
def source(tmp_path):
    """Write a file. Returns its path."""

    def write(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


def collected(run: Run, path: str, limit: int | None = None) -> tuple[list[Row], list[Row]]:
    """Collect topics. Returns records and rejects."""
    artifact = collect_topics(run, read_topics(path, limit))
    files = [commit.files for commit in artifact.commits()]
    return tuple([r for f in files if role in f for r in artifact.read(f[role].path).to_pylist()]
                 for role in (RECORDS, REJECTS))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("plain.txt", b"Arts/Music\nScience", ["Arts/Music", "Science"]),
        ("crlf.txt", b"a\r\n\r\n  b \r\n", ["a", "b"]),
        ("comments.txt", b"# a list\na\n  # of two\n\n\t\nb # not this\n", ["a", "b # not this"]),
        ("bom.txt", "﻿é/日本\nß".encode(), ["é/日本", "ß"]),
        ("t.csv", b'x,topic\n1,Arts/Music\n2,"a, b"\n3,\n4\n', ["Arts/Music", "a, b"]),
        ("BOM.CSV", "﻿topic\r\nÄrzte\r\n".encode(), ["Ärzte"]),
        ("t.parquet", parquet(pa.array(["a", None, " b ", ""])), ["a", "b"]),
        ("nan.parquet", parquet(pa.array([float("nan"), None])), []),
        ("t.csv", b"topic\n#MeToo\n#Hashtags/Trends\n", ["#MeToo", "#Hashtags/Trends"]),
        ("t.tsv", b"topic\tcount\nArts/Music\t12\n#MeToo\t1\n", ["Arts/Music", "#MeToo"]),
        ("t.jsonl", b'{"topic": "Arts/Music"}\n{"topic": null}\n{"topic": "B"}\n', ["Arts/Music", "B"]),
        ("T.JSON", b'[\n "Arts/Music",\n "Home"\n]\n', ["Arts/Music", "Home"]),
        ("t.json", b'[{"topic": "Arts/Music", "n": 1}]', ["Arts/Music"]),
        ("t.txt.gz", gzip.compress(b"a\n#b\n", mtime=0), ["a"]),
        ("t.csv.GZ", gzip.compress(b"topic\na\n", mtime=0), ["a"]),
        ("t.list", b"C#\nc++/[templates]\n", ["C#", "c++/[templates]"]),
        ("t.csv", b"id, topic ,\n1,Arts/Music,\n2,B,,\n", ["Arts/Music", "B"]),
        ("t.txt", b"# topics:\n1. FC Union\nPunk\n", ["1. FC Union", "Punk"]),
    ],
)
def test_what_is_a_topic_in_a_file(source, name, content, expected):
    path = source(name, content)
    if expected:
        assert read_topics(path) == expected
    else:
        with pytest.raises(UserError, match="holds no topic"):
            read_topics(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.txt", b"", "holds no topic"),
        ("blank.txt", b"\n \n# only this\n", "holds no topic"),
        ("latin.txt", "Café".encode("latin-1"), "is not UTF-8 text"),
        ("utf16.txt", "a/b".encode("utf-16"), "is not UTF-8 text"),
        ("utf16le.txt", "a/b".encode("utf-16-le"), "is not UTF-8 text"),
        ("latin.csv", "topic\nCafé".encode("latin-1"), "is not UTF-8 text"),
        ("archive.txt", b"\x1f\x8b\x08\x00\xff", "is not UTF-8 text"),
        ("other.csv", b"Topic,x\na,b\n", r"has no column `topic` \(it has: Topic, x\)"),
        ("twice.csv", b"topic,topic\na,b\n", "has two columns `topic`"),
        ("empty.csv", b"", r"has no column `topic` \(it has: none\)"),
        ("field.csv", b"topic\n" + b"a" * 200_000, "each of its 1 lines is longer than 300 characters"),
        ("fake.parquet", b"hello", "is not a Parquet file"),
        ("torn.parquet", parquet(pa.array(["a"])).replace(b"PAR1\x15", b"PAR1\xff"), "is not a Parquet"),
        ("t.tsv", b"Arts/Music\t12\n", r"has no column `topic` \(it has: Arts/Music, 12\)"),
        ("t.jsonl", b'{"name": "a"}\n', r"has no column `topic` \(it has: name\)"),
        ("t.jsonl", b'"Arts/Music"\n', "line 1: this is not a JSON object"),
        (
            "t.jsonl",
            b'{"topic": ["a"]}\n',
            r"row 1: a topic is text, .*, and this is a list \(\['a'\]",
        ),
        ("t.json", b'{"topics": ["a"]}', "is no JSON list"),
        ("t.json", b"[1]", "row 1: a topic is text.*this is a int"),
        ("t.json", b"[", "is not JSON in UTF-8"),
        ("t.txt", b'{"topic": "Arts/Music"}\n', "line 1: .* is no path.\n.*jsonl"),
        ("t.txt", b"# list\n[\n", "line 2: '\\[' is no path"),
        ("t.txt", b"topic\tcount\nArts/Music\t12\n", "line 1: .* is no path"),
        ("t.txt", b"\ntopic,count\nArts/Music,12\n", "line 2: 'topic,count' is no path"),
        ("t.txt", b"Topics:\nArts/Music\n", "line 1: 'Topics:' is no path"),
        ("t.txt", b"- Arts\n- Home\n", "line 1: '- Arts' is no path"),
        ("t.txt", b"1. Arts\n2. Home\n", "line 1: '1. Arts' is no path"),
        ("t.txt", b'"Arts",\n"Home"\n', "line 1: .* is no path"),
        ("t.txt", b"...\n\x1b[31mArts\n", "has no letter, or holds a control character"),
        (
            "t.csv",
            b"topic\nArts, Crafts\n",
            "line 2: 2 cells, and the heading has 1. Quote a topic that holds a comma",
        ),
        ("t.tsv", b"n\ttopic\n1\tArts\tx\n", "line 2: 3 cells, and the heading has 2"),
        ("t.jsonl", b'{"topic": "A"}\n{"Topic": "B"}\n', r"row 2 has no `topic` \(it has: Topic\)"),
        ("t.json", b'[{"topic": "A"}, {"x": 1}]', r"row 2 has no `topic` \(it has: x\)"),
        ("t.json", b'{"topic": "A"}\n{"topic": "B"}\n', "is not JSON .* Name a file with one object a line .jsonl"),
        ("t.csv.zst", b"\x28\xb5\x2f\xfd", "a .zst file is not read"),
        ("t", b"<html><li>Arts</li></html>", "line 1: .* is no path"),
        ("t.md", b"- Arts/Music\n", "a .md file is not read.\n.*one category path a line"),
        ("t.yaml", b"topics:\n- Arts\n", "a .yaml file is not read"),
        ("t.txt.gz", b"Arts/Music", "is not a gzip file"),
        ("torn.csv.gz", gzip.compress(b"topic\na\n", mtime=0)[:-5], "is not a gzip file, or is damaged"),
        ("lists.parquet", parquet(pa.array([["a"], ["b"]])), "row 1: a topic is text.*this is a list"),
        ("floats.parquet", parquet(pa.array([float("nan"), 1.5])), r"row 2: a topic is text.*this is a float \(1.5\)"),
        ("other.parquet", parquet(pa.array(["a"]), "name"), r"has no column `topic` \(it has: name\)"),
    ],
)
def test_a_file_without_topics_is_explained(source, name, content, expected):
    path = source(name, content)
    with pytest.raises(UserError, match=expected) as caught:
        read_topics(path)
    assert path in str(caught.value)


def test_a_missing_file_and_a_folder_are_explained(tmp_path):
    for scheme in ("", "file://"):
        with pytest.raises(UserError, match=f"topics.source: there is no file '{scheme}{tmp_path}/no.txt'"):
            read_topics(f"{scheme}{tmp_path}/no.txt")
        with pytest.raises(UserError, match=f"topics.source: cannot read '{scheme}{tmp_path}': Is a directory"):
            read_topics(f"{scheme}{tmp_path}")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("s3://", "names no file"),
        ("s3://bucket", "names no file"),
        ("s3://bucket/", "names no file"),
        ("s3:///topics.txt", "names no file"),
        ("gs://bucket/folder/", "names no file"),
        ("miniature://topic", "names no file"),
        ("s3://bucket/topics.txt?versionId=2", "has '\\?' in it"),
        ("s3://bucket/topics.txt\n", "has a space at one end"),
        ("file://topics.txt", "names a machine, 'topics.txt'"),
        ("https://host/topics.txt", "storage scheme 'https' is not known"),
        (" topics.txt", "there is no file ' topics.txt'"),
        ("", "cannot read ''"),
        ("~nobody-of-this-name/topics.txt", "there is no file '~nobody"),
        ("a\0b", "cannot read 'a.x00b'"),
        ("\ud800", "cannot read"),
    ],
)
def test_a_source_that_names_no_file_is_explained_before_a_store_is_asked(source, said):
    with pytest.raises(UserError, match=f"topics.source: .*{said}"):
        read_topics(source)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Arts/Movies/Titles/3/36_Hours_-_1964/Cast_and_Crew", "Arts/Movies/36_Hours_-_1964/Cast_and_Crew"),
        ("a/b/c/d", "a/b/c/d"),
        ("a/b/c/d/e", "a/b/d/e"),
        ("/a // b/", "a/b"),
        ("a", "a"),
        (" / ", ""),
    ],
)
def test_truncation_keeps_the_first_two_and_the_last_two_parts(path, expected):
    assert truncate(path) == expected


def test_every_line_ends_as_a_topic_or_as_a_reject_with_a_reason(run, source):
    lines = ["Arts/Music", "x" * 10_000, "arts / MUSIC", "a/b/1/c/d", "///", "a/b/2/c/d", "Straße", "STRASSE", "日本"]
    records, rejects = collected(run, source("t.txt", "\n".join(lines).encode()))
    assert [row["topic"] for row in records] == ["Arts/Music", "a/b/c/d", "Straße", "日本"]
    assert [row["source"] for row in records] == ["Arts/Music", "a/b/1/c/d", "Straße", "日本"]
    reasons = ["too_long", "duplicate", "no_words", "duplicate", "duplicate"]
    assert [row["reason"] for row in rejects] == reasons
    assert rejects[0]["text"] == "x" * 1000 and rejects[0]["detail"] == "10000 characters"
    counts = run.artifact(TOPICS).manifest()["counts"]
    assert (counts["accepted"], counts["rejected"]) == (4, 5)
    assert counts["reasons"] == {"too_long": 1, "duplicate": 3, "no_words": 1}
    (verdict,) = verify(run)
    assert verdict.holds and verdict.planned == len(lines)


def test_a_topic_of_several_lines_is_one_line_and_control_characters_are_rejected(run, source):
    records, rejects = collected(run, source("t.csv", b'topic\n"Arts\n and  crafts/Clay"\nA\x07B\n...\n'))
    assert [row["topic"] for row in records] == ["Arts and crafts/Clay"]
    assert [(row["reason"], row["detail"]) for row in rejects] == [
        ("control_character", "U+0007"),
        ("no_words", "neither a letter nor a digit"),
    ]


def test_a_topic_in_another_form_of_unicode_is_the_same(run, source):
    records, rejects = collected(run, source("t.txt", "Café\nCafe\u0301\nＣａｆé\n".encode()))
    assert [row["topic"] for row in records] == ["Café"] and [row["reason"] for row in rejects] == ["duplicate"] * 2


def test_a_limit_takes_the_first_lines_and_is_part_of_the_plan(run, source):
    path = source("t.txt", b"a\nb\nc\n")
    records, _ = collected(run, path, limit=2)
    assert [row["topic"] for row in records] == ["a", "b"]
    collect_topics(run, read_topics(path, limit=2))
    with pytest.raises(UserError, match="rows: was 2, now 3"):
        collect_topics(run, read_topics(path))


@pytest.mark.skipif(not TOPICS_FILE.exists(), reason="the list of real topics is not beside this checkout")
def test_real_topics_add_up(run):
    lines = [line for line in TOPICS_FILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    records, rejects = collected(run, str(TOPICS_FILE))
    assert len(records) + len(rejects) == len(lines)
    assert len(records) > 0.9 * len(lines)
    assert len({row["topic"].casefold() for row in records}) == len(records)
    assert all(row["topic"].count("/") < 4 for row in records)
    assert verify(run)[0].holds


def test_half_of_a_character_in_a_json_list_is_refused(source):
    with pytest.raises(UserError, match=r"holds \\udc00, half of a character"):
        read_topics(source("t.json", b'["Arts/\\udc00"]'))
