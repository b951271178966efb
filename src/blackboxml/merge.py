"""Many journals, one history: which journals there are, their order, and what a rewind supersedes.

No clock takes part. Rows come by attempt, then rank, then `seq`; where two journals of one attempt
and rank hold the same `seq`, the later journal wins.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from blackboxml import naming
from blackboxml.errors import JournalError, Problem, UnsafePathError
from blackboxml.journal import decode, parse, read_blocks, read_header, read_tail
from blackboxml.model import FEATURES, LIMITS, Header, Limits, Rewind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from blackboxml.files import Directory


@dataclass(frozen=True, slots=True)
class JournalFile:
    """A journal as it takes part in the merge.

    Attributes:
        name: File name.
        rank: Rank of its writer, by name.
        ordinal: Which journal of that rank it is, from 0.
        attempt: Its attempt: the header's, or derived from its neighbours if that is damaged.
        first_seq: `seq` that its first record must have.
        low: First `seq` that counts from this journal.
        high: Last `seq` that counts, or None where nothing bounds it.
        start: Byte offset of the first record.
        size: Bytes at the time of the listing.
        header: The header, or None if that line is damaged.
    """

    name: str
    rank: int
    ordinal: int
    attempt: int
    first_seq: int
    low: int
    high: int | None
    start: int
    size: int
    header: Header | None


def find_journals(
    directory: Directory,
    limits: Limits = LIMITS,
    problems: list[Problem] | None = None,
    run_id: str | None = None,
    known: frozenset[str] = FEATURES,
) -> list[JournalFile]:
    """Return the journals of a run in merge order, each with the records that count from it.

    A file without one committed line is left out: its writer died while it was opened. A journal
    comes twice if one that continues it holds only the middle of its records again.

    Args:
        directory: The run.
        limits: What a reader accepts.
        problems: Receives what was found.
        run_id: The id of the run if the manifest tells it; journals of another run are left out.
        known: Features that the reader understands.

    Raises:
        UnsupportedVersionError: If a journal needs a newer reader.
    """
    found = problems if problems is not None else []
    by_rank: dict[int, list[JournalFile]] = {}
    for name in directory.names():
        if (place := naming.parse_journal_name(name)) is None:
            continue
        try:
            journal = _open(directory, name, place, limits, known, found)
        except UnsafePathError as error:
            found.append(Problem("BB-SEC-002", "error", str(error), name))
            continue
        if journal is not None:
            by_rank.setdefault(place[0], []).append(journal)
    merged: list[JournalFile] = []
    for journals in _without_foreign(by_rank, run_id, found):
        sessions: dict[int, list[JournalFile]] = {}
        for journal in _number_attempts(directory, journals):
            sessions.setdefault(journal.attempt, []).append(journal)
        for session in sessions.values():
            merged += session if len(session) == 1 else _share(directory, session, limits, found)
    return sorted(merged, key=lambda each: (each.attempt, each.rank, each.low, each.ordinal))


def effective_mask(
    rewinds: Iterable[Rewind],
    rank: npt.NDArray[np.int32],
    attempt: npt.NDArray[np.int32],
    seq: npt.NDArray[np.int64],
    step: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Return which rows count, as a boolean array of the shape (rows,) of the others."""
    import numpy as np  # noqa: PLC0415 - reading a status must not import numpy

    mask = np.ones(len(step), dtype=bool)
    for rewind in rewinds:
        before = (attempt < rewind.attempt) | ((attempt == rewind.attempt) & (seq < rewind.seq))
        mask &= ~((rank == rewind.rank) & (step >= rewind.step) & before)
    return mask


def _open(  # noqa: PLR0913, PLR0917
    directory: Directory,
    name: str,
    place: tuple[int, int],
    limits: Limits,
    known: frozenset[str],
    problems: list[Problem],
) -> JournalFile | None:
    """Return what the first lines of a journal say, or None if none is committed."""
    with directory.reading(name) as descriptor:
        size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, 8192, 0)
        if b"\n" not in head:
            head = os.pread(descriptor, limits.line_bytes, 0)
    line, separator, rest = head.partition(b"\n")
    if not separator:
        return None
    rank, ordinal = place
    journal = JournalFile(name, rank, ordinal, -1, 0, 0, None, len(line) + 1, size, None)
    try:
        header = read_header(decode(line), known)
    except JournalError as error:
        problems.append(Problem("BB-JNL-005", "error", str(error), name, line=1, offset=0))
        first = _first_seq(rest.partition(b"\n")[0])
        return replace(journal, first_seq=first or 0, low=first or 0)
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


