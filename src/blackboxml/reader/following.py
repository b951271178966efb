"""Following a live run: the points that were committed since the last look."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from blackboxml.errors import JournalError
from blackboxml.journal import check_sequence, read_tail
from blackboxml.journal.merge import find_journals
from blackboxml.journal.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.base.files import Directory
    from blackboxml.errors import Problem
    from blackboxml.model import JournalFile, Limits, Record


class Follower:
    """Where each journal of a run was left; who follows tells copies of a record by their `seq`."""

    def __init__(
        self, directory: Directory, run_id: str, limits: Limits, problems: list[Problem]
    ) -> None:
        """Begin with the first record of each journal."""
        self._directory = directory
        self._run_id = run_id
        self._limits = limits
        self._problems = problems
        self._scans: dict[str, Scan] = {}
        self._seen: dict[tuple[int, int], int] = {}
        self._names: set[str] = set()

    def skip(self) -> None:
        """Leave out what is there already."""
        for journal in self._journals():
            scan = self._scan(journal)
            with self._directory.reading(journal.name) as descriptor:
                last = next(read_tail(descriptor, journal.start, self._limits.line_bytes), None)
                scan.offset = committed(descriptor, journal.start, self._limits.line_bytes)
            if last is not None:
                with suppress(JournalError):
                    scan.expected = check_sequence(last)[0] + 1
                place = (journal.attempt, journal.rank)
                self._seen[place] = max(self._seen.get(place, -1), scan.expected - 1)

    def new(self) -> Iterator[Record]:
        """Yield what was committed since the last look."""
        for journal in self._journals():
            scan = self._scan(journal)
            place = (journal.attempt, journal.rank)
            for block in scan.blocks(self._directory):
                for record in scan.read(block):
                    if record.seq > self._seen.get(place, -1):
                        self._seen[place] = record.seq
                        yield record

    def _journals(self) -> list[JournalFile]:
        """Return the journals whole."""
        return find_journals(self._directory, self._limits, None, self._run_id, share=False)

    def _scan(self, journal: JournalFile) -> Scan:
        """Return the state of reading a journal."""
        if journal.name not in self._scans:
            self._scans[journal.name] = Scan(journal, self._names, self._problems, self._limits)
        return self._scans[journal.name]


def committed(descriptor: int, start: int, line_bytes: int) -> int:
    """Return the offset behind the last LF of a journal."""
    size = os.fstat(descriptor).st_size
    begin = max(start, size - 2 * line_bytes)
    tail = os.pread(descriptor, max(0, size - begin), begin)
    return begin + tail.rfind(b"\n") + 1
