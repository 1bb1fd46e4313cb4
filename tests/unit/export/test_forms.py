"""Each form holds the run's rows, opened by the tool that it is for or read as its reader reads."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from speed_ray.errors import Interrupted, UserError
from speed_ray.evaluation.datasets import read_beir, read_held_out
from speed_ray.export import table
from speed_ray.export.forms import FORMS, export_rows
from speed_ray.records import content_id
from speed_ray.storage.run import EXAMPLES, PASSAGES, SCORED_EXAMPLES, Run
from speed_ray.storage.verify import verify
from tests.helpers.exported_run import COUNT, finished_run, records


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(str(tmp_path_factory.mktemp("finished") / "lamps"))


def exported(run: Run, folder: Path, form: str, artifact: str | None = None) -> Path:
    export_rows(run, folder / form, form, artifact)
    return folder / form


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def load(folder: Path, name: str, tmp_path: Path) -> dict:
    from datasets import load_dataset

    return load_dataset(str(folder), name, cache_dir=str(tmp_path / "cache"))


def test_load_dataset_opens_each_artifact_of_the_hub_form_with_the_counts_of_verify(run, tmp_path):
    folder = exported(run, tmp_path, "hub")
    for verdict in verify(run):
        splits = load(folder, verdict.artifact, tmp_path)
        assert sum(map(len, splits.values())) == verdict.accepted
        assert set(splits) == {"train", "held_out"}
        for split, rows in splits.items():
            assert set(rows["split"]) == {split}
    first = load(folder, SCORED_EXAMPLES, tmp_path)["train"][0]
    assert first == next(row for row in records(run) if row["split"] == "train")


def test_rows_do_not_depend_on_where_groups_and_files_end(run, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "GROUP_ROWS", 8)
    monkeypatch.setattr(table, "FILE_BYTES", 1)
    folder = exported(run, tmp_path, "hub")
    files = sorted(folder.glob(f"data/{SCORED_EXAMPLES}/train-*.parquet"))
    assert len(files) > 1
    ids = [row for file in files for row in pq.read_table(file, use_threads=False)["id"].to_pylist()]
    assert ids == [row["id"] for row in records(run) if row["split"] == "train"]
    assert all(pq.read_metadata(file).row_group(0).column(0).has_offset_index for file in files)


def test_a_query_has_all_its_positives_where_the_form_takes_several(run, tmp_path):
    several = {row["id"]: row for row in records(run) if row["further_positives"]}
    assert len(several) == 2
    relevant = Counter(line.split("\t")[0] for line in (exported(run, tmp_path, "beir") / "qrels/train.tsv").open())
    assert {name for name, count in relevant.items() if count == 2} == set(several)
    folder = exported(run, tmp_path / "flag", "flagembedding") / "train"
    drawn = [row for file in folder.glob("*.jsonl") for row in lines(file) if len(row["pos"]) > 1]
    assert {(row["query"], tuple(row["pos"])) for row in drawn} == {
        (row["query"], (row["positive"], *row["further_positives"])) for row in several.values()
    }
    assert all(row["pos_scores"] == [2.0, 1.5] for row in drawn)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_has_the_same_bytes_each_time(run, tmp_path, form):
    once, again = (exported(run, tmp_path / name, form) for name in ("once", "again"))
    names = sorted(path.relative_to(once) for path in once.rglob("*") if path.is_file())
    assert len(names) > 2
    assert all((once / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_beir_readers_find_the_held_out_queries_and_their_passages(run, tmp_path):
    own, read = read_held_out(run, SCORED_EXAMPLES), read_beir(exported(run, tmp_path, "beir"))
    assert read.queries == own.queries and read.unanswered == COUNT - len(own.queries)
    assert Counter(read.documents.values()) == Counter(own.documents.values())
    for query, grades in read.relevant.items():
        [expected] = own.relevant[query]
        assert [read.documents[found] for found in grades] == [own.documents[expected]]


def test_a_likeness_is_no_document_of_a_beir_folder(tmp_path):
    run = finished_run(str(tmp_path / "run"), "sts")
    *_, qrels = export_rows(run, tmp_path / "beir", "beir")
    assert not qrels.rows and qrels.left_out.total() == COUNT


def test_tuples_have_a_column_for_each_negative(run, tmp_path):
    folder = exported(run, tmp_path, "sentence-transformers")
    columns = {name: ["anchor", "positive", *more, "scores"] for name, more in (
        ("pairs", []), ("triplets", ["negative"]), ("negatives_2", ["negative_1", "negative_2"])
    )}  # fmt: skip
    rows = records(run)
    for count, (name, expected) in enumerate(columns.items()):
        splits = load(folder, name, tmp_path)
        assert splits["train"].column_names == expected
        wanted = [row for row in rows if len(row["negatives"]) == count and row["split"] == "held_out"]
        texts = [[row["positive"], *row["negatives"]] for row in wanted]
        assert [[row[column] for column in expected[1:-1]] for row in splits["held_out"]] == texts
        assert [len(row["scores"]) for row in splits["held_out"]] == [count + 1] * len(wanted)
    assert splits["train"][0]["anchor"].startswith("Instruct: Find the passage that answers\nQuery: Which lamp")


def test_flagembedding_gets_negatives_and_scores_where_it_draws_some(run, tmp_path):
    folder = exported(run, tmp_path, "flagembedding")
    for split in ("train", "held_out"):
        drawn, alone = (lines(folder / name / "retrieval.jsonl") for name in (split, f"{split}_without_negatives"))
        wanted = [row for row in records(run) if row["split"] == split]
        assert len(drawn) + len(alone) == len(wanted)
        assert all(row["neg"] and len(row["neg"]) == len(row["neg_scores"]) for row in drawn)
        assert not any(row["neg"] for row in alone)
        asked = {(row["query"], row["positive"], *row["further_positives"], row["instruction"]) for row in wanted}
        assert {(row["query"], *row["pos"], row["prompt"]) for row in drawn + alone} == asked


def test_flagembedding_is_told_which_kinds_take_no_negatives_from_their_batch(tmp_path):
    run = finished_run(str(tmp_path / "run"), "retrieval", "embedder.no_in_batch_negatives=[retrieval]")
    assert (exported(run, tmp_path, "flagembedding") / "train" / "retrieval_no_in_batch_neg.jsonl").is_file()


def test_tevatron_finds_every_document_that_its_rows_name(run, tmp_path):
    folder = exported(run, tmp_path, "tevatron")
    corpus = {row["docid"]: row["text"] for row in lines(folder / "corpus.jsonl")}
    assert len(corpus) == COUNT and all(content_id(text) == name for name, text in corpus.items())
    drawn, alone = lines(folder / "train.jsonl"), lines(folder / "train_without_negatives.jsonl")
    by_id = {row["query_id"]: row for row in drawn + alone}
    for row in (row for row in records(run) if row["split"] == "train"):
        found = by_id.pop(row["id"])
        positives = [row["positive"], *row["further_positives"]]
        assert [corpus[name] for name in found["positive_document_ids"]] == positives
        assert [corpus[name] for name in found["negative_document_ids"]] == row["negatives"]
    assert not by_id and all(row["negative_document_ids"] for row in drawn)


def test_json_lines_are_the_rows_of_any_artifact(run, tmp_path):
    folder = exported(run, tmp_path, "jsonl", PASSAGES)
    assert len(lines(folder / "passages.train.jsonl")) + len(lines(folder / "passages.held_out.jsonl")) == COUNT


def test_a_card_has_the_hubs_metadata_and_no_path(tmp_path):
    run = finished_run(
        str(tmp_path / "lamps"), "retrieval", f"curate.reference={tmp_path}", "license=cc-by-4.0", "languages={de: 1}"
    )
    card = (exported(run, tmp_path, "hub") / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["license"] == "cc-by-4.0" and metadata["language"] == ["de"]
    assert metadata["size_categories"] == ["n<1K"]
    assert [each["config_name"] for each in metadata["configs"]] == [SCORED_EXAMPLES, PASSAGES]
    assert str(tmp_path) not in card
    assert "| `scored_examples` | 40 | 40 | 0 | 40 |" in text


def test_the_same_export_is_not_made_twice_and_another_one_is_refused(run, tmp_path):
    folder = exported(run, tmp_path, "jsonl")
    assert export_rows(run, folder, "jsonl") == []
    with pytest.raises(UserError, match="is there already, and is not this export"):
        export_rows(run, folder, "beir")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is there already"):
        export_rows(run, tmp_path / "file", "beir")


def test_of_a_half_run_the_unfinished_is_named_with_what_to_do(tmp_path, run):
    with pytest.raises(UserError, match="examples is not finished: run `speed-ray synthesize` first, or export what"):
        export_rows(run, tmp_path / "to", "beir", EXAMPLES)
    with pytest.raises(UserError, match=r"no artifact 'scored_exmples' \(did you mean 'scored_examples'\?\)"):
        export_rows(run, tmp_path / "to", "beir", "scored_exmples")
    with pytest.raises(UserError, match="passages holds no examples"):
        export_rows(run, tmp_path / "to", "tevatron", PASSAGES)
    with pytest.raises(UserError, match="is not a run"):
        export_rows(Run(str(tmp_path)), tmp_path / "to", "hub")


def test_the_hub_form_of_a_half_run_says_what_is_missing(tmp_path):
    run = finished_run(str(tmp_path / "run"))
    run.store.delete(f"{SCORED_EXAMPLES}/_SUCCESS")
    assert [table.name for table in export_rows(run, tmp_path / "hub", "hub")] == [PASSAGES]
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "# 40 rows of passages" in card and "left out: scored_examples." in card


def test_of_a_damaged_run_nothing_is_exported(tmp_path):
    run = finished_run(str(tmp_path / "run"))
    path = Path(run.uri, SCORED_EXAMPLES, run.artifact(SCORED_EXAMPLES).record_files()[3].path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Interrupted, match="bytes instead of"):
        export_rows(run, tmp_path / "to", "hub")
    assert not list(tmp_path.glob("*to*"))
