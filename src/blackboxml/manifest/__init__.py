"""`run.json`: a cache of what the journals prove, replaced whole and never trusted over them."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml.base import process
from blackboxml.base.settled import settled
from blackboxml.errors import (
    JournalError,
    LimitError,
    ManifestError,
    NotARunError,
    Problem,
    UnsafePathError,
    UnsupportedVersionError,
)
from blackboxml.journal import check_format, parse
from blackboxml.journal.ending import prove_attempts, trust_ends
from blackboxml.journal.merge import find_journals
from blackboxml.manifest import usable
from blackboxml.model import FEATURES, LIMITS, MANIFEST, RUN_FORMAT, VERSION, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blackboxml.base.files import Directory
    from blackboxml.journal.ending import Attempt
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

_ENDING: Final = ("end", "duration_seconds", "exception")
"""The members that say when and why a run ended."""

_TRIES: Final = 5
"""How often a run is looked at whose files come and go."""

SEALED: Final = usable.SEALED
"""The members that only a sealed run has."""


_EXCEPTION_CHARACTERS: Final = 20_000
_FIRST_SECOND: Final = -62135596800.0
_LAST_SECOND: Final = 253402300799.0
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


def begun(manifest: Manifest) -> datetime:
    """Return when a run began: by itself, by its attempts, and 1970 where nothing tells it."""
    starts = [manifest.get("start"), *(entry.get("start") for entry in manifest["attempts"])]
    return moment(next((start for start in starts if start is not None), timestamp(0)))


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
    if "id" not in document:
        message = f'{directory.path / MANIFEST} is damaged: it has no "id"'
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
    manifest, journals, failure = _open_settled(directory, limits, found, known)
    if failure is not None and any(key not in manifest for key in usable.REQUIRED):
        raise failure
    return manifest, journals


@settled
def open_proven(
    directory: Directory, limits: Limits = LIMITS, problems: list[Problem] | None = None
) -> tuple[Manifest, list[JournalFile]]:
    """Return the same for a reader: what happened, the journals know better than the manifest.

    A name or a start that is damaged, and that no journal knows either, is left out. Args and
    errors are those of `open_history`.
    """
    found = problems if problems is not None else []
    manifest, journals, failure = _open_settled(directory, limits, found, FEATURES)
    if failure is not None and "id" not in manifest:
        raise failure
    spare: Manifest = {"tags": [], "status": "running", "environment": {}, "attempts": []}
    manifest = spare | manifest
    sealed = manifest.get("sealed", {}).get("packed") and manifest["journals"]
    listed = {entry["file"] for entry in sealed or ()}
    own = [journal for journal in journals if journal.name not in listed]
    _trust_events(directory, manifest, own)
    attempts = prove_attempts(directory, own, limits)
    corrected = _correct(manifest, attempts) if attempts else manifest
    history = ("attempts", "status", "start", "end", "exception")
    if differing := [key for key in history if manifest.get(key) != corrected.get(key)]:
        message = (
            f"the journals know better of {', '.join(differing)}: they say that the run is "
            f"{corrected['status']}, the manifest says {manifest['status']}"
        )
        found.append(Problem("BB-MAN-013", "warning", message, MANIFEST))
    return corrected, journals


def _open_settled(
    directory: Directory, limits: Limits, problems: list[Problem], known: frozenset[str]
) -> tuple[Manifest, list[JournalFile], NotARunError | ManifestError | None]:
    """Return what `_open` does, of a manifest and journals that lay there together."""
    for _ in range(_TRIES):
        before = stamp(directory)
        try:
            found = _open(directory, limits, problems, known)
        except FileNotFoundError as error:  # a journal was packed away meanwhile
            if isinstance(error, NotARunError):
                raise
            continue
        if stamp(directory) == before:
            return found
    return _open(directory, limits, problems, known)


def stamp(directory: Directory) -> tuple[int, int] | None:
    """Return what differs once a manifest was replaced, None where there is none."""
    try:
        with directory.reading(MANIFEST) as descriptor:  # opened, as NFS then asks its server
            found = os.fstat(descriptor)
    except (OSError, UnsafePathError):
        return None
    return found.st_ino, found.st_mtime_ns


def _open(
    directory: Directory, limits: Limits, problems: list[Problem], known: frozenset[str]
) -> tuple[Manifest, list[JournalFile], NotARunError | ManifestError | None]:
    """Return manifest and journals, and what is wrong with `run.json`.

    Members that are damaged there come from the journals, and are absent if no header tells them.
    """
    failure: NotARunError | ManifestError | None = None
    manifest: Manifest = {}
    try:
        manifest = read(directory, limits, known)
    except (NotARunError, ManifestError) as error:
        failure = error
    if failure is None and (wrong := usable.unusable(manifest, limits)):
        for key in {*wrong, *(_ENDING if "status" in wrong else ())}:
            manifest.pop(key, None)
        message = f"{directory.path / MANIFEST} lacks {', '.join(wrong)} or has them wrong"
        failure = ManifestError(message)
    journals = find_journals(directory, limits, problems, manifest.get("id"), known)
    ids = {journal.header.run_id for journal in journals if journal.header is not None}
    if failure is not None:
        manifest = (rebuild(directory, journals, limits) or {}) | manifest
    if failure is not None and "id" in manifest:
        missing = isinstance(failure, NotARunError) and MANIFEST not in directory.names()
        rule = "BB-MAN-014" if missing else "BB-MAN-001"
        cure = f"blackbox seal {directory.path}"
        problems.append(Problem(rule, "error", str(failure), MANIFEST, cure=cure))
    if ids and manifest["id"] not in ids:
        message = f"run.json is of run {manifest['id']}, the journals are of {min(ids)}"
        problems.append(Problem("BB-MAN-013", "error", message, MANIFEST))
        manifest = rebuild(directory, journals, limits) or manifest
    return manifest, journals, failure


def _trust_events(
    directory: Directory, manifest: Manifest, journals: Sequence[JournalFile]
) -> None:
    """Spare a search of journals that are as large as they were sealed: events say the same."""
    events = {
        entry["file"]: entry["events"]
        for entry in (manifest["journals"] if "sealed" in manifest else ())
        if "events" in entry
    }
    for journal in journals:
        said = manifest["files"].get(journal.name, {}) if journal.name in events else {}
        if said.get("bytes") == journal.size:
            ends = [event for event in events[journal.name] if "end" in event]
            trust_ends(directory, journal, ends)


def agree(directory: Directory, manifest: Manifest) -> bool:
    """Let a manifest say of its attempts what the journals prove; tell whether it did not.

    Raises:
        OSError: If the file system refuses.
    """
    journals = find_journals(directory, run_id=manifest["id"])
    attempts = prove_attempts(directory, journals)
    corrected = _correct(manifest, attempts) if attempts else manifest
    if corrected == manifest:
        return False
    manifest.clear()
    manifest.update(corrected)
    return True


def _correct(manifest: Manifest, attempts: Sequence[Attempt]) -> Manifest:
    """Return a manifest with what journals prove of its attempts in place of what it says."""
    said = {entry["attempt"]: entry for entry in manifest["attempts"]}
    entries = dict(said)
    for attempt in attempts:
        number, proven = attempt.number, _entry(attempt, later=attempt is not attempts[-1])
        entry = entries[number] = dict(said.get(number, proven))
        if attempt.dated:
            entry["start"] = proven["start"]
        if attempt.end is not None or entry["status"] == "running":
            _take_end(entry, proven)
    corrected = manifest | {"attempts": [entries[number] for number in sorted(entries)]}
    first, last = attempts[0], attempts[-1]
    if first.dated and min(entries) == first.number:
        corrected["start"] = entries[first.number]["start"]
    if last.end is not None:
        _take_end(corrected, entries[last.number])
    elif manifest["status"] not in _ENDED or last.number not in said:
        _take_end(corrected, {"status": "running"})
    if "end" not in corrected:
        corrected.pop("duration_seconds", None)
    elif "start" in corrected and any(
        corrected[key] != manifest.get(key) for key in ("start", "end")
    ):
        corrected["duration_seconds"] = _lasted(corrected)
    return corrected


def _take_end(target: Manifest, source: Manifest) -> None:
    """Let a run or an attempt end as another entry says that it did."""
    for key in ("status", "end", "exception"):
        target.pop(key, None)
        if key in source:
            target[key] = source[key]


def _entry(attempt: Attempt, *, later: bool) -> Manifest:
    """Return the entry of an attempt, as far as its journals prove it.

    Args:
        attempt: What they prove.
        later: Whether a later attempt exists.
    """
    entry: Manifest = {"attempt": attempt.number, "status": "running"}
    if attempt.header is not None:
        entry["start"] = timestamp(attempt.header.time)
        entry["process"] = attempt.header.process
    if attempt.end is not None:
        end = attempt.end["end"]
        entry |= {key: end[key] for key in ("status", "exception") if key in end}
        entry["end"] = timestamp(attempt.end["time"])
    elif later:
        entry["status"] = "interrupted"
        if attempt.last is not None:
            entry["end"] = timestamp(attempt.last)
    return entry


def rebuild(
    directory: Directory, journals: Sequence[JournalFile], limits: Limits = LIMITS
) -> Manifest | None:
    """Return the manifest that journals prove, or None if no header is readable.

    The environment is not in a journal: it comes out empty. An attempt whose headers are all
    damaged has neither start nor process.
    """
    whole = [journal for journal in journals if journal.header is not None]
    if not whole:
        return None
    first = min(whole, key=lambda journal: (journal.rank, journal.ordinal)).header
    if first is None:
        return None
    tags = first.document["run"].get("tags")
    manifest = new(
        first.run_id, first.run_name, tags if usable.is_texts(tags) else [], first.time, ""
    )
    manifest["writer"] = first.document.get("writer", {"name": "unknown", "version": "unknown"})
    attempts = prove_attempts(directory, journals, limits)
    entries = [_entry(attempt, later=attempt is not attempts[-1]) for attempt in attempts]
    manifest["attempts"] = entries
    manifest["start"] = next(
        (entry["start"] for entry in entries if "start" in entry), manifest["start"]
    )
    _take_end(manifest, entries[-1])
    if "end" in manifest:
        manifest["duration_seconds"] = _lasted(manifest)
    return manifest


def complete(entry: Manifest, start: str) -> None:
    """Give an attempt whose headers are damaged what a manifest has to say of each.

    Args:
        entry: Its entry; changed.
        start: When the run began.
    """
    entry.setdefault("start", start)
    entry.setdefault("process", {"host": "unknown", "pid": 0})
    if entry.get("status", "running") != "running":
        entry.setdefault("end", entry["start"])


def begin(manifest: Manifest, attempt: int, start: float, version: str) -> None:
    """Enter that this process begins an attempt, by which the run goes on.

    What is there of this number or a later one had a journal of which nothing is left.
    """
    for key in ("end", "duration_seconds", "exception"):
        manifest.pop(key, None)
    manifest["status"] = "running"
    manifest["writer"] = {"name": "blackboxml", "version": version}
    entry = {
        "attempt": attempt,
        "start": timestamp(start),
        "status": "running",
        "process": process.identify(),
    }
    before = [each for each in manifest["attempts"] if each["attempt"] < attempt]
    manifest["attempts"] = [*before, entry]


def renumber(manifest: Manifest, guess: int, attempt: int) -> None:
    """Give the newest attempt its number, if it has been entered with a guess."""
    for entry in manifest["attempts"][-1:]:
        if entry["attempt"] == guess:
            entry["attempt"] = attempt


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
    manifest["duration_seconds"] = _lasted(manifest)


def _lasted(manifest: Manifest) -> float:
    """Return the seconds from start to end."""
    return round(max(0.0, seconds(manifest["end"]) - seconds(manifest["start"])), 6)


def next_generation(manifest: Manifest) -> bytes:
    """Take a manifest one generation on, and return its bytes."""
    manifest["generation"] = manifest.get("generation", -1) + 1
    return encode(manifest)


def unseal(manifest: Manifest) -> None:
    """Take out what only holds of a sealed run."""
    for key in SEALED:
        manifest.pop(key, None)


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
