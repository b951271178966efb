"""The journals of a run as they will be: what each of them gets back, and what it states as lost.

Strategy: every journal is read once, and only the ranges of its `seq` are kept. A record that one
journal lacks is taken from another one of its attempt and rank, from a place in the same journal
where it does not belong, or from tables and events, which are put by in a scratch file in merge
order. What nobody has is lost, and the header says so; nothing is numbered anew.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blackboxml.base import naming
from blackboxml.base.files import write_all
from blackboxml.errors import Findings, MetricError, UnsupportedVersionError
from blackboxml.journal import decode, encode
from blackboxml.journal.merge import find_journals
from blackboxml.repair import ranges
from blackboxml.repair.lines import contents, good_lines, survey
from blackboxml.repair.tables import merged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blackboxml.base.files import Directory
    from blackboxml.base.naming import JournalStem
    from blackboxml.journal.scan import Event
    from blackboxml.model import Header, JournalFile, Limits
    from blackboxml.repair.lines import Found
    from blackboxml.repair.ranges import Range
    from blackboxml.repair.tables import Place, TableSource

_FLUSH_BYTES = 2**20
_EXACT = float(2**53)
_INT64 = float(2**63)

Session = tuple[int, int]
"""An attempt and a rank."""


@dataclass(slots=True)
class Known:
    """What is known of a run beside its journals.

    Attributes:
        id: Its id.
        name: Its name.
        tags: Its tags.
        start: Start of the run, Unix seconds.
        attempts: The attempts of the manifest, by number.
        entries: What the manifest says of its journals, by file, where the run is sealed.
        events: The records that the tables do not hold.
        tables: The tables.
        trusted: Journals that are byte for byte what was sealed.
        packed: Whether tables are what the run consists of.
        eventless: Whether the events of some journal are nowhere to be had.
        doubtful: Whether a journal may lack what a table has.
    """

    id: str
    name: str
    tags: list[str]
    start: float
    attempts: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    entries: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    events: dict[Place, Event] = field(default_factory=dict)
    tables: list[TableSource] = field(default_factory=list)
    trusted: frozenset[str] = frozenset()
    packed: bool = False
    eventless: bool = False
    doubtful: bool = False


@dataclass(slots=True)
class Target:
    """A journal as it will be.

    Attributes:
        name: File name.
        rank: Its rank.
        ordinal: Its ordinal.
        attempt: Its attempt.
        first_seq: Its first `seq`.
        found: The journal as it stands, None where there is none.
        entry: What the manifest says of it.
        need: The `seq` of records that it lacks and gets.
        lost: The `seq` of records that it lacks and nobody has, those stated before left out.
        lost_from: From where on nobody knows what is lost, where that was not stated before.
        partial: The `seq` of records that may lack values.
        damaged: Files of media records that are missing or damaged, those stated before left out.
        restored: Records, events and values that come back from tables, and bytes of their lines.
        document: Its new header, None where the old one stays.
        assumed: Members of the header that nobody knows.
    """

    name: str
    rank: int
    ordinal: int
    attempt: int
    first_seq: int
    found: Found | None = None
    entry: Mapping[str, Any] | None = None
    need: list[Range] = field(default_factory=list)
    lost: list[Range] = field(default_factory=list)
    lost_from: int | None = None
    partial: list[Range] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    document: dict[str, Any] | None = None
    assumed: list[str] = field(default_factory=list)

    @property
    def header(self) -> Header | None:
        """The header as it stands."""
        return None if self.found is None else self.found.journal.header

    @property
    def stated(self) -> dict[str, Any]:
        """What the header states as lost already."""
        said = {} if self.header is None else self.header.document.get("repaired", {})
        return said if isinstance(said, dict) else {}

    @property
    def changed(self) -> bool:
        """Whether the file will differ from what there is."""
        found = self.found
        if found is None or self.document is not None or self.need:
            return True
        return bool(found.dropped_lines or found.tail)

    @property
    def session(self) -> Session:
        """Its attempt and rank."""
        return self.attempt, self.rank


class History:
    """All metrics journals of a run, or all media journals.

    Attributes:
        targets: The journals as they will be, by rank and ordinal.
        foreign: Journals of another run.
        torn: Journals without one committed line, and the bytes in them.
        restored: What comes back from tables, by session: records, events, values.
        kept: Records, events and values of the mended run.
    """

    def __init__(
        self, directory: Directory, known: Known, limits: Limits, stem: JournalStem, spill: int
    ) -> None:
        """Prepare.

        Args:
            directory: The run.
            known: What is known of it.
            limits: What a reader accepts.
            stem: Which journals.
            spill: Descriptor of an empty file for what tables give.
        """
        self.targets: list[Target] = []
        self.foreign: list[str] = []
        self.torn: dict[str, int] = {}
        self.restored: dict[Session, Counter[str]] = {}
        self.kept: Counter[str] = Counter()
        self.stem: JournalStem = stem
        self.known = known
        self._directory = directory
        self._limits = limits
        self._spill = spill
        self._spans: dict[Session, tuple[int, int]] = {}
        self._filled: dict[Session, list[Range]] = {}
        self._rows: dict[Session, list[Range]] = {}
        self._ended: set[Session] = set()

    def study(self) -> None:
        """Find out how the journals will be.

        Raises:
            UnsupportedVersionError: If one of them needs a newer program.
        """
        problems = Findings()
        journals = find_journals(
            *(self._directory, self._limits, problems, self.known.id),
            stem=self.stem,
            share=False,
        )
        for problem in problems:
            if problem.rule in {"BB-VER-001", "BB-VER-006"}:
                raise UnsupportedVersionError(f"{problem.file}: {problem.message}")
        self.foreign = [each.file for each in problems if each.rule == "BB-MRG-008"]
        own = [each for each in journals if not each.header or each.header.run_id == self.known.id]
        self.foreign += [each.name for each in journals if each not in own]
        self._survey(own)
        self._find_torn()
        self._restore_listed()
        if self.stem == "metrics":
            self._take_tables()
            self._hold_places()
        self._sort()
        for session, targets in self.sessions().items():
            self._settle(session, targets)

    def sessions(self) -> dict[Session, list[Target]]:
        """Return the journals of each attempt and rank, by ordinal."""
        found: dict[Session, list[Target]] = {}
        for target in self.targets:
            found.setdefault(target.session, []).append(target)
        return found

    # -- what there is

    def _survey(self, journals: list[JournalFile]) -> None:
        """Read all journals, in each attempt and rank the later ones first."""
        taken: dict[Session, list[Range]] = {}
        for journal in sorted(journals, key=lambda each: each.ordinal, reverse=True):
            session = journal.attempt, journal.rank
            own = taken.setdefault(session, [])
            found = survey(self._directory, journal, self._limits, self.stem, own)
            taken[session] = ranges.union(own, found.held)
            entry = self.known.entries.get(journal.name) if self.stem == "metrics" else None
            target = Target(
                *(journal.name, journal.rank, journal.ordinal, journal.attempt),
                found.journal.first_seq,
                found,
                entry,
            )
            if journal.header is None and entry is not None:
                target.attempt, target.first_seq = entry["attempt"], entry["first_seq"]
            self.targets.append(target)
            self.kept.update(found.kept)
            if found.ended:
                self._ended.add(target.session)
        self._sort()

    def _sort(self) -> None:
        self.targets.sort(key=lambda each: (each.rank, each.ordinal))

    def _find_torn(self) -> None:
        """Find journals without a committed line."""
        there = {target.name for target in self.targets} | set(self.foreign)
        for name in self._directory.names():
            if name not in there and naming.parse_journal_name(name, self.stem) is not None:
                self.torn[name] = self._directory.size(name) or 0

    def _restore_listed(self) -> None:
        """Begin the journals anew that the manifest lists and that are gone."""
        there = {target.name for target in self.targets}
        for name, entry in self.known.entries.items() if self.stem == "metrics" else ():
            place = naming.parse_journal_name(name)
            if name not in there and place is not None:
                self.torn.pop(name, None)
                self.targets.append(
                    Target(name, *place, entry["attempt"], entry["first_seq"], entry=entry)
                )
        self._sort()

    def held(self, targets: list[Target]) -> list[Range]:
        """Return the `seq` that journals hold, be it out of place."""
        return ranges.union(*(each.found.held for each in targets if each.found))

    # -- tables

    def _take_tables(self) -> None:
        """Put by the records that tables and events have and no journal holds."""
        if not self.known.doubtful:
            return
        lines: list[bytes] = []
        size = end = 0
        for session, line in self._missing():
            start, _ = self._spans.get(session, (end + size, 0))
            lines.append(line)
            size += len(line)
            self._spans[session] = (start, end + size)
            if size > _FLUSH_BYTES:
                write_all(self._spill, b"".join(lines))
                end, size, lines = end + size, 0, []
        write_all(self._spill, b"".join(lines))
        for counter in self.restored.values():
            self.kept.update(counter)

    def _missing(self) -> Iterator[tuple[Session, bytes]]:
        """Yield the lines of records that tables and events have and no journal holds."""
        held = {key: self.held(targets) for key, targets in self.sessions().items()}
        for place, record, whole in merged(self.known.tables, self.known.events):
            session, seq = place[:2], place[2]
            if session not in held:
                if self.known.entries and not self.known.packed:
                    continue
                held[session] = []
                self._begin(session)
            if ranges.holds(held[session], seq):
                continue
            if self.known.eventless and not whole:
                _drop_rounded(record)
            with suppress(MetricError):
                line = encode({key: value for key, value in record.items() if key != "crc"})
                ranges.add(self._filled.setdefault(session, []), seq)
                if not whole:
                    ranges.add(self._rows.setdefault(session, []), seq)
                self.restored.setdefault(session, Counter()).update(contents(record))
                if "end" in record:
                    self._ended.add(session)
                yield session, line

    def _begin(self, session: Session) -> None:
        """Begin a journal of an attempt that only tables know."""
        attempt, rank = session
        used = [each.ordinal for each in self.targets if each.rank == rank]
        places = (naming.parse_journal_name(name) for name in [*self.torn, *self.foreign])
        used += [place[1] for place in places if place is not None and place[0] == rank]
        ordinal = max(used, default=-1) + 1
        name = naming.journal_name(rank, ordinal)
        self.targets.append(Target(name, rank, ordinal, attempt, 0))

    # -- journals that are gone

    def _hold_places(self) -> None:
        """Begin journals whose names or attempts show that there was one."""
        empty = {place for name in self.torn if (place := naming.parse_journal_name(name))}
        by_rank: dict[int, set[int]] = {}
        for target in self.targets:
            by_rank.setdefault(target.rank, set()).add(target.ordinal)
        for rank, used in by_rank.items():
            for ordinal in range(max(used)):
                if ordinal not in used and (rank, ordinal) not in empty:
                    self._hold(rank, ordinal, self._lost_attempts() if rank == 0 else [])
        for attempt in self._lost_attempts():
            self._hold_attempt(attempt, empty)
        self._sort()

    def _lost_attempts(self) -> list[int]:
        """Return the attempts that the manifest lists and that have no journal."""
        own = {target.attempt for target in self.targets if target.rank == 0}
        return sorted(set(self.known.attempts) - own) if self._is_of_rank_zero() else []

    def _is_of_rank_zero(self) -> bool:
        """Tell whether the attempts of the manifest are those of rank 0."""
        ranks = {target.rank for target in self.targets}
        if 0 in ranks or not ranks:
            return True
        processes = [each.header.process for each in self.targets if each.header]
        return not any(each.get("process") in processes for each in self.known.attempts.values())

    def _hold(self, rank: int, ordinal: int, attempts: list[int]) -> None:
        """Begin a journal that is missing between others of its rank."""
        before = [each for each in self.targets if each.rank == rank and each.ordinal < ordinal]
        behind = [each for each in self.targets if each.rank == rank and each.ordinal > ordinal]
        least = max(before, key=lambda each: each.ordinal).attempt if before else -1
        most = min(behind, key=lambda each: each.ordinal).attempt
        fitting = [each for each in attempts if least < each < most]
        attempt = fitting[0] if fitting else max(least, most - 1, 0)
        self._place(rank, ordinal, attempt)

    def _hold_attempt(self, attempt: int, empty: set[tuple[int, int]]) -> None:
        """Begin a journal of an attempt that the manifest lists."""
        own = [each for each in self.targets if each.rank == 0]
        least = max((each.ordinal for each in own if each.attempt < attempt), default=-1)
        most = min((each.ordinal for each in own if each.attempt > attempt), default=None)
        for ordinal in range(least + 1, least + 2 + len(empty) if most is None else most):
            taken = any(each.ordinal == ordinal for each in own)
            if not taken and ((0, ordinal) in empty or most is None):
                self._place(0, ordinal, attempt)
                return

    def _place(self, rank: int, ordinal: int, attempt: int) -> None:
        """Begin a journal that only states what is lost."""
        name = naming.journal_name(rank, ordinal)
        before = [
            each.found.next_seq if each.found else each.first_seq
            for each in self.targets
            if each.session == (attempt, rank) and each.ordinal < ordinal
        ]
        self.torn.pop(name, None)
        self.targets.append(Target(name, rank, ordinal, attempt, max(before, default=0)))
        self._sort()

    # -- what each journal gets

    def _settle(self, session: Session, targets: list[Target]) -> None:
        """Say what each journal of an attempt and rank gets, and what is lost."""
        filled = self._filled.get(session, [])
        held = ranges.union(self.held(targets), filled)
        end, exact = self._length(targets, held)
        before = ranges.union(*(stated_ranges(each.stated, "lost") for each in targets))
        lost = ranges.subtract([(0, end - 1)] if end else [], held)
        thin = self._thin(session)
        for at, target in enumerate(targets):
            low = target.first_seq if at else 0
            high = target.found.next_seq - 1 if target.found else low - 1
            follower = targets[at + 1].first_seq - 1 if at + 1 < len(targets) else end - 1
            own = [(low, max(high, follower))] if max(high, follower) >= low else []
            there = target.found.ranges if target.found else []
            target.need = ranges.intersect(ranges.subtract(own, there), held)
            target.lost = ranges.subtract(ranges.intersect(own, lost), before)
            target.partial = ranges.intersect(target.need, thin)
            if target.need and target.need[0][0] < target.first_seq:
                target.first_seq = target.need[0][0]
        last = targets[-1]
        stated = any("lost_from" in each.stated for each in targets)
        if not exact and not stated and session not in self._ended and self._broke_off(last):
            last.lost_from = end

    def _length(self, targets: list[Target], held: list[Range]) -> tuple[int, bool]:
        """Return how many records there were at least, and whether that is all of them.

        The manifest counts what was there when the run was sealed. What a journal states as lost
        that has changed since may have been lost before or after that.
        """
        end = max([held[-1][1] + 1 if held else 0, *(each.first_seq for each in targets)])
        entries = [each.entry for each in targets if each.entry is not None]
        trusted = [each for each in targets if each.name in self.known.trusted]
        if not entries or len(trusted) == len(targets):
            return end, False
        before = ranges.union(*(stated_ranges(each.stated, "lost") for each in trusted))
        stated = ranges.union(*(stated_ranges(each.stated, "lost") for each in targets))
        total = sum(each["records"] for each in entries) + ranges.count(before)
        told = max(end, stated[-1][1] + 1 if stated else 0)
        return max(end, total), len(stated) == len(before) or told >= total

    def _broke_off(self, last: Target) -> bool:
        """Tell whether an attempt lacks an end that it must have had."""
        if self.stem == "media":
            return last.found is not None and last.found.after_last > 0
        if last.found is None or last.found.after_last:
            return True
        if last.rank != 0 and any(target.rank == 0 for target in self.targets):
            return False
        status = self.known.attempts.get(last.attempt, {}).get("status")
        return status in {"completed", "failed"}

    def _thin(self, session: Session) -> list[Range]:
        """Return the `seq` of records from tables that may lack the values of another table."""
        rows = self._rows.get(session, [])
        if self.known.eventless:
            return rows
        spans: list[list[Range]] = []
        for table in self.known.tables:
            for first, last in table.holes:
                spans.append(_within(session, (*first[:2], first[2] + 1), (*last[:2], last[2] - 1)))
            spans += [_within(session, first, last) for first, last in table.thin]
        return ranges.intersect(rows, ranges.union(*spans))

    # -- writing

    def write(self, target: Target, descriptor: int) -> None:
        """Write a journal as it will be into a new file."""
        parts = [encode(target.document) if target.document is not None else self._first(target)]
        size = len(parts[0])
        for line in self._lines(target):
            parts.append(line)
            size += len(line)
            if size > _FLUSH_BYTES:
                write_all(descriptor, b"".join(parts))
                parts, size = [], 0
        write_all(descriptor, b"".join(parts))
        os.fsync(descriptor)

    def _first(self, target: Target) -> bytes:
        """Return the header line as it stands."""
        size = target.found.journal.start if target.found is not None else 0
        with self._directory.reading(target.name) as descriptor:
            return os.pread(descriptor, size, 0)

    def _lines(self, target: Target) -> Iterator[bytes]:
        """Yield the records of a journal as it will be."""
        streams = [self._own(target)]
        if target.need:
            others = [each for each in self.sessions()[target.session] if each is not target]
            streams += [self._copies(target, each) for each in [target, *reversed(others)]]
            streams.append(self._from_tables(target))
        last = -1
        ranked = [_ranked(stream, place) for place, stream in enumerate(streams)]
        for seq, _, line in heapq.merge(*ranked, key=lambda each: each[:2]):
            if seq > last:
                yield line
                last = seq

    def _own(self, target: Target) -> Iterator[tuple[int, bytes]]:
        """Yield the good records that a journal has in their place."""
        if target.found is not None:
            journal = target.found.journal
            for line in good_lines(self._directory, journal, self._limits, self.stem):
                yield line.seq, line.data

    def _copies(self, target: Target, other: Target) -> Iterator[tuple[int, bytes]]:
        """Yield what a journal needs and another one has, or itself in another place."""
        if other.found is None:
            return
        strays = sorted(other.found.strays.items())
        lines = self._own(other) if other is not target else iter(())
        for seq, line in heapq.merge(lines, strays, key=lambda each: each[0]):
            if ranges.holds(target.need, seq):
                yield seq, line

    def _from_tables(self, target: Target) -> Iterator[tuple[int, bytes]]:
        """Yield what a journal needs and tables gave."""
        start, end = self._spans.get(target.session, (0, 0))
        rest = b""
        while start < end:
            part = os.pread(self._spill, min(_FLUSH_BYTES, end - start), start)
            start += len(part)
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                seq = decode(line)["seq"]
                if ranges.holds(target.need, seq):
                    yield seq, line + b"\n"


def _ranked(stream: Iterator[tuple[int, bytes]], place: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield lines with the place of their source, the best one having the least."""
    for seq, line in stream:
        yield seq, place, line


