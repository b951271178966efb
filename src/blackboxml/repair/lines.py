"""One journal as it stands: which of its records are good, and what is between them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blackboxml.base import schema
from blackboxml.errors import Findings, JournalError
from blackboxml.journal import Block, decode, read_blocks
from blackboxml.journal.scan import Scan
from blackboxml.media.medium import value_fault
from blackboxml.model import Mark
from blackboxml.repair import ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blackboxml.base.files import Directory
    from blackboxml.base.naming import JournalStem
    from blackboxml.journal.scan import Event
    from blackboxml.model import JournalFile, Limits
    from blackboxml.repair.ranges import Range

MOST_PLACES: Final = 1000
"""Places of dropped lines that a report names."""

_TAIL_BYTES: Final = 2**20
_STRAY_BYTES: Final = 2**26


class Line(NamedTuple):
    """A good record.

    Attributes:
        seq: Its `seq`.
        data: Its line with LF.
        offset: Where the line begins.
        number: Number of the line, from 1.
        document: The record.
    """

    seq: int
    data: bytes
    offset: int
    number: int
    document: Event


@dataclass(slots=True)
class Found:
    """What a journal holds.

    Attributes:
        journal: The journal, whole.
        ranges: The `seq` of its good records.
        lines: How many good records there are.
        dropped_lines: Committed lines that are no good record.
        dropped_bytes: Their bytes.
        places: Line and offset of the first of them.
        after_last: How many of them follow the last good record.
        strays: Those of them that are good records out of place, by `seq`, with their LF.
        differing: How many of these are given up: the journal has another record of that `seq`.
        tail: Bytes after the last LF.
        ended: Whether it holds an `end` record.
        last_time: Time of its last good record, None without one.
        first_time: Time of its first one.
        kept: Records, events and values that the merge takes from it.
        problems: What is wrong with its lines.
    """

    journal: JournalFile
    kept: Counter[str] = field(default_factory=Counter)
    ranges: list[Range] = field(default_factory=list)
    lines: int = 0
    dropped_lines: int = 0
    dropped_bytes: int = 0
    places: list[tuple[int, int]] = field(default_factory=list)
    after_last: int = 0
    strays: dict[int, bytes] = field(default_factory=dict)
    differing: int = 0
    tail: int = 0
    ended: bool = False
    first_time: float | None = None
    last_time: float | None = None
    problems: Findings = field(default_factory=Findings)

    @property
    def held(self) -> list[Range]:
        """The `seq` of its records, be they out of place."""
        return ranges.union(self.ranges, [(seq, seq) for seq in self.strays])

    @property
    def next_seq(self) -> int:
        """One more than the `seq` of the last good record, or the first that is due."""
        return self.ranges[-1][1] + 1 if self.ranges else self.journal.first_seq


def good_lines(
    directory: Directory,
    journal: JournalFile,
    limits: Limits,
    stem: JournalStem,
    problems: Findings | None = None,
) -> Iterator[Line]:
    """Yield the good records of a journal in order.

    Args:
        directory: The run.
        journal: The journal, whole.
        limits: What a reader accepts.
        stem: Whether it is of metrics or of media.
        problems: Receives what is wrong with the other lines.
    """
    found = Findings() if problems is None else problems
    scan = Scan(journal, set(), found, limits)
    if not journal.start:  # its first line is a record
        scan.line = 1
    for block in scan.blocks(directory):
        for offset, line, document, _ in scan.good(block):
            if stem == "metrics" or is_media(document):
                yield Line(document["seq"], line + b"\n", offset, scan.line, document)
            if "end" in document:
                scan.ended = True


def is_media(document: dict[str, Any]) -> bool:
    """Tell whether a good line is a record of a media journal."""
    if not schema.validator("media-record").is_valid(document):
        return False
    media = document.get("media", {})
    return "value" not in media or not value_fault(media["kind"], media["value"])


def _is_record(line: bytes, journal: JournalFile, limits: Limits, stem: JournalStem) -> bool:
    """Tell whether a line with its LF is a good record, wherever it stands."""
    seq = decode(line[:-1]).get("seq")
    alone = replace(journal, mark=Mark(seq, 0, 1)) if type(seq) is int and seq >= 0 else journal
    scan = Scan(alone, set(), Findings(), limits)
    return any(
        stem == "metrics" or is_media(document) for _, _, document, _ in scan.good(Block(0, line))
    )


def survey(
    directory: Directory,
    journal: JournalFile,
    limits: Limits,
    stem: JournalStem,
    taken: Sequence[Range] = (),
) -> Found:
    """Read a journal once.

    Args:
        directory: The run.
        journal: The journal, whole.
        limits: What a reader accepts.
        stem: Whether it is of metrics or of media.
        taken: The `seq` that the merge takes from later journals.
    """
    found = Found(_with_first_line(directory, journal, limits, stem))
    journal = found.journal
    place, number = journal.start, 2 if journal.start else 1
    with directory.reading(journal.name) as descriptor:
        committed = _committed(descriptor, journal.start)
        found.tail = os.fstat(descriptor).st_size - committed
        for line in good_lines(directory, journal, limits, stem, found.problems):
            if line.offset > place:
                _drop(found, descriptor, (place, line.offset), number, limits)
            ranges.add(found.ranges, line.seq)
            found.lines += 1
            if not (taken and ranges.holds(taken, line.seq)):
                found.kept.update(contents(line.document))
            found.ended = found.ended or "end" in line.document
            found.last_time = float(line.document["time"])
            if found.first_time is None:
                found.first_time = found.last_time
            place, number = line.offset + len(line.data), line.number + 1
        if committed > place:
            before = found.dropped_lines
            _drop(found, descriptor, (place, committed), number, limits)
            found.after_last = found.dropped_lines - before
    _sort_strays(found, directory, limits, stem)
    for seq, data in found.strays.items():
        document = decode(data[:-1])
        found.ended = found.ended or "end" in document
        if not ranges.holds(taken, seq):
            found.kept.update(contents(document))
    return found


def _sort_strays(found: Found, directory: Directory, limits: Limits, stem: JournalStem) -> None:
    """Keep the records out of place that are not there in their place."""
    held = {seq for seq in found.strays if ranges.holds(found.ranges, seq)}
    if held:
        for line in good_lines(directory, found.journal, limits, stem):
            if line.seq in held:
                found.differing += found.strays.pop(line.seq) != line.data
    for seq, data in list(found.strays.items()):
        if seq < found.journal.first_seq or not _is_record(data, found.journal, limits, stem):
            del found.strays[seq]


def _with_first_line(
    directory: Directory, journal: JournalFile, limits: Limits, stem: JournalStem
) -> JournalFile:
    """Return a journal that begins with a record where a header should be, read from there."""
    if journal.header is not None:
        return journal
    with directory.reading(journal.name) as descriptor:
        line = os.pread(descriptor, min(journal.start, limits.line_bytes), 0)
    try:
        seq = decode(line.removesuffix(b"\n")).get("seq")
    except JournalError:
        return journal
    if type(seq) is not int or not _is_record(line, journal, limits, stem):
        return journal
    if journal.first_seq and seq > journal.first_seq:
        return journal
    first = min(seq, journal.first_seq) if journal.first_seq else 0
    return replace(journal, start=0, first_seq=first, low=first)


def _drop(
    found: Found, descriptor: int, span: tuple[int, int], number: int, limits: Limits
) -> None:
    """Count the lines between two good records, and keep those that are good ones out of place."""
    found.dropped_bytes += span[1] - span[0]
    for block in read_blocks(descriptor, span[0], line_bytes=limits.line_bytes):
        start = block.offset
        for line in block.data.split(b"\n")[: -1 if block.data.endswith(b"\n") else None]:
            if start >= span[1]:
                return
            if len(found.places) < MOST_PLACES:
                found.places.append((number, start))
            found.dropped_lines += 1
            number += 1
            start += len(line) + 1
            _keep_stray(found, line)


def _keep_stray(found: Found, line: bytes) -> None:
    """Keep a line that is a record, as long as there are few of them."""
    try:
        seq = decode(line).get("seq")
    except JournalError:
        return
    if type(seq) is not int:
        return
    if seq in found.strays:
        found.differing += found.strays[seq] != line + b"\n"
    elif sum(map(len, found.strays.values())) < _STRAY_BYTES:
        found.strays[seq] = line + b"\n"
    else:
        found.differing += 1


def _committed(descriptor: int, start: int) -> int:
    """Return the offset behind the last LF."""
    end = os.fstat(descriptor).st_size
    while end > start:
        begin = max(start, end - _TAIL_BYTES)
        if (at := os.pread(descriptor, end - begin, begin).rfind(b"\n")) >= 0:
            return begin + at + 1
        end = begin
    return start


def contents(document: Event) -> dict[str, int]:
    """Return what a record counts as."""
    if "metrics" not in document:
        return {"records" if "media" in document else "events": 1}
    ranks = document.get("ranks", {})
    return {"records": 1, "values": len(document["metrics"]) + sum(map(len, ranks.values()))}
