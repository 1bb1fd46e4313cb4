"""Parts of the report: charts whose areas are their counts, word changes that keep both texts, rows found by id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speed_ray.report.charts import Box, _split, element, treemap
from speed_ray.report.found_rows import find_rows
from speed_ray.report.shown_text import most, shown_text
from speed_ray.report.word_changes import word_changes
from speed_ray.storage.run import EXAMPLES, TASKS
from speed_ray.storage.shards import RECORDS, REPLIES


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10**6), max_size=12))
def test_areas_are_in_proportion_and_fill_the_box(sizes):
    total = sum(sizes.values())
    tiles = _split(sizes, Box(0, 0, 800, 360))
    assert {name for name, _ in tiles} == {name for name, size in sizes.items() if size}
    for name, tile in tiles:
        assert tile.width * tile.height == pytest.approx(800 * 360 * sizes[name] / total)


def test_a_chart_escapes_its_names():
    assert "<b>" not in treemap({"<b>": {"<i>\"'": 3}}) and '"' not in element("g", '"').removeprefix("<g>")
    assert element("rect", class_="a", text_anchor="<") == '<rect class="a" text-anchor="&lt;"></rect>'


@given(st.text(max_size=60), st.text(max_size=60))
def test_changes_hold_both_texts(before, after):
    changes = word_changes(before, after)
    assert "".join(text for sign, text in changes if sign != "+") == before
    assert "".join(text for sign, text in changes if sign != "-") == after


def test_rows_are_found_by_id_wherever_they_are(alignment):
    tasks = alignment.run.artifact(TASKS)
    ids = [row["id"] for row in alignment.rows(TASKS)][::3]
    found = find_rows(tasks, list(tasks.commits()), RECORDS, "id", {**dict.fromkeys(ids, 0.5), "nobody": 0.0})
    assert sorted(found) == sorted(ids) and all(rows[0]["id"] == name for name, rows in found.items())
    examples = alignment.run.artifact(EXAMPLES)
    row_id = alignment.rows(EXAMPLES)[0]["row_id"]
    [replies] = find_rows(examples, list(examples.commits()), REPLIES, "row_id", {row_id: 0.9}).values()
    assert {reply["row_id"] for reply in replies} == {row_id}


def test_long_text_is_cut_with_a_note_and_small_counts_are_added_up():
    assert shown_text("a\u202eb" * 50, 4) == "a\\u202eba … (cut: 150 characters)"
    assert most({"a": 3, "b": 2, "c": 1}, 1) == [("a", 3), ("2 others", 3)]
