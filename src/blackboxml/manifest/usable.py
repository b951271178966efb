"""Which members of a manifest a reader can go by: what each must be for that."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base import naming
from blackboxml.base.files import check_relative
from blackboxml.errors import JournalError, UnsafePathError
from blackboxml.journal import check_sequence, read_record
from blackboxml.journal.scan import check_event
from blackboxml.model import INT64_MAX, LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

Manifest = dict[str, Any]

SEALED: Final = ("sealed", "groups", "journals", "files")
"""The members that only a sealed run has."""

_ID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENDED = frozenset(["completed", "failed", "interrupted"])


def unusable(document: Manifest, limits: Limits = LIMITS) -> list[str]:
    """Return the members of a manifest that a reader cannot go by: missing or not what they are.

    Whether what they say is true is another question.
    """
    wrong = [key for key, check in REQUIRED.items() if not check(document.get(key))]
    wrong += [
        key for key, check in _OPTIONAL.items() if key in document and not check(document[key])
    ]
    if any(key in document for key in SEALED) and not _is_sealed(document, limits):
        wrong += SEALED
    return wrong


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def is_texts(value: object) -> bool:
    """Tell whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= INT64_MAX


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value <= naming.MAX_ORDINAL


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_time(value: object) -> bool:
    try:
        datetime.fromisoformat(value).timestamp()  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_path(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        check_relative(value)
    except UnsafePathError:
        return False
    return True


def _has(value: object, **checks: Callable[[object], bool]) -> bool:
    """Tell whether an object has members that pass their checks; a `maybe_` one may be absent."""
    if not isinstance(value, dict):
        return False
    for name, check in checks.items():
        key = name.removeprefix("maybe_")
        if not (check(value[key]) if key in value else key != name):
            return False
    return True


def _is_attempts(value: object) -> bool:
    return isinstance(value, list) and all(
        _has(
            entry,
            attempt=_is_index,
            start=_is_time,
            status=lambda status: status == "running" or _is_ended(status),
            maybe_end=_is_time,
            maybe_process=_is_object,
            maybe_exception=_is_object,
        )
        for entry in value
    )


def _is_ended(value: object) -> bool:
    return isinstance(value, str) and value in _ENDED


def _is_sealed(document: Manifest, limits: Limits) -> bool:
    """Tell whether a manifest says of a sealed run what a reader needs, and nothing unsafe."""
    if not _is_ended(document.get("status")) or not _has(
        document,
        sealed=lambda sealed: _has(sealed, packed=lambda packed: isinstance(packed, bool)),
        files=_are_files,
        groups=lambda groups: isinstance(groups, dict) and all(map(_is_group, groups.values())),
    ):
        return False
    packed, journals = document["sealed"]["packed"], document.get("journals")
    if not isinstance(journals, list) or not all(
        is_journal(entry, limits) and (not packed or "events" in entry) for entry in journals
    ):
        return False
    return len({entry["file"] for entry in journals}) == len(journals) and all(
        group["table"] in document["files"] for group in document["groups"].values()
    )


def _are_files(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_path(path)
        and _has(
            entry,
            bytes=_is_count,
            maybe_sha256=lambda sha: isinstance(sha, str) and bool(_SHA256.fullmatch(sha)),
        )
        for path, entry in value.items()
    )


def _is_group(value: object) -> bool:
    def is_metric(said: object) -> bool:
        return _has(
            said,
            type=lambda kind: kind in ("bool", "int64", "float64"),
            column=_is_text,
            count=_is_count,
            maybe_unit=lambda text: isinstance(text, str),
            maybe_description=lambda text: isinstance(text, str),
            maybe_statistics=is_texts,
        )

    return _has(
        value,
        rows=_is_count,
        superseded=_is_count,
        table=lambda name: _is_path(name) and str(name).endswith(".parquet"),
        maybe_dataset=lambda name: _is_path(name) and str(name).endswith(".h5"),
        metrics=lambda said: isinstance(said, dict) and all(map(is_metric, said.values())),
    )


def is_journal(value: object, limits: Limits) -> bool:
    """Tell whether a value says of a journal what a sealed manifest has to say."""

    def is_file(name: object) -> bool:
        return isinstance(name, str) and naming.parse_journal_name(name) is not None

    if not isinstance(value, dict) or not _has(
        value,
        file=is_file,
        rank=_is_index,
        attempt=_is_index,
        first_seq=_is_count,
        records=_is_count,
        maybe_time=_is_number,
        maybe_process=_is_object,
        maybe_events=lambda events: isinstance(events, list),
    ):
        return False
    place = naming.parse_journal_name(value["file"])
    return (
        place is not None
        and place[0] == value["rank"]
        and all(_is_record(event, limits) for event in value.get("events", ()))
    )


def _is_record(value: object, limits: Limits) -> bool:
    if not isinstance(value, dict):
        return False
    try:
        check_sequence(value)
        if "metrics" in value:
            read_record(value, 0, 0, limits)
        else:
            check_event(value)
    except JournalError:
        return False
    return True


REQUIRED: Final[dict[str, Callable[[object], bool]]] = {
    "id": lambda value: isinstance(value, str) and bool(_ID.fullmatch(value)),
    "name": _is_text,
    "tags": is_texts,
    "status": lambda value: value == "running" or _is_ended(value),
    "start": _is_time,
    "environment": _is_object,
    "attempts": _is_attempts,
}
"""The members without which a manifest is damaged, and how to tell them."""

_OPTIONAL: Final[dict[str, Callable[[object], bool]]] = {
    "end": _is_time,
    "duration_seconds": _is_number,
    "exception": _is_object,
    "writer": _is_object,
    "generation": _is_count,
    "lineage": _is_object,
}
