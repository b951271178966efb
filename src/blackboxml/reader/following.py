"""Following a live run: the points that were committed since the last look."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from blackboxml.errors import JournalError
from blackboxml.journal import check_sequence, read_tail
from blackboxml.journal.merge import find_journals
from blackboxml.journal.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
            for block in scan.blocks(self._directory):
                yield from self.rest(iter(scan.read(block)))

    def rest(self, records: Iterator[Record]) -> Iterator[Record]:
        """Yield those of the records of a run that it has not yet seen."""
        for record in records:
            place = (record.attempt, record.rank)
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


def follow(
    follower: Follower,
    stands: Callable[[], tuple[bool, Iterator[Record] | None]],
    poll: float,
    timeout: float | None,
) -> Iterator[Record]:
    """Yield what a follower finds until the run ends; see `RunReader.follow`.

    Args:
        follower: Where to go on.
        stands: Tells whether the run has ended, and gives all its records if it is packed.
        poll: Seconds between two looks at the files.
        timeout: Seconds without a new point after which to stop, None for never.
    """
    quiet = time.monotonic()
    while True:
        over, packed = stands()
        try:
            for record in follower.new() if packed is None else follower.rest(packed):
                quiet = time.monotonic()
                yield record
            # Packed since it was looked at: the tables have what the journals had.
            over = over and (stands()[1] is None) == (packed is None)
        except FileNotFoundError:
            over = False
        if over or (timeout is not None and time.monotonic() - quiet >= timeout):
            return
        time.sleep(poll)


def committed(descriptor: int, start: int, line_bytes: int) -> int:
    """Return the offset behind the last LF of a journal."""
    size = os.fstat(descriptor).st_size
    begin = max(start, size - 2 * line_bytes)
    tail = os.pread(descriptor, max(0, size - begin), begin)
    return begin + tail.rfind(b"\n") + 1
