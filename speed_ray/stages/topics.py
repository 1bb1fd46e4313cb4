"""Read a user's list of topics into the `topics` artifact: truncated, deduplicated, every line a record or reject."""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from speed_ray.errors import UserError
from speed_ray.records import TOPIC, Row, TopicRow, content_id
from speed_ray.stages import driver_stage
from speed_ray.storage.fingerprint import code_digests
from speed_ray.storage.run import TOPICS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import open_store
from speed_ray.text import tables
from speed_ray.text.rules import is_plain

MAX_TOPIC_CHARS = 300  # characters; a longer line is no category path but text that was pasted by mistake
SHARD_ROWS = 4096


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


def read_topics(source: str, limit: int | None = None) -> list[str]:
    """Return the first `limit` topic paths of a source, stripped; blank lines and `#` comments are left out.

    A source is `miniature://topics`, or a file or URI: text with one path a line, or CSV or Parquet with a `topic`
    column. Raises UserError for one that is missing, unreadable or empty.
    """
    if source == "miniature://topics":
        from speed_ray.miniature import world

        return world.topics()[:limit]
    lines = _lines(source)
    if any("\0" in line for line in lines):  # UTF-16 without its mark decodes as UTF-8, with a zero in every letter
        raise UserError(f"topics.source: {source} is not UTF-8 text (it holds zero bytes). Save it as UTF-8.")
    stripped = (line.strip() for line in lines)
    topics = [line for line in stripped if line and not line.startswith("#")][:limit]
    if not topics:
        raise UserError(f"topics.source: {source} holds no topic. Write one category path a line, such as Arts/Music.")
    if not any(map(_is_topic, topics)):
        raise UserError(
            f"topics.source: {source} holds no topic: each of its {len(topics):,} lines is longer than "
            f"{MAX_TOPIC_CHARS} characters, or only separators. Write one category path a line, such as Arts/Music."
        )
    return topics


def truncate(path: str) -> str:
    """Keep the first two and the last two parts of a path deeper than four (SPEED, appendix D.1: 61.8 -> 62.6)."""
    parts = [part.strip() for part in path.split("/") if part.strip()]
    return "/".join(parts if len(parts) <= 4 else parts[:2] + parts[-2:])


def _is_topic(line: str) -> bool:
    return len(line) <= MAX_TOPIC_CHARS and truncate(line) != ""


def _topic(number: int, line: str, seen: set[str]) -> driver_stage.RowResult:
    topic = truncate(line)
    if not _is_topic(line):
        reason, detail = ("too_long", f"{len(line)} characters") if topic else ("no_words", "only separators")
        return driver_stage.reject(content_id(TOPICS, str(number), line), "", TOPICS, reason, detail, line[:1000])
    same = is_plain(topic)
    if same in seen:
        return driver_stage.reject(content_id(TOPICS, str(number), line), "", TOPICS, "duplicate", topic, line)
    seen.add(same)
    row: TopicRow = {"id": content_id(topic), "topic": topic, "source": line}
    return driver_stage.RowResult(row["id"], row, None)


def _bytes(source: str) -> bytes:
    folder, _, name = source.rpartition("/")
    try:
        return open_store(folder).get(name) if "://" in source else Path(source).expanduser().read_bytes()
    except FileNotFoundError:
        raise UserError(f"topics.source: there is no file {source}.") from None
    except OSError as error:
        raise UserError(f"topics.source: cannot read {source}: {error.strerror}.") from None


def _lines(source: str) -> list[str]:
    file, suffix = BytesIO(_bytes(source)), Path(source).suffix.lower()
    name = f"topics.source: {source}"
    if suffix == ".parquet":
        rows = [row for _, row in tables.read_parquet(file, name)]
        return _column(source, list(rows[0]), rows) if rows else []
    if suffix == ".csv":
        header, *cells = [row for _, row in tables.read_csv(file, name)] or [[]]
        return _column(source, header, [dict(zip(header, row, strict=False)) for row in cells])
    return [line for _, [text] in tables.read_text(file, name) for line in text.splitlines()]


def _column(source: str, columns: list[str], rows: Sequence[Row]) -> list[str]:
    if "topic" not in columns:
        raise UserError(f"topics.source: {source} has no column `topic` (it has: {', '.join(columns) or 'none'}).")
    return [str(row.get("topic") or "") for row in rows]
