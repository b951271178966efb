"""Many journals as one history, and what the manifest says of it."""

from __future__ import annotations

import contextlib
import heapq
from typing import TYPE_CHECKING, Any, NamedTuple

from blackboxml.base import naming
from blackboxml.errors import JournalError
from blackboxml.journal import decode, read_blocks
from blackboxml.manifest import timestamp
from blackboxml.model import MANIFEST, SUMS
from blackboxml.validation.document import equal, pointer
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.journal.scan import Scan
    from blackboxml.manifest import Manifest
    from blackboxml.model import JournalFile
    from blackboxml.validation.subject import Subject


@checks("structure", "BB-MRG-002", "BB-MRG-003", "BB-MRG-004", "BB-MRG-005", "BB-JNL-010")
def check_sessions(subject: Subject) -> None:
    """Check the journals of each rank against each other."""
    if subject.journals:
        subject.look("BB-MRG-002", "BB-MRG-003")
    ranks: dict[int, dict[str, JournalFile]] = {}
    sessions: dict[tuple[int, int], dict[str, JournalFile]] = {}
    for journal in subject.journals:
        ranks.setdefault(journal.rank, {})[journal.name] = journal
        sessions.setdefault((journal.attempt, journal.rank), {})[journal.name] = journal
    scans: dict[tuple[int, int], list[Scan]] = {}
    for scan in subject.scans:
        scans.setdefault((scan.journal.attempt, scan.journal.rank), []).append(scan)
    check_ordinals(subject)
    for journals in ranks.values():
        _check_attempts(subject, sorted(journals.values(), key=lambda each: each.ordinal))
    for place, journals in sessions.items():
        session = sorted(journals.values(), key=lambda each: each.ordinal)
        check_process(subject, session)
        if len(session) > 1:
            subject.look("BB-MRG-004", "BB-MRG-005")
            check_copies(subject, session)
        _check_end(subject, scans.get(place, []))
    for name, why in subject.hidden.items():
        if naming.parse_journal_name(name) is not None:
            subject.skip(why, "BB-MRG-003", "BB-MRG-004", "BB-MRG-005", "BB-JNL-010")


_HISTORY = ("BB-MAN-013", "BB-LIV-001", "BB-MAN-006", "BB-SEA-005")


@checks("structure", *_HISTORY, "BB-SEA-014")
def check_history(subject: Subject) -> None:
    """Check what the manifest says of attempts and status against the journals.

    What a writer leaves that was killed between its journal and the manifest is a warning: the
    manifest is behind. What cannot come about so is an error.
    """
    manifest = subject.manifest
    if manifest is None:
        if MANIFEST in subject.files:
            subject.skip(f"{MANIFEST} is not valid", *_HISTORY, "BB-SEA-014")
        return
    if "sealed" not in manifest:
        subject.look("BB-SEA-014")
    if "sealed" not in manifest and SUMS in subject.files:
        message = "left over from a seal before the run was resumed; readers ignore it"
        subject.report("BB-SEA-014", message, SUMS, severity="warning", cure=subject.cure)
    ids = {journal.header.run_id for journal in subject.journals if journal.header is not None}
    if ids and manifest["id"] not in ids:
        message = f"the manifest is of run {manifest['id']}, the journals are of {min(ids)}"
        subject.report("BB-MAN-013", message, MANIFEST, pointer="/id")
    elif subject.journals:
        subject.look("BB-MAN-013", "BB-LIV-001")
        _check_all_attempts(subject, manifest)
    else:
        _check_lost_attempts(subject, manifest)
    for name, why in subject.hidden.items():
        if naming.parse_journal_name(name) is not None:
            subject.skip(why, "BB-MAN-013", "BB-LIV-001", "BB-SEA-005")


def _check_lost_attempts(subject: Subject, manifest: Manifest) -> None:
    """Check that no attempt has ended of which there is no journal left at all.

    One that is still said to be running may have lost its only journal to a power cut.
    """
    if "sealed" in manifest or subject.hidden:
        return
    subject.look("BB-MAN-013")
    for at, entry in enumerate(manifest["attempts"]):
        if entry["status"] != "running":
            message = f"attempt {entry['attempt']} has no journal"
            subject.report("BB-MAN-013", message, MANIFEST, pointer=pointer(["attempts", at]))


