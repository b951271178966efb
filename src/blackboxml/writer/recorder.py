"""The journals of one rank in one attempt: append, sync, and go on when the disk does not.

Strategy: a record is one line and one `write` to a file that nobody else writes and that is never
reopened, so it is in the kernel when `log` returns. When a write comes up short, a sync fails or
the directory is gone, the journal is left as it is: whatever a last fsync does not confirm is kept
in memory, and the next journal begins with it. A reader takes the later copy. Until a journal can
be opened, records wait in a bounded backlog; what does not fit is counted and becomes a `gap`.

What is written, kept and written again is a line, or a block of lines that came together.

`_pending` is the state. None: ready. Lines: their write has not been accounted for, because an
exception such as Ctrl-C came in between, or the handler of a signal. Otherwise one of the marks
below.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import orjson

from blackboxml.base import naming
from blackboxml.base.checksum import crc32
from blackboxml.base.files import SYNC_UNSUPPORTED, let_go, sync_file, write_all
from blackboxml.errors import MetricError, RunStateError, WriteError
from blackboxml.journal import LINE, count_lines, encode, read_last
from blackboxml.journal.metric import Stretch, Vocabulary
from blackboxml.model import INT64_MAX, LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blackboxml.base.files import Directory
    from blackboxml.journal.metric import Points

logger = logging.getLogger("blackboxml")

Sync = Literal["interval", "record", "none"]
"""When records become durable: within a second, each before `log` returns, or when the OS likes."""

RETRY_SECONDS: Final = 1.0
"""Least time between two attempts to open a journal after a failure."""

BACKLOG_BYTES: Final = 64 * 2**20
"""Most memory for records that are not safe in a file."""

_LONGEST_WAIT: Final = 60.0
"""Most seconds between two syncs on a disk that fails to sync."""

_ENDED: Final = object()
_CLOSED: Final = object()
_DEGRADED: Final = object()
_FORKED: Final = object()

_MAX_LINE: Final = LIMITS.line_bytes
_SMALL_LINE: Final = 6 * LIMITS.metrics_per_record
"""A line so short cannot hold too many metrics: each takes six bytes at least."""

_BOUND_MASK: Final = 2**14 - 1
# orjson takes some values that are no numbers; these options, and `sum` on the values, send all of
# them and integers beyond 53 bits to the careful path.
_STRICT: Final = (
    orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_dumps, _now, _write = orjson.dumps, time.time, os.write
_datasync = getattr(os, "fdatasync", os.fsync)

_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


class Recorder:
    """Appends the records of one rank and attempt.

    Attributes:
        label: Names the run in messages.
        next_seq: `seq` of the next record.
        next_step: The next automatic step.
        lost: Records that could not be kept.
        complete: Whether it was closed with its `end` record in a journal.
        journal: Name of the newest journal that was opened and kept; empty before that.
    """

    def __init__(
        self,
        label: str,
        rank: int,
        open_directory: Callable[[], Directory],
        header: Callable[[Directory, int, int], dict[str, Any]],
        *,
        stem: naming.JournalStem = "metrics",
        strict: bool = False,
        sync: Sync = "interval",
    ) -> None:
        """Prepare; `begin` opens the first journal.

        Args:
            label: Names the run in messages.
            rank: Rank of the journals.
            open_directory: Returns the run directory, or raises OSError.
            header: Returns the header of a journal, given the directory, its ordinal and the `seq`
                of its first record.
            stem: What the names of the journals begin with.
            strict: Raise `WriteError` where the default is to warn and go on.
            sync: When records become durable.
        """
        if sync not in {"interval", "record", "none"}:
            message = f'sync is {sync!r}, wanted "interval", "record" or "none"'
            raise ValueError(message)
        self.label = label
        self.next_seq = 0
        self.next_step = 0
        self.lost = 0
        self._rank = rank
        self._stem = stem
        self._open_directory = open_directory
        self._header = header
        self._strict = strict
        self._sync_mode = sync
        self._check_mask = 0 if sync == "record" else _BOUND_MASK
        self._vocabulary = Vocabulary()
        self._known = self._vocabulary.known
        self.complete = False
        self._renew_locks()
        self._fd = -1
        self.journal = ""
        self._pending: object = _DEGRADED
        self._unsynced: list[bytes] = []
        self._syncing: list[bytes] = []
        self._backlog: list[bytes] = []
        self._backlog_bytes = 0
        self._dropped = 0
        self._reason = ""
        self._warned: set[str] = set()
        self._retry_at = 0.0
        self._sync_at = 0.0
        self._sync_failures = 0
        self._counts_links = True
        self._ended = False
        self._busy = False
        self._untold = False

    def begin(self) -> None:
        """Open the first journal.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._lock:
            if not self._reopen():
                self._refuse()
        _recorders.add(self)

    # -- recording

    def log(
        self,
        metrics: Mapping[str, Any],
        step: int | None = None,
        ranks: Mapping[str, Mapping[str, Any]] | None = None,
        time: float | None = None,
    ) -> None:
        """Record one step; it is in the kernel when this returns.

        Args:
            metrics: Numbers by name; Python, numpy, torch, TensorFlow and JAX scalars.
            step: An int64; by default one more than the last.
            ranks: Statistics across ranks by metric name: some of mean, min, max, std, count.
            time: When it was measured, in Unix seconds; by default now.

        Raises:
            MetricError: If a name, a value, the step or the time cannot be stored; nothing was
                recorded.
            RunStateError: If the run has ended.
            WriteError: If the file system refuses and `strict` is set; the record is kept in
                memory, and written as soon as that works.
        """
        try:
            # The sum is a finite float only if all values are plain numbers, none NaN or infinite.
            total = sum(metrics.values(), 0.0)
            plain = (
                type(total) is float
                and total - total == 0.0
                and self._known.issuperset(metrics)
                and ranks is None
                and (step is None or type(step) is int)
                and (time is None or (type(time) is float and time - time == 0.0))
            )
        except Exception:  # noqa: BLE001 - whatever the values are, the careful path tells
            plain = False
        if not plain:
            self._append(self._vocabulary.convert(metrics, step, ranks, time))
            return
        try:
            # `with` and not acquire/release: an interrupt cannot come between it and the block.
            with self._lock:
                if self._pending is None or self._settle():
                    seq = self.next_seq
                    number = self.next_step if step is None else step
                    when = _now() if time is None else time
                    head = _dumps(
                        {"seq": seq, "step": number, "time": when, "metrics": metrics},
                        None,
                        _STRICT,
                    )[:-1]
                    line = LINE % (head, crc32(head))
                    size = len(line)
                    # The `seq` is taken already where the handler of a signal logged just now.
                    if seq == self.next_seq and (size <= _SMALL_LINE or _fits(size, metrics)):
                        self._pending = line
                        try:
                            if _write(self._fd, line) != size:
                                _short_write()
                        except OSError as error:
                            self._fail(error)
                            return
                        if self._pending is line:
                            self.next_seq = seq + 1
                            self.next_step = number + 1
                            self._pending = None
                            self._unsynced.append(line)
                        if not seq & self._check_mask:
                            self._after_write()
                        return
        except TypeError:
            pass  # a value that only the careful path can turn into a number
        self._append(self._vocabulary.convert(metrics, step, ranks, time))

    def log_points(self, points: Points) -> Stretch | None:
        """Record many points as `log` would one by one, in one write; rank and clock are theirs.

        Returns:
            Where they stand, or None if they wait in memory.

        Raises:
            MetricError: If one of them cannot be stored; nothing was recorded.
            RunStateError: If the run has ended.
            WriteError: If the file system refuses and `strict` is set; the points are kept in
                memory, and written as soon as that works.
        """
        from blackboxml.journal.block import encode_points

        self._vocabulary.check(points)
        with self._lock:
            while self._pending is None or self._settle():
                seq = self.next_seq
                block = encode_points(points, seq)
                place = os.fstat(self._fd).st_size
                stretch = Stretch(self.journal, place, len(block), seq, len(points), crc32(block))
                taken = self._put(block, seq, seq + len(points), int(points.steps[-1]) + 1)
                if taken:
                    self._after_write()
                    return stretch
                if taken is not None:
                    return None
            for step, when, metrics in points.records():
                self._append(self._vocabulary.convert(metrics, step, None, when))
            return None

    def log_aside(self, metrics: Mapping[str, Any]) -> None:
        """Record a point at the last step that takes no part in the count of steps; see `log`."""
        with self._lock:
            following = self.next_step
            try:
                self.log(metrics, max(following - 1, 0))
            finally:
                self.next_step = following

    def event(self, members: dict[str, Any]) -> None:
        """Record something that is no point: a rewind, a description, a medium, the end.

        Nothing can be recorded after the end; recording that again does nothing.

        Raises:
            RunStateError: If the run has ended.
            WriteError: If the file system refuses and `strict` is set.
        """
        if not (self._ended and "end" in members):
            self._append(members)

    def check_name(self, metric: object) -> str:
        """Return the name of a metric if the run may hold it.

        Raises:
            MetricError: If not.
        """
        return self._vocabulary.name(metric)

    def _append(self, members: dict[str, Any]) -> None:  # noqa: C901 - a call is where interrupts come
        """Record plain JSON values."""
        with self._lock:
            while True:
                ready = self._pending is None or self._settle()
                if self._pending is _FORKED:
                    self.disregard()
                    return
                if not ready and "step" not in members:
                    self._note_gap()
                seq = self.next_seq
                line, step = self._line(members)
                if seq != self.next_seq or ready is not (self._pending is None):
                    continue
                taken = ready and self._put(line, seq, seq + 1, step, ended="end" in members)
                if taken is not None:
                    break
            if ready:
                if not taken:
                    return
                if not seq & self._check_mask:
                    self._after_write()
            elif "step" in members and (
                self._dropped or self._backlog_bytes + len(line) > BACKLOG_BYTES
            ):
                self.next_step = step
                self._dropped += 1
                self.lost += 1
            else:
                self._backlog += [line]
                self._backlog_bytes += len(line)
                self.next_seq = seq + 1
                self.next_step = step
                self._ended = "end" in members
            if self._strict and (self._untold or not ready):
                self._refuse()

    def _put(
        self, lines: bytes, first: int, seq: int, step: int, *, ended: bool = False
    ) -> bool | None:
        """Write lines, and account for them.

        Args:
            lines: One line or more.
            first: `seq` of the first of them.
            seq: `seq` of the record that comes after them.
            step: The automatic step that comes after them.
            ended: Whether the last one ends the attempt.

        Returns:
            Whether the journal took them; None if the handler of a signal has taken `first`.
        """
        if self.next_seq != first or self._pending is not None:
            return None
        self._pending = lines
        try:
            if _write(self._fd, lines) != len(lines):
                _short_write()
        except OSError as error:
            self._fail(error)
            return False
        if self._pending is lines:
            self._unsynced += [lines]
            self.next_seq = seq
            self.next_step = step
            self._ended = ended
            self._pending = _ENDED if ended else None
        return True

    def _line(self, members: dict[str, Any]) -> tuple[bytes, int]:
        """Return the line of the next record, and the automatic step after it.

        Raises:
            MetricError: If it is too long, or no step is left.
        """
        document: dict[str, Any] = {"seq": self.next_seq}
        following = self.next_step
        if "step" in members:
            step = members["step"]
            if step is None:
                step = following
                if step > INT64_MAX:
                    message = f"step: the last one was {step - 1}, and int64 ends; give the step"
                    raise MetricError(message)
            document["step"] = step
            following = step + 1
        document["time"] = _now()
        line = encode(document | {key: members[key] for key in members if key != "step"})
        if len(line) > _MAX_LINE:
            message = (
                f"the record has {len(line):,} bytes, a line may have {_MAX_LINE:,}; "
                "log it in several calls with the same step"
            )
            raise MetricError(message)
        return line, following

    def _settle(self) -> bool:
        """Put things right after something unusual; tell whether the journal takes a line.

        Raises:
            RunStateError: If the run has ended.
        """
        line = self._pending
        if isinstance(line, bytes) and not self._busy:
            if self._was_written(line):
                step, ended = read_last(line, self.next_step)
                if self._pending is line:
                    self._unsynced += [line]
                    self.next_seq += line.count(b"\n")
                    self.next_step = step
                    self._ended = ended
                    self._pending = _ENDED if ended else None
            else:
                self._fail(OSError(errno.EINTR, "a write was interrupted"))
        if self._pending is _CLOSED or self._ended:
            message = (
                f"{self.label} has ended; begin a new run, or go on with it: Run(…, resume=path)"
            )
            raise RunStateError(message)
        if self._pending is _DEGRADED and time.monotonic() >= self._retry_at:
            self._reopen()
        return self._pending is None and not self._untold

    def _was_written(self, line: bytes) -> bool:
        """Tell whether the journal ends with a line."""
        try:
            size = os.fstat(self._fd).st_size
            return os.pread(self._fd, len(line), max(0, size - len(line))) == line
        except OSError:
            return False

    # -- durability

    def sync(self) -> None:
        """Make every record durable that was logged before this call.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001
            # The handler of a signal came into `log`; a sync under way may wait for that.
            if self._fd >= 0:
                self._sync_now()
            return
        with self._sync_lock:
            with self._lock:
                journal, descriptor = self._take_unsynced()
            if descriptor < 0:
                return
            try:
                self._check_linked(descriptor)
                _sync_data(descriptor)
            except OSError as error:
                with self._lock:
                    if journal == self.journal and self._fd >= 0:
                        if error.errno != errno.ENOENT:
                            self._put_off_sync()
                        self._fail(error, confirm=False)
            else:
                with self._lock:
                    self._syncing = []
                    self._sync_at, self._sync_failures = 0.0, 0
            finally:
                let_go(descriptor)

    def _take_unsynced(self) -> tuple[str, int]:
        """Begin a sync; return the journal and a descriptor of it to close, or −1 if none is due.

        Raises:
            WriteError: If no journal can be opened and `strict` is set.
        """
        if isinstance(self._pending, bytes):
            with contextlib.suppress(RunStateError):
                self._settle()
        if self._pending is _DEGRADED and (not self._reopen() or self._untold):
            self._refuse()
        descriptor = -1
        if self._fd >= 0:
            try:
                descriptor = os.dup(self._fd)
            except OSError:  # the process has no descriptor to spare
                self._sync_now()
            else:
                self._syncing, self._unsynced = self._syncing + self._unsynced, []
        return self.journal, descriptor

    def tick(self) -> bool:
        """Do what is due each second; tell whether records were synced or are waiting.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        try:
            return self._tick()
        except WriteError:
            self._untold = True  # this thread is ours; the caller's next record says it again
            raise

    def _tick(self) -> bool:
        """Sync, or try again what failed."""
        if self._pending is _DEGRADED:
            with self._lock:
                if self._pending is _DEGRADED and not self._strict:
                    self._reopen()
            return True
        if self._unsynced and self._sync_mode != "none" and time.monotonic() >= self._sync_at:
            self.sync()
            return True
        with self._lock:
            self._bound_memory()
            if self._fd >= 0:
                try:
                    self._check_linked(self._fd)
                except OSError as error:
                    self._fail(error)
        return False

    def touch(self) -> None:
        """Show a sign of life: set the time of the journal's last modification."""
        with self._lock, contextlib.suppress(OSError):
            if self._fd >= 0:
                os.utime(self._fd)

    def close(self) -> None:
        """Sync and close; records that no journal took are lost, which is said once.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        try:
            self.sync()
        finally:
            self._close()

    def _close(self) -> None:
        """Close the journal."""
        with self._lock:
            if self._busy or not self.active:
                return
            self.complete = self._ended and not self._backlog
            self.lost += count_lines(self._backlog)
            if self._backlog or self._dropped:
                self._warn("lost", f"{self.lost} records of {self.label} are lost: {self._reason}")
            descriptor, self._fd = self._fd, -1
            self._pending = _CLOSED
            self._backlog, self._unsynced, self._syncing = [], [], []
            _recorders.discard(self)
            if descriptor >= 0:
                try:
                    os.close(descriptor)
                except OSError as error:  # a full disk on NFS shows itself here
                    self._warn("close", f"closing the journal of {self.label} failed: {error}")

    @property
    def active(self) -> bool:
        """Whether this process may record: not ended, and not inherited through a fork."""
        return self._pending is not _CLOSED and self._pending is not _FORKED

    @property
    def degraded(self) -> bool:
        """Whether records wait in memory because no journal can be written."""
        return self._pending is _DEGRADED

    def _after_write(self) -> None:
        """Sync a record if each is to be synced, and bound the memory for failed syncs."""
        if self._sync_mode != "record":
            self._bound_memory()
        elif self._fd >= 0 and time.monotonic() >= self._sync_at:
            self._sync_now()

    def _sync_now(self) -> None:
        """Sync while nobody else can record."""
        try:
            _sync_data(self._fd)
        except OSError as error:
            self._put_off_sync()
            self._fail(error, confirm=False)
        else:
            self._syncing, self._unsynced = [], []
            self._sync_at, self._sync_failures = 0.0, 0

    def _put_off_sync(self) -> None:
        """After a failed sync, wait longer each time: all that is in doubt is written again."""
        self._sync_failures += 1
        self._sync_at = time.monotonic() + min(2.0**self._sync_failures, _LONGEST_WAIT)

    def _bound_memory(self) -> None:
        """Keep not too many records, which the kernel has, for a disk that then fails to sync."""
        most = BACKLOG_BYTES // (16 if self._sync_mode == "none" else 1)
        while sum(map(len, self._unsynced)) > most:
            del self._unsynced[: (len(self._unsynced) + 1) // 2]

    # -- failures
    #
    # An interrupt may end these methods, and a signal handler may log, wherever they call
    # something; so each prepares first, and then changes the state by assignments alone.

    def _fail(self, error: OSError, *, confirm: bool = True) -> None:
        """Leave the journal, and go on in the next one; if that fails too, in memory.

        Raises:
            WriteError: If `strict` is set.
        """
        self._leave_journal(confirm=confirm)
        reason = error.strerror or str(error)
        self._reason = reason
        interrupted = error.errno == errno.EINTR
        if not interrupted:
            self._refuse()
        if self._pending is _DEGRADED and self._reopen() and not interrupted:
            self._warn("journal", f"{self.label}: {reason}; recording goes on in {self.journal}")

    def _refuse(self) -> None:
        """Tell the caller, where `strict` is set.

        Raises:
            WriteError: If it is.
        """
        if self._strict:
            self._untold = False
            message = f"cannot record into {self.label}: {self._reason}"
            raise WriteError(errno.EIO, message)

    def _leave_journal(self, *, confirm: bool = True) -> None:
        """Close a journal that failed; what is not known to be durable goes to the backlog.

        Args:
            confirm: Ask a last fsync; not after one failed, as the kernel then forgets the error.
        """
        line = self._pending
        step, ended = self.next_step, self._ended
        unaccounted = isinstance(line, bytes)
        if isinstance(line, bytes):
            step, ended = read_last(line, step)
        if self._pending is not line or self._busy:
            return  # a signal handler that logged has put things right
        doubtful = self._syncing + self._unsynced
        self._busy = True
        try:
            self._backlog = doubtful + self._backlog
            if unaccounted:
                self._backlog += [line]  # type: ignore[list-item]
                self.next_seq += count_lines([line])  # type: ignore[list-item]
            self.next_step, self._ended = step, ended
            self._syncing, self._unsynced = [], []
            self._pending = _DEGRADED
            descriptor, self._fd = self._fd, -1
            if descriptor >= 0:
                self._let_go(descriptor, len(doubtful), confirm=confirm)
            self._backlog_bytes = sum(map(len, self._backlog))
        finally:
            self._busy = False

    def _let_go(self, descriptor: int, count: int, *, confirm: bool) -> None:
        """Close a journal; drop the first records of the backlog if it keeps them durably."""
        try:
            self._check_linked(descriptor)
            if confirm:
                os.fsync(descriptor)
                del self._backlog[:count]
        except OSError:
            pass
        finally:
            let_go(descriptor)

    def _reopen(self) -> bool:
        """Open the next journal and write what waits; tell whether that worked."""
        if self._busy:
            return False
        self._busy = True
        try:
            self._note_gap()
            directory, name, descriptor = self._open_journal(
                self.next_seq - count_lines(self._backlog)
            )
            self._write_backlog(directory, name, descriptor)
        except OSError as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._reason = error.strerror or str(error)
            self._backlog_bytes = sum(map(len, self._backlog))
            if not self._strict:
                self._warn(
                    "write",
                    f"cannot record into {self.label}: {self._reason}; training goes on, records "
                    f"are kept in memory (up to {BACKLOG_BYTES // 2**20} MiB) and written when it "
                    "works again",
                )
            return False
        finally:
            self._busy = False
        self._warned.discard("write")
        return self._pending is None

    def _note_gap(self) -> None:
        """Put a record of what was dropped into the backlog, if anything was."""
        while self._dropped:
            count, seq = self._dropped, self.next_seq
            gap = {"records": count, "reason": self._reason}
            line = encode({"seq": seq, "time": _now(), "gap": gap})
            if (count, seq) == (self._dropped, self.next_seq):
                self._backlog += [line]
                self.next_seq = seq + 1
                self._dropped = 0

    def _write_backlog(self, directory: Directory, name: str, descriptor: int) -> None:
        """Write what waits into a new journal, and record there from now on.

        Raises:
            OSError: If the file system refuses. The journal is left, and removed if no record is
                in it.
        """
        written = 0
        try:
            while True:
                try:
                    line = self._backlog[written]
                except IndexError:
                    break
                if os.write(descriptor, line) != len(line):
                    _short_write()
                written += 1
            self._unsynced, self._backlog = self._backlog, []
            self._backlog_bytes = 0
            self._fd, self.journal = descriptor, name
            self._pending = _ENDED if self._ended else None
        except BaseException:
            if written:
                self.journal = name
                self._let_go(descriptor, written, confirm=True)
            else:
                _discard(directory, name, descriptor)
            raise

    def _open_journal(self, first_seq: int) -> tuple[Directory, str, int]:
        """Create this rank's next journal and write its header.

        Returns:
            The directory, the name of the journal and its descriptor.

        Raises:
            OSError: If the file system refuses.
        """
        directory = self._open_directory()
        ordinal = self._next_ordinal(directory)
        while True:
            name = naming.journal_name(self._rank, ordinal, self._stem)
            try:
                descriptor = directory.create(name, append=True)
                break
            except FileExistsError:
                ordinal += 1
        try:
            # Some file systems do not count links; there, a deleted journal cannot be told.
            self._counts_links = os.fstat(descriptor).st_nlink > 0
            write_all(descriptor, encode(self._header(directory, ordinal, first_seq)))
            sync_file(descriptor)
            directory.sync()
        except BaseException:
            _discard(directory, name, descriptor)
            raise
        return directory, name, descriptor

    def _next_ordinal(self, directory: Directory) -> int:
        """Return the ordinal after the newest journal of this rank."""
        places = [naming.parse_journal_name(name, self._stem) for name in directory.names()]
        own = (place[1] for place in places if place and place[0] == self._rank)
        return max(own, default=-1) + 1

    def _check_linked(self, descriptor: int) -> None:
        """Refuse a file that has no name any more: what is written to it is lost at the end."""
        if self._counts_links and os.fstat(descriptor).st_nlink == 0:
            raise OSError(errno.ENOENT, "the journal was deleted")

    # -- fork

    def disregard(self) -> None:
        """Lose a record that a forked process logged; its parent owns the journal.

        Raises:
            RunStateError: If `strict` is set.
        """
        message = (
            f"{self.label} belongs to the process that began it; a forked process cannot record "
            "into it: begin a run of its own there"
        )
        if self._strict:
            raise RunStateError(message)
        self.lost += 1
        self._warn("fork", message)

    def _warn(self, cause: str, message: str) -> None:
        """Warn once for each cause, through the logger: a warning must not stop training."""
        if cause not in self._warned:
            self._warned.add(cause)
            logger.warning("%s", message)

    def _renew_locks(self) -> None:
        """Make the locks, in a new process too: those of the parent may be held for ever.

        The handler of a signal may log while `log` was interrupted, hence they are reentrant.
        """
        self._lock = threading.RLock()
        self._sync_lock = threading.RLock()

    def disown(self) -> None:
        """Stop recording in this process: it was forked, and the parent goes on."""
        self._renew_locks()
        if self._pending is _CLOSED:
            return
        descriptor, self._fd = self._fd, -1
        self._pending = _FORKED
        self._busy = False
        if descriptor >= 0:
            let_go(descriptor)


def _fits(size: int, metrics: Mapping[str, Any]) -> bool:
    """Tell whether a reader accepts a line of so many bytes with so many metrics."""
    return size <= _MAX_LINE and len(metrics) <= LIMITS.metrics_per_record


def _discard(directory: Directory, name: str, descriptor: int) -> None:
    """Close and remove a journal without a record."""
    let_go(descriptor)
    with contextlib.suppress(OSError):
        directory.remove(name)


def _sync_data(descriptor: int) -> None:
    """Make the content of a file durable, on a file system that can.

    Raises:
        OSError: If that failed.
    """
    try:
        _datasync(descriptor)
    except OSError as error:
        if error.errno not in SYNC_UNSUPPORTED:
            raise


def _short_write() -> NoReturn:
    """Treat a short write as what it is the first sign of."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _disown_all() -> None:
    """In a forked child: the journals belong to the parent."""
    for recorder in list(_recorders):
        recorder.disown()


os.register_at_fork(after_in_child=_disown_all)
