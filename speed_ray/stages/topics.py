"""Read a user's list of topics into the `topics` artifact: truncated, deduplicated, every line a record or reject."""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Sequence
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from urllib.parse import urlsplit

from speed_ray.errors import UserError
from speed_ray.recipes.schema import Recipe
from speed_ray.records import TOPIC, Row, TopicRow, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.run import TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import open_store
from speed_ray.storage.uri import check_uri
from speed_ray.text import tables
from speed_ray.text.rules import is_plain

MAX_TOPIC_CHARS = 300  # characters; a longer line is no category path but text that was pasted by mistake
SHARD_ROWS = 4096
OTHER_FORMS = {
    ".md", ".rst", ".yaml", ".yml", ".toml", ".html", ".htm", ".xml", ".xlsx", ".xls", ".ods", ".docx", ".pdf", ".zip",
    ".bz2", ".xz", ".zst", ".arrow", ".feather",
}  # fmt: skip
FORMS = (
    "Write text with one category path a line, such as Arts/Music; or a .csv, .tsv, .jsonl or .parquet file with a "
    "column `topic`."
)
_NO_PATH = re.compile(r"[{\[<]|---|.*\t")  # one line of JSON, markup or a table
_HEADING = re.compile(r"\W*topics?\W*(?:[,;|:].*)?", re.IGNORECASE)
_LISTED = re.compile(r"(?:[-*•+]|\d{1,6}[.)])\s|[├└│]|\".*\",?$|'.*',?$")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")


def collect_topics(run: Run, lines: list[str]) -> Artifact:
    """Publish one record per topic; duplicates and over-long lines are rejects with a reason."""
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    identity = {"code": code_digests(__name__), "topics.source, by its lines": digest}
    plan = Plan(stage=TOPICS, rows=len(lines), shard_rows=SHARD_ROWS, identity=identity)
    artifact = run.artifact(TOPICS)
    seen: set[str] = set()
    rows = [_topic(number, line, seen) for number, line in enumerate(lines)]
    driver_stage.publish_rows(artifact, plan, TOPIC, iter(rows))
    return artifact


def topics_of(recipe: Recipe) -> list[str]:
    """Return the topic paths that a recipe names. Raises UserError as `read_topics` does, and where it names none."""
    if recipe.topics is None:
        raise UserError("topics.source: this recipe names no topics. Set it to a file with one category path a line.")
    return read_topics(recipe.topics.source, recipe.topics.limit)


def read_topics(source: str, limit: int | None = None) -> list[str]:
    """Return the first `limit` topic paths of a source, stripped; blank lines are left out.

    A source is `miniature://topics`, or a file or URI: text with one path a line, where lines that begin with `#` are
    comments; CSV, TSV, JSON lines or Parquet with a `topic` column; or a JSON list of paths. Each may be gzipped.
    Raises UserError for one that is missing, unreadable, of another form or empty.
    """
    if source == "miniature://topics":
        from speed_ray.miniature import world

        return world.topics()[:limit]
    lines = _lines(source)
    if any("\0" in line for line in lines):  # UTF-16 without its mark decodes as UTF-8, with a zero in every letter
        raise UserError(f"topics.source: {source} is not UTF-8 text (it holds zero bytes). Save it as UTF-8.")
    topics = [line for line in map(str.strip, lines) if line][:limit]
    if not topics:
        raise UserError(f"topics.source: {source} holds no topic. Write one category path a line, such as Arts/Music.")
    if not any(map(_is_topic, topics)):
        raise UserError(
            f"topics.source: {source} holds no topic: each of its {len(topics):,} lines is longer than "
            f"{MAX_TOPIC_CHARS} characters, has no letter, or holds a control character. Write one category path a "
            "line, such as Arts/Music."
        )
    return topics


def truncate(path: str) -> str:
    """Keep the first two and the last two parts of a path deeper than four (SPEED, appendix D.1: 61.8 -> 62.6)."""
    parts = [" ".join(part.split()) for part in path.split("/") if part.strip()]
    return "/".join(parts if len(parts) <= 4 else parts[:2] + parts[-2:])


def _is_topic(line: str) -> bool:
    return _fault(line) is None


def _fault(line: str) -> tuple[str, str] | None:
    if len(line) > MAX_TOPIC_CHARS:
        return "too_long", f"{len(line)} characters"
    if control := _CONTROL.search(line):
        return "control_character", f"U+{ord(control.group()):04X}"
    return None if any(map(str.isalnum, line)) else ("no_words", "neither a letter nor a digit")


def _topic(number: int, line: str, seen: set[str]) -> driver_stage.RowResult:
    topic = truncate(line)
    if fault := _fault(line):
        return driver_stage.reject(content_id(TOPICS, str(number), line), "", TOPICS, *fault, line[:1000])
    same = is_plain(topic)
    if same in seen:
        return driver_stage.reject(content_id(TOPICS, str(number), line), "", TOPICS, "duplicate", topic, line)
    seen.add(same)
    row: TopicRow = {"id": content_id(topic), "topic": topic, "source": line}
    return driver_stage.RowResult(row["id"], row, None)


