"""RunWriter: the only code that makes a run directory and says what a run is.

It claims the directory, keeps `run.json` and `config.json`, and owns a `Recorder`, which appends
the records, and the thread that syncs them. Documents that could not be written are owed and
written when the file system works again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import threading
import time
import uuid
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml import manifest as manifests
from blackboxml import naming, process, resumption
from blackboxml.errors import (
    BlackboxError,
    MetricError,
    NotARunError,
    RunStateError,
    WriteError,
)
from blackboxml.files import Directory
from blackboxml.metric import read_step
from blackboxml.model import CONFIG, JOURNAL_FORMAT, LIMITS, MANIFEST, SUMS, VERSION
from blackboxml.recorder import Recorder, Sync
from blackboxml.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blackboxml.manifest import Manifest

logger = logging.getLogger("blackboxml")

SYNC_SECONDS: Final = 1.0
"""Records are durable after this long at most, on a disk that keeps up."""

HEARTBEAT_SECONDS: Final = 15.0
"""A live writer appends to its journal, or touches it, at least this often."""

_EXCEPTION_CHARACTERS: Final = 20_000
_ID: Final = re.compile("[0-9a-f]{32}")
_WRITER: Final = {"name": "blackboxml", "version": __version__}


class RunWriter:
    """Writes one run, or one rank of it. Make one with `create`, `resume` or `join`.

    All methods may be called from any thread.

    Attributes:
        path: The run directory.
        rank: Rank of this writer; only rank 0 writes `run.json`.
        attempt: Which start of the run this is, from 0.
        manifest: What `run.json` says.
        log: Records one step; see `Recorder.log`.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        directory: Directory | None = None,
        rank: int = 0,
        attempt: int | None = 0,
        strict: bool = False,
        sync: Sync = "interval",
    ) -> None:
        """Take over a directory, or claim `path` where there is none yet."""
        self.path = path
        self.manifest = manifest
        self.rank = rank
        self.attempt = attempt if attempt is not None else -1
        self._strict = strict
        self._claimed = directory is not None
        self._directory = directory
        self._owed: dict[str, bytes] = {}
        # Reentrant, as the handler of a signal may end a run that is writing a document.
        self._documents = threading.RLock()
        self._warned = False
        self._finished = False
        self._end: dict[str, Any] = {}
        self._opened = self._ended = 0.0
        self._journals = 0
        self._recorder = Recorder(
            str(path), rank, self._open_directory, self._header, strict=strict, sync=sync
        )
        self.log = self._recorder.log

    # -- opening

    @classmethod
    def create(
        cls,
        log_dir: str | os.PathLike[str],
        name: str,
        *,
        tags: Iterable[str] | None = None,
        run_id: str | None = None,
        environment: Mapping[str, Any] | None = None,
        lineage: Mapping[str, Any] | None = None,
        strict: bool = False,
        sync: Sync = "interval",
    ) -> RunWriter:
        """Begin a new run in a directory of its own.

        Args:
            log_dir: Folder of runs; made if it is missing.
            name: Any text that is not empty.
            tags: Any strings.
            run_id: 32 lower-case hexadecimal digits; made up by default.
            environment: What to record about the machine and the software.
            lineage: Where the run comes from, such as `{"parent": id}`.
            strict: Raise `WriteError` where the default is to warn and go on.
            sync: When records become durable.

        Raises:
            ValueError: If the name, a tag or what is said of the environment cannot be stored.
            WriteError: If the file system refuses and `strict` is set.
        """
        now = time.time()
        manifest = manifests.new(
            run_id or uuid.uuid4().hex,
            naming.check_run_name(name),
            naming.check_tags(tags),
            now,
            __version__,
        )
        manifest["environment"] = dict(environment or {})
        if lineage:
            manifest["lineage"] = dict(lineage)
        for what, given in (("run_id", manifest["id"]), ("parent", (lineage or {}).get("parent"))):
            if given is not None and not _ID.fullmatch(str(given)):
                message = f"{what} is {given!r:.80}, wanted 32 lower-case hexadecimal digits"
                raise ValueError(message)
        _check_manifest(manifest)
        folder = naming.run_directory_name(name, datetime.fromtimestamp(now, UTC))
        writer = cls(_absolute(log_dir) / folder, manifest, strict=strict, sync=sync)
        writer._opened = now
        return writer._begin()

    @classmethod
    def resume(
        cls, path: str | os.PathLike[str], *, strict: bool = False, sync: Sync = "interval"
    ) -> RunWriter:
        """Go on with a run as its next attempt; what it holds stays as it is.

        Raises:
            NotARunError: If there is no run at `path`.
            RunIsLiveError: If its writer is alive on this machine.
            RunStateError: If the run is packed.
        """
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(Directory(path))
            manifest, journals = manifests.open_history(directory)
            if manifest.get("sealed", {}).get("packed"):
                message = f"{path} is packed; run `blackbox seal {path}` to make its journals again"
                raise RunStateError(message)
            own = [each for each in journals if each.rank == 0]
            resumption.refuse_live(directory, own)
            resumption.close_attempts(directory, manifest, own)
            writer = cls(
                Path(path).absolute(),
                manifest,
                directory=directory,
                attempt=None,
                strict=strict,
                sync=sync,
            )
            writer._recorder.next_step = resumption.next_step(directory, own)
            stack.pop_all()
        if "sealed" in manifest:
            writer._unseal()
        return writer._begin()

    @classmethod
    def join(
        cls,
        path: str | os.PathLike[str],
        rank: int,
        attempt: int,
        *,
        strict: bool = False,
        sync: Sync = "interval",
    ) -> RunWriter:
        """Write the journal of another rank into a run that rank 0 has begun.

        Args:
            path: The run directory.
            rank: From 1.
            attempt: The attempt of rank 0, as it told the others.
            strict: Raise `WriteError` where the default is to warn and go on.
            sync: When records become durable.

        Raises:
            NotARunError: If there is no run at `path`.
            ValueError: If `rank` is below 1.
        """
        if rank < 1:
            message = f"rank is {rank}; rank 0 begins the run, the others join it"
            raise ValueError(message)
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(Directory(path))
            manifest, journals = manifests.open_history(directory)
            writer = cls(
                Path(path).absolute(),
                manifest,
                directory=directory,
                rank=rank,
                attempt=attempt,
                strict=strict,
                sync=sync,
            )
            own = [each for each in journals if each.rank == rank]
            writer._recorder.next_step = resumption.next_step(directory, own)
            stack.pop_all()
        return writer._begin()

    def _begin(self) -> RunWriter:
        """Open the first journal, write the manifest, start the thread."""
        self._recorder.begin()
        try:
            if self.rank == 0:
                self._enter_attempt()
        except BaseException:
            with contextlib.suppress(BlackboxError):
                self._recorder.event({"end": {"status": "interrupted"}})
                self._recorder.close()
            raise
        wake = self._wake = threading.Event()
        self._thread = threading.Thread(
            target=_keep_durable, args=(weakref.ref(self), wake), name="blackboxml", daemon=True
        )
        self._thread.start()
        return self

    def _enter_attempt(self) -> None:
        """Say in the manifest that the run goes on."""
        for key in ("end", "duration_seconds", "exception"):
            self.manifest.pop(key, None)
        self.attempt = max(self.attempt, 0)
        self.manifest["status"] = "running"
        self.manifest["writer"] = _WRITER
        self.manifest["attempts"].append(
            {
                "attempt": self.attempt,
                "start": manifests.timestamp(self._opened or time.time()),
                "status": "running",
                "process": process.identify(),
            }
        )
        self.write_manifest()

    def _unseal(self) -> None:
        """Let the journals count again, before there is one that the tables do not know."""
        manifests.unseal(self.manifest)
        self.write_manifest()
        if self._directory is not None:
            with contextlib.suppress(OSError):
                self._directory.remove(SUMS)

    # -- recording

    @property
    def run_id(self) -> str:
        """32 hexadecimal digits."""
        return str(self.manifest["id"])

    @property
    def active(self) -> bool:
        """Whether this process may record: not finished, and not inherited through a fork."""
        return self._recorder.active

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to finish, here or because another process does it."""
        return self._finished or (not self.active and not self._end)

    @property
    def complete(self) -> bool:
        """Whether the run was finished and its journal says so."""
        return self._recorder.complete

    @property
    def degraded(self) -> bool:
        """Whether records wait in memory because the file system refuses."""
        return self._recorder.degraded

    @property
    def lost(self) -> int:
        """Records that could not be kept."""
        return self._recorder.lost

    def rewind(self, step: int) -> None:
        """Say that training went back: earlier points of this rank at `step` or later do not count.

        The next automatic step is `step`. Nothing is deleted: `view="all"` still shows the points.

        Raises:
            MetricError: If `step` is no int64.
        """
        first = read_step(step)
        self._recorder.event({"rewind": {"step": first}})
        self._recorder.next_step = first

    def describe(
        self, metric: str, *, unit: str | None = None, description: str | None = None
    ) -> None:
        """Give a metric a unit and a description, for tables and datasets.

        Raises:
            MetricError: If the name cannot be stored, or a text is no text.
        """
        said = {"metric": self._recorder.check_name(metric)}
        for key, text in (("unit", unit), ("description", description)):
            if text is not None:
                if not isinstance(text, str):
                    message = f"the {key} of metric {metric!r:.80} is {text!r:.80}, wanted text"
                    raise MetricError(message)
                said[key] = text
        self._recorder.event({"describe": said})

    def disregard(self) -> None:
        """Say once that a forked process cannot write this run.

        Raises:
            RunStateError: If `strict` is set.
        """
        self._recorder.disregard()

    def sync(self) -> None:
        """Make every record durable that was logged before this call.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        self._recorder.sync()

    def finish(self, status: str = "completed", exception: Mapping[str, str] | None = None) -> None:
        """End the attempt: close the journal with an `end` record, and tell the manifest.

        Calling it again, or in a forked process, does nothing.

        Args:
            status: `completed`, `failed` or `interrupted`.
            exception: `type`, `message` and `traceback`, where it failed.

        Raises:
            ValueError: If the status is none of the three.
            WriteError: If the file system refuses and `strict` is set.
        """
        if status not in {"completed", "failed", "interrupted"}:
            message = f"status is {status!r}, wanted completed, failed or interrupted"
            raise ValueError(message)
        if self.finished:
            return
        if not self._end:
            self._ended = time.time()
            self._end = {"status": status}
            if exception is not None:
                self._end["exception"] = _clip(exception)
        refusals: list[WriteError] = []
        for work in (self._record_end, self._recorder.close, self._write_end):
            try:
                work()
            except WriteError as error:
                refusals.append(error)
        self._finished = True
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(SYNC_SECONDS)
        with self._documents:
            if self._directory is not None:
                self._directory.close()
        if refusals:
            raise refusals[0]

    def _record_end(self) -> None:
        """Record the end in the journal."""
        if self.active:
            self._recorder.event({"time": self._ended, "end": self._end})

    def _write_end(self) -> None:
        """Say in the manifest how the run ended, and pay what is owed."""
        self._find_path()
        if self.rank == 0:
            said = self._end
            manifests.finish(
                self.manifest, self.attempt, said["status"], self._ended, said.get("exception")
            )
            self.write_manifest()
        self._pay()

    def _find_path(self) -> None:
        """Find out where the directory is now, if it was moved and the system tells."""
        directory = self._directory
        if directory is None or directory.is_at(self.path):
            return
        with contextlib.suppress(OSError):
            moved = Path(os.readlink(f"/proc/self/fd/{directory.fd}"))
            if directory.is_at(moved):
                self.path = directory.path = moved

    # -- documents

    def write_manifest(self) -> None:
        """Replace `run.json` with the manifest as it stands, one generation on.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._documents:
            self.manifest["generation"] = self.manifest.get("generation", -1) + 1
            self._replace(MANIFEST, manifests.encode(self.manifest))

    def write_config(self, data: bytes) -> None:
        """Replace `config.json`.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._documents:
            self._replace(CONFIG, data)

    def read_config(self) -> bytes | None:
        """Return `config.json`, or None where there is none or it cannot be read."""
        if CONFIG in self._owed:
            return self._owed[CONFIG]
        if self._directory is None:
            return None
        try:
            return self._directory.read(CONFIG, LIMITS.config_bytes)
        except (OSError, ValueError):
            return None

    def _replace(self, name: str, data: bytes) -> None:
        """Replace a document; what the file system refuses is owed, and warned of once."""
        self._owed[name] = data
        try:
            if self._directory is None:
                raise FileNotFoundError(errno.ENOENT, "there is no run directory")
            self._directory.replace(name, data)
            self._owed.pop(name, None)
        except OSError as error:
            message = f"cannot write {self.path / name}: {error.strerror or error}"
            if self._strict:
                raise WriteError(error.errno or errno.EIO, message, str(self.path)) from None
            if not (self._warned or self.degraded) and (self.active or self.complete):
                self._warned = True
                logger.warning("%s; it is tried again while training goes on", message)

    def _pay(self) -> None:
        """Write the documents that are owed."""
        with self._documents:
            for name, data in list(self._owed.items()):
                self._replace(name, data)

    def _open_directory(self) -> Directory:
        """Return the run directory; claim it the first time that the file system works."""
        directory = self._directory
        if directory is not None and directory.is_deleted(self.path):
            directory.close()
            directory = self._directory = None
        if directory is None:
            if not self._claimed:
                self.path = _claim(self.path)
                self._claimed = True
            try:
                directory = self._directory = Directory(self.path)
            except NotARunError as error:
                raise FileNotFoundError(errno.ENOENT, f"{self.path} is gone") from error
        return directory

    def _header(self, directory: Directory, ordinal: int, first_seq: int) -> dict[str, Any]:
        """Return the header of a journal; the first one of a resumed run settles the attempt."""
        if self.attempt < 0:
            self.attempt = resumption.next_attempt(directory, self.rank, ordinal)
        # The manifest repeats the time at which the attempt's first journal was opened.
        now = time.time()
        if self._journals == 0 and self._opened:
            now = self._opened
        self._opened = self._opened or now
        self._journals += 1
        return {
            "format": {"name": JOURNAL_FORMAT, "version": VERSION, "features": []},
            "run": {key: self.manifest[key] for key in ("id", "name", "tags")},
            "rank": self.rank,
            "attempt": self.attempt,
            "first_seq": first_seq,
            "time": now,
            "process": process.identify(),
            "writer": _WRITER,
        }

    def tick(self, idle: float) -> bool:
        """Do what is due each second: sync, retry, pay what is owed, show signs of life.

        Args:
            idle: Seconds since the journal last grew.

        Returns:
            Whether there was a sign of life.
        """
        busy = self._recorder.tick()
        if self._owed and not self.degraded:
            self._pay()
        if not busy and idle >= HEARTBEAT_SECONDS:
            self._recorder.touch()
            return True
        return busy


def _keep_durable(reference: weakref.ref[RunWriter], wake: threading.Event) -> None:
    """Run in the thread of a writer until it ends or is forgotten."""
    touched = time.monotonic()
    said = ""
    while not wake.wait(SYNC_SECONDS):
        writer = reference()
        if writer is None or not writer.active:
            return
        try:
            if writer.tick(time.monotonic() - touched):
                touched = time.monotonic()
        except Exception as error:  # the thread must go on, whatever comes
            if str(error) != said:  # once, and not every second
                said = str(error)
                expected = isinstance(error, WriteError)
                logger.warning("%s", error, exc_info=None if expected else error)
        del writer


def _claim(path: Path) -> Path:
    """Make a run directory that nobody else has, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.name}_{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            number += 1
        else:
            return candidate


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path that stays right when the process changes its working directory."""
    try:
        return Path(path).absolute()
    except FileNotFoundError:  # the working directory was deleted
        return Path(path)


def _clip(exception: Mapping[str, str]) -> dict[str, str]:
    """Return what is said of an exception as it fits into a line of a journal."""
    return {
        key: text[:_EXCEPTION_CHARACTERS].encode(errors="replace").decode()
        for key, text in exception.items()
    }


def _check_manifest(manifest: Manifest) -> None:
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
