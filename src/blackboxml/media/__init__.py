"""The media of a run: what its media journals name, and the files that hold it."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from blackboxml.base.files import check_relative, raise_refusal
from blackboxml.errors import FormatError, JournalError, MetricError, Problem, UnsafePathError
from blackboxml.journal import decode
from blackboxml.journal.merge import Cuts, find_journals
from blackboxml.journal.scan import REPAIR, Scan
from blackboxml.media.medium import check_dims, check_reference
from blackboxml.model import LIMITS, JournalFile, Limits, MediaRecord, Record, Rewind, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.base.files import Directory

FOLDERS = ("media/", "artifacts/")
"""Where a file of a medium may lie."""

_TEXTS = ("name", "kind", "file", "sha256", "media_type", "entry")


def read_media(
    directory: Directory,
    run_id: str,
    view: View = "effective",
    limits: Limits = LIMITS,
    problems: list[Problem] | None = None,
) -> Iterator[MediaRecord]:
    """Yield the media of a run in merge order: attempt, rank, `seq`.

    Args:
        directory: The run.
        run_id: Its id; media journals of another run are left out.
        view: `effective` leaves out what a rewind superseded, `all` does not.
        limits: What a reader accepts.
        problems: Receives what was found wrong.
    """
    for record, _ in locate_media(directory, run_id, view, limits, problems):
        yield record


class Place(NamedTuple):
    """Where the record of a medium stands.

    Attributes:
        journal: The journal.
        offset: Where its line begins.
        length: Bytes of the line, its LF left out.
    """

    journal: JournalFile
    offset: int
    length: int


def locate_media(
    directory: Directory,
    run_id: str,
    view: View = "effective",
    limits: Limits = LIMITS,
    problems: list[Problem] | None = None,
) -> Iterator[tuple[MediaRecord, Place]]:
    """Yield the media of a run with their places; the arguments are those of `read_media`."""
    found = problems if problems is not None else []
    journals = find_journals(directory, limits, found, run_id, stem="media")
    cuts = Cuts(_rewinds(directory, journals, limits) if view == "effective" else [])
    for journal in journals:
        scan = Scan(journal, set(), found, limits)
        for place, document in _documents(directory, journal, scan):
            if "media" not in document:
                continue
            try:
                record = _interpret(document, journal.rank, journal.attempt)
            except JournalError as error:
                where = journal.name, scan.line, place.offset
                problem = Problem(error.rule, "error", str(error), *where, cure=REPAIR)
                if problem not in found:
                    found.append(problem)
                continue
            point = Record(record.seq, record.step, 0.0, record.rank, record.attempt, {})
            if not cuts.supersede(point):
                yield record, place


def read_at(directory: Directory, place: Place) -> MediaRecord:
    """Return the medium whose record stands at a place.

    Raises:
        JournalError: If another line stands there now.
        OSError: If the journal cannot be read.
    """
    journal = place.journal
    with directory.reading(journal.name) as descriptor:
        line = os.pread(descriptor, place.length, place.offset)
    document = decode(line)
    if "media" not in document:
        message = f"{journal.name} has changed at byte {place.offset:,}"
        raise JournalError(message)
    return _interpret(document, journal.rank, journal.attempt)


def load_file(directory: Directory, record: MediaRecord, limit: int) -> bytes:
    """Return the content of the file of a medium.

    Args:
        directory: The run.
        record: What names the file.
        limit: Most bytes that are accepted.

    Raises:
        ValueError: If the medium has no file.
        FormatError: If the file is missing, is a link, or is not the one that was recorded.
        OSError: If the file system refuses to show it.
    """
    if record.file is None:
        where = "its value is there"
        if record.reference is not None:
            where = f"it is at {record.reference['uri']!r:.200}"
        message = f"{record.name!r:.80} at step {record.step} has no file; {where}"
        raise ValueError(message)
    try:
        data = directory.read(record.file, limit)
    except (OSError, UnsafePathError) as error:
        raise_refusal(error)
        message = f"{record.file} of {directory.path} cannot be read: {error}"
        raise FormatError(message) from None
    if len(data) != record.bytes or (
        record.sha256 is not None and hashlib.sha256(data).hexdigest() != record.sha256
    ):
        message = (
            f"{record.file} of {directory.path} is not the file that was recorded: "
            f"its size or its SHA-256 differs; restore it from a backup"
        )
        raise FormatError(message)
    return data


def _documents(
    directory: Directory, journal: JournalFile, scan: Scan
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the records that count from a journal."""
    for block in scan.blocks(directory):
        for offset, line, document, _ in scan.good(block):
            if journal.low <= document["seq"] and (
                journal.high is None or document["seq"] <= journal.high
            ):
                yield Place(journal, offset, len(line)), document


def _rewinds(directory: Directory, journals: list[JournalFile], limits: Limits) -> Iterator[Rewind]:
    """Yield the rewinds in media journals."""
    for journal in journals:
        scan = Scan(journal, set(), [], limits)
        for _, document in _documents(directory, journal, scan):
            if "rewind" in document:
                step = document["rewind"]["step"]
                yield Rewind(journal.rank, journal.attempt, document["seq"], step)


def _interpret(document: dict[str, Any], rank: int, attempt: int) -> MediaRecord:
    """Return the medium that a record holds.

    Raises:
        JournalError: With the rule that it breaks.
    """
    medium = document["media"]
    step = document.get("step")
    if not isinstance(medium, dict) or type(step) is not int:
        message = "a record of a medium needs a step, and `media` as an object"
        raise JournalError(message, "BB-MED-003")
    texts = {key: medium.get(key) for key in _TEXTS}
    for key, text in texts.items():
        if not isinstance(text, str) and (text is not None or key in {"name", "kind"}):
            message = f"`{key}` of a medium is {text!r:.80}, wanted text"
            raise JournalError(message, "BB-MED-003")
    size = medium.get("bytes")
    given = sum(key in medium for key in ("value", "file", "reference"))
    if given != 1 or ("file" in medium and type(size) is not int):
        message = (
            f"the medium {texts['name']!r:.80} has not one of `value`, `file` with `bytes`, and "
            "`reference`"
        )
        raise JournalError(message, "BB-MED-005")
    if texts["file"] is not None:
        try:
            check_relative(texts["file"])
        except UnsafePathError as error:
            raise JournalError(str(error), "BB-LAY-006") from None
        if not texts["file"].startswith(FOLDERS):
            message = f"{texts['file']} lies neither below media/ nor below artifacts/"
            raise JournalError(message, "BB-MED-006")
    name, kind = str(texts["name"]), str(texts["kind"])
    try:
        dims = check_dims(name, kind, medium["dims"]) if "dims" in medium else []
    except MetricError as error:
        raise JournalError(str(error), "BB-MED-013") from None
    try:
        known = medium.get("reference")
        reference = None if known is None else check_reference(name, kind, known)
    except MetricError as error:
        raise JournalError(str(error), "BB-MED-015") from None
    return MediaRecord(
        seq=document["seq"],
        step=step,
        time=document["time"],
        rank=rank,
        attempt=attempt,
        name=name,
        kind=kind,
        value=medium.get("value"),
        file=texts["file"],
        bytes=size,
        sha256=texts["sha256"],
        media_type=texts["media_type"],
        reference=reference,
        dims=tuple(dims),
        entry=texts["entry"],
    )
