"""How an attempt ended, as its journals prove it: the `end` records that count, and the last time.

Strategy: nearly every journal has no `end` record or one as its last line, so bytes are searched
instead of parsing lines. Only where these do not prove that an `end` record stands in order is the
journal read record by record. A journal grows; what was searched once is not searched again.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from blackboxml.errors import Findings, JournalError
from blackboxml.journal import Block, check_sequence, read_blocks, read_record, read_tail
from blackboxml.journal.scan import Scan, check_event
from blackboxml.model import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blackboxml.base.files import Directory
    from blackboxml.journal.scan import Event
    from blackboxml.model import Header, JournalFile, Limits

_END: Final = (b'"end"', b"\\u006")
"""One of these is in every line with a member `end`: its letters may be escaped."""

_SEQ: Final = re.compile(rb'\n\{"seq":([0-9]{1,18}),')
_SEARCH_BYTES = 2**20
_TOKEN_BYTES = 64


@dataclass(frozen=True, slots=True)
class Attempt:
    """What journals prove of an attempt.

    Attributes:
        number: Which attempt.
        header: The header of its first journal that has an intact one; None if none has.
        dated: Whether that header tells when the attempt began.
        end: Its `end` record, None if it has none.
        last: Time of its last record, or of its last header; None if it has neither.
    """

    number: int
    header: Header | None
    dated: bool
    end: Event | None
    last: float | None


@dataclass(slots=True)
class _Search:
    """What was found in one journal so far.

    Attributes:
        inode: The file that was searched.
        offset: How far it was searched.
        token: The bytes before that, by which the same content is known again.
        top: The greatest `seq` before `counted`; a damaged line may make it too great.
        counted: How far `top` goes.
        ends: The `end` records that stand in order.
        scan: Reads record by record, where nothing less tells what stands in order.
    """

    inode: int
    offset: int
    token: bytes
    top: int
    counted: int
    ends: list[Event] = field(default_factory=list)
    scan: Scan | None = None


_SEARCHES: Final[WeakKeyDictionary[Directory, dict[str, _Search]]] = WeakKeyDictionary()


def prove_attempts(
    directory: Directory, journals: Sequence[JournalFile], limits: Limits = LIMITS
) -> list[Attempt]:
    """Return what journals prove of each attempt of the least rank, in order."""
    least = min((journal.rank for journal in journals), default=0)
    sessions: dict[int, list[JournalFile]] = {}
    for journal in journals:
        if journal.rank == least:
            sessions.setdefault(journal.attempt, []).append(journal)
    found = []
    for number in sorted(sessions):
        session = sorted(sessions[number], key=lambda journal: journal.ordinal)
        header = next((journal.header for journal in session if journal.header), None)
        ended = last_end(directory, session, limits)
        last = last_time(directory, session)
        if last is None:
            newest = [journal.header.time for journal in session if journal.header]
            last = newest[-1] if newest else None
        dated = header is not None and header is session[0].header
        dated = dated and header is not None and "time" not in header.losses.assumed
        found.append(Attempt(number, header, dated, ended[0] if ended else None, last))
    return found


def trust_ends(directory: Directory, journal: JournalFile, ends: list[Event]) -> None:
    """Take the `end` records of a journal as they are known from elsewhere, up to its size."""
    searches = _SEARCHES.setdefault(directory, {})
    if journal.name in searches:
        return
    with directory.reading(journal.name) as descriptor:
        inode, token = os.fstat(descriptor).st_ino, _token(descriptor, journal.size)
    top, start = journal.first_seq - 1, journal.start
    searches[journal.name] = _Search(inode, journal.size, token, top, start, ends)


def last_end(
    directory: Directory, pieces: Iterable[JournalFile], limits: Limits = LIMITS
) -> tuple[Event, JournalFile] | None:
    """Return the last `end` record of an attempt and rank, and its journal; None if it has none.

    Args:
        directory: The run.
        pieces: The journals of the attempt and rank, each with the records that count from it.
        limits: What a reader accepts.
    """
    found: tuple[Event, JournalFile] | None = None
    for piece in pieces:
        for end in _search(directory, piece, limits):
            if _counts(piece, end["seq"]) and (found is None or found[0]["seq"] < end["seq"]):
                found = end, piece
    return found


def last_time(directory: Directory, pieces: Iterable[JournalFile]) -> float | None:
    """Return the time of the last record of an attempt and rank, None if it has none."""
    for piece in sorted(pieces, key=lambda each: (each.low, each.ordinal), reverse=True):
        best: tuple[int, float] | None = None
        with directory.reading(piece.name) as descriptor:
            for seq, time in _times(descriptor, piece):
                if best is not None and seq < best[0]:
                    break
                best = seq, time  # the one behind it, if any, is out of place
        if best is not None:
            return best[1]
    return None


def _counts(piece: JournalFile, seq: int) -> bool:
    """Tell whether a record is one of those that count from a journal."""
    return piece.low <= seq and (piece.high is None or seq <= piece.high)


def _times(descriptor: int, piece: JournalFile) -> Iterator[tuple[int, float]]:
    """Yield `seq` and time of the last records that count from a journal, newest first."""
    for document in read_tail(descriptor, piece.start):
        with suppress(JournalError):
            seq, time = check_sequence(document)
            if "metrics" in document:
                read_record(document, piece.rank, piece.attempt, LIMITS)
            else:
                check_event(document)
            if _counts(piece, seq):
                yield seq, time


def _search(directory: Directory, piece: JournalFile, limits: Limits) -> list[Event]:
    """Return the `end` records of a journal that stand in order, whichever count."""
    searches = _SEARCHES.setdefault(directory, {})
    journal = replace(piece, low=piece.first_seq, high=None, mark=None, stop=None)
    with directory.reading(piece.name) as descriptor:
        search = searches.get(piece.name)
        if search is None or not _goes_on(descriptor, search):
            search = searches[piece.name] = _Search(
                os.fstat(descriptor).st_ino,
                journal.start,
                b"",
                journal.first_seq - 1,
                journal.start,
            )
        for offset, line in _candidates(descriptor, search, limits):
            for _, _, document, _ in Scan(journal, set(), Findings(), limits).good(
                Block(offset, line)
            ):
                if "end" not in document or search.scan is not None:
                    continue
                if _rises(descriptor, search, offset, limits) and document["seq"] > search.top:
                    search.ends.append(document)
                else:
                    search.scan = Scan(journal, set(), Findings(), limits)
                    search.ends = []
        search.token = _token(descriptor, search.offset)
    if search.scan is not None:
        for block in search.scan.blocks(directory):
            good = search.scan.good(block)
            search.ends += [document for _, _, document, _ in good if "end" in document]
    return search.ends


def _goes_on(descriptor: int, search: _Search) -> bool:
    """Tell whether a journal is the one that was searched, and what was searched still there."""
    same = os.fstat(descriptor).st_ino == search.inode
    return same and _token(descriptor, search.offset) == search.token


def _token(descriptor: int, offset: int) -> bytes:
    """Return the bytes before an offset."""
    begin = max(0, offset - _TOKEN_BYTES)
    return os.pread(descriptor, offset - begin, begin)


def _candidates(descriptor: int, search: _Search, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """Yield the lines, and their offsets, that may be an `end` record."""
    for block in read_blocks(descriptor, search.offset, _SEARCH_BYTES, limits.line_bytes):
        data = block.data
        search.offset = block.offset + data.rfind(b"\n") + 1
        at = 0
        while (found := _first(data, at)) >= 0:
            begin = data.rfind(b"\n", 0, found) + 1
            at = data.find(b"\n", found) + 1
            if not at:  # a line that is too long
                break
            yield block.offset + begin, data[begin:at]


def _first(data: bytes, at: int) -> int:
    """Return where the next sign of an `end` record is, -1 if there is none."""
    return min((found for sign in _END if (found := data.find(sign, at)) >= 0), default=-1)


def _rises(descriptor: int, search: _Search, offset: int, limits: Limits) -> bool:
    """Count `top` on to an offset; tell whether every line before it shows its `seq`."""
    while search.counted < offset:
        size = min(_SEARCH_BYTES, offset - search.counted)
        block = next(read_blocks(descriptor, search.counted, size, limits.line_bytes), None)
        if block is None:
            return False
        data = block.data[: offset - search.counted]
        found = _SEQ.findall(b"\n" + data)
        whole = data.endswith(b"\n") and block.offset == search.counted
        if not whole or len(found) != data.count(b"\n"):
            return False
        search.top = max(search.top, *map(int, found))
        search.counted += len(data)
    return True