def _check_all_attempts(subject: Subject, manifest: Manifest) -> None:
    """Check each attempt of rank 0 that the manifest or a journal speaks of."""
    attempts, sealed = manifest["attempts"], "sealed" in manifest
    least = min(journal.rank for journal in subject.journals)
    listed = {entry["attempt"]: at for at, entry in enumerate(attempts)}
    sessions: dict[int, list[Scan]] = {}
    for scan in subject.scans:
        if scan.journal.rank == least:
            sessions.setdefault(scan.journal.attempt, []).append(scan)
    for attempt, session in sessions.items():
        if attempt in listed:
            _check_attempt(subject, listed[attempt], attempts[listed[attempt]], session)
            continue
        message = f"attempt {attempt} of {session[0].journal.name} is not listed"
        subject.report(
            "BB-MAN-006" if sealed else "BB-MAN-013",
            message,
            MANIFEST,
            severity="error" if sealed else "warning",
            pointer="/attempts",
            cure=subject.cure,
        )
    for attempt in sorted(listed.keys() - sessions.keys()):
        if least == 0 and not subject.hidden:
            place = pointer(["attempts", listed[attempt]])
            message = f"attempt {attempt} has no journal"
            subject.report("BB-MAN-013", message, MANIFEST, pointer=place)


def _check_attempt(subject: Subject, at: int, entry: dict[str, Any], session: list[Scan]) -> None:
    """Check one attempt of the manifest against its journals."""
    ends = [event["end"] for scan in session for event in scan.events if "end" in event]
    place = pointer(["attempts", at, "status"])
    status = entry["status"]
    journal = session[-1].journal.name
    if ends and status == "running":
        message = f"{journal} ends {ends[-1]['status']}, the manifest was not told any more"
        subject.report(
            "BB-MAN-013", message, MANIFEST, severity="warning", pointer=place, cure=subject.cure
        )
    elif ends and status != ends[-1]["status"]:
        message = f"{status}, but {journal} ends {ends[-1]['status']}"
        subject.report("BB-MAN-013", message, MANIFEST, pointer=place, cure=subject.cure)
    elif ends and not equal(entry.get("exception"), ends[-1].get("exception")):
        message = f"another exception than in {journal}"
        place = pointer(["attempts", at, "exception"])
        subject.report("BB-MAN-013", message, MANIFEST, pointer=place, cure=subject.cure)
    elif not ends and status in {"completed", "failed"} and not _lost_its_end(session):
        message = f"{status}, but no journal of the attempt has an end record"
        subject.report("BB-LIV-001", message, MANIFEST, pointer=place)
    if subject.sealed is not None and not ends and at == len(subject.sealed["attempts"]) - 1:
        _check_settled(subject, subject.sealed, session)
    header = session[0].journal.header
    if header is not None and not equal(entry["process"], header.process):
        message = f"another process than in the header of {session[0].journal.name}"
        place = pointer(["attempts", at, "process"])
        subject.report("BB-MAN-013", message, MANIFEST, pointer=place)


def _lost_its_end(session: list[Scan]) -> bool:
    """Tell whether a repair has stated that the last records of an attempt are lost."""
    after = max(scan.expected for scan in session)
    losses = [scan.journal.header.losses for scan in session if scan.journal.header is not None]
    return any(
        each.lost_from is not None or any(last >= after for _, last in each.lost) for each in losses
    )


def _check_settled(subject: Subject, sealed: Manifest, session: list[Scan]) -> None:
    """Check what a sealer has to say of a run whose last attempt broke off."""
    subject.look("BB-SEA-005")
    times = [scan.journal.header.time for scan in session[-1:] if scan.journal.header is not None]
    times += [scan.last_time for scan in session if scan.records]
    if sealed["status"] == "interrupted" and times and sealed["end"] != timestamp(times[-1]):
        message = f"{sealed['end']}, but the last record of the run is of {timestamp(times[-1])}"
        subject.report("BB-SEA-005", message, MANIFEST, pointer="/end", cure=subject.cure)


