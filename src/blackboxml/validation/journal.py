"""Journals: every line of each. The records are judged by `scan`, whose checks are the schema's.

Strategy: one pass, by the code that also reads and seals, so that what is valid here is what a
reader takes. Plain records of a large journal go through its fast path. The JSON Schema is asked
for headers alone; a test holds that `scan` and the schema of records agree.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from blackboxml import naming
from blackboxml.errors import JournalError, Problem, UnsafePathError
from blackboxml.journal import decode
from blackboxml.merge import find_journals
from blackboxml.model import JOURNAL_FORMAT
from blackboxml.scan import EVENTS
from blackboxml.seal import Sealing, Spill
from blackboxml.validation.document import check_schema, check_version
from blackboxml.validation.subject import Visible, checks

if TYPE_CHECKING:
    from blackboxml.table import Part
    from blackboxml.validation.subject import Subject

_KINDS = frozenset([*EVENTS, "metrics"])
_FRAME = frozenset(["seq", "time", "step"])
_TAIL_BYTES: Final = 2**16
_INTEGERS: Final = ("pid", "started", "pid_namespace")


@checks("BB-JNL-005", "BB-JNL-013", "BB-VER-001", "BB-VER-003", "BB-VER-006")
def check_headers(subject: Subject) -> bool:
    """Check the first line of each journal against its schema; note those that are refused."""
    looked = False
    for name in subject.files:
        if naming.parse_journal_name(name) is None:
            continue
        header = read_first_line(subject, name)
        if header is None:
            continue
        looked = True
        if not check_header(subject, header, name, JOURNAL_FORMAT, "journal-header"):
            subject.refused.add(name)
    return looked


@checks(
    *("BB-JNL-001", "BB-JNL-002", "BB-JNL-003", "BB-JNL-004", "BB-JNL-005", "BB-JNL-006"),
    *("BB-JNL-007", "BB-JNL-008", "BB-JNL-009", "BB-JNL-010", "BB-JNL-011", "BB-JNL-012"),
    *("BB-JNL-013", "BB-GRP-001", "BB-GRP-002", "BB-GRP-003", "BB-LIM-001"),
    *("BB-MRG-001", "BB-MRG-008"),
)
def check_lines(subject: Subject) -> bool:
    """Read every journal; the rows of a sealed run are put by for comparison with its tables."""
    visible = subject.stack.enter_context(Visible(subject.directory, _refused(subject)))
    found: list[Problem] = []
    stated = None if subject.manifest is None else subject.manifest["id"]
    subject.journals = find_journals(visible, subject.limits, found, stated)
    known = {problem.file for problem in subject.problems if problem.rule == "BB-JNL-005"}
    for problem in found:
        # What the schema says of a header, or the layout of a link, is not said again.
        repeated = problem.rule == "BB-JNL-005" and problem.file in known
        if not repeated and problem.rule != "BB-LAY-009":
            subject.problems.append(problem)
    identity = subject.manifest or {"id": stated or "", "name": ""}
    sealing = Sealing(visible, identity, subject.journals, subject.limits, None)
    if subject.sealed is not None and not subject.packed:
        spill = subject.spill = subject.stack.enter_context(Spill(subject.scratch(), "rows"))
    else:
        spill = _Nothing()
    sealing.read(spill, subject.problems)
    subject.scans, subject.groups = sealing.scans, sealing.groups
    _note_unknown_kinds(subject)
    return bool(subject.journals)


@checks("BB-JNL-025")
def check_tails(subject: Subject) -> bool:
    """Check that nothing follows the end of a journal, not even part of a line."""
    ended = sorted({scan.journal.name for scan in subject.scans if scan.ended})
    for name in ended:
        with subject.directory.reading(name) as descriptor:
            size = os.fstat(descriptor).st_size
            begin = max(0, size - _TAIL_BYTES)
            tail = os.pread(descriptor, _TAIL_BYTES, begin)
        torn = len(tail) - tail.rfind(b"\n") - 1
        if torn:
            message = f"{torn:,} bytes follow the last line, though the journal has ended"
            subject.report("BB-JNL-025", message, name, offset=size - torn)
    return bool(ended)


def check_header(
    subject: Subject, header: dict[str, Any], name: str, form: str, schema: str
) -> bool:
    """Tell whether a journal may be read by this version; report what is wrong with its header."""
    if not check_version(subject, header, form, name, "BB-JNL-005", line=1):
        refusals = ("BB-VER-001", "BB-VER-006")
        return not any(each.file == name and each.rule in refusals for each in subject.problems)
    check_schema(subject, header, schema, name, "BB-JNL-005", line=1, offset=0)
    process = header.get("process")
    holders = [(header, key) for key in ("rank", "attempt", "first_seq")]
    holders += [(process, key) for key in _INTEGERS] if isinstance(process, dict) else []
    for holder, key in holders:
        if isinstance(holder.get(key), float):
            message = f'"{key}" is {holder[key]!r}, wanted an integer without "." or "e"'
            subject.report("BB-JNL-013", message, name, line=1, offset=0)
    return True


def read_first_line(subject: Subject, name: str) -> dict[str, Any] | None:
    """Return the first line of a journal, or None if it is not committed or damaged."""
    try:
        with subject.directory.reading(name) as descriptor:
            head = os.pread(descriptor, subject.limits.line_bytes, 0)
        line, newline, _ = head.partition(b"\n")
        return decode(line) if newline else None
    except (JournalError, OSError, UnsafePathError):
        return None


def _refused(subject: Subject) -> set[str]:
    """Return the journals that are not read: refused ones, and in a packed run listed ones."""
    if not subject.packed or subject.sealed is None:
        return subject.refused
    return subject.refused | {entry["file"] for entry in subject.sealed["journals"]}


def _note_unknown_kinds(subject: Subject) -> None:
    """Note records of kinds that this version does not know."""
    for scan in subject.scans:
        for event in scan.events:
            if _KINDS.isdisjoint(event):
                kind = ", ".join(sorted(event.keys() - _FRAME))
                message = f"a record of the unknown kind {kind:.80} is ignored"
                subject.report("BB-JNL-011", message, scan.journal.name, severity="warning")


class _Nothing(Spill):
    """Takes the rows of a run that is not sealed, and keeps none."""

    def __init__(self) -> None:
        """Open no file."""

    def append(self, part: Part) -> None:
        """Forget a part."""
