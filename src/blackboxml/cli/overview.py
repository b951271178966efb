"""What can be said of a run without reading all of it: one line, its number of steps, its end."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml.base.files import Directory
from blackboxml.collection import find_runs
from blackboxml.errors import JournalError, ManifestError, NotARunError
from blackboxml.frontends.store import load_run
from blackboxml.journal import check_sequence, read_blocks, read_record, read_tail
from blackboxml.journal.merge import find_journals, journal_sizes
from blackboxml.model import INT64_MAX, LIMITS
from blackboxml.reader import open_run

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from blackboxml.manifest import Manifest
    from blackboxml.model import JournalFile, Record
    from blackboxml.reader import RunReader

Writer = tuple[int, int]
"""Attempt and rank: who wrote a record."""

UNREADABLE: Final = "unreadable"
"""The status in an overview of a run that cannot be opened."""

_POINT: Final = re.compile(rb'"metrics"\s*:\s*\{')


@dataclass(frozen=True, slots=True)
class Overview:
    """One run in one line; None where something is not known.

    Attributes:
        path: The run directory.
        name: The name as the user gave it.
        id: 32 hexadecimal digits.
        status: The reader's status, or `unreadable`.
        start: When the run began, with its offset from UTC.
        end: When it ended.
        duration_seconds: Seconds from start to end.
        steps: Points of all ranks and attempts; of a run that is not sealed as its journals have
            them now.
        tags: The tags as the user gave them.
        metrics: The last value of each metric as JSON has it, for a sealed run.
        error: Why the run cannot be read.
    """

    path: Path
    name: str | None = None
    id: str | None = None
    status: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    duration_seconds: float | None = None
    steps: int | None = None
    tags: list[str] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def describe(path: str | os.PathLike[str]) -> Overview:
    """Return one run in one line; a run that cannot be read gives the reason, never an error."""
    place = Path(path)
    try:
        return _describe(place)
    except (NotARunError, ManifestError) as error:
        return _describe_legacy(place, reason(error))
    except Exception as error:  # noqa: BLE001 - a damaged run must not hide the others
        return Overview(place, status=UNREADABLE, error=reason(error))


def newest_legacy_run(root: str | os.PathLike[str], name: str) -> Path | None:
    """Return the run of blackboxml 0.5 of a name that began last, or None if there is none."""
    runs = (_describe_legacy(path, "") for path in find_runs(root))
    found = [(run.start, run.path) for run in runs if run.start and run.name == name]
    return max(found)[1] if found else None


def reason(error: Exception) -> str:
    """Return what an error says, without what Python adds to some kinds of it."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    if isinstance(error, OSError) and error.strerror:
        if isinstance(error, NotARunError) or error.filename is None:
            return error.strerror
        return f"{error.filename}: {error.strerror}"
    return str(error) or repr(error)


def last_points(reader: RunReader, count: int) -> dict[Writer, list[Record]]:
    """Return the last points of each rank, read from the ends of its journals.

    Points that a rewind superseded are among them: they were logged.

    Args:
        reader: The run.
        count: How many of each rank at most. Earlier attempts are asked only until there are as
            many in all.
    """
    if reader.packed:
        kept: dict[Writer, list[Record]] = {}
        for record in reader.records("all"):
            points = kept.setdefault((record.attempt, record.rank), [])
            points.append(record)
            del points[:-count]
        return kept
    found: dict[Writer, list[Record]] = {}
    with Directory(reader.path) as directory:
        for journal in reversed(find_journals(directory, LIMITS, None, reader.id)):
            if all(attempt > journal.attempt for attempt, _ in found) and (
                sum(map(len, found.values())) >= count
            ):
                break
            points = found.setdefault((journal.attempt, journal.rank), [])
            if missing := count - len(points):
                points[:0] = _last_of(directory, journal, missing)
    return dict(reversed(found.items()))


def in_order(points: dict[Writer, list[Record]]) -> list[Record]:
    """Return points by attempt, and within one by time; each rank's own stay in their order."""
    ordered: list[Record] = []
    for attempt in sorted({attempt for attempt, _ in points}):
        ranks = [records for writer, records in points.items() if writer[0] == attempt]
        ordered += merge(*ranks, key=lambda record: record.time)
    return ordered


def follow(reader: RunReader, count: int, poll: float = 0.5) -> Iterator[Record]:
    """Yield the last points of a run, and then those that are logged, until it ends.

    Args:
        reader: The run.
        count: How many points to begin with.
        poll: Seconds between two looks at the files.
    """
    points = last_points(reader, max(1, count))
    seen = {writer: records[-1].seq for writer, records in points.items() if records}
    newest = max((attempt for attempt, _ in seen), default=-1)

    def last_seen(writer: Writer) -> int:
        """Return the last `seq` that needs no look; all of an attempt from before the newest."""
        return seen.get(writer, INT64_MAX if writer[0] < newest else -1)

    if count:
        yield from in_order(points)[-count:]
    before: dict[str, int] = {}
    while True:
        over = reader.status not in {"running", "stale"}
        with Directory(reader.path) as directory:
            sizes = journal_sizes(directory)  # if they have not changed, no point was logged
        if sizes != before:
            for record in _missed(reader, last_seen):
                seen[record.attempt, record.rank] = record.seq
                yield record
        if over:
            return
        before = sizes
        time.sleep(poll)


