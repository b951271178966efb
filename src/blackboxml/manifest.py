"""`run.json`: a cache of what the journals prove, replaced whole and never trusted over them."""

from __future__ import annotations

import errno
import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml import naming
from blackboxml.errors import (
    JournalError,
    LimitError,
    ManifestError,
    NotARunError,
    Problem,
    UnsafePathError,
    UnsupportedVersionError,
)
from blackboxml.files import check_relative
from blackboxml.journal import check_format, check_sequence, parse, read_record, read_tail
from blackboxml.merge import find_journals
from blackboxml.model import FEATURES, INT64_MAX, LIMITS, MANIFEST, RUN_FORMAT, VERSION, Limits
from blackboxml.scan import check_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blackboxml.files import Directory
    from blackboxml.model import JournalFile

Manifest = dict[str, Any]

ORDER: Final = (
    "format",
    "id",
    "name",
    "tags",
    "status",
    "start",
    "end",
    "duration_seconds",
    "exception",
    "environment",
    "writer",
    "generation",
    "attempts",
    "lineage",
    "sealed",
    "groups",
    "journals",
    "files",
    "extensions",
)
"""The members in the order in which they are written."""

_ENDING: Final = ("status", "end", "exception")
_LASTING: Final = ("duration_seconds",)

SEALED: Final = ("sealed", "groups", "journals", "files")
"""The members that only a sealed run has."""


_EXCEPTION_CHARACTERS: Final = 20_000
_FIRST_SECOND: Final = -62135596800.0
_LAST_SECOND: Final = 253402300799.0
_ID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENDED = frozenset(["completed", "failed", "interrupted"])


