"""Walk examples back to where they came from, many at once: document or topic, prompts, replies, judgement."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from speed_ray.console.show import ASKED, lineage_of
from speed_ray.records import Row
from speed_ray.report.found_rows import Places, find_rows
from speed_ray.report.funnel import Leg
from speed_ray.report.shown_text import LONG, NAME, TEXT, WHOLE, shown_text
from speed_ray.report.unreadable import Faults
from speed_ray.report.word_changes import word_changes
from speed_ray.storage.run import DOCUMENTS, EXAMPLES, RELEVANCE, REVISED_EXAMPLES, Run
from speed_ray.storage.shards import RECORDS, REPLIES

Step = dict[str, Any]  # a title, and fields of a name and a text each; of a revision its word changes
TEXTS = ("query", "positive")
OF_STEP = {  # the fields of a parent that a reader wants; others are ids and digests
    "documents": ("document_id", "title", "source"),
    "topics": ("topic", "source"),
    "tasks": ("task", "model"),
    **dict.fromkeys(("passages", "neighbours"), ("title", "headings", "text", "neighbour")),
}


class Lineage:
    """Holds the rows from which examples came, each by the id that asks for it."""

    def __init__(self, run: Run, legs: Mapping[str, Leg], of: Leg, places: Mapping[str, tuple[Row, float]]) -> None:
        """Look for all rows of the examples, which are given with their places in the artifact that they are of."""
        self.faults = Faults()
        self.legs = legs
        rows = {name: row for name, (row, _) in places.items()}
        self.parents = self._parents(
            lineage_of(run, of.artifact), rows, {name: at for name, (_, at) in places.items()}
        )
        by_row = {str(row.get("row_id", name)): at for name, (row, at) in places.items()}
        asked = ASKED.get(of.name, (of.name,))
        self.replies = {name: self._find(name, REPLIES, "row_id", by_row) for name in asked}
        by_id = {name: at for name, (_, at) in places.items()}
        revised = REVISED_EXAMPLES in legs and of.name != EXAMPLES
        self.before = self._find(EXAMPLES, RECORDS, "id", by_id) if revised else {}
        self.after = self._find(REVISED_EXAMPLES, RECORDS, "id", by_id) if revised else {}
        self.answers = self._find(RELEVANCE, RECORDS, "parent_id", by_id)

    def _find(self, name: str, role: str, column: str, places: Places) -> dict[str, list[Row]]:
        leg = self.legs.get(name)
        if leg is None:
            return {}
        what = f"{role} of {name}"
        return self.faults.read(what, {}, find_rows, leg.artifact, leg.commits, role, column, places)

    def _parents(self, above: Sequence[str], rows: Mapping[str, Row], places: Places) -> dict[str, dict[str, Row]]:
        """Find by artifact, nearest first, what each example was made of, by the example's id."""
        found: dict[str, dict[str, Row]] = {}
        for name in above:
            wanted = {str(row["parent_id"]): places[example] for example, row in rows.items() if row.get("parent_id")}
            there = self._find(name, RECORDS, "id", wanted)
            rows = {
                example: there[str(row.get("parent_id"))][0]
                for example, row in rows.items()
                if str(row.get("parent_id")) in there
            }
            found[name] = dict(rows)
        return found

    def steps(self, example: Row) -> list[Step]:
        """List the steps of an example in the order in which they happened."""
        return list(self._steps(example))

    def _steps(self, example: Row) -> Iterator[Step]:
        for name, parents in reversed(self.parents.items()):
            if example["id"] in parents:
                yield _of_parent(name, parents[example["id"]])
        for name, replies in self.replies.items():
            for reply in replies.get(str(example.get("row_id")), []):
                yield _of_reply(name, reply)
        if example["id"] in self.before and example["id"] in self.after:
            yield _of_revision(self.before[example["id"]][0], self.after[example["id"]][0])
        if judged := list(_judgements(example, self.answers.get(example["id"], []))):
            yield {"title": "judgement", "fields": judged}


def _of_parent(name: str, row: Row) -> Step:
    fields = [(key, shown_text(row[key], WHOLE)) for key in OF_STEP.get(name, ()) if row.get(key) not in (None, "")]
    if "start" in row:
        fields.insert(0, ("characters of the document", f"{row['start']:,} to {row['end']:,}"))
    if name == DOCUMENTS:
        fields = [(key, shown_text(text, TEXT)) for key, text in fields]
    return {"title": {"tasks": "task", "topics": "topic"}.get(name, name.removesuffix("s")), "fields": fields}


def _of_reply(name: str, reply: Row) -> Step:
    adapter = f" with adapter {reply['adapter']}" if reply.get("adapter") else ""
    model = shown_text(f"{reply['model']}{adapter}", 2 * NAME)
    prompt = [(f"prompt, {m['role']}", shown_text(m["content"].strip(), WHOLE)) for m in reply["messages"]]
    made = f"raw reply ({reply['finish_reason']}, {reply['prompt_tokens']:,} + {reply['output_tokens']:,} tokens)"
    facts = f"{model}, trial {reply['trial']}, seed {reply['seed']}, {reply['seconds']:.1f} s"
    return {
        "title": f"asked for {name}",
        "fields": [("model", facts), *prompt, (made, shown_text(reply["text"], WHOLE))],
    }


def _of_revision(before: Row, after: Row) -> Step:
    if not after.get("revised"):
        return {"title": "revision", "fields": [("kept as it was", shown_text(after.get("kept_because", "")))]}
    pairs = {name: (before[name], after[name]) for name in TEXTS}
    pairs["negatives"] = ("\n".join(before["negatives"]), "\n".join(after["negatives"]))
    changes = [
        (name, word_changes(*(shown_text(text, LONG) for text in pair)))
        for name, pair in pairs.items()
        if pair[0] != pair[1]
    ]
    return {"title": "revision", "fields": [], "changes": changes}


def _judgements(example: Row, answers: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for score in example.get("scores") or []:
        negatives = ", ".join(f"{value:.4g}" for value in score["negatives"])
        yield shown_text(score["judge"]), f"positive {score['positive']:.4g}; negatives {negatives or 'none'}"
    for number in example.get("gates") or []:
        yield f"gate {shown_text(number['gate'])}", f"{number['number']:.4g}"
    for row in sorted(answers, key=lambda row: row["place"]):
        what = f"negative {row['place']}" if row["place"] else "positive"
        yield f"answers, says {shown_text(row['model'])}", f"{what}: log-odds {row['log_odds']:+.2f}"
    for name in ("relabelled_from", "kept_because"):
        if example.get(name):
            yield name, shown_text(example[name], TEXT)
    for name, said in (("further_positives", "answers too"), ("dropped", "dropped as a likely answer")):
        for text in example.get(name) or []:
            yield said, shown_text(text, TEXT)
