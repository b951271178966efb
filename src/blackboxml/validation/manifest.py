"""`run.json` by itself: strict JSON, its schema, and what a schema cannot say."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from blackboxml.base import naming
from blackboxml.errors import LimitError, UnsafePathError
from blackboxml.manifest import ORDER
from blackboxml.model import MANIFEST, RUN_FORMAT
from blackboxml.validation.document import (
    REFUSALS,
    check_schema,
    check_version,
    parse,
    pointer,
    walk,
)
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema.exceptions import ValidationError

    from blackboxml.manifest import Manifest
    from blackboxml.validation.subject import Subject

_TIMES = ("start", "end", "time")
_SEALED = ("sealed", "groups", "journals", "files")


_SHAPE = ("BB-MAN-002", "BB-MAN-008", "BB-MAN-009", "BB-MAN-010", "BB-MAN-011", "BB-MAN-012")
_FILES = ("BB-INT-006", "BB-INT-007")
_LARGE = re.compile(rb"[0-9][eE]|[0-9]{300}")
"""What a number beyond float64 is spelled with."""

_EXTENSION = re.compile(r"[a-z0-9-]+(?:\.[A-Za-z0-9_-]+)+")


@checks("structure", "BB-LAY-006", "BB-MAN-006")
@checks(
    "schema",
    *("BB-MAN-001", "BB-MAN-014", *_SHAPE, *_FILES, "BB-LIM-001", "BB-VER-001", "BB-VER-003"),
    *("BB-VER-006", "BB-VER-007", "BB-VER-011", "BB-SEA-015"),
)
def check_manifest(subject: Subject) -> None:
    """Read the manifest; it is kept only if it is valid."""
    subject.look("BB-MAN-014")
    if MANIFEST not in subject.directory.names():
        message = f"there is no {MANIFEST}; what the journals prove stands in for it"
        subject.report("BB-MAN-014", message, MANIFEST, severity="warning", cure=subject.cure)
        return
    subject.look("BB-MAN-001", "BB-LIM-001")
    data = _read(subject)
    document = None if data is None else _parse(subject, data)
    if data is None or document is None:
        subject.skip(f"{MANIFEST} is not valid", *_SHAPE, *_FILES, "BB-VER-011")
        return
    subject.manifest = document
    _check_form(subject, data, document)
    _check_times(subject, document)
    _check_entries(subject, document)
    _check_extensions(subject, document)
    _check_packed(subject, document)
    subject.look("BB-MAN-009", "BB-MAN-010", "BB-MAN-012")
    if document["status"] == "failed":
        subject.look("BB-MAN-011")
        if "exception" not in document:
            message = "the run failed, and no exception says why"
            where = "/exception"
            subject.report("BB-MAN-011", message, MANIFEST, severity="warning", pointer=where)
    if "files" in document:
        subject.look(*_FILES, "BB-LAY-006", "BB-MAN-006")


def _read(subject: Subject) -> bytes | None:
    """Return the bytes of the manifest."""
    try:
        return subject.directory.read(MANIFEST, subject.limits.manifest_bytes)
    except LimitError as error:
        subject.report("BB-LIM-001", str(error), MANIFEST)
    except UnsafePathError:
        subject.skip(f"{MANIFEST} is not a regular file", "BB-MAN-001", "BB-MAN-014")
    except OSError as error:
        subject.skip(subject.refuse(MANIFEST, error), "BB-MAN-001", "BB-MAN-014")
    return None


def _parse(subject: Subject, data: bytes) -> Manifest | None:
    """Return the manifest if it is valid against its schema."""
    try:
        document = parse(data, subject.limits.depth)
        if _LARGE.search(data) and any(
            isinstance(value, float) and math.isinf(value) for _, value, _ in walk(document)
        ):
            raise ValueError("it holds a number beyond float64")
    except LimitError as error:
        subject.report("BB-LIM-001", str(error), MANIFEST, cure=subject.cure)
        return None
    except ValueError as error:
        message = f"{error}; wanted one strict JSON document in UTF-8"
        subject.report("BB-MAN-001", message, MANIFEST, cure=subject.cure)
        return None
    if not check_version(subject, document, RUN_FORMAT, MANIFEST, "BB-MAN-001"):
        subject.unsupported = any(each.rule in REFUSALS for each in subject.problems)
        return None
    valid = check_schema(subject, document, "manifest", MANIFEST, _rule, cure=subject.cure)
    return document if valid else None


def _rule(error: ValidationError, path: list[Any]) -> str:
    """Return the rule that a breach of the schema breaks."""
    last = path[-1] if path else ""
    if path[:1] == ["files"] and len(path) > 1:
        return "BB-INT-007" if last == "sha256" else "BB-INT-006"
    if path[:1] in (["groups"], ["journals"]) and "then" in error.absolute_schema_path:
        return "BB-SEA-015"
    if error.validator == "pattern":
        if last in _TIMES:
            return "BB-MAN-008"
        if path == ["files"] or last in {"table", "dataset"}:
            return "BB-LAY-006"
    return _rule_of_presence(error, last)


def _rule_of_presence(error: ValidationError, last: Any) -> str:
    """Return the rule that a member breaks that is missing, or there and must not be."""
    missing: set[Any] = set()
    if error.validator == "required":
        wanted: Any = error.validator_value
        found: Any = error.instance
        missing = set(wanted) - set(found)
    if error.validator == "dependentRequired" or "dependentSchemas" in error.absolute_schema_path:
        return "BB-MAN-012"
    if missing & {"end", "duration_seconds"} or (
        error.schema is False and last in {"end", "duration_seconds"}
    ):
        return "BB-MAN-009"
    if error.schema is False and last == "exception":
        return "BB-MAN-010"
    return "BB-MAN-001"


def _check_form(subject: Subject, data: bytes, document: Manifest) -> None:
    """Check what people see: order, indentation, the last line feed."""
    subject.look("BB-MAN-002")
    known = [key for key in document if key in ORDER]
    if known != sorted(known, key=ORDER.index) or next(iter(document)) != ORDER[0]:
        found = "its members are not in the order of the specification, `format` first"
    elif not data.startswith(b'{\n  "'):
        found = "it is not indented by two spaces"
    elif not data.endswith(b"\n"):
        found = "it does not end with LF"
    else:
        return
    subject.report("BB-MAN-002", found, MANIFEST, severity="warning")


def _check_times(subject: Subject, document: Manifest) -> None:
    """Check that times are days of the calendar."""
    subject.look("BB-MAN-008")
    for place, text in _times(document):
        try:
            datetime.fromisoformat(text.replace(":60.", ":59."))
        except ValueError:
            message = f"{text} is no time"
            subject.report("BB-MAN-008", message, MANIFEST, pointer=pointer(place))


def _times(document: Manifest) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield every time of a manifest with its place."""
    holders: list[tuple[tuple[Any, ...], Any]] = [((), document)]
    holders += [(("attempts", at), entry) for at, entry in enumerate(document["attempts"])]
    holders += [(("sealed",), document["sealed"])] if "sealed" in document else []
    for place, holder in holders:
        for key in _TIMES:
            if key in holder:
                yield (*place, key), holder[key]


