"""Going on with a run: what its journals say to the writer that comes after them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from blackboxml import manifest as manifests
from blackboxml.base import naming, process
from blackboxml.errors import BlackboxError, RunIsLiveError
from blackboxml.journal import merge, read_tail
from blackboxml.journal.ending import last_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blackboxml.base.files import Directory
    from blackboxml.manifest import Manifest
    from blackboxml.model import JournalFile


def refuse_live(directory: Directory, journals: list[JournalFile]) -> None:
    """Refuse to resume a run whose writer is known to be alive.

    Raises:
        RunIsLiveError: Naming the process.
    """
    newest = max(journals, key=_age, default=None)
    if newest is None or newest.header is None:
        return
    if process.liveness(newest.header.process) != "alive":
        return
    place = (newest.rank, newest.attempt)
    session = [each for each in journals if (each.rank, each.attempt) == place]
    if last_end(directory, session) is None:
        pid = newest.header.process.get("pid")
        message = f"{directory.path} is being written by process {pid}; end that one first"
        raise RunIsLiveError(message)


def _age(journal: JournalFile) -> tuple[int, int]:
    """Order the journals of a rank by when they were opened."""
    return journal.ordinal, journal.low


def _tail(directory: Directory, journal: JournalFile) -> Iterator[dict[str, Any]]:
    """Yield the last records of a journal, newest first."""
    with directory.reading(journal.name) as descriptor:
        yield from read_tail(descriptor, journal.start)


def next_step(directory: Directory, journals: list[JournalFile]) -> int:
    """Return the automatic step with which a resumed run goes on: after the last that counts."""
    cut: int | None = None
    for journal in sorted(journals, key=_age, reverse=True):
        with directory.reading(journal.name) as descriptor:
            for document in read_tail(descriptor, journal.start, max(journal.size, 1)):
                if "rewind" in document:
                    first = int(document["rewind"]["step"])
                    cut = first if cut is None else min(cut, first)
                elif "metrics" in document and (cut is None or document["step"] < cut):
                    return int(document["step"]) + 1
    return 0


def close_attempts(directory: Directory, manifest: Manifest, journals: list[JournalFile]) -> None:
    """Say how each attempt before this one ended; the manifest of a killed run does not know."""
    proven = manifests.rebuild(directory, journals)
    if proven is None:
        return
    last = proven["attempts"][-1]
    if last["status"] == "running":
        newest = max(journals, key=_age)
        times = [each.header.time for each in journals if each.header is not None]
        times += [float(document["time"]) for document in islice(_tail(directory, newest), 1)]
        last |= {"status": "interrupted", "end": manifests.timestamp(max(times))}
    said = {
        entry["attempt"]: entry
        for entry in manifest["attempts"]
        if isinstance(entry, dict) and isinstance(entry.get("attempt"), int)
    }
    for entry in proven["attempts"]:
        if said.get(entry["attempt"], {}).get("status", "running") == "running":
            said[entry["attempt"]] = entry
            manifests.complete(entry, proven["start"])
    manifest["attempts"] = [said[attempt] for attempt in sorted(said)]
    try:
        manifests.seconds(manifest["start"])
    except ValueError:
        manifest["start"] = proven["start"]
    if type(manifest.get("generation")) is not int:
        manifest["generation"] = 0


def next_attempt(directory: Directory, ordinal: int) -> int:
    """Return one more than the greatest attempt among the journals before this one.

    A journal without a header was claimed by another writer a moment ago: it counts as one.
    """
    attempts = {
        each.ordinal: each.attempt for each in merge.find_journals(directory) if each.rank == 0
    }
    attempt = -1
    for lower in range(ordinal):
        if lower in attempts:
            attempt = max(attempt, attempts[lower])
        elif directory.size(naming.journal_name(0, lower)) is not None:
            attempt += 1
    return attempt + 1


def went_on(open_directory: Callable[[], Directory], manifest: Manifest) -> bool:
    """Let a manifest say of other attempts what their journals prove; tell whether it did not.

    Another process may have gone on with a run whose writer it could not see, and have ended
    meanwhile. What cannot be looked at now stays as it is.
    """
    try:
        directory = open_directory()
        places = map(naming.parse_journal_name, directory.names())
        own = [place for place in places if place is not None and place[0] == 0]
        return len(own) > 1 and manifests.agree(directory, manifest)
    except (BlackboxError, OSError):
        return False
