"""Is the run alive? What a reader may say, and how it knows.

An `end` record proves how an attempt ended. Without one, a process that is known to be gone proves
a crash; a journal that nobody touched for two minutes proves nothing, and is called stale.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from blackboxml.base import process
from blackboxml.errors import RunIsLiveError
from blackboxml.journal.ending import last_end
from blackboxml.model import LIMITS, MANIFEST, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackboxml.base.files import Directory
    from blackboxml.manifest import Manifest
    from blackboxml.model import JournalFile, ReaderStatus

STALE_SECONDS: Final = 120.0
"""Silence after which a run on another machine is called stale; eight heartbeats."""

ENDED: Final = frozenset(["completed", "failed", "interrupted"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader says of a run.

    Attributes:
        status: The status.
        reason: How that is known, for a person.
        proven: False where a journal was not watched for long enough to tell.
    """

    status: ReaderStatus
    reason: str
    proven: bool = True


@dataclass(slots=True)
class Watch:
    """What one reader saw of a journal, and when by its own clock."""

    seen: tuple[int, int] | None = None
    since: float = field(default_factory=time.monotonic)

    def silence(self, status: os.stat_result) -> float:
        """Return for how many seconds a journal has not changed while this reader watched."""
        now = time.monotonic()
        state = (status.st_size, status.st_mtime_ns)
        if state != self.seen:
            self.since = now
        self.seen = state
        return now - self.since


def determine(
    directory: Directory,
    manifest: Manifest,
    journals: Sequence[JournalFile],
    watch: Watch | None = None,
    limits: Limits = LIMITS,
) -> Verdict:
    """Return the status of a run as its files and the process table prove it.

    Args:
        directory: The run.
        manifest: Its manifest.
        journals: Its journals.
        watch: What this reader saw before; updated.
        limits: What a reader accepts.
    """
    attempt = _newest_attempt(journals)
    if not attempt:
        stated = str(manifest["status"])
        if stated in ENDED:
            return Verdict(cast("ReaderStatus", stated), "the manifest says so")
        attempts = manifest["attempts"]
        identity = attempts[-1].get("process", {}) if attempts else {}
        return _observe(directory, MANIFEST, identity, watch or Watch())
    if (found := last_end(directory, attempt, limits)) is not None:
        end, journal = found
        return Verdict(cast("ReaderStatus", end["end"]["status"]), f"{journal.name} ends so")
    newest = max(attempt, key=lambda journal: journal.ordinal)
    stated = str(manifest["status"])
    listed = any(entry.get("attempt") == newest.attempt for entry in manifest["attempts"])
    if stated in ENDED and listed:
        return Verdict(cast("ReaderStatus", stated), "the manifest says so")
    identity = newest.header.process if newest.header else {}
    return _observe(directory, newest.name, identity, watch or Watch())


def refuse_live(directory: Directory, verdict: Verdict, *, force: bool) -> None:
    """Refuse to seal or to mend a run that is being written, or of which nobody knows.

    Args:
        directory: The run.
        verdict: What is known of it.
        force: A person vouches that it has ended.

    Raises:
        RunIsLiveError: Saying what to do.
    """
    if verdict.status == "running" and verdict.proven:
        message = (
            f"{directory.path} is being written: {verdict.reason}. Wait until its run has ended"
        )
        raise RunIsLiveError(message)
    if verdict.status in {"running", "stale"} and not force:
        message = (
            f"{directory.path} may still be written: {verdict.reason}. "
            "If you know that it has ended, say so with --force (force=True)"
        )
        raise RunIsLiveError(message)


def _newest_attempt(journals: Sequence[JournalFile]) -> list[JournalFile]:
    """Return the journals of the newest attempt of the least rank."""
    if not journals:
        return []
    rank = min(journal.rank for journal in journals)
    attempt = max(journal.attempt for journal in journals if journal.rank == rank)
    return [each for each in journals if (each.rank, each.attempt) == (rank, attempt)]


def _observe(directory: Directory, name: str, identity: dict[str, Any], watch: Watch) -> Verdict:
    """Return what the process table and a file say of a writer that wrote no end.

    Args:
        directory: The run.
        name: The newest journal; the manifest if there is none, whose time of change is no proof.
        identity: The process of the writer.
        watch: What this reader saw before; updated.
    """
    with directory.reading(name) as descriptor:
        status = os.fstat(descriptor)
    verdict = _alive(identity, name, None if name == MANIFEST else status.st_mtime)
    if verdict.status != "stale":
        return verdict
    first = watch.seen is None
    silence = watch.silence(status)
    if first:
        return Verdict(
            "running", f"{verdict.reason}, and one look at it tells no more", proven=False
        )
    if silence < STALE_SECONDS:
        return Verdict("running", f"{name} changed {silence:.0f} s ago", proven=False)
    return Verdict("stale", f"{name} has not changed for {silence:.0f} s")


def _alive(identity: dict[str, Any], source: str, modified: float | None = None) -> Verdict:
    """Return what the process table says of a writer; `stale` if it says nothing."""
    life = process.liveness(identity, modified)
    pid = identity.get("pid")
    if life == "alive":
        return Verdict("running", f"process {pid} of {source} is alive")
    if life == "dead":
        return Verdict("crashed", f"process {pid} of {source} is gone and wrote no end")
    return Verdict("stale", f"the process of {source} cannot be seen from here")
