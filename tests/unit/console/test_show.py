"""`speed-ray show`: a record with all that it came from, in text that cannot drive a terminal."""

import io
import json

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from speed_ray.console.show import show_rows
from speed_ray.errors import UserError
from speed_ray.records import DOCUMENT, EXAMPLE, NEIGHBOUR
from speed_ray.stages import driver_stage
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import ASKED_ABOUT, DOCUMENTS, EXAMPLES, NEIGHBOURS, REVISED_EXAMPLES, TASKS, TOPICS
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import REPLIES
from tests.helpers.passages import passage, publish_passages


def test_a_row_is_shown_with_all_that_it_came_from(alignment):
    example = next(row for row in alignment.rows(REVISED_EXAMPLES) if row["revised"])
    task = next(row for row in alignment.rows(TASKS) if row["id"] == example["parent_id"])
    topic = next(row for row in alignment.rows(TOPICS) if row["id"] == task["parent_id"])
    told = [f"query: {example['query']}", f"from tasks: task: {task['task']}", f"from topics: topic: {topic['topic']}"]
    for name in (EXAMPLES, REVISED_EXAMPLES):
        for reply in alignment.rows(name, REPLIES):
            if reply["row_id"] == example["row_id"]:
                told.append(
                    f"prompt of {name} (trial {reply['trial']}, seed {reply['seed']}, model {reply['model']}):"
                )
                told += [message["content"] for message in reply["messages"]] + [reply["text"]]

    console = Console(file=io.StringIO(), width=200)
    show_rows(alignment.run, REVISED_EXAMPLES, console, row=example["row_id"])

    shown, place = squeezed(console.file.getvalue().replace("│", " ")), 0
    for part in map(squeezed, told):
        place = shown.find(part, place)
        assert place >= 0, f"not shown, or not in its place: {part}"


def squeezed(text: str) -> str:
    """Text without what a panel's width does to it."""
    return " ".join(text.split())


@pytest.mark.parametrize("about", ASKED_ABOUT)
def test_an_example_of_documents_is_shown_with_its_passage_and_where_that_stands(run, about):
    of_passage = passage(3)
    document = {**{key: of_passage[key] for key in ("document_id", "title", "split")}, "id": of_passage["parent_id"]}
    document |= {"text": "A whole book.", "source": "tools.jsonl, line 4", "digest": "ab"}
    example = {**dict.fromkeys(EXAMPLE.names, ""), "id": "e", "row_id": "e", "parent_id": of_passage["id"]}
    for name, schema, row in ((DOCUMENTS, DOCUMENT, document), (EXAMPLES, EXAMPLE, {**example, "negatives": []})):
        plan = Plan(name, 1, 1, input=about if name == EXAMPLES else None)
        publish_rows(run.artifact(name), plan, schema, iter([RowResult(row["id"], row, None)]))
    publish_passages(run, [of_passage])
    neighbour = {**of_passage, "neighbour_id": "n", "neighbour": "The rasp hangs beside it."}
    publish_rows(
        run.artifact(NEIGHBOURS),
        Plan(NEIGHBOURS, 1, 1),
        NEIGHBOUR,
        iter([RowResult(of_passage["id"], neighbour, None)]),
    )

    console = Console(file=io.StringIO(), width=200)
    show_rows(run, EXAMPLES, console, row="e")

    shown = console.file.getvalue()
    for part in (of_passage["text"], f"from {about}: start: 0", "from documents: source: tools.jsonl, line 4"):
        assert part in shown
    assert "A whole book." not in shown
    assert ("neighbour_id: n" in shown) == (about == NEIGHBOURS)


def test_a_reject_of_each_reason_is_shown(run):
    results = [driver_stage.reject(f"r{n}", "p", EXAMPLES, reason, f"detail {n}", "text", "sts")
               for n, reason in enumerate(["gate_order", "gate_order", "gate_copied", "gate_order"])]  # fmt: skip
    publish_rows(run.artifact(EXAMPLES), Plan(EXAMPLES, 4, 2), EXAMPLE, iter(results))

    console = Console(file=io.StringIO(), width=200)
    show_rows(run, EXAMPLES, console, rejects=True)

    shown = console.file.getvalue()
    assert [detail for detail in ("detail 0", "detail 1", "detail 2", "detail 3") if detail in shown] == [
        "detail 0",
        "detail 2",
    ]


def test_one_row_takes_no_filter(alignment):
    with pytest.raises(UserError, match="leave --rejects and --kind away"):
        show_rows(alignment.run, EXAMPLES, Console(file=io.StringIO()), row="x", kind="sts")


def test_show_disarms_hostile_text(make_job, said):
    job = make_job().begin().half_done(46)
    commit = json.loads((job.examples / "commits/00000000.0.json").read_bytes())
    path = job.examples / commit["files"]["records"]["path"]
    hostile = "\x1b]0;owned\x07 \x1b[2J\x9b31m \u202etxt.exe [bold red]markup[/] [/]"
    rows = pq.read_table(path)
    changed = [{**row, "query": hostile} for row in rows.to_pylist()]
    pq.write_table(rows.from_pylist(changed, schema=rows.schema), path)

    for options in ((), ("--row", changed[0]["row_id"])):
        _, words = said("show", job.uri, "examples", *options)
        assert "markup[/]" in words, "the hostile text is not shown at all"
        assert not set(words) & {"\x1b", "\x07", "\x9b", "\u202e"}