def check_ordinals(subject: Subject, stem: naming.JournalStem = "metrics") -> None:
    """Check that no journal of a rank is missing; empty ones count."""
    ordinals: dict[int, set[int]] = {}
    for name in subject.files:
        if (place := naming.parse_journal_name(name, stem)) is not None:
            ordinals.setdefault(place[0], set()).add(place[1])
    for rank, found in ordinals.items():
        missing = next((each for each in range(len(found)) if each not in found), None)
        if missing is not None and not (subject.packed and stem == "metrics"):
            last = naming.journal_name(rank, max(found), stem)
            message = f"it is missing: rank {rank} has journals up to {last}"
            subject.report("BB-MRG-002", message, naming.journal_name(rank, missing, stem))


def _check_attempts(subject: Subject, journals: list[JournalFile]) -> None:
    """Check that each attempt of a rank follows the one before.

    A journal without a place may have been an attempt too, and a rank other than 0 may join a run
    in any.
    """
    attempt = ordinal = -1
    for journal in journals:
        most = attempt + journal.ordinal - ordinal
        if journal.attempt < attempt or (journal.attempt > most and journal.rank == 0):
            message = f"attempt {journal.attempt} follows attempt {attempt}"
            if attempt < 0:
                message = (
                    f"the first journal of rank {journal.rank} is of attempt {journal.attempt}"
                )
            subject.report("BB-MRG-003", message, journal.name, line=1, offset=0)
        attempt, ordinal = journal.attempt, journal.ordinal


def check_process(subject: Subject, session: list[JournalFile]) -> None:
    """Check that one process wrote all journals of an attempt and rank."""
    headers = [(each.name, each.header) for each in session if each.header is not None]
    for name, header in headers[1:]:
        first, known = headers[0]
        if not equal(header.process, known.process):
            message = (
                f"attempt {header.attempt} of rank {header.rank} is also that of {first}, "
                "by another process: two writers at once"
            )
            subject.report("BB-MRG-004", message, name, line=1, offset=0)


def check_copies(subject: Subject, session: list[JournalFile]) -> None:
    """Check that a record in several journals is the same in all."""
    previous: Line | None = None
    streams = (good_lines(subject, journal) for journal in session)
    for line in heapq.merge(*streams, key=lambda each: each.seq):
        if previous is not None and previous.seq == line.seq and previous.text != line.text:
            message = f"record {line.seq} differs from the one of {previous.file}"
            where, number = line.offset, line.number
            subject.report("BB-MRG-005", message, line.file, line=number, offset=where)
        previous = line


class Line(NamedTuple):
    """A good line of a journal: its record's `seq`, its text, and where it stands."""

    seq: int
    text: bytes
    file: str
    number: int
    offset: int


def good_lines(subject: Subject, journal: JournalFile) -> Iterator[Line]:
    """Yield the good lines of a journal after its header, as long as their `seq` ascends."""
    last = -1
    number = 1 if journal.start else 0
    limit = subject.limits.line_bytes
    with subject.directory.reading(journal.name) as descriptor:
        for block in read_blocks(descriptor, journal.start, line_bytes=limit):
            offset = block.offset
            *texts, cut = block.data.split(b"\n")
            number += bool(cut)  # a line that is longer than the limit comes alone
            for text in texts:
                number += 1
                with contextlib.suppress(JournalError):
                    seq = decode(text).get("seq")
                    if type(seq) is int and seq > last:
                        last = seq
                        yield Line(seq, text, journal.name, number, offset)
                offset += len(text) + 1


def _check_end(subject: Subject, session: list[Scan]) -> None:
    """Check that no other journal of an attempt and rank goes on after its end."""
    ends = [
        (event["seq"], scan.journal.name)
        for scan in session
        for event in scan.events
        if "end" in event
    ]
    if not ends:
        return
    subject.look("BB-JNL-010")
    seq, name = min(ends)
    for scan in session:
        if scan.journal.name != name and scan.records and scan.expected - 1 > seq:
            message = f"it goes on after record {seq}, with which {name} ended"
            subject.report("BB-JNL-010", message, scan.journal.name)