def _bytes(source: str) -> bytes:
    """Read a source's file. Raises UserError, with the source as it is written, where it names none."""
    try:
        if "://" not in source:
            return Path(os.path.expanduser(source)).read_bytes()
        check_uri(source)
        if source.lower().startswith("file:"):
            return Path(urlsplit(source).path).read_bytes()
        folder, _, name = source.rpartition("/")
        if not name or folder.endswith((":/", "//")):
            raise UserError(f"{source!r} names no file. Write all of its URI, such as s3://bucket/folder/topics.txt.")
        return open_store(folder).get(name)
    except UserError as error:
        raise UserError(f"topics.source: {error}") from None
    except FileNotFoundError:
        raise UserError(f"topics.source: there is no file {source!r}.") from None
    except (OSError, ValueError) as error:  # the latter: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"topics.source: cannot read {source!r}: {reason}.") from None


def _lines(source: str) -> list[str]:
    data, ending, name = _bytes(source), Path(source).suffix.lower(), f"topics.source: {source}"
    if ending == ".gz":
        data, ending = _unzipped(data, name), Path(Path(source).stem).suffix.lower()
    file = BytesIO(data)
    if ending in (".csv", ".tsv"):
        return _cells(source, list(tables.READERS[ending](file, name)))
    if ending in (".jsonl", ".ndjson", ".parquet"):
        reader = tables.read_parquet if ending == ".parquet" else tables.read_json_lines
        rows = [row for _, row in reader(file, name)]
        return _column(source, list(rows[0]), rows) if rows else []
    if ending == ".json":
        return _listed(source, data)
    if ending in OTHER_FORMS:
        raise UserError(f"{name}: a {ending} file is not read.\n{FORMS}")
    lines = [line for _, [text] in tables.read_text(file, name) for line in text.splitlines()]
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    paths = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    _refuse_other_forms(source, paths)
    return [line for _, line in paths]


def _cells(source: str, rows: list[tuple[int, list[str]]]) -> list[str]:
    """Return the column `topic` of a table. Raises UserError for a row with more cells than its heading.

    A comma that nobody quoted makes two cells of one path.
    """
    _, heading = rows.pop(0) if rows else (0, [])
    heading = [cell.strip() for cell in heading]
    for line, row in rows:
        if any(map(str.strip, row[len(heading) :])):
            raise UserError(
                f"topics.source: {source}, line {line}: {len(row)} cells, and the heading has {len(heading)}. Quote a "
                "topic that holds a comma."
            )
    return _column(source, heading, [dict(zip_longest(heading, row[: len(heading)])) for _, row in rows])


def _unzipped(data: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{name} is not a gzip file, or is damaged: {error}") from None


def _listed(source: str, data: bytes) -> list[str]:
    """Return the texts of a JSON list, or of a list of objects with a `topic`."""
    try:
        rows = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        hint = " Name a file with one object a line .jsonl." if "Extra data" in str(error) else ""
        raise UserError(f"topics.source: {source} is not JSON in UTF-8: {error}.{hint}") from None
    if not isinstance(rows, list):
        raise UserError(f"topics.source: {source} is no JSON list.\n{FORMS}")
    if lone := tables.lone_surrogate(json.dumps(rows, ensure_ascii=False)):
        raise UserError(f"topics.source: {source} holds {lone}, half of a character. Write the whole one.")
    return _column(source, ["topic"], [row if isinstance(row, dict) else {"topic": row} for row in rows])


def _refuse_other_forms(source: str, lines: list[tuple[int, str]]) -> None:
    """Raise UserError for text that is really a table, a list or markup: each line would be asked about, and paid."""
    odd = [(number, line) for number, line in lines if _NO_PATH.match(line)]
    headed = bool(lines) and _HEADING.fullmatch(lines[0][1]) is not None
    if headed or (len(lines) > 1 and all(_LISTED.match(line) for _, line in lines)):
        odd = lines
    if odd:
        number, line = odd[0]
        raise UserError(f"topics.source: {source}, line {number}: {line[:80]!r} is no path.\n{FORMS}")


def _column(source: str, columns: list[str], rows: Sequence[Row]) -> list[str]:
    if columns.count("topic") != 1:
        has = "two columns" if "topic" in columns else "no column"
        raise UserError(f"topics.source: {source} has {has} `topic` (it has: {', '.join(columns) or 'none'}).")
    for number, row in enumerate(rows, start=1):
        if "topic" not in row:
            raise UserError(f"topics.source: {source}, row {number} has no `topic` (it has: {', '.join(row)}).")
    return [_text(source, number, row["topic"]) for number, row in enumerate(rows, start=1)]


def _text(source: str, number: int, value: object) -> str:
    """Return a cell's text, "" where it is empty. Raises UserError for a list, a number, or what else is no text."""
    if value is None or value != value:  # NaN, by which pandas says that a cell is empty
        return ""
    if not isinstance(value, str):
        raise UserError(
            f"topics.source: {source}, row {number}: a topic is text, such as Arts/Music, and this is a "
            f"{type(value).__name__} ({str(value)[:80]})."
        )
    return value
