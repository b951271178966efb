"""RunWriter: the only code that makes a run directory and says what a run is.

It claims the directory, keeps `run.json` and `config.json`, and owns a `Recorder`, which appends
the records, and the thread that syncs them. Documents that could not be written are owed and
written when the file system works again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml import manifest as manifests
from blackboxml.base import naming, process
from blackboxml.base.files import Directory
from blackboxml.errors import BlackboxError, MetricError, RunStateError, WriteError
from blackboxml.journal import new_header
from blackboxml.journal.metric import read_step
from blackboxml.model import CONFIG, JOURNAL_FORMAT, MANIFEST, MEDIA_FORMAT, SUMS
from blackboxml.version import __version__
from blackboxml.writer import resumption
from blackboxml.writer.configuration import Configuration
from blackboxml.writer.documents import Documents, absolute
from blackboxml.writer.media_recorder import MediaRecorder
from blackboxml.writer.recorder import Recorder, Sync
from blackboxml.writer.upkeep import Upkeep

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Unpack

    from blackboxml.manifest import Manifest
    from blackboxml.media.medium import Content
    from blackboxml.model import JournalFile

logger = logging.getLogger("blackboxml")

HEARTBEAT_SECONDS: Final = 15.0
"""A live writer appends to its journal, or touches it, at least this often."""

_ID: Final = re.compile("[0-9a-f]{32}")


class RunWriter:
    """Writes one run, or one rank of it. Make one with `create`, `resume` or `join`.

    All methods may be called from any thread.

    Attributes:
        rank: Rank of this writer; only rank 0 writes `run.json`.
        attempt: Which start of the run this is, from 0.
        manifest: What `run.json` says.
        log: Records one step; see `Recorder.log`.
        log_points: Records many steps at once; see `Recorder.log_points`.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        directory: Directory | None = None,
        rank: int = 0,
        attempt: int = 0,
        history: Sequence[JournalFile] | None = None,
        strict: bool = False,
        sync: Sync = "interval",
    ) -> None:
        """Take over a directory, or claim `path` where there is none yet.

        After a history of journals the attempt is a guess until its first journal has a place.
        """
        self.manifest = manifest
        self.rank = rank
        self.attempt = attempt
        self._first: int | None = None  # the ordinal of its first journal if nobody is faster
        if history is not None:
            self._first = 1 + max((each.ordinal for each in history), default=-1)
        self._strict = strict
        self._documents = Documents(path, directory, self._may_warn, strict=strict)
        self._configuration = Configuration(self._documents, strict=strict)
        self._finished = False
        self._end: dict[str, Any] = {}
        self._opened = self._ended = 0.0
        self._recorder = Recorder(
            str(path), rank, self._documents.open, self._header, strict=strict, sync=sync
        )
        self._sync_mode: Sync = sync
        self._media: MediaRecorder | None = None
        self.log = self._recorder.log
        self.log_points = self._recorder.log_points

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
        extensions: Mapping[str, Any] | None = None,
        start: float | None = None,
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
            extensions: Members that are not in the specification, by domain name in reverse.
            start: When it began, in Unix seconds, if that was not now.
            strict: Raise `WriteError` where the default is to warn and go on.
            sync: When records become durable.

        Raises:
            ValueError: If the name, a tag or what is said of the environment cannot be stored.
            WriteError: If the file system refuses and `strict` is set.
        """
        now = time.time() if start is None else start
        manifest = manifests.new(
            run_id or secrets.token_hex(16),
            naming.check_run_name(name),
            naming.check_tags(tags),
            now,
            __version__,
        )
        manifest["environment"] = dict(environment or {})
        if lineage:
            manifest["lineage"] = dict(lineage)
        if extensions:
            manifest["extensions"] = dict(extensions)
        for what, given in (("run_id", manifest["id"]), ("parent", (lineage or {}).get("parent"))):
            if given is not None and not _ID.fullmatch(str(given)):
                message = f"{what} is {given!r:.80}, wanted 32 lower-case hexadecimal digits"
                raise ValueError(message)
        manifests.check_size(manifest)
        folder = naming.run_directory_name(name, datetime.fromtimestamp(now, UTC))
        writer = cls(absolute(log_dir) / folder, manifest, strict=strict, sync=sync)
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
            with directory.claimed():
                manifest, journals = manifests.open_history(directory)
                if manifest.get("sealed", {}).get("packed"):
                    message = (
                        f"{path} is packed; run `blackbox seal {path}` to make its journals again"
                    )
                    raise RunStateError(message)
                own = [each for each in journals if each.rank == 0]
                resumption.refuse_live(directory, own)
                resumption.close_attempts(directory, manifest, own)
                writer = cls(
                    Path(path).absolute(),
                    manifest,
                    directory=directory,
                    attempt=max((each.attempt for each in own), default=-1) + 1,
                    history=own,
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
                opened = self._opened or time.time()
                manifests.begin(self.manifest, self.attempt, opened, __version__)
                self.write_manifest()
        except BaseException:
            with contextlib.suppress(BlackboxError):
                self._recorder.event({"end": {"status": "interrupted"}})
                self._recorder.close()
            raise
        self._upkeep = Upkeep(self)
        return self

    def _unseal(self) -> None:
        """Let the journals count again, before there is one that the tables do not know."""
        manifests.unseal(self.manifest)
        self.write_manifest()
        if MANIFEST not in self._documents.owed:
            self._documents.remove(SUMS)

    # -- recording

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._documents.path

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

    def _may_warn(self) -> bool:
        """Tell whether a document that cannot be written is news: the recorder has said nothing."""
        return not self.degraded and (self.active or self.complete)

    @property
    def lost(self) -> int:
        """Records that could not be kept."""
        return self._recorder.lost

    @property
    def last_step(self) -> int:
        """The step of the last point, or 0: that of a medium for which none is given."""
        return max(self._recorder.next_step - 1, 0)

    def log_aside(self, metrics: Mapping[str, Any]) -> None:
        """Record a point beside the training: at its last step, without a part in their count.

        Raises:
            MetricError: If a name or a value cannot be stored.
            RunStateError: If the run has ended.
            WriteError: If the file system refuses and `strict` is set.
        """
        self._recorder.log_aside(metrics)

    def rewind(self, step: int) -> None:
        """Say that training went back: earlier points of this rank at `step` or later do not count.

        The next automatic step is `step`. Nothing is deleted: `view="all"` still shows the points.

        Raises:
            MetricError: If `step` is no int64.
        """
        first = read_step(step)
        self._recorder.event({"rewind": {"step": first}})
        self._recorder.next_step = first
        if self._media is not None or self._has_media():
            self._media_recorder().rewind(first)

    def _has_media(self) -> bool:
        """Tell whether this rank has a media journal in any attempt."""
        places = (naming.parse_journal_name(name, "media") for name in self._documents.names())
        return any(place is not None and place[0] == self.rank for place in places)

    def log_media(
        self, name: str, kind: str, step: int | None = None, **content: Unpack[Content]
    ) -> None:
        """Record something other than numbers; it is in the kernel when this returns.

        A file that cannot be written is left out with one warning, and the journal has a gap.

        Args:
            name: As the name of a metric, with a group before its first `/`.
            kind: `text`, `image`, `histogram`, `array`, `table`, `figure`, `graph`, `artifact`,
                `event`, or another word.
            step: An int64; by default the step of the last point, or 0.
            **content: One of `value`, `data`, `path` and `reference`, and what else is to be said
                of it; see `medium.Content`.

        Raises:
            MetricError: If the name, the step or the value cannot be stored, or the file not read.
            RunStateError: If the run has ended.
            WriteError: If the file system refuses and `strict` is set.
        """
        if not self.active:
            if self._end:
                message = f"{self.path} has ended; begin a new run, or go on with it"
                raise RunStateError(message)
            self.disregard()
            return
        self._media_recorder().record(name, kind, self.last_step if step is None else step, content)

    def _media_recorder(self) -> MediaRecorder:
        """Return what records media; the first medium opens its journal."""
        with self._documents.lock:
            if self._media is None:
                self._media = MediaRecorder(
                    str(self.path),
                    self.rank,
                    self._documents.open,
                    self._media_header,
                    strict=self._strict,
                    sync=self._sync_mode,
                )
            return self._media

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
        if self._media is not None:
            self._media.sync()

    def finish(
        self,
        status: str = "completed",
        exception: Mapping[str, str] | None = None,
        time: float | None = None,
    ) -> None:
        """End the attempt: close the journal with an `end` record, and tell the manifest.

        Calling it again, or in a forked process, does nothing.

        Args:
            status: `completed`, `failed` or `interrupted`.
            exception: `type`, `message` and `traceback`, where it failed.
            time: When it ended, in Unix seconds, if that was not now.

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
            self._ended = _now() if time is None else time
            self._end = {"status": status}
            if exception is not None:
                self._end["exception"] = manifests.clip(exception)
        refusals: list[WriteError] = []
        for work in (
            self._configuration.close,
            self._close_media,
            self._record_end,
            self._recorder.close,
            self._write_end,
        ):
            try:
                work()
            except WriteError as error:
                refusals.append(error)
        self._finished = True
        self._upkeep.stop()
        self._documents.close()
        if refusals:
            raise refusals[0]

    def _close_media(self) -> None:
        """Close the media journal, before the end is recorded."""
        if self._media is not None:
            self._media.close()

    def _record_end(self) -> None:
        """Record the end in the journal."""
        if self.active:
            self._recorder.event({"time": self._ended, "end": self._end})

    def _write_end(self) -> None:
        """Say in the manifest how the run ended, if the journal does, and pay what is owed."""
        self._documents.follow()
        if self.rank == 0:
            said = self._end
            manifests.finish(
                self.manifest, self.attempt, said["status"], self._ended, said.get("exception")
            )
            if self.complete:
                self.write_manifest()
                # Each of several looks behind its own last word, so that the last one says it all.
                for _ in range(5):
                    if not resumption.went_on(self._documents.open, self.manifest):
                        break
                    self.write_manifest()
            elif not self._recorder.journal:
                self._documents.owed.pop(MANIFEST, None)
        self._documents.pay()

    # -- documents

    def write_manifest(self) -> None:
        """Replace `run.json` with the manifest as it stands, one generation on.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._documents.lock:
            self.manifest["generation"] = self.manifest.get("generation", -1) + 1
            data = manifests.encode(self.manifest)
            begun = any(each["attempt"] == self.attempt for each in self.manifest["attempts"])
            if begun and not self._recorder.journal:  # which has to be there first
                self._documents.owed[MANIFEST] = data
            else:
                self._documents.replace(MANIFEST, data)

    def write_config(self, data: bytes) -> None:
        """Replace `config.json`.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        self._documents.replace(CONFIG, data)

    def append_log(self, name: str, data: bytes) -> int:
        """Append to a log in the run directory, such as `console.log`; return its size then.

        Raises:
            OSError: If the file system refuses.
        """
        with self._documents.lock:
            return self._documents.open().append(name, data)

    def add_config(self, tree: dict[str, Any]) -> None:
        """Merge values into `config.json`; see `Configuration.add`."""
        self._configuration.add(self.attempt, tree)

    def _header(self, directory: Directory, ordinal: int, first_seq: int) -> dict[str, Any]:
        """Return the header of a journal; the first one of a resumed run settles the attempt."""
        if self._is_guess and ordinal != self._first:
            guess, self.attempt = self.attempt, resumption.next_attempt(directory, ordinal)
            manifests.renumber(self.manifest, guess, self.attempt)
        # The manifest repeats the time of the attempt's first journal; that may have taken several
        # tries to open.
        now = self._opened if first_seq == 0 and self._opened else time.time()
        self._opened = self._opened or now
        return self._describe_journal(JOURNAL_FORMAT, first_seq, now)

    @property
    def _is_guess(self) -> bool:
        """Whether the attempt may still get another number, as it has no journal."""
        return self._first is not None and not self._recorder.journal

    def _media_header(self, directory: Directory, _: int, first_seq: int) -> dict[str, Any]:
        """Return the header of a media journal.

        Raises:
            OSError: If the metrics journal, which settles the attempt, cannot be opened yet.
        """
        if self._is_guess:
            raise OSError(errno.EAGAIN, f"{directory.path} has no metrics journal yet")
        return self._describe_journal(MEDIA_FORMAT, first_seq, _now())

    def _describe_journal(self, form: str, first_seq: int, now: float) -> dict[str, Any]:
        """Return the header of a journal of this rank and attempt."""
        session = self.attempt, self.rank
        return new_header(self.manifest, session, first_seq, now, process.identify(), name=form)

    def tick(self, idle: float) -> bool:
        """Do what is due each second: sync, retry, pay what is owed, show signs of life.

        Args:
            idle: Seconds since the journal last grew.

        Returns:
            Whether there was a sign of life.
        """
        busy = self._recorder.tick()
        if self._media is not None:
            self._media.tick()
        if self._documents.owed and not self.degraded:
            self._documents.pay()
        self._configuration.settle()
        if not busy and idle >= HEARTBEAT_SECONDS:
            self._recorder.touch()
            return True
        return busy


def _now() -> float:
    """Return the time, where an argument has the name of the module."""
    return time.time()
