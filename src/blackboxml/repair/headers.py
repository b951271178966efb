"""The headers of mended journals: what is proved stays, what is lost is stated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from blackboxml import manifest as manifests
from blackboxml.base import schema
from blackboxml.errors import RepairError
from blackboxml.journal import encode, new_header
from blackboxml.model import JOURNAL_FORMAT, MEDIA_FORMAT
from blackboxml.repair import ranges
from blackboxml.repair.history import stated_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackboxml.model import Limits
    from blackboxml.repair.history import History, Known, Session, Target

UNKNOWN_PROCESS: Final = {"host": "unknown", "pid": 0}
"""Stands in a header whose process nobody knows any more."""

_MEMBERS: Final = ("format", "run", "rank", "attempt", "first_seq", "time", "process", "writer")

Processes = dict[tuple[int, int], dict[str, Any]]


def processes_of(history: History) -> Processes:
    """Return the process of each attempt and rank, as the headers of its journals say it."""
    return {
        target.session: dict(target.header.process)
        for target in history.targets
        if target.header is not None and _is_valid(target, history)
    }


def mend_headers(history: History, processes: Mapping[Session, Any], limits: Limits) -> None:
    """Give each journal a new header that needs one.

    Raises:
        RepairError: If a header could not state all that is lost.
    """
    for target in history.targets:
        stated = _statement(target)
        valid = _is_valid(target, history)
        header = target.header
        place = target.rank, target.attempt, target.first_seq
        same = header is not None and (header.rank, header.attempt, header.first_seq) == place
        if valid and same and stated == target.stated:
            continue
        target.document = _document(target, history, processes, stated)
        if len(encode(target.document)) > limits.line_bytes:
            message = f"{target.name} lacks more than the header of a journal can state"
            raise RepairError(message)


def _is_valid(target: Target, history: History) -> bool:
    """Tell whether the header may stay as it is."""
    if target.header is None:
        return False
    name = "journal-header" if history.stem == "metrics" else "media-header"
    document = target.header.document | {"crc": "00000000"}
    return schema.validator(name).is_valid(document)


def _statement(target: Target) -> dict[str, Any]:
    """Return what the header has to state: what it stated, and what is lost now."""
    said = dict(target.stated)
    for key, more in (("lost", target.lost), ("partial", target.partial)):
        if more:
            whole = ranges.cover(ranges.union(stated_ranges(said, key), more))
            said[key] = [list(each) for each in whole]
    if target.lost_from is not None:
        said["lost_from"] = target.lost_from
    if target.damaged:
        known = said.get("damaged", [])
        said["damaged"] = sorted({*(known if isinstance(known, list) else []), *target.damaged})
    return said


def _document(
    target: Target,
    history: History,
    processes: Mapping[Session, Any],
    stated: dict[str, Any],
) -> dict[str, Any]:
    """Return a new header."""
    known = history.known
    form = JOURNAL_FORMAT if history.stem == "metrics" else MEDIA_FORMAT
    old = _good_members(target, history)
    entry: Mapping[str, Any] = target.entry or {}
    run = {"id": known.id, "name": known.name}
    time, timed = _time(target, known, old, entry)
    process, named = _process(target, history, processes, old, entry)
    document = new_header(run, target.session, target.first_seq, time, process, name=form)
    document |= {key: old[key] for key in ("format", "run", "writer") if key in old}
    assumed = [
        key
        for key in ("rank", "attempt", "first_seq")
        if old.get(key, entry.get(key)) != document[key] and not _is_certain(key, target, known)
    ]
    assumed += [key for key, sure in (("time", timed), ("process", named)) if not sure]
    document |= {
        key: value for key, value in old.items() if key not in {*_MEMBERS, "repaired", "crc"}
    }
    target.assumed = assumed
    if assumed:
        before = stated.get("assumed", [])
        stated["assumed"] = sorted({*(before if isinstance(before, list) else []), *assumed})
    if stated:
        document["repaired"] = stated
    return document


def _good_members(target: Target, history: History) -> dict[str, Any]:
    """Return the members of the old header that are what they have to be."""
    if target.header is None:
        return {}
    document = dict(target.header.document)
    name = "journal-header" if history.stem == "metrics" else "media-header"
    check = schema.validator(name)
    for error in check.iter_errors(document | {"crc": "00000000"}):
        if error.absolute_path:
            document.pop(str(error.absolute_path[0]), None)
    return document


def _is_certain(key: str, target: Target, known: Known) -> bool:
    """Tell whether other files prove a number of the header."""
    if key == "rank":
        return target.header is None  # the file name says it
    if key == "attempt":
        return target.rank == 0 and target.attempt in known.attempts
    if key == "first_seq":
        return target.first_seq == 0 and target.found is not None and 0 in _firsts(target)
    return False


def _firsts(target: Target) -> set[int]:
    """Return the `seq` with which a journal begins."""
    return {target.found.ranges[0][0]} if target.found and target.found.ranges else set()


def _time(
    target: Target, known: Known, old: Mapping[str, Any], entry: Mapping[str, Any]
) -> tuple[float, bool]:
    """Return when a journal was opened, and whether that is proved."""
    for source in (old, entry):
        if "time" in source:
            return source["time"], True
    attempt = known.attempts.get(target.attempt, {})
    if target.rank == 0 and target.first_seq == 0 and "start" in attempt:
        return manifests.seconds(attempt["start"]), True
    if target.found is not None and target.found.first_time is not None:
        return target.found.first_time, False
    return known.start, False


def _process(
    target: Target,
    history: History,
    processes: Mapping[Session, Any],
    old: Mapping[str, Any],
    entry: Mapping[str, Any],
) -> tuple[dict[str, Any], bool]:
    """Return who wrote a journal, and whether that is proved."""
    reference = f"{schema.load('defs')['$id']}#/$defs/process"
    check = schema.validator("defs").evolve(schema={"$ref": reference})
    attempt = history.known.attempts.get(target.attempt, {}) if target.rank == 0 else {}
    own = processes.get(target.session)
    for found in (old.get("process"), entry.get("process"), own, attempt.get("process")):
        if isinstance(found, dict) and check.is_valid(found):
            return found, found != UNKNOWN_PROCESS
    return dict(UNKNOWN_PROCESS), False