def timestamp(seconds: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC with microseconds, such as `…T14:22:01.123456+00:00`.

    A time outside the years 1 to 9999 becomes the first or the last of their seconds.
    """
    known = min(max(seconds, _FIRST_SECOND), _LAST_SECOND)
    return datetime.fromtimestamp(known, UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """Return an ISO 8601 time; one without offset is taken as UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def seconds(text: str) -> float:
    """Return an ISO 8601 time as Unix seconds; a time without offset is taken as UTC."""
    return moment(text).timestamp()


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as it stands in `run.json`."""
    ordered = {key: manifest[key] for key in ORDER if key in manifest}
    return dump(ordered | {key: value for key, value in manifest.items() if key not in ordered})


def dump(document: Manifest) -> bytes:
    """Return a document as JSON for people: indented by two spaces, with a final LF."""
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an integer beyond 64 bits, in a member that is kept as it was found
        return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n".encode()


def new(run_id: str, name: str, tags: Sequence[str], start: float, writer: str) -> Manifest:
    """Return the manifest of a run that begins now.

    Args:
        run_id: 32 hexadecimal digits.
        name: The name as the user gave it.
        tags: Any strings.
        start: Unix seconds.
        writer: Version of the writing library.

    `generation` is −1: it becomes 0 when the manifest is written.
    """
    return {
        "format": {"name": RUN_FORMAT, "version": VERSION, "features": []},
        "id": run_id,
        "name": name,
        "tags": list(tags),
        "status": "running",
        "start": timestamp(start),
        "environment": {},
        "writer": {"name": "blackboxml", "version": writer},
        "generation": -1,
        "attempts": [],
    }


def read(
    directory: Directory, limits: Limits = LIMITS, known: frozenset[str] = FEATURES
) -> Manifest:
    """Return the manifest of a run.

    Raises:
        NotARunError: If there is no `run.json`, or it is another tool's.
        ManifestError: If it is damaged.
        UnsupportedVersionError: If the run needs a newer reader.
    """
    try:
        data = directory.read(MANIFEST, limits.manifest_bytes)
    except FileNotFoundError:
        message = f"there is no {MANIFEST} in {directory.path}"
        raise NotARunError(errno.ENOENT, message, str(directory.path)) from None
    except (LimitError, UnsafePathError) as error:
        raise ManifestError(str(error)) from None
    try:
        document = parse(data)
    except JournalError as error:
        message = f"{directory.path / MANIFEST} is damaged: {error}"
        raise ManifestError(message, data.decode(errors="replace")) from None
    try:
        check_format(document, RUN_FORMAT, known)
    except UnsupportedVersionError:
        raise
    except TypeError:
        message = f'{directory.path / MANIFEST} has "features" that are no list of names'
        raise ManifestError(message) from None
    except ValueError as error:
        message = f"{directory.path / MANIFEST} is not a run's: {error}"
        raise NotARunError(errno.ENOENT, message, str(directory.path)) from None
    return document


def open_history(
    directory: Directory,
    limits: Limits = LIMITS,
    problems: list[Problem] | None = None,
    known: frozenset[str] = FEATURES,
) -> tuple[Manifest, list[JournalFile]]:
    """Return the manifest of a run, from its journals if need be, and the journals in merge order.

    Args:
        directory: The run.
        limits: What a reader accepts.
        problems: Receives what was found.
        known: Features that the reader understands.

    Raises:
        NotARunError: If there is neither a manifest nor a journal.
        ManifestError: If `run.json` is damaged and there is no journal.
        UnsupportedVersionError: If the run needs a newer reader.
    """
    found = problems if problems is not None else []
    failure: NotARunError | ManifestError | None = None
    manifest: Manifest = {}
    try:
        manifest = read(directory, limits, known)
    except (NotARunError, ManifestError) as error:
        failure = error
    wrong = [] if failure else unusable(manifest, limits)
    if wrong:
        for key in wrong:
            manifest.pop(key, None)
        message = f"{directory.path / MANIFEST} lacks {', '.join(wrong)} or has them wrong"
        failure = ManifestError(message)
    journals = find_journals(directory, limits, found, manifest.get("id"), known)
    ids = {journal.header.run_id for journal in journals if journal.header is not None}
    if failure is not None:
        proven = rebuild(directory, journals)
        if proven is None and any(key not in manifest for key in REQUIRED):
            raise failure
        missing = isinstance(failure, NotARunError) and MANIFEST not in directory.names()
        rule = "BB-MAN-014" if missing else "BB-MAN-001"
        cure = f"blackbox seal {directory.path}"
        found.append(Problem(rule, "error", str(failure), MANIFEST, cure=cure))
        manifest = (proven or {}) | manifest
    if ids and manifest["id"] not in ids:
        message = f"run.json is of run {manifest['id']}, the journals are of {min(ids)}"
        found.append(Problem("BB-MAN-013", "error", message, MANIFEST))
        manifest = rebuild(directory, journals) or manifest
    return manifest, journals


def open_proven(
    directory: Directory, limits: Limits = LIMITS, problems: list[Problem] | None = None
) -> tuple[Manifest, list[JournalFile]]:
    """Return the same for a reader: how a run ended, the journals know better than the manifest.

    Args and errors are those of `open_history`.
    """
    found = problems if problems is not None else []
    manifest, journals = open_history(directory, limits, found)
    proven = None if "sealed" in manifest else rebuild(directory, journals)
    if proven is None or proven["status"] == "running":
        return manifest, journals
    if all(manifest.get(key) == proven.get(key) for key in _ENDING):
        return manifest, journals
    message = f"the manifest says {manifest['status']}, the journals end {proven['status']}"
    found.append(Problem("BB-MAN-013", "warning", message, MANIFEST))
    kept = {key: each for key, each in manifest.items() if key not in (*_ENDING, *_LASTING)}
    return kept | {key: proven[key] for key in (*_ENDING, *_LASTING) if key in proven}, journals


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


def rebuild(directory: Directory, journals: Sequence[JournalFile]) -> Manifest | None:
    """Return the manifest that journals prove, or None if no header is readable.

    The environment is not in a journal: it comes out empty.
    """
    whole = [journal for journal in journals if journal.header is not None]
    if not whole:
        return None
    least = min(journal.rank for journal in whole)  # by its name, whatever the header says
    own = [journal for journal in whole if journal.rank == least]
    first = own[0].header
    if first is None:
        return None
    tags = first.document["run"].get("tags")
    manifest = new(first.run_id, first.run_name, tags if _is_texts(tags) else [], first.time, "")
    manifest["writer"] = first.document.get("writer", {"name": "unknown", "version": "unknown"})
    attempts: list[Manifest] = manifest["attempts"]
    last = first.time
    for journal in own:
        header = journal.header
        if header is None:
            continue
        if not attempts or header.attempt != attempts[-1]["attempt"]:
            if attempts and attempts[-1]["status"] == "running":
                finish(manifest, attempts[-1]["attempt"], "interrupted", last, None)
            attempts.append(
                {
                    "attempt": header.attempt,
                    "start": timestamp(header.time),
                    "status": "running",
                    "process": header.process,
                }
            )
            last = header.time
        with directory.reading(journal.name) as descriptor:
            record = next(read_tail(descriptor, journal.start), {})
        with suppress(JournalError):
            last = check_sequence(record)[1]
            check_event(record)
            if "end" in record:
                end = record["end"]
                finish(manifest, header.attempt, end["status"], last, end.get("exception"))
    if attempts[-1]["status"] == "running":
        manifest["status"] = "running"
        for key in ("end", "duration_seconds", "exception"):
            manifest.pop(key, None)
    return manifest


def finish(
    manifest: Manifest,
    attempt: int,
    status: str,
    end: float,
    exception: dict[str, str] | None,
) -> None:
    """Enter the end of an attempt, and with it of the run."""
    closing: Manifest = {"status": status, "end": timestamp(end)}
    if exception is not None:
        closing["exception"] = exception
    for entry in manifest["attempts"]:
        if entry.get("attempt") == attempt:
            entry.pop("exception", None)
            entry.update(closing)
    manifest.pop("exception", None)
    manifest.update(closing)
    manifest["duration_seconds"] = round(max(0.0, end - seconds(manifest["start"])), 6)


def unseal(manifest: Manifest) -> None:
    """Take out what only holds of a sealed run."""
    for key in SEALED:
        manifest.pop(key, None)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_texts(value: object) -> bool:
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
        seconds(value)  # type: ignore[arg-type]
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
            maybe_statistics=_is_texts,
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
    "tags": _is_texts,
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


def clip(exception: Mapping[str, str]) -> dict[str, str]:
    """Return what is said of an exception as it fits into a line of a journal."""
    return {
        key: text[:_EXCEPTION_CHARACTERS].encode(errors="replace").decode()
        for key, text in exception.items()
    }


def check_size(manifest: Manifest) -> None:
    """Refuse what does not fit into the manifest, or into the header of a journal.

    Raises:
        ValueError: Naming it.
    """
    for what, limit in (("tags", LIMITS.line_bytes // 2), ("environment", LIMITS.manifest_bytes)):
        try:
            size = len(orjson.dumps(manifest[what]))
        except TypeError as error:
            message = f"the {what} of the run cannot be written as JSON: {error}"
            raise ValueError(message) from None
        if size > limit // 2:
            message = f"the {what} of the run have {size:,} bytes, wanted at most {limit // 2:,}"
            raise ValueError(message)
