"""Media journals, line by line against their schema, and the files that they name."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, Literal

from blackboxml.base import naming, npy
from blackboxml.base.files import check_relative
from blackboxml.errors import JournalError, UnsafePathError, UnsupportedVersionError
from blackboxml.journal import count_off, decode, read_blocks, read_header
from blackboxml.media.medium import value_fault
from blackboxml.model import Losses
from blackboxml.validation.document import check_schema
from blackboxml.validation.journal import check_header
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

    from blackboxml.validation.subject import Subject

FORMAT = "blackbox-media"
_KINDS = frozenset(["media", "rewind", "gap"])
_FRAME = frozenset(["seq", "time", "step", "crc"])
_MEDIA = frozenset(
    ["text", "histogram", "image", "array", "table", "figure", "graph", "artifact", "event"]
)


_LINES = (
    *("BB-MED-001", "BB-MED-003", "BB-MED-009", "BB-JNL-001", "BB-JNL-002", "BB-JNL-003"),
    *("BB-JNL-005", "BB-JNL-008", "BB-JNL-011", "BB-JNL-013", "BB-LIV-004"),
)
_MEMBERS = ("BB-MED-005", "BB-MED-006", "BB-MED-010", "BB-MED-012", "BB-MED-013", "BB-MED-015")
_FILES = ("BB-MED-011", "BB-MED-014")
_ORDER = ("BB-MED-002", "BB-JNL-004", "BB-JNL-006", "BB-JNL-009", "BB-MRG-008")
_INLINE_BYTES: Final = 64 * 2**10
_PLACES: Final = {
    ("media", "value"): "BB-MED-012",
    ("media", "dims"): "BB-MED-013",
    ("media", "reference"): "BB-MED-015",
}
_ONE_OF: Final = frozenset([("media", "file"), ("media", "reference"), ("media", "kind")])


@checks("integrity", *_FILES)
@checks("structure", *_ORDER)
@checks(
    "schema",
    *_LINES,
    *_MEMBERS,
    "BB-REP-005",
    "BB-VER-001",
    "BB-VER-003",
    "BB-VER-006",
    "BB-VER-007",
)
def check_media(subject: Subject) -> None:
    """Check every line of every media journal."""
    for name in subject.files:
        if naming.parse_journal_name(name, "media") is None:
            continue
        subject.look(*_LINES, *_ORDER)
        try:
            _Journal(subject, name).check()
        except PermissionError as error:
            subject.skip(subject.refuse(name, error), *_LINES, *_ORDER, *_MEMBERS, *_FILES)


def _is_path(name: Any) -> bool:
    """Tell whether a value is a path inside a run."""
    try:
        check_relative(name)
    except (AttributeError, UnsafePathError):
        return False
    return True


def _record_rule(error: ValidationError, place: list[Any]) -> str:
    """Return the rule that a breach of the schema of a record breaks."""
    within = tuple(place[:2])
    if within in _PLACES and error.schema is not False:
        return _PLACES[within]
    if within in _ONE_OF and (error.schema is False or error.validator == "const"):
        return "BB-MED-005"
    if place == ["media", "file"]:
        return "BB-MED-006" if _is_path(error.instance) else "BB-LAY-006"
    lacks = error.validator == "required" and place == ["media"]
    if lacks and error.message.startswith(("'file'", "'bytes'")):
        return "BB-MED-005"
    return "BB-MED-003"


class _Journal:
    """One media journal while it is read."""

    def __init__(self, subject: Subject, name: str) -> None:
        """Begin at its header."""
        self._subject = subject
        self._name = name
        self._line = 0
        self._offset = 0
        self._length = 0
        self._expected = 0
        self._losses = Losses()

    def check(self) -> None:
        """Read the journal; a torn tail is left."""
        limit = self._subject.limits.line_bytes
        with self._subject.directory.reading(self._name) as descriptor:
            for block in read_blocks(descriptor, line_bytes=limit):
                self._offset = block.offset
                lines = block.data.split(b"\n")
                for line in lines[:-1]:
                    self._line += 1
                    self._length = len(line)
                    if not self._read(line):
                        return
                    self._offset += len(line) + 1
                if lines[-1]:
                    self._line += 1
                    self._report("BB-JNL-002", f"the line is longer than {limit:,} bytes")

    def _read(self, line: bytes) -> bool:
        """Check a line; tell whether the journal may be read on."""
        limit = self._subject.limits.line_bytes
        if len(line) >= limit:
            self._report("BB-JNL-002", f"the line is longer than {limit:,} bytes")
            return True
        try:
            document = decode(line)
        except JournalError as error:
            self._report(error.rule, str(error))
            return True
        if self._line == 1:
            return self._read_header(document)
        valid = check_schema(
            self._subject,
            document,
            "media-record",
            self._name,
            _record_rule,
            line=self._line,
            offset=self._offset,
        )
        if valid:
            self._read_record(document)
        return True

    def _read_header(self, header: dict[str, Any]) -> bool:
        """Check the header; tell whether the journal may be read on."""
        subject = self._subject
        if not check_header(subject, header, self._name, FORMAT, "media-header"):
            subject.refused.add(self._name)
            why = subject.hidden[self._name]
            subject.skip(why, *_LINES, *_ORDER, *_MEMBERS, *_FILES)
            return False
        place = naming.parse_journal_name(self._name, "media")
        if place is not None and header.get("rank") != place[0]:
            message = f"the header says rank {header.get('rank')!r:.40}, the name says {place[0]}"
            self._report("BB-JNL-006", message)
        run = header.get("run")
        manifest = self._subject.manifest
        if manifest is not None and isinstance(run, dict) and run.get("id") != manifest["id"]:
            message = f"the journal is of run {run.get('id')!r:.40}, this is run {manifest['id']}"
            self._report("BB-MRG-008", message)
        self._check_attempt(header)
        with contextlib.suppress(JournalError, UnsupportedVersionError):
            self._losses = read_header(header, name=FORMAT).losses
        first = header.get("first_seq")
        self._expected = first if type(first) is int else 0
        return True

    def _check_attempt(self, header: dict[str, Any]) -> None:
        """Check that the journal belongs to an attempt of its rank: that of the same process."""
        rank, process = header.get("rank"), header.get("process")
        own = {
            each.attempt
            for each in self._subject.journals
            if each.header is not None and each.rank == rank and each.header.process == process
        }
        if own and header.get("attempt") not in own:
            message = (
                f"attempt {header.get('attempt')!r:.40}, but the metrics journal of the same "
                f"process is of attempt {', '.join(map(str, sorted(own)))}"
            )
            self._report("BB-MED-002", message)

    def _read_record(self, record: dict[str, Any]) -> None:
        """Check a record that is valid by itself."""
        seq = record["seq"]
        if seq > self._expected and self._losses.covers(self._expected, seq - 1):
            lost = count_off(self._expected, seq - 1, "missing")
            self._report("BB-REP-007", lost, severity="warning")
        elif seq != self._expected:
            self._report("BB-JNL-009", f"record {seq} stands where {self._expected} was due")
        self._expected = max(self._expected, seq + 1)
        if _KINDS.isdisjoint(record):
            kind = ", ".join(sorted(record.keys() - _FRAME))
            if not kind:
                self._report("BB-JNL-008", "the record has no kind")
            else:
                message = f"a record of the unknown kind {kind:.80} is ignored"
                self._report("BB-JNL-011", message, severity="warning")
        if "media" in record:
            self._check_media(record["media"])

    def _check_media(self, media: dict[str, Any]) -> None:
        """Check the kind, and the value or the file."""
        self._subject.look(*_MEMBERS)
        if self._length > _INLINE_BYTES and len(json.dumps(media.get("value"))) > _INLINE_BYTES:
            message = f"a value of more than {_INLINE_BYTES:,} bytes; a file suits it better"
            self._report("BB-MED-009", message, severity="warning")
        if media["kind"] not in _MEDIA:
            message = f"the kind {media['kind']!r:.80} is not known and is given as it stands"
            self._report("BB-MED-010", message, severity="warning")
        if "dims" in media and self._subject.asks("BB-MED-014"):
            self._subject.look("BB-MED-014")
            if media["kind"] != "array" or "file" not in media:
                self._report("BB-MED-014", f"dimensions of what is no array: {media['kind']:.80}")
        if "file" in media:
            self._check_file(media)
        elif "value" in media and (fault := value_fault(media["kind"], media["value"])):
            message = f"a value that is no {media['kind']:.80}: {fault}"
            self._report("BB-MED-012", message, pointer="/media/value")

    def _check_file(self, media: dict[str, Any]) -> None:
        """Check that the file is there, and the one that was recorded."""
        name, subject = media["file"], self._subject
        if not subject.asks("BB-MED-011") or name in self._losses.damaged:
            return
        subject.look("BB-MED-011")
        try:
            check_relative(name)
            size, digest = subject.digest(name)
        except FileNotFoundError:
            self._report("BB-MED-011", f"{name} is missing")
            return
        except UnsafePathError as error:
            self._report("BB-MED-011", f"{name} cannot be read: {error}")
            return
        except OSError as error:
            subject.skip(subject.refuse(name, error), "BB-MED-011")
            return
        if size != media["bytes"]:
            message = f"{name} has {size:,} bytes, the record says {media['bytes']:,}"
            self._report("BB-MED-011", message)
        elif media.get("sha256", digest) != digest:
            message = f"the SHA-256 of {name} is {digest}, the record says {media['sha256']}"
            self._report("BB-MED-011", message)
        elif media["kind"] == "array" and "dims" in media and subject.asks("BB-MED-014"):
            self._check_dimensions(name, media["dims"])

    def _check_dimensions(self, name: str, dims: list[str]) -> None:
        """Check that an array has as many dimensions as have names."""
        with self._subject.directory.reading(name) as descriptor:
            try:
                shape = npy.read_header(descriptor).shape
            except ValueError as error:
                self._report("BB-MED-014", f"{name} is no array: {error}")
                return
        if len(shape) != len(dims):
            message = f"{name} has the shape {shape!r:.80}, the names are {', '.join(dims):.80}"
            self._report("BB-MED-014", message)

    def _report(
        self,
        rule: str,
        message: str,
        *,
        severity: Literal["error", "warning"] = "error",
        pointer: str | None = None,
    ) -> None:
        """Report at the line that is being read."""
        self._subject.report(
            rule,
            message,
            self._name,
            severity=severity,
            line=self._line,
            offset=self._offset,
            pointer=pointer,
        )
