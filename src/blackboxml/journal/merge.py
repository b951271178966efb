"""Many journals, one history: which journals there are, their order, and what a rewind supersedes.

No clock takes part. Rows come by attempt, then rank, then `seq`; where two journals of one attempt
and rank hold the same `seq`, the later journal wins.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blackboxml.base import naming
from blackboxml.errors import JournalError, Problem, UnsafePathError, UnsupportedVersionError
from blackboxml.journal import count_off, decode, read_header
from blackboxml.journal.scan import Scan
from blackboxml.model import (
    FEATURES,
    JOURNAL_FORMAT,
    LIMITS,
    MEDIA_FORMAT,
    JournalFile,
    Limits,
    Losses,
    Mark,
    Record,
    Rewind,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from blackboxml.base.files import Directory
    from blackboxml.journal.scan import Event

_FORMATS: dict[naming.JournalStem, str] = {"metrics": JOURNAL_FORMAT, "media": MEDIA_FORMAT}
_MARK_RECORDS = 256
_HEAD_BYTES = 8192
_BLOCK_BYTES = 2**20


def journal_sizes(directory: Directory) -> dict[str, int]:
    """Return the size of each metrics journal that is there, in bytes."""
    names = (name for name in directory.names() if naming.parse_journal_name(name) is not None)
    return {name: directory.size(name) or 0 for name in names}


def find_journals(  # noqa: C901 - one branch for each thing a hostile name may be
    directory: Directory,
    limits: Limits = LIMITS,
    problems: list[Problem] | None = None,
    run_id: str | None = None,
    known: frozenset[str] = FEATURES,
    *,
    stem: naming.JournalStem = "metrics",
    share: bool = True,
) -> list[JournalFile]:
    """Return the journals of a run in merge order, each with the records that count from it.

    A file without one committed line is left out: its writer died while it was opened. A journal
    comes several times if one that continues it holds only the middle of its records again.

    Args:
        directory: The run.
        limits: What a reader accepts.
        problems: Receives what was found.
        run_id: The id of the run if the manifest tells it; journals of another run are left out.
        known: Features that the reader understands.
        stem: Which journals: those of metrics, or those of media.
        share: Share out the records that several journals of one attempt hold. Otherwise each
            comes once and whole, without a look at its records.

    Raises:
        UnsupportedVersionError: If all that is there needs a newer reader.
    """
    found = problems if problems is not None else []
    by_rank: dict[int, list[JournalFile]] = {}
    refusal: UnsupportedVersionError | None = None
    for name in directory.names():
        if (place := naming.parse_journal_name(name, stem)) is None:
            continue
        try:
            journal = _open(directory, name, place, limits, known, found, _FORMATS[stem])
        except UnsafePathError as error:
            found.append(Problem("BB-LAY-009", "error", str(error), name))
            continue
        except FileNotFoundError:  # packed since the names were listed
            continue
        except UnsupportedVersionError as error:
            refusal = error
            rule = "BB-VER-006" if "features" in str(error) else "BB-VER-001"
            found.append(Problem(rule, "error", str(error), name, line=1, offset=0))
            continue
        if journal is not None:
            by_rank.setdefault(place[0], []).append(journal)
    if refusal is not None and run_id is None and not by_rank:
        raise refusal
    merged: list[JournalFile] = []
    for journals in _without_foreign(by_rank, run_id, found):
        sessions: dict[int, list[JournalFile]] = {}
        for journal in _number_attempts(directory, journals, limits):
            sessions.setdefault(journal.attempt, []).append(journal)
        for session in sessions.values():
            if len(session) > 1 and share:
                merged += _share(directory, session, limits, found)
                continue
            merged += session
            if share and (first := session[0].first_seq):
                found.append(_lost(session, 0, first - 1))
    return sorted(merged, key=lambda each: (each.attempt, each.rank, each.low, each.ordinal))


class Cuts:
    """Which points a rewind superseded: at each place of the history, from which step on."""

    def __init__(self, rewinds: Iterable[Rewind]) -> None:
        """Sort the rewinds of a run by rank and place."""
        self._ranks: dict[int, tuple[list[tuple[int, int]], list[int]]] = {}
        for each in sorted(rewinds, key=lambda each: (each.attempt, each.seq), reverse=True):
            places, steps = self._ranks.setdefault(each.rank, ([], []))
            places.append((each.attempt, each.seq))
            steps.append(min(each.step, steps[-1]) if steps else each.step)
        for places, steps in self._ranks.values():
            places.reverse()
            steps.reverse()

    def supersede(self, record: Record) -> bool:
        """Tell whether a point does not count."""
        places, steps = self._ranks.get(record.rank, ([], []))
        at = bisect_right(places, (record.attempt, record.seq))
        return at < len(places) and record.step >= steps[at]

    def mask(
        self,
        rank: npt.NDArray[np.int32],
        attempt: npt.NDArray[np.int32],
        seq: npt.NDArray[np.int64],
        step: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        """Return which rows count, as a boolean array of the shape (rows,) of the others."""
        import numpy as np

        mask = np.ones(len(step), dtype=bool)
        for own, (places, steps) in self._ranks.items():
            for which in np.unique(attempt[rank == own]).tolist():
                rows = np.flatnonzero((rank == own) & (attempt == which))
                first, end = (bisect_right(places, (each, -1)) for each in (which, which + 1))
                seqs = np.array([place[1] for place in places[first:end]], np.int64)
                at = first + np.searchsorted(seqs, seq[rows], side="right")
                cut = np.array(steps, np.int64)[np.minimum(at, len(steps) - 1)]
                mask[rows] = (at == len(steps)) | (step[rows] < cut)
        return mask


def _open(  # noqa: PLR0917
    directory: Directory,
    name: str,
    place: tuple[int, int],
    limits: Limits,
    known: frozenset[str],
    problems: list[Problem],
    form: str,
) -> JournalFile | None:
    """Return what the first lines of a journal say, or None if none is committed."""
    with directory.reading(name) as descriptor:
        size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, _HEAD_BYTES, 0)
        if b"\n" not in head:
            head = os.pread(descriptor, limits.line_bytes, 0)
        line, separator, _ = head.partition(b"\n")
        start = len(line) + 1 if separator else _behind_line(descriptor, len(head))
    if not start:
        return None
    rank, ordinal = place
    journal = JournalFile(name, rank, ordinal, -1, 0, 0, None, start, size, None)
    if not separator:
        message = f"the header is longer than {limits.line_bytes:,} bytes"
        problems.append(Problem("BB-JNL-002", "error", message, name, line=1, offset=0))
        return journal
    try:
        header = read_header(decode(line), known, form)
    except JournalError as error:
        problems.append(Problem(error.rule, "error", str(error), name, line=1, offset=0))
        return journal
    if header.rank != rank:
        message = f"the header says rank {header.rank}, the name says {rank}"
        problems.append(Problem("BB-JNL-006", "error", message, name, line=1, offset=0))
    return replace(
        journal,
        attempt=header.attempt,
        first_seq=header.first_seq,
        low=header.first_seq,
        header=header,
    )


def _behind_line(descriptor: int, offset: int) -> int:
    """Return the offset behind the next LF, 0 if there is none."""
    while part := os.pread(descriptor, _BLOCK_BYTES, offset):
        if end := part.find(b"\n") + 1:
            return offset + end
        offset += len(part)
    return 0


def _without_foreign(
    by_rank: dict[int, list[JournalFile]], run_id: str | None, problems: list[Problem]
) -> Iterator[list[JournalFile]]:
    """Yield the journals of each rank by ordinal, less those of another run."""
    ranks = [sorted(by_rank[rank], key=lambda journal: journal.ordinal) for rank in sorted(by_rank)]
    ids = [each.header.run_id for journals in ranks for each in journals if each.header]
    own = run_id if run_id in ids or not ids else ids[0]
    for journals in ranks:
        kept = []
        for journal in journals:
            if journal.header is None or journal.header.run_id == own:
                kept.append(journal)
                continue
            message = f"the journal is of run {journal.header.run_id}, this is run {own}"
            problems.append(Problem("BB-MRG-008", "error", message, journal.name, line=1, offset=0))
        yield kept


def _number_attempts(
    directory: Directory, journals: list[JournalFile], limits: Limits
) -> Iterator[JournalFile]:
    """Yield the journals of a rank, with a place for those whose header is damaged."""
    previous: JournalFile | None = None
    for journal in journals:
        placed = journal
        if journal.attempt < 0 and previous is None:
            placed = replace(journal, attempt=0)
        elif journal.attempt < 0 and previous is not None:
            first = _continues(directory, previous, journal, limits)
            placed = replace(journal, attempt=previous.attempt + (first is None))
            placed = replace(placed, first_seq=first or 0, low=first or 0)
        yield placed
        previous = placed


def _continues(
    directory: Directory, previous: JournalFile, journal: JournalFile, limits: Limits
) -> int | None:
    """Return the first `seq` of a journal with a damaged header if it continues the one before.

    It does if both hold the same lines where they hold the same `seq`, unless it begins anew.
    """
    own = _records(directory, journal, limits)
    line, document = next(own, (b"", {}))
    first: int = document.get("seq", 0)
    continued = first > 0
    for theirs, earlier in _records(directory, previous, limits):
        if "end" in earlier:
            return None
        while document and document["seq"] < earlier["seq"]:
            line, document = next(own, (b"", {}))
        if document and document["seq"] == earlier["seq"]:
            if line != theirs:
                return None
            continued = continued or earlier["seq"] == first
    return first if continued else None


def _records(
    directory: Directory, journal: JournalFile, limits: Limits
) -> Iterator[tuple[bytes, Event]]:
    """Yield the good records of a journal, and their lines."""
    scan = Scan(journal, set(), [], limits)
    for block in scan.blocks(directory):
        for _, line, document, _ in scan.good(block):
            yield line, document


def _share(
    directory: Directory, session: list[JournalFile], limits: Limits, problems: list[Problem]
) -> list[JournalFile]:
    """Share out the records of one attempt and rank among its journals.

    Each `seq` is taken from the latest journal that holds it intact: a continuation may have died
    before it had written again all that it set out to.
    """
    pieces: list[JournalFile] = []
    taken: list[tuple[int, int]] = []
    for journal in reversed(session):
        held = _survey(directory, journal, limits, problems)
        new = _subtract(held.ranges, taken)
        pieces += [held.piece(journal, low, high) for low, high in new]
        if not new:  # it is a journal of the run all the same
            low = journal.first_seq
            pieces.append(replace(journal, low=low, high=low - 1, stop=journal.start))
        taken = _union(taken, new)
    end = max([high + 1 for _, high in taken] + [each.first_seq for each in session])
    for low, high in _subtract([(0, end - 1)], taken):
        problems.append(_lost(session, low, high))
    return pieces


@dataclass(slots=True)
class _Held:
    """What a journal holds intact.

    Attributes:
        ranges: The ranges of `seq`, ends included.
        marks: Where some of the records begin: the first of each range, and every so many.
    """

    ranges: list[tuple[int, int]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def add(self, mark: Mark) -> None:
        """Add the next record."""
        if self.ranges and mark.seq == self.ranges[-1][1] + 1:
            self.ranges[-1] = (self.ranges[-1][0], mark.seq)
            if mark.seq < self.marks[-1].seq + _MARK_RECORDS:
                return
        else:
            self.ranges.append((mark.seq, mark.seq))
        self.marks.append(mark)

    def piece(self, journal: JournalFile, low: int, high: int) -> JournalFile:
        """Return a journal as the records of a range that it holds."""
        first = bisect_right(self.marks, low, key=lambda mark: mark.seq) - 1
        behind = bisect_right(self.marks, high, key=lambda mark: mark.seq)
        stop = self.marks[behind].offset if behind < len(self.marks) else None
        return replace(journal, low=low, high=high, mark=self.marks[first], stop=stop)


def _survey(
    directory: Directory, journal: JournalFile, limits: Limits, problems: list[Problem]
) -> _Held:
    """Return what a journal holds intact; all of it is read."""
    held = _Held()
    scan = Scan(journal, set(), problems, limits)
    for block in scan.blocks(directory):
        for offset, _, document, _ in scan.good(block):
            held.add(Mark(document["seq"], offset, scan.line))
    return held


def _lost(session: list[JournalFile], low: int, high: int) -> Problem:
    """Return the finding that no journal of an attempt and rank holds some records."""
    journal = session[-1]
    message = (
        f"rank {journal.rank}, attempt {journal.attempt}: {count_off(low, high, 'in no journal')}"
    )
    losses = [each.header.losses for each in session if each.header is not None]
    stated = Losses(tuple(sorted(each for one in losses for each in one.lost)))
    if stated.covers(low, high):
        return Problem("BB-REP-007", "warning", message, journal.name)
    return Problem("BB-MRG-001", "error", message, journal.name)


def _subtract(ranges: list[tuple[int, int]], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what is left of sorted ranges without the sorted ones that are taken."""
    left = []
    place = 0
    for low, high in ranges:
        begin = low
        while place < len(taken) and taken[place][0] <= high:
            first, last = taken[place]
            if first > begin:
                left.append((begin, first - 1))
            begin = max(begin, last + 1)
            if last > high:  # it reaches into the next range
                break
            place += 1
        if begin <= high:
            left.append((begin, high))
    return left


def _union(ranges: list[tuple[int, int]], more: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the sorted union of two lists of ranges."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges + more):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined
