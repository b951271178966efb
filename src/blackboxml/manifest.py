"""`run.json`: a cache of what the journals prove, replaced whole and never trusted over them."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml.errors import (
    JournalError,
    LimitError,
    ManifestError,
    NotARunError,
    Problem,
    UnsafePathError,
    UnsupportedVersionError,
)
from blackboxml.journal import check_format, parse, read_tail
from blackboxml.merge import find_journals
from blackboxml.model import FEATURES, LIMITS, MANIFEST, RUN_FORMAT, VERSION, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackboxml.files import Directory
    from blackboxml.merge import JournalFile

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

REQUIRED: Final = {
    "id": str,
    "name": str,
    "tags": list,
    "status": str,
    "start": str,
    "environment": dict,
    "attempts": list,
}
"""The members without which a manifest is damaged, and their types."""

SEALED: Final = ("sealed", "groups", "journals", "files")
"""The members that only a sealed run has."""


def timestamp(seconds: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC with microseconds, such as `…T14:22:01.123456+00:00`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def seconds(text: str) -> float:
    """Return an ISO 8601 time as Unix seconds; a time without offset is taken as UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as it stands in `run.json`."""
    ordered = {key: manifest[key] for key in ORDER if key in manifest}
    return dump(ordered | {key: value for key, value in manifest.items() if key not in ordered})


def dump(document: Manifest) -> bytes:
    """Return a document as JSON for people: indented by two spaces, with a final LF."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


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
    wrong = [key for key, kind in REQUIRED.items() if not isinstance(document.get(key), kind)]
    if wrong:
        message = (
            f"{directory.path / MANIFEST} lacks {', '.join(wrong)} or has them in the wrong type"
        )
        raise ManifestError(message)
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
    try:
        manifest = read(directory, limits, known)
    except (NotARunError, ManifestError) as error:
        journals = find_journals(directory, limits, found, None, known)
        rebuilt = rebuild(directory, journals)
        if rebuilt is None:
            raise
        missing = isinstance(error, NotARunError) and MANIFEST not in directory.names()
        rule = "BB-MAN-014" if missing else "BB-MAN-001"
        cure = f"blackbox seal {directory.path}"
        found.append(Problem(rule, "error", str(error), MANIFEST, cure=cure))
        return rebuilt, journals
    journals = find_journals(directory, limits, found, manifest["id"], known)
    headers = [journal.header for journal in journals if journal.header is not None]
    if headers and manifest["id"] not in {header.run_id for header in headers}:
        message = f"run.json is of run {manifest['id']}, the journals are of {headers[0].run_id}"
        found.append(Problem("BB-MAN-013", "error", message, MANIFEST))
        manifest = rebuild(directory, journals) or manifest
    return manifest, journals


def rebuild(directory: Directory, journals: Sequence[JournalFile]) -> Manifest | None:
    """Return the manifest that journals prove, or None if no header is readable.

    The environment is not in a journal: it comes out empty.
    """
    headers = [journal.header for journal in journals if journal.header is not None]
    if not headers:
        return None
    least = min(header.rank for header in headers)
    own = [each for each in journals if each.rank == least and each.header is not None]
    first = own[0].header
    if first is None:
        return None
    tags = first.document["run"].get("tags", [])
    manifest = new(first.run_id, first.run_name, tags, first.time, "")
    manifest["writer"] = first.document.get("writer", {"name": "unknown", "version": "unknown"})
    for journal in own:
        header = journal.header
        if header is None:
            continue
        with directory.reading(journal.name) as descriptor:
            last = next(read_tail(descriptor, journal.start), {})
        if all(header.attempt != attempt["attempt"] for attempt in manifest["attempts"]):
            for earlier in manifest["attempts"]:
                if earlier["status"] == "running":
                    earlier.update(status="interrupted", end=earlier.pop("last"))
            entry = {
                "attempt": header.attempt,
                "start": timestamp(header.time),
                "status": "running",
                "process": header.process,
            }
            manifest["attempts"].append(entry)
        moment = float(last.get("time", header.time))
        manifest["attempts"][-1]["last"] = timestamp(moment)
        if isinstance(end := last.get("end"), dict) and "status" in end:
            finish(manifest, header.attempt, end["status"], moment, end.get("exception"))
    for entry in manifest["attempts"]:
        entry.pop("last", None)
    return manifest


def finish(  # noqa: PLR0913
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