def _first_seq(line: bytes) -> int | None:
    """Return the `seq` of a line, to place a journal whose header is damaged."""
    try:
        seq: Any = parse(line).get("seq")
    except JournalError:
        return None
    return seq if isinstance(seq, int) else None


def _without_foreign(
    by_rank: dict[int, list[JournalFile]], run_id: str | None, problems: list[Problem]
) -> Iterator[list[JournalFile]]:
    """Yield the journals of each rank by ordinal, less those of another run."""
    ranks = [
        sorted(by_rank[rank], key=lambda journal: journal.ordinal) for rank in sorted(by_rank)
    ]
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
    directory: Directory, journals: list[JournalFile]
) -> Iterator[JournalFile]:
    """Yield the journals of a rank, with a place for those whose header is damaged."""
    previous: JournalFile | None = None
    for journal in journals:
        placed = journal
        if journal.attempt < 0:
            if previous is None:
                placed = replace(journal, attempt=0, first_seq=0, low=0)
            elif _continues(directory, previous, journal):
                placed = replace(journal, attempt=previous.attempt)
            else:
                placed = replace(journal, attempt=previous.attempt + 1, first_seq=0, low=0)
        yield placed
        previous = placed


def _continues(directory: Directory, previous: JournalFile, journal: JournalFile) -> bool:
    """Tell whether a journal with a damaged header goes on with the attempt of the one before."""
    with directory.reading(previous.name) as descriptor:
        if any("end" in document for document in read_tail(descriptor, previous.start)[:1]):
            return False
        if journal.first_seq:
            return True
        first = _first_line(directory, journal)
        return any(
            first in block.data.splitlines() for block in read_blocks(descriptor, previous.start)
        )


def _first_line(directory: Directory, journal: JournalFile) -> bytes:
    """Return the first record of a journal as it stands."""
    with directory.reading(journal.name) as descriptor:
        for block in read_blocks(descriptor, journal.start):
            return block.data.partition(b"\n")[0]
    return b""


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
        held = _intervals(directory, journal, limits)
        new = _subtract(held, taken)
        # A journal that gives nothing is read all the same, for the damage that it may hold.
        pieces += [replace(journal, low=low, high=high) for low, high in new] or [
            replace(journal, low=journal.first_seq, high=journal.first_seq - 1)
        ]
        taken = _union(taken, new)
    end = max([high + 1 for _, high in taken] + [each.first_seq for each in session])
    for low, high in _subtract([(0, end - 1)], taken):
        message = f"records {low} to {high} of rank {session[0].rank} are in no journal"
        problems.append(Problem("BB-MRG-009", "error", message, session[-1].name))
    return pieces


def _intervals(
    directory: Directory, journal: JournalFile, limits: Limits
) -> list[tuple[int, int]]:
    """Return the ranges of `seq`, ends included, that a journal holds intact."""
    ranges: list[tuple[int, int]] = []
    with directory.reading(journal.name) as descriptor:
        for block in read_blocks(descriptor, journal.start, line_bytes=limits.line_bytes):
            for line in block.data.split(b"\n")[:-1]:
                try:
                    seq = decode(line).get("seq")
                except JournalError:
                    continue
                if type(seq) is not int or (ranges and seq <= ranges[-1][1]):
                    continue
                if ranges and seq == ranges[-1][1] + 1:
                    ranges[-1] = (ranges[-1][0], seq)
                else:
                    ranges.append((seq, seq))
    return ranges


def _subtract(
    ranges: list[tuple[int, int]], taken: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return what is left of sorted ranges without the sorted ones that are taken."""
    left = []
    for low, high in ranges:
        begin = low
        for first, last in taken:
            if last < begin or first > high:
                continue
            if first > begin:
                left.append((begin, first - 1))
            begin = last + 1
        if begin <= high:
            left.append((begin, high))
    return left


def _union(
    ranges: list[tuple[int, int]], more: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the sorted union of two lists of ranges."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges + more):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined
