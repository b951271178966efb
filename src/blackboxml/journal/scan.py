"""A journal read record by record: the good ones in order, the exact place of everything else."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base import naming
from blackboxml.errors import JournalError, MetricError, Problem
from blackboxml.journal import Block, check_sequence, count_off, decode, read_blocks, read_record
from blackboxml.model import INT64_MAX, INT64_MIN, LIMITS, STATISTICS, Limits, Record, Rewind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.base.files import Directory
    from blackboxml.model import JournalFile

REPAIR = "blackbox seal keeps every good record; restore the file from a backup to get the others"
EVENTS = ("rewind", "gap", "describe", "end")
"""Kinds of records that are not points."""

POINT = frozenset(["seq", "step", "time", "metrics", "ranks", "crc"])
"""The members of a point; one with others is kept as an event too, so that nothing is lost."""

_STATISTICS: Final = frozenset(STATISTICS)

Event = dict[str, Any]

_BLOCK_BYTES = 4 * 2**20


class Scan:
    """The state of reading one journal: where it is, what it expects, what it found.

    Attributes:
        journal: The journal.
        problems: Receives every finding once.
        events: The records that tables do not hold or not whole, in order, without `crc`: those
            that are no points, points without a value, points with members or statistics of a later
            version.
        line: Number of the next line, from 1.
        expected: `seq` of the next record.
        records: How many records count.
        ended: Whether the journal was closed with an `end` record.
        last_time: Time of the last record, Unix seconds; 0 before one was read.
        names: Metric names that were checked already; shared by the journals of a run.
    """

    def __init__(
        self,
        journal: JournalFile,
        names: set[str],
        problems: list[Problem],
        limits: Limits = LIMITS,
        exact: frozenset[tuple[int, int, int]] | set[tuple[int, int, int]] = frozenset(),
    ) -> None:
        """Begin behind the header.

        Args:
            journal: The journal.
            names: Metric names that were checked already.
            problems: Receives the findings.
            limits: What a reader accepts.
            exact: Attempt, rank and `seq` of points that are to be kept as events too.
        """
        self._exact = exact
        self.journal = journal
        self.names = names
        self.problems = problems
        self.limits = limits
        self.events: list[Event] = []
        self.records = 0
        seq, offset, line = journal.mark or (journal.first_seq, journal.start, 2)
        self.line = line
        self.expected = seq
        self.ended = False
        self.last_time = 0.0
        self.offset = offset
        self._full = False

    @property
    def rewinds(self) -> list[Rewind]:
        """The rewinds among the events."""
        rank, attempt = self.journal.rank, self.journal.attempt
        return [
            Rewind(rank, attempt, event["seq"], event["rewind"]["step"])
            for event in self.events
            if "rewind" in event
        ]

    def blocks(self, directory: Directory) -> Iterator[Block]:
        """Yield the committed lines that were not read yet."""
        stop = self.journal.stop
        with directory.reading(self.journal.name) as descriptor:
            size = _BLOCK_BYTES if stop is None else min(_BLOCK_BYTES, stop - self.offset)
            if size <= 0:
                return
            long: Block | None = None
            for block in read_blocks(descriptor, self.offset, size, self.limits.line_bytes):
                if long is not None:
                    yield Block(long.offset, long.data + b"\n")
                long = None if block.data.endswith(b"\n") else block
                if stop is not None and block.offset + len(block.data) >= stop:
                    yield Block(block.offset, block.data[: stop - block.offset])
                    return
                if long is None:
                    yield block
            end = os.fstat(descriptor).st_size
            if long is not None and os.pread(descriptor, 1, end - 1) == b"\n":
                yield Block(long.offset, long.data + b"\n")
                self.offset = max(self.offset, end)

    def read(self, block: Block) -> list[Record]:
        """Return the good points of a block; events and problems are kept in the scan."""
        return [
            record
            for _, _, document, record in self.good(block)
            if self._counts(document, record) and record is not None
        ]

    def good(self, block: Block) -> Iterator[tuple[int, bytes, Event, Record | None]]:
        """Yield each good record of a block in order: offset, line, document and its point."""
        offset = block.offset
        for line in block.data.split(b"\n")[:-1]:
            with suppress(JournalError):
                document, record = self._check_line(line, offset)
                if self._is_next(document["seq"], offset):
                    yield offset, line, document, record
            self.line += 1
            offset += len(line) + 1
        self.offset = offset

    def accept(self, lines: int, size: int, last_time: float) -> None:
        """Count a block that was read and checked by other means."""
        self.last_time = last_time
        self.line += lines
        self.expected += lines
        self.records += lines
        self.offset += size

    def _check_line(self, line: bytes, offset: int) -> tuple[Event, Record | None]:
        """Return the record in a line, and the point in that or None."""
        try:
            if len(line) >= self.limits.line_bytes:
                message = f"the line is longer than {self.limits.line_bytes:,} bytes"
                raise JournalError(message, "BB-JNL-002")
            document = decode(line)
            if "seq" not in document and "format" in document:
                raise JournalError("a header stands here, wanted a record", "BB-JNL-005")
            check_sequence(document)
            record = self._interpret(document)
        except JournalError as error:
            self._report(error.rule, str(error), offset)
            raise
        return document, None if record is None else self._within_limit(record, offset)

    def _is_next(self, seq: int, offset: int) -> bool:
        """Tell whether a record comes after those before it; report what is missing or repeated."""
        if seq > self.expected:
            lost = count_off(self.expected, seq - 1, "missing")
            header = self.journal.header
            known = header is not None and header.losses.covers(self.expected, seq - 1)
            self._report("BB-REP-007" if known else "BB-JNL-009", lost, offset)
        elif seq < self.expected:
            self._report("BB-JNL-009", f"record {seq} comes again, {self.expected} was due", offset)
            return False
        if self.ended:
            self._report("BB-JNL-010", "a record follows the end of the journal", offset)
        self.expected = seq + 1
        return True

    def _counts(self, document: Event, record: Record | None) -> bool:
        """Count a record in, unless another journal has it; keep it if tables cannot."""
        seq: int = document["seq"]
        high = self.journal.high
        if seq < self.journal.low or (high is not None and seq > high):
            return False
        self.last_time = document["time"]
        self.records += 1
        if (
            record is None
            or not (record.metrics or record.ranks)
            or not POINT.issuperset(document)
            or (record.ranks and not all(map(_STATISTICS.issuperset, document["ranks"].values())))
            or (record.attempt, record.rank, seq) in self._exact
        ):
            document.pop("crc")
            self.events.append(document)
        self.ended = self.ended or "end" in document
        return True

    def _within_limit(self, record: Record, offset: int) -> Record:
        """Return a point without the metrics that are too many for the run."""
        if not record.ranks and self.names.issuperset(record.metrics):
            return record
        new = {*record.metrics, *record.ranks} - self.names
        if len(self.names) + len(new) <= self.limits.metric_names:
            self.names |= new
            return record
        if not self._full:
            message = f"the run has more than {self.limits.metric_names:,} metric names"
            self._report("BB-LIM-001", f"{message}; further ones are left out", offset)
        self._full = True
        for name in [*record.metrics, *record.ranks]:
            if len(self.names) < self.limits.metric_names:
                self.names.add(name)
        return replace(
            record,
            metrics={key: each for key, each in record.metrics.items() if key in self.names},
            ranks={key: each for key, each in record.ranks.items() if key in self.names},
        )

    def _interpret(self, document: Event) -> Record | None:
        """Return the point that a record holds, or None for an event that is well formed."""
        if not POINT.issuperset(document):
            _check_shape(document, self.limits)
        if "metrics" in document:
            _integer(document, "step", INT64_MIN)
            record = read_record(document, self.journal.rank, self.journal.attempt, self.limits)
            if document.get("ranks"):
                _check_ranks(document["ranks"])
            for name in record.metrics.keys() | record.ranks.keys():
                if name not in self.names:
                    _check_name(name)
            return record
        check_event(document)
        return None

    def _report(self, rule: str, message: str, offset: int) -> None:
        """Keep a finding once, however often the journal is read."""
        place = self.journal.name, self.line, offset
        problem = Problem(rule, "error", message, *place, cure=REPAIR)
        if rule == "BB-REP-007":  # a repair has stated it
            problem = Problem(rule, "warning", message, *place)
        if problem not in self.problems:
            self.problems.append(problem)


def check_event(document: Event) -> None:
    """Check a record that is not a point.

    Raises:
        JournalError: If it has no kind, or a member of a known kind is not what it should be.
    """
    if {"seq", "time", "step", "ranks", "crc"}.issuperset(document):
        message = f"the record has no kind, only {', '.join(sorted(document))}"
        raise JournalError(message, "BB-JNL-008")
    if "ranks" in document:
        message = '"ranks" stands without "metrics"'
        raise JournalError(message)
    if "step" in document:
        _integer(document, "step", INT64_MIN)
    for kind in EVENTS:
        if kind in document:
            if not isinstance(document[kind], dict):
                message = f'"{kind}" is {document[kind]!r:.80}, wanted an object'
                raise JournalError(message)
            _CHECKS[kind](document[kind])


def _check_shape(document: Event, limits: Limits) -> None:
    """Check what only a record with more than the members of a point can get wrong."""
    kinds = [kind for kind in ("metrics", *EVENTS) if kind in document]
    if len(kinds) > 1:
        message = f"the record is of the kinds {', '.join(kinds)}, wanted one"
        raise JournalError(message, "BB-JNL-008")
    if deeper(document, limits.depth):
        message = f"the record is nested deeper than {limits.depth} levels"
        raise JournalError(message, "BB-LIM-001")


def _check_ranks(ranks: dict[str, dict[str, Any]]) -> None:
    """Check what a number of ranks can be; the other statistics are numbers like any value."""
    for statistics in ranks.values():
        if "count" in statistics:
            _integer(statistics, "count", 0)


def _check_name(name: str) -> None:
    """Check the name of a metric.

    Raises:
        JournalError: With the rule that it breaks.
    """
    try:
        naming.check_metric_name(name)
    except MetricError as error:
        rule = "BB-GRP-002"
        if name.startswith("/") or name.endswith("/"):
            rule = "BB-GRP-003"
        if not name or len(name.encode(errors="replace")) > naming.MAX_NAME_BYTES:
            rule = "BB-GRP-001"
        raise JournalError(str(error), rule) from None


def _check_gap(gap: Event) -> None:
    _integer(gap, "records", 1)
    _text(gap, "reason")


def _check_describe(said: Event) -> None:
    _text(said, "metric")
    _check_name(said["metric"])
    for key in ("unit", "description"):
        if key in said:
            _text(said, key)


def _check_end(end: Event) -> None:
    if end.get("status") not in ("completed", "failed", "interrupted"):
        message = f"the end has status {end.get('status')!r:.80}"
        raise JournalError(message)
    if "exception" in end:
        exception = end["exception"]
        if end["status"] != "failed" or not isinstance(exception, dict):
            message = f"the end is {end['status']} with the exception {exception!r:.80}"
            raise JournalError(message)
        _text(exception, "type", least=1)
        for key in ("message", "traceback"):
            if key in exception or key == "message":
                _text(exception, key)


def _check_rewind(rewind: Event) -> None:
    _integer(rewind, "step", INT64_MIN)


_CHECKS = {
    "rewind": _check_rewind,
    "gap": _check_gap,
    "describe": _check_describe,
    "end": _check_end,
}


def _integer(members: Event, key: str, least: int) -> None:
    """Refuse a member that is no int64 of a least value."""
    value = members.get(key)
    if type(value) is not int or not least <= value <= INT64_MAX:
        whole = isinstance(value, float) and value.is_integer()
        message = f'"{key}" is {value!r:.80}, wanted an integer from {least}, without "." or "e"'
        raise JournalError(message, "BB-JNL-013" if whole else "BB-JNL-007")


def _text(members: Event, key: str, least: int = 0) -> None:
    """Refuse a member that is no text of a least length."""
    value = members.get(key)
    if not isinstance(value, str) or len(value) < least:
        message = f'"{key}" is {value!r:.80}, wanted text'
        raise JournalError(message)


def deeper(document: Any, levels: int) -> bool:
    """Tell whether a JSON value has more levels of arrays and objects than that."""
    level = [document]
    while level := [each for each in level if isinstance(each, dict | list)]:
        if levels == 0:
            return True
        levels -= 1
        level = [
            inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return False