def _check_extensions(subject: Subject, document: Manifest) -> None:
    """Check that whoever adds members says who they are."""
    for name in document.get("extensions", {}):
        subject.look("BB-VER-011")
        if not _EXTENSION.fullmatch(name):
            message = f"the extension {name!r:.80} does not begin with a domain name in reverse"
            where = pointer(["extensions", name])
            subject.report("BB-VER-011", message, MANIFEST, severity="warning", pointer=where)


def _check_packed(subject: Subject, document: Manifest) -> None:
    """Check that the manifest of a packed run speaks of nothing that packing removes."""
    if not document.get("sealed", {}).get("packed", False):
        return
    subject.look("BB-SEA-015")
    places = []
    for name, group in document["groups"].items():
        metrics = group["metrics"].items()
        places += [["groups", name, "metrics", key, "variable"] for key, said in metrics]
        places.append(["files", f"{group['table'].removesuffix('.parquet')}.h5"])
    places += [["files", name] for name in document["files"] if naming.parse_journal_name(name)]
    for place in places:
        holder = document
        for key in place[:-1]:
            holder = holder[key]
        if place[-1] in holder:
            message = f"{place[-1]!r:.80} must not be in the manifest of a packed run"
            subject.report("BB-SEA-015", message, MANIFEST, pointer=pointer(place))


def _check_entries(subject: Subject, document: Manifest) -> None:
    """Check that journals, attempts and files fit together within the manifest."""
    for at, entry in enumerate(document.get("journals", [])):
        place = naming.parse_journal_name(entry["file"])
        if place is None or place[0] != entry["rank"]:
            message = f"{entry['file']} is not the name of a journal of rank {entry['rank']}"
            place_of = pointer(["journals", at, "rank"])
            subject.report("BB-MAN-006", message, MANIFEST, pointer=place_of)
    for name, group in document.get("groups", {}).items():
        for kind in ("table", "dataset"):
            if kind in group and group[kind] not in document["files"]:
                message = f"{group[kind]} is not among `files`"
                place_of = pointer(["groups", name, kind])
                subject.report("BB-MAN-006", message, MANIFEST, pointer=place_of)
