"""Journals: every line of each. The records are judged by `scan`, whose checks are the schema's.

Strategy: one pass, by the code that also reads and seals, so that what is valid here is what a
reader takes. Plain records of a large journal go through its fast path. The JSON Schema is asked
for headers alone; a test holds that `scan` and the schema of records agree.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base import naming, schema
from blackboxml.errors import JournalError, Problem, UnsafePathError
from blackboxml.journal import decode
from blackboxml.journal.merge import find_journals
from blackboxml.model import JOURNAL_FORMAT, MEDIA_FORMAT
from blackboxml.seal import Sealing, Spill
from blackboxml.validation.document import check_schema, check_version
from blackboxml.validation.merge import good_lines
from blackboxml.validation.subject import Visible, checks

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

    from blackboxml.journal.table import Part
    from blackboxml.validation.subject import Subject

_FRAME = frozenset(["seq", "time", "step"])
_TAIL_BYTES: Final = 2**16
_INTEGERS: Final = ("pid", "started", "pid_namespace")


HEADER_RULES: Final = (
    *("BB-JNL-005", "BB-JNL-013", "BB-LIV-004", "BB-REP-005"),
    *("BB-VER-001", "BB-VER-003", "BB-VER-006", "BB-VER-007"),
)
_SHAPE = (
    *("BB-JNL-001", "BB-JNL-002", "BB-JNL-003", "BB-JNL-005", "BB-JNL-007", "BB-JNL-008"),
    *("BB-JNL-011", "BB-JNL-012", "BB-JNL-013", "BB-LIM-001"),
)
_NAMES = ("BB-GRP-001", "BB-GRP-002", "BB-GRP-003")
_ORDER = ("BB-JNL-004", "BB-JNL-006", "BB-JNL-009", "BB-JNL-010", "BB-MRG-001", "BB-MRG-008")


@checks("schema", *HEADER_RULES)
def check_headers(subject: Subject) -> None:
    """Check the first line of each journal against its schema; note those that are refused."""
    for name in subject.files:
        if naming.parse_journal_name(name) is None:
            continue
        header = read_first_line(subject, name)
        if name in subject.refusals:
            subject.skip(f"{name} cannot be read", *HEADER_RULES)
        if header is None:
            continue
        if not check_header(subject, header, name, JOURNAL_FORMAT, "journal-header"):
            subject.refused.add(name)
            subject.skip(subject.hidden[name], "BB-JNL-005", "BB-JNL-013", "BB-LIV-004")


@checks("structure", *_ORDER)
@checks("schema", *_SHAPE, *_NAMES)
def check_lines(subject: Subject) -> None:
    """Read every journal; the rows of a sealed run are put by for comparison with its tables."""
    visible = subject.stack.enter_context(Visible(subject.directory, _refused(subject)))
    found: list[Problem] = []
    stated = None if subject.manifest is None else subject.manifest["id"]
    subject.journals = find_journals(visible, subject.limits, found, stated)
    known = {problem.file for problem in subject.problems if problem.rule == "BB-JNL-005"}
    hidden = {naming.parse_journal_name(name) for name in subject.hidden}
    ranks = {place[0] for place in hidden if place is not None}
    for problem in found:
        place = naming.parse_journal_name(problem.file)
        if problem.rule == "BB-MRG-001" and place is not None and place[0] in ranks:
            subject.skip("a journal of the rank is not read", "BB-MRG-001")
            continue
        # What the schema says of a header, or the layout of a link, is not said again.
        repeated = problem.rule == "BB-JNL-005" and problem.file in known
        if not repeated and problem.rule != "BB-LAY-009":
            subject.problems.append(problem)
    identity = subject.manifest or {"id": stated or "", "name": ""}
    sealing = Sealing(visible, identity, subject.journals, subject.limits, subject.progress)
    if subject.sealed is not None and not subject.packed and subject.deeper:
        spill = subject.spill = subject.stack.enter_context(Spill(subject.scratch(), "rows"))
    else:
        spill = _Nothing()
    sealing.read(spill, subject.problems)
    subject.scans, subject.groups = sealing.scans, sealing.groups
    if subject.journals:
        subject.look(*_SHAPE, *_ORDER, *(_NAMES if subject.groups else ()))
    for name, why in subject.hidden.items():
        if naming.parse_journal_name(name) is not None:
            subject.skip(why, *_SHAPE, *_ORDER, *_NAMES)
    _note_unknown_kinds(subject)


@checks("structure", "BB-JNL-025")
def check_tails(subject: Subject) -> None:
    """Check that nothing follows the end of a journal, not even part of a line."""
    ended = sorted({scan.journal.name for scan in subject.scans if scan.ended})
    for name in ended:
        subject.look("BB-JNL-025")
        with subject.directory.reading(name) as descriptor:
            size = os.fstat(descriptor).st_size
            begin = max(0, size - _TAIL_BYTES)
            tail = os.pread(descriptor, _TAIL_BYTES, begin)
        torn = len(tail) - tail.rfind(b"\n") - 1
        if torn:
            message = f"{torn:,} bytes follow the last line, though the journal has ended"
            subject.report("BB-JNL-025", message, name, offset=size - torn)


def check_header(
    subject: Subject, header: dict[str, Any], name: str, form: str, schema: str
) -> bool:
    """Tell whether a journal may be read by this version; report what is wrong with its header."""
    rule = "BB-MED-001" if form == MEDIA_FORMAT else "BB-JNL-005"
    if not check_version(subject, header, form, name, rule, line=1):
        refusals = ("BB-VER-001", "BB-VER-006")
        return not any(each.file == name and each.rule in refusals for each in subject.problems)
    subject.look("BB-JNL-005", "BB-JNL-013", "BB-LIV-004")
    if "repaired" in header:
        subject.look("BB-REP-005")
    check_schema(subject, header, schema, name, _header_rule, line=1, offset=0)
    process = header.get("process")
    holders = [(header, key) for key in ("rank", "attempt", "first_seq")]
    holders += [(process, key) for key in _INTEGERS] if isinstance(process, dict) else []
    for holder, key in holders:
        if isinstance(holder.get(key), float):
            message = f'"{key}" is {holder[key]!r}, wanted an integer without "." or "e"'
            subject.report("BB-JNL-013", message, name, line=1, offset=0)
    return True


def _header_rule(error: ValidationError, place: list[Any]) -> str:
    """Return the rule that a breach of the schema of a header breaks."""
    if place[:1] == ["repaired"]:
        return "BB-REP-005"
    lacks = error.validator == "required" and error.message.startswith("'process'")
    return "BB-LIV-004" if lacks or place[:1] == ["process"] else "BB-JNL-005"


def read_first_line(subject: Subject, name: str) -> dict[str, Any] | None:
    """Return the first line of a journal, or None if it is not committed or damaged."""
    try:
        with subject.directory.reading(name) as descriptor:
            head = os.pread(descriptor, subject.limits.line_bytes, 0)
        line, newline, _ = head.partition(b"\n")
        return decode(line) if newline else None
    except (JournalError, UnsafePathError, FileNotFoundError):
        return None
    except OSError as error:
        subject.refuse(name, error)
        return None


def _refused(subject: Subject) -> set[str]:
    """Return the journals that are not read: refused ones, and in a packed run listed ones."""
    hidden = set(subject.hidden)
    if not subject.packed or subject.sealed is None:
        return hidden
    return hidden | {entry["file"] for entry in subject.sealed["journals"]}


def _note_unknown_kinds(subject: Subject) -> None:
    """Note records of kinds that no version we know defines."""
    members = schema.load("defs")["$defs"]["record"]["properties"]
    kinds = members.keys() - _FRAME - {"ranks"}
    for scan in subject.scans:
        unknown = {event["seq"]: event for event in scan.events if kinds.isdisjoint(event)}
        if not unknown:
            continue
        for line in good_lines(subject, scan.journal):
            if line.seq in unknown:
                kind = ", ".join(sorted(unknown[line.seq].keys() - _FRAME))
                subject.report(
                    "BB-JNL-011",
                    f"a record of the unknown kind {kind:.80} is ignored",
                    line.file,
                    severity="warning",
                    line=line.number,
                    offset=line.offset,
                )


class _Nothing(Spill):
    """Takes the rows of a run that is not sealed, and keeps none."""

    def __init__(self) -> None:
        """Open no file."""

    def append(self, part: Part) -> None:
        """Forget a part."""
