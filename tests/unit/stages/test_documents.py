"""Every file and line of a corpus is a document or a reject with its reason; a useless corpus is refused."""

import gzip
import json
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speed_ray.errors import UserError
from speed_ray.recipes.schema import Recipe
from speed_ray.stages.documents import Prepared, prepare_documents, publish_documents
from speed_ray.storage.run import DOCUMENTS, Run
from speed_ray.storage.shards import RECORDS, REJECTS
from speed_ray.storage.verify import verify

SENTENCES = (
    "The library lends books to readers of every age.",
    "A bicycle needs oil on its chain in the winter months.",
    "Bread dough rises faster in a warm kitchen.",
    "Volcanoes form where plates of the crust meet.",
    "An orchestra tunes its instruments to the oboe.",
)


def recipe_of(source: Path | str, language: str = "English", **corpus: Any) -> Recipe:
    tree = {"corpus": {"source": str(source), **corpus}, "generator": {"engine": "simulated"}}
    return Recipe.model_validate({**tree, "languages": {language: 1}})


def collect(run: Run, recipe: Recipe) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Publish the documents. Returns records and rejects."""
    with prepare_documents(run, recipe) as prepared:
        publish_documents(run, prepared)
    artifact = run.artifact(DOCUMENTS)
    files = [commit.files for commit in artifact.commits()]
    return tuple([r for f in files if role in f for r in artifact.read(f[role].path).to_pylist()]
                 for role in (RECORDS, REJECTS))  # fmt: skip


def json_lines(*rows: Any) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def row(name: str, sentence: int, **more: str) -> dict[str, str]:
    return {"_id": name, "text": SENTENCES[sentence], **more}


def parquet(**columns: list[Any]) -> bytes:
    sink = BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    """Write files by their names. Returns their folder."""

    def write(**files: bytes) -> Path:
        for name, content in files.items():
            path = tmp_path / "in" / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "in"

    return write


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"))


def test_a_beir_folder_is_its_corpus_alone(folder: Any, run: Run) -> None:
    source = folder(
        corpus_jsonl=json_lines(row("7", 0, title="Lending")), queries_jsonl=b'{"_id": "q", "text": "What?"}\n'
    )
    [document], rejects = collect(run, recipe_of(source))
    assert (document["document_id"], document["title"], document["text"]) == ("7", "Lending", SENTENCES[0])
    assert document["source"] == "corpus.jsonl, line 1"
    assert rejects == []
    assert all(verdict.holds for verdict in verify(run))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c_jsonl", json_lines(row("a", 0), row("b", 1))),
        ("c_ndjson_gz", gzip.compress(json_lines(row("a", 0), row("b", 1)))),
        ("c_csv", f'id,text\na,"{SENTENCES[0]}"\nb,"{SENTENCES[1]}"\n'.encode()),
        ("c_tsv", f"_id\ttext\na\t{SENTENCES[0]}\nb\t{SENTENCES[1]}\n".encode()),
        ("c_parquet", parquet(_id=["a", "b"], text=list(SENTENCES[:2]))),
    ],
)
def test_a_table_is_read_by_its_columns(folder: Any, run: Run, name: str, content: bytes) -> None:
    source = folder(**{name: content}) / name.replace("_", ".")
    records, _ = collect(run, recipe_of(source))
    assert [(each["document_id"], each["text"]) for each in records] == [("a", SENTENCES[0]), ("b", SENTENCES[1])]


def test_columns_may_have_other_names(folder: Any, run: Run) -> None:
    source = folder(c_csv=f"key,body\nx,{SENTENCES[0]}\n".encode())
    [document], _ = collect(run, recipe_of(source, columns={"id": "key", "text": "body"}))
    assert (document["document_id"], document["text"]) == ("x", SENTENCES[0])


def test_files_of_texts_have_their_path_for_an_id(folder: Any, run: Run) -> None:
    source = folder(
        a__one_md=f"# Lending\n\n{SENTENCES[0]}\r\n".encode(),
        two_txt=SENTENCES[1].encode(),
        three_html=f"<title>Bread</title><nav>menu</nav><p>{SENTENCES[2]}".encode(),
        notes_docx=b"PK",
    )
    records, [other] = collect(run, recipe_of(source))
    assert {each["document_id"]: (each["title"], each["text"]) for each in records} == {
        "a/one.md": ("Lending", f"# Lending\n\n{SENTENCES[0]}"),
        "two.txt": ("", SENTENCES[1]),
        "three.html": ("Bread", SENTENCES[2]),
    }
    assert (other["reason"], other["detail"][:43]) == ("other_format", "notes.docx: its name ends in .docx; read ar")


def test_a_pattern_names_files_at_any_depth(folder: Any, run: Run) -> None:
    source = folder(a__b__one_md=SENTENCES[0].encode(), two_md=SENTENCES[1].encode(), c_txt=SENTENCES[2].encode())
    records, _ = collect(run, recipe_of(f"{source}/**/*.md"))
    assert [each["document_id"] for each in records] == ["a/b/one.md", "two.md"]


def test_each_fault_is_a_reject_and_ends_nothing(folder: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("faults", "table_rows", "text_files"):
        monkeypatch.setattr(f"speed_ray.documents.{module}.MAX_BYTES", 1_000)
    source = folder(
        c_jsonl=json_lines(
            row("a", 0), b"{no json}\n", b'{"text": "caf\xe9"}\n', b'{"text": "\\ud83d"}\n', b'{"x": 1}\n', b"[1]\n",
            b'{"text": "' + b"x" * 2_000 + b'"}\n', {"_id": "n", "text": "--"}, {"text": ["a"]}, row("b", 1),
        ),
        latin_txt="Caf\xe9 ouvert".encode("latin-1"),
        big_md=b"word " * 300,
        picture_txt=b"\x89PNG\0\0",
        wide_txt="Hello".encode("utf-16"),
    )  # fmt: skip
    records, rejects = collect(run, recipe_of(source, max_unreadable=1))
    assert [each["document_id"] for each in records] == ["a", "b"]
    reasons = "not_json not_utf8 not_utf8 no_text not_json too_large no_text no_text"  # of the lines
    assert sorted(each["reason"] for each in rejects) == sorted(
        f"{reasons} not_utf8 too_large binary not_utf8".split()
    )
    details = [each["detail"] for each in rejects]
    assert {detail.split(": ")[0].split(",")[0] for detail in details} == {path.name for path in source.iterdir()}
    assert any("latin.txt: invalid continuation" in detail and "iconv" in detail for detail in details)
    assert all(verdict.holds for verdict in verify(run))


def test_each_repetition_is_a_reject_that_names_the_first(folder: Any, run: Run) -> None:
    shouted, longer = SENTENCES[0].upper(), " ".join(SENTENCES)
    source = folder(
        c_jsonl=json_lines(
            row("a", 0), {"_id": "b", "text": shouted}, row("a", 1), {"_id": "c", "text": longer},
            {"_id": "d", "text": f"{longer} Yes."},
        )
    )  # fmt: skip
    records, rejects = collect(run, recipe_of(source))
    assert [each["document_id"] for each in records] == ["a", "c"]
    assert [(each["reason"], each["detail"]) for each in rejects] == [
        ("duplicate", "c.jsonl, line 2: repeats a"),
        ("duplicate_id", "c.jsonl, line 3: repeats a"),
        ("near_duplicate", "c.jsonl, line 5: repeats c"),
    ]


def test_a_changed_document_stays_on_its_side_of_the_split(folder: Any, run: Run, tmp_path: Path) -> None:
    rows = [{"_id": str(number), "text": f"Page {number} is about {number * 7}."} for number in range(200)]
    other = [{**each, "text": f"{each['text']} It was changed."} for each in rows]
    before, _ = collect(run, recipe_of(folder(c_jsonl=json_lines(*rows)), duplicate_similarity=None, held_out=0.3))
    again = Run(str(tmp_path / "again"))
    after, _ = collect(again, recipe_of(folder(c_jsonl=json_lines(*other)), duplicate_similarity=None, held_out=0.3))
    assert [each["split"] for each in before] == [each["split"] for each in after]
    assert 30 < sum(each["split"] == "held_out" for each in before) < 90


def test_too_many_files_that_cannot_be_read_stop_the_job_before_anything_is_written(folder: Any, run: Run) -> None:
    source = folder(a_txt=SENTENCES[0].encode(), b_txt=b"\0\0")
    with pytest.raises(UserError, match=r"1 of 2 .* corpus.max_unreadable \(0.1\).*\n  b.txt: binary"):
        collect(run, recipe_of(source))
    assert run.artifact(DOCUMENTS).plan() is None


def test_a_table_that_breaks_off_is_no_small_corpus(folder: Any, run: Run) -> None:
    whole = gzip.compress(json_lines(*({"text": f"{number} {number * 7} words"} for number in range(5_000))))
    source = folder(c_jsonl_gz=whole[: len(whole) // 2]) / "c.jsonl.gz"
    with pytest.raises(UserError, match=r"is damaged:\n  c.jsonl.gz: cut_off, .*what follows is not read"):
        collect(run, recipe_of(source))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"c_jsonl": b""}, "holds no document with text. Its files are empty."),
        (
            {"c_jsonl": b'{"_id": "a", "text": ""}\n'},
            "with text. Turned away were:\n  c.jsonl, line 1",
        ),
        ({"c_csv": b"a,b\n1,2\n"}, "it has no 'text' (it has: a, b); corpus.columns.text names the column"),
    ],
)
def test_a_corpus_without_text_is_refused(folder: Any, run: Run, files: dict[str, bytes], said: str) -> None:
    with pytest.raises(UserError) as refused:
        collect(run, recipe_of(folder(**files)))
    assert said in str(refused.value)


def test_nothing_there_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.source: there is no file .*/nowhere"):
        collect(run, recipe_of(tmp_path / "nowhere"))


GERMAN = "Die Bibliothek verleiht ihre Bücher an Leserinnen und Leser jeden Alters in der ganzen Stadt, Nummer"


def test_a_corpus_in_another_language_is_refused(folder: Any, run: Run) -> None:
    source = folder(c_jsonl=json_lines(*({"text": f"{GERMAN} {number}."} for number in range(3)), row("a", 0)))
    with pytest.raises(UserError, match=r"3 of the 4 documents .* look like German.*\nSet languages to \{German: 1\}"):
        collect(run, recipe_of(source))


def test_a_document_in_another_language_is_a_reject(folder: Any, run: Run) -> None:
    source = folder(c_jsonl=json_lines(row("a", 0), row("b", 1), {"_id": "c", "text": f"{GERMAN} 5."}))
    records, [reject] = collect(run, recipe_of(source))
    assert len(records) == 2
    said = "c.jsonl, line 3: it is in German; languages has English"
    assert (reject["reason"], reject["detail"]) == ("wrong_language", said)


def test_a_second_reading_of_the_same_files_finds_all_done(folder: Any, run: Run) -> None:
    recipe = recipe_of(folder(c_jsonl=json_lines(row("a", 0))))
    collect(run, recipe)
    with prepare_documents(run, recipe) as prepared:
        assert list(prepared.rows) == []


def test_a_driver_that_dies_between_two_shards_goes_on_there(folder: Any, run: Run, tmp_path: Path) -> None:
    rows = [{"_id": str(number), "text": f"Page {number} is about {number * 7}."} for number in range(25)]
    recipe = recipe_of(folder(c_jsonl=json_lines(*rows)), shard_rows=10, duplicate_similarity=None)
    with pytest.raises(KeyboardInterrupt), prepare_documents(run, recipe) as prepared:
        publish_documents(run, Prepared(prepared.plan, interrupted(prepared.rows, 15)))
    [first] = run.artifact(DOCUMENTS).commits()
    records, _ = collect(run, recipe)
    assert next(iter(run.artifact(DOCUMENTS).commits())) == first
    assert records == collect(Run(str(tmp_path / "fresh")), recipe)[0]


def interrupted(rows: Iterator[Any], after: int) -> Iterator[Any]:
    yield from islice(rows, after)
    raise KeyboardInterrupt


def test_changed_documents_are_no_part_of_the_old_run(folder: Any, run: Run) -> None:
    collect(run, recipe_of(folder(c_jsonl=json_lines(row("a", 0)))))
    with pytest.raises(UserError, match="planned differently"):
        collect(run, recipe_of(folder(c_jsonl=json_lines(row("a", 1)))))


def test_a_thousand_mixed_files_are_all_accounted_for(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "in"
    forms = {
        ".md": "# Page {0}\n\nIt is about {1}.",
        ".html": "<h1>Page {0}</h1><p>It is about {1}.",
        ".txt": "About {1}.",
    }
    broken = {"a.md": b"caf\xe9", "b.txt": b"\x89PNG\0", "c.html": b"<div>" * 100_000, "d.docx": b"PK", "e.txt": b""}
    for number in range(1_000 - len(broken)):
        form = list(forms)[number % len(forms)]
        path = source / str(number // 100) / f"{number}{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(forms[form].format(number, f"{number * 7919} {number * 104729}"))
    for name, content in broken.items():
        (source / name).write_bytes(content)
    records, rejects = collect(run, recipe_of(source, duplicate_similarity=None))
    assert len(records) == 1_000 - len(broken)
    found = {each["row_id"]: each["reason"] for each in rejects}
    assert sorted(found.values()) == ["binary", "no_text", "not_utf8", "other_format", "unreadable"]
    assert all(verdict.holds and verdict.planned == 1_000 for verdict in verify(run))
