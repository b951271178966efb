"""A journal read record by record: good records in order, and the exact place of everything else."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from blackboxml import naming
from blackboxml.errors import JournalError, MetricError, Problem
from blackboxml.journal import check_sequence, decode, read_blocks, read_record
from blackboxml.model import INT64_MAX, INT64_MIN, LIMITS, Limits, Record, Rewind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.files import Directory
    from blackboxml.journal import Block
    from blackboxml.merge import JournalFile

REPAIR = "blackbox seal keeps every good record; restore the file from a backup to get the others"
EVENTS = ("rewind", "gap", "describe", "end")
"""Kinds of records that are not points."""

POINT = frozenset(["seq", "step", "time", "metrics", "ranks", "crc"])
"""The members of a point; one with others is kept as an event too, so that nothing is lost."""

Event = dict[str, Any]


class Scan:
    """The state of reading one journal: where it is, what it expects, what it found.

    Attributes:
        journal: The journal.
        problems: Receives every finding once.
        events: The records that tables do not hold or not whole, in order, without `crc`: those
            that are no points, points without a value, points with members of a later version.
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
        self.line = 2
        self.expected = journal.first_seq
        self.ended = False
        self.last_time = 0.0
        self.offset = journal.start

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
        with directory.reading(self.journal.name) as descriptor:
            yield from read_blocks(descriptor, self.offset, line_bytes=self.limits.line_bytes)

    def read(self, block: Block) -> list[Record]:
        """Return the good points of a block; events and problems are kept in the scan."""
        records: list[Record] = []
        offset = block.offset
        lines = block.data.split(b"\n")
        if lines[-1]:
            self._report("BB-JNL-002", "the line is longer than a reader accepts", offset)
        for line in lines[:-1]:
            with suppress(JournalError):
                if (record := self._read_line(line, offset)) is not None:
                    records.append(record)
            self.line += 1
            offset += len(line) + 1
        self.offset = offset
        return records

    def accept(self, lines: int, size: int, last_time: float) -> None:
        """Count a block that was read and checked by other means."""
        self.last_time = last_time
        self.line += lines
        self.expected += lines
        self.records += lines
        self.offset += size

    def check_name(self, name: str) -> None:
        """Check the name of a metric the first time it is seen.

        Raises:
            JournalError: If a run must not hold it, or holds too many.
        """
        if name in self.names:
            return
        try:
            naming.check_metric_name(name)
        except MetricError as error:
            raise JournalError(*error.args) from None
        if len(self.names) >= self.limits.metric_names:
            message = f"the run has more than {self.limits.metric_names:,} metric names"
            raise JournalError(message)
        self.names.add(name)

    def _read_line(self, line: bytes, offset: int) -> Record | None:
        """Return the point in a line, or None for an event or a record that does not count."""
        try:
            if len(line) >= self.limits.line_bytes:
                message = f"the line is longer than {self.limits.line_bytes:,} bytes"
                raise JournalError(message, "BB-JNL-002")
            document = decode(line)
            seq, time = check_sequence(document)
            record = self._interpret(document)
        except JournalError as error:
            self._report(error.rule, str(error), offset)
            raise
        if seq > self.expected:
            lost = f"records {self.expected} to {seq - 1} are missing"
            self._report("BB-JNL-009", lost, offset)
        elif seq < self.expected:
            self._report("BB-JNL-009", f"record {seq} comes again, {self.expected} was due", offset)
            return None
        if self.ended:
            self._report("BB-JNL-010", "a record follows the end of the journal", offset)
        self.expected = seq + 1
        self.last_time = time
        high = self.journal.high
        if seq < self.journal.low or (high is not None and seq > high):
            return None
        self.records += 1
        if (
            record is None
            or not (record.metrics or record.ranks)
            or not POINT.issuperset(document)
            or (record.attempt, record.rank, seq) in self._exact
        ):
            document.pop("crc")
            self.events.append(document)
        self.ended = self.ended or "end" in document
        return record

    def _interpret(self, document: Event) -> Record | None:
        """Return the point that a record holds, or None for an event that is well formed."""
        if "metrics" in document:
            record = read_record(document, self.journal.rank, self.journal.attempt, self.limits)
            for name in record.metrics.keys() | record.ranks.keys():
                self.check_name(name)
            return record
        for kind in EVENTS:
            if kind in document and not isinstance(document[kind], dict):
                message = f'"{kind}" is {document[kind]!r:.80}, wanted an object'
                raise JournalError(message)
        if "rewind" in document:
            step = document["rewind"].get("step")
            if type(step) is not int or not INT64_MIN <= step <= INT64_MAX:
                message = f"a rewind to step {step!r}, wanted an integer"
                raise JournalError(message)
        return None

    def _report(self, rule: str, message: str, offset: int) -> None:
        """Keep a finding once, however often the journal is read."""
        problem = Problem(
            rule, "error", message, self.journal.name, line=self.line, offset=offset, cure=REPAIR
        )
        if problem not in self.problems:
            self.problems.append(problem)
