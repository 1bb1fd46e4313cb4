"""Tables are read row by row, and what is wrong with one is named by file and line."""

from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speed_ray.errors import UserError
from speed_ray.text import tables


def parquet(rows: list[dict[str, object]]) -> bytes:
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=2)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        (".txt", "\ufeffa b\r\n\nc".encode(), [(1, ["a b\n"]), (2, ["\n"]), (3, ["c"])]),
        (".csv", '\ufeffa,"b\nc"\nd\n'.encode(), [(2, ["a", "b\nc"]), (3, ["d"])]),
        (".csv", b'a,"b ""c"""\n\n  \n,\n', [(1, ["a", 'b "c"']), (4, ["", ""])]),
        (".tsv", b"a,b\tc\n", [(1, ["a,b", "c"])]),
        (".tsv", b'"a\tb\nc"\td\n\n', [(1, ['"a', "b"]), (2, ['c"', "d"])]),
        (".jsonl", b'\xef\xbb\xbf{"a": 1}\n\n{"a": ["b"]}\n \n', [(1, {"a": 1}), (3, {"a": ["b"]})]),
        (".parquet", parquet([{"a": 1}, {"a": 2}, {"a": None}]), [(1, {"a": 1}), (2, {"a": 2}), (3, {"a": None})]),
    ],
)
def test_rows_come_with_the_number_of_their_line(suffix, content, expected):
    assert list(tables.READERS[suffix](BytesIO(content), "t")) == expected


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".txt", b"caf\xe9\n", r"^t, after line 0: this is not UTF-8 text .* Save it as UTF-8\.$"),
        (".csv", b"caf\xe9\n", "^t, after line 0: this is not UTF-8 text"),
        (".csv", b'a,"b\nc,d\n', "^t, line 2: this is not a CSV file: unexpected end of data"),
        (".csv", b'"a"b,c\n', "^t, line 1: this is not a CSV file: ',' expected after"),
        (".tsv", b'a\t"b ""c"" d"\n', "^t, line 1: .* is quoted, and a TSV has no quotes"),
        (".jsonl", b'{}\n{"a": \n', "^t, line 2: this is not JSON in UTF-8: Expecting value"),
        (".jsonl", b'{"a": "\xff"}\n', "^t, line 1: this is not JSON in UTF-8: 'utf-8' codec"),
        (".jsonl", b'{"a": ' + b"[" * 100_000, "^t, line 1: this is not JSON in UTF-8: maximum recursion depth"),
        (".jsonl", b'{}\n["a"]\n', "^t, line 2: this is not a JSON object"),
        (".parquet", b"PAR1", "^t is not a Parquet file"),
    ],
)
def test_a_fault_is_named_by_file_and_line(suffix, content, message):
    with pytest.raises(UserError, match=message):
        list(tables.READERS[suffix](BytesIO(content), "t"))


def test_a_line_that_no_table_has_is_named_and_one_of_a_document_is_read(monkeypatch):
    long = b"a,b\n" + b"a" * 200_000
    assert list(tables.read_csv(BytesIO(long), "t"))[1] == (2, ["a" * 200_000])
    monkeypatch.setattr(tables, "MAX_LINE", 100_000)
    with pytest.raises(UserError, match=r"^t, line .*: this is not a CSV file: a line is longer than"):
        list(tables.read_csv(BytesIO(long), "t"))


def test_half_of_a_character_in_json_lines_is_named_by_its_line():
    lines = b'{"a": "\\ud83d\\ude00"}\n{"a": ["\\uD83D"]}\n'
    with pytest.raises(UserError, match=r"^t, line 2: \\ud83d is half of a character"):
        list(tables.read_json_lines(BytesIO(lines), "t"))