def _missed(reader: RunReader, last_seen: Callable[[Writer], int]) -> list[Record]:
    """Return the points that are in the files and were not seen yet."""
    count = 64
    while True:
        points = last_points(reader, count)
        if all(
            len(records) < count or records[0].seq <= last_seen(writer) + 1
            for writer, records in points.items()
        ):
            break
        count *= 8
    return [
        record
        for record in in_order(points)
        if record.seq > last_seen((record.attempt, record.rank))
    ]


def _describe(path: Path) -> Overview:
    """Return one run in one line.

    Raises:
        Exception: Of any kind, if the run breaks the format.
    """
    reader = open_run(path)
    manifest = reader.manifest
    sealed = reader.sealed
    return Overview(
        path=path,
        name=reader.name or path.name,
        id=reader.id,
        status=reader.verdict.status,
        start=_aware(reader.start) if "start" in reader.manifest else None,
        end=None if reader.end is None else _aware(reader.end),
        duration_seconds=reader.duration_seconds,
        steps=_sealed_points(manifest) if sealed else _count_points(reader),
        tags=[str(tag) for tag in reader.tags],
        metrics=_last_values(manifest) if sealed else {},
    )


def _describe_legacy(path: Path, why: str) -> Overview:
    """Return a run of blackboxml 0.5 in one line, or why it is none."""
    try:
        run = load_run(path)
        start = _aware(datetime.fromisoformat(run["start"]))
        end = run.get("end")
        duration = run.get("duration_seconds")
        return Overview(
            path=path,
            name=run["name"],
            start=start,
            end=None if end is None else _aware(datetime.fromisoformat(end)),
            duration_seconds=None if duration is None else float(duration),
            steps=len(run["steps"]),
            tags=[str(tag) for tag in run.get("tags") or []],
        )
    except (NotARunError, ManifestError):
        return Overview(path, status=UNREADABLE, error=why)
    except Exception as error:  # noqa: BLE001 - as in `describe`
        return Overview(path, status=UNREADABLE, error=reason(error))


def _sealed_points(manifest: Manifest) -> int:
    """Return how many points the journals of a sealed run hold, or held."""
    return sum(
        entry["records"] - sum("metrics" not in event for event in entry["events"])
        for entry in manifest["journals"]
    )


def _last_values(manifest: Manifest) -> dict[str, Any]:
    """Return the last value of each metric of a sealed run as the manifest spells it."""
    return {
        name: said["last"]
        for group in manifest["groups"].values()
        for name, said in group["metrics"].items()
        if "last" in said
    }


def _count_points(reader: RunReader) -> int:
    """Count the points in journals without decoding them, some million lines a second."""
    count = 0
    with Directory(reader.path) as directory:
        for journal in find_journals(directory, LIMITS, None, reader.id):
            whole = journal.low == journal.first_seq and journal.high is None
            with directory.reading(journal.name) as descriptor:
                for block in read_blocks(descriptor, journal.start):
                    if whole:
                        some = block.data.count(b'"metrics":{')
                        count += some or len(_POINT.findall(block.data))
                    else:
                        count += sum(_counts(line, journal) for line in block.data.splitlines())
    return count


def _counts(line: bytes, journal: JournalFile) -> bool:
    """Tell whether a line is a point of those that are taken from its journal."""
    try:
        document = orjson.loads(line)
        return "metrics" in document and _is_taken(document["seq"], journal)
    except (ValueError, TypeError, KeyError):
        return False


def _last_of(directory: Directory, journal: JournalFile, count: int) -> list[Record]:
    """Return the last points of a journal, oldest first, reading no more of it than needed."""
    with directory.reading(journal.name) as descriptor:
        documents = read_tail(descriptor, journal.start, journal.size)
        return list(islice(_points(documents, journal), count))[::-1]


def _points(documents: Iterable[dict[str, Any]], journal: JournalFile) -> Iterator[Record]:
    """Yield the good points among records."""
    for document in documents:
        with suppress(JournalError):
            seq, _ = check_sequence(document)
            if "metrics" in document and _is_taken(seq, journal):
                yield read_record(document, journal.rank, journal.attempt, LIMITS)


def _is_taken(seq: int, journal: JournalFile) -> bool:
    """Tell whether a record counts from this journal, and not from one that continues it."""
    return journal.low <= seq and (journal.high is None or seq <= journal.high)


def _aware(moment: datetime) -> datetime:
    """Return a time with its offset; one without is taken as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