def stated_ranges(said: Mapping[str, Any], key: str) -> list[Range]:
    """Return the ranges that a header states; what is no range is left out."""
    found = said.get(key, [])
    if not isinstance(found, list):
        return []
    return ranges.union(
        (each[0], each[1])
        for each in found
        if isinstance(each, list)
        and len(each) == 2  # noqa: PLR2004 - first and last
        and all(type(seq) is int for seq in each)
        and 0 <= each[0] <= each[1]
    )


def _drop_rounded(record: Event) -> None:
    """Drop the floats of a record that may have been integers: the events that tell are gone."""
    for values in (record["metrics"], *record.get("ranks", {}).values()):
        for key, value in list(values.items()):
            if isinstance(value, float) and _EXACT <= abs(value) <= _INT64:
                del values[key]
    if "ranks" in record:
        record["ranks"] = {key: values for key, values in record["ranks"].items() if values}
        if not record["ranks"]:
            del record["ranks"]


def _within(session: Session, first: Place, last: Place) -> list[Range]:
    """Return the `seq` of an attempt and rank from one place to another, the ends included."""
    if not first[:2] <= session <= last[:2]:
        return []
    low = first[2] if first[:2] == session else 0
    high = last[2] if last[:2] == session else 2**63 - 1
    return [(max(low, 0), high)] if high >= low else []
