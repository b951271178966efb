"""The journals of one rank in one attempt: append, sync, and go on when the disk does not.

Strategy: a record is one line and one `write` to a file that nobody else writes and that is never
reopened, so it is in the kernel when `log` returns. When a write comes up short, a sync fails or
the directory is gone, the journal is left as it is: whatever a last fsync does not confirm is kept
in memory, and the next journal begins with it. A reader takes the later copy. Until a journal can
be opened, records wait in a bounded backlog; what does not fit is counted and becomes a `gap`.

`_pending` is the state. None: ready. A line: its write has not been accounted for, because an
exception such as Ctrl-C came in between. Otherwise one of the marks below.
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
from zlib import crc32

import orjson

from blackboxml import naming
from blackboxml.errors import MetricError, RunStateError, WriteError
from blackboxml.files import write_all
from blackboxml.journal import LINE, encode
from blackboxml.metric import Vocabulary
from blackboxml.model import LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blackboxml.files import Directory

logger = logging.getLogger("blackboxml")

Sync = Literal["interval", "record", "none"]
"""When records become durable: within a second, each before `log` returns, or when the OS likes."""

RETRY_SECONDS: Final = 1.0
"""Least time between two attempts to open a journal after a failure."""

BACKLOG_BYTES: Final = 64 * 2**20
"""Most memory for records that are not safe in a file."""

_CLOSED: Final = object()
_DEGRADED: Final = object()
_FORKED: Final = object()

_MAX_LINE: Final = LIMITS.line_bytes
_BOUND_MASK: Final = 2**14 - 1
# orjson takes some values that are no numbers; these options, and `sum` on the values, send all of
# them and integers beyond 53 bits to the careful path.
_STRICT: Final = (
    orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_datasync = getattr(os, "fdatasync", os.fsync)

_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


class Recorder:
    """Appends the records of one rank and attempt.

    Attributes:
        label: Names the run in messages.
        next_seq: `seq` of the next record.
        next_step: The next automatic step.
        lost: Records that could not be kept.
    """

    def __init__(
        self,
        label: str,
        rank: int,
        open_directory: Callable[[], Directory],
        header: Callable[[Directory, int, int], dict[str, Any]],
        *,
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
        self._open_directory = open_directory
        self._header = header
        self._strict = strict
        self._sync_mode = sync
        self._check_mask = 0 if sync == "record" else _BOUND_MASK
        self._vocabulary = Vocabulary()
        self._known = self._vocabulary.known
        self._renew_locks()
        self._fd = -1
        self._journal = ""
        self._pending: object = _DEGRADED
        self._unsynced: list[bytes] = []
        self._syncing: list[bytes] = []
        self._backlog: list[bytes] = []
        self._backlog_bytes = 0
        self._dropped = 0
        self._reason = ""
        self._warned: set[str] = set()
        self._retry_at = 0.0

    def begin(self) -> None:
        """Open the first journal.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._lock:
            if not self._reopen():
                self._degrade()
        _recorders.add(self)

    # -- recording

    def log(  # noqa: PLR0913
        self,
        metrics: Mapping[str, Any],
        step: int | None = None,
        ranks: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        _sum: Any = sum,  # noqa: ANN401 - these are bound early: this is the hot path
        _dumps: Any = orjson.dumps,  # noqa: ANN401
        _crc32: Any = crc32,  # noqa: ANN401
        _write: Any = os.write,  # noqa: ANN401
        _time: Any = time.time,  # noqa: ANN401
    ) -> None:
        """Record one step; it is in the kernel when this returns.

        Args:
            metrics: Numbers by name; Python, numpy, torch, TensorFlow and JAX scalars.
            step: An int64; by default one more than the last.
            ranks: Statistics across ranks by metric name: some of mean, min, max, std, count.

        Raises:
            MetricError: If a name, a value or the step cannot be stored; nothing was recorded.
            RunStateError: If the run has ended.
            WriteError: If the file system refuses and `strict` is set.
        """
        try:
            # A sum is finite only if all values are numbers, and none is NaN or infinite.
            total = _sum(metrics.values(), 0.0)
            plain = (
                total - total == 0.0
                and self._known.issuperset(metrics)
                and ranks is None
                and (step is None or type(step) is int)
            )
        except Exception:  # noqa: BLE001 - whatever the values are, the careful path tells
            plain = False
        if not plain:
            self._append(self._vocabulary.convert(metrics, step, ranks))
            return
        try:
            # `with` and not acquire/release: an interrupt cannot come between it and the block.
            with self._lock:
                if self._pending is None or self._settle():
                    seq = self.next_seq
                    number = self.next_step if step is None else step
                    head = _dumps(
                        {"seq": seq, "step": number, "time": _time(), "metrics": metrics},
                        None,
                        _STRICT,
                    )[:-1]
                    line = LINE % (head, _crc32(head))
                    size = len(line)
                    if size <= _MAX_LINE:
                        self._pending = line
                        try:
                            if _write(self._fd, line) != size:
                                _short_write()
                        except OSError as error:
                            self._fail(error)
                            return
                        self.next_seq = seq + 1
                        self.next_step = number + 1
                        self._unsynced.append(line)
                        self._pending = None
                        if not seq & self._check_mask:
                            self._after_write()
                        return
        except TypeError:
            pass  # a value that only the careful path can turn into a number
        self._append(self._vocabulary.convert(metrics, step, ranks))

    def event(self, members: dict[str, Any]) -> None:
        """Record something that is no point: a rewind, a description, the end.

        Raises:
            RunStateError: If the run has ended.
            WriteError: If the file system refuses and `strict` is set.
        """
        self._append(members)

    def check_name(self, metric: object) -> str:
        """Return the name of a metric if the run may hold it.

        Raises:
            MetricError: If not.
        """
        return self._vocabulary.name(metric)

    def _append(self, members: dict[str, Any]) -> None:
        """Record plain JSON values."""
        with self._lock:
            ready = self._pending is None or self._settle()
            if self._pending is _FORKED:
                self._disregard()
                return
            point = "metrics" in members
            if point and members["step"] is None:
                members["step"] = self.next_step
            document: dict[str, Any] = {"seq": self.next_seq}
            if point:
                document["step"] = members["step"]
            line = encode(document | {"time": time.time()} | members)
            if len(line) > _MAX_LINE:
                message = (
                    f"the record has {len(line):,} bytes, a line may have {_MAX_LINE:,}; "
                    "log it in several calls with the same step"
                )
                raise MetricError(message)
            if point:
                self.next_step = members["step"] + 1
            if ready:
                self._write_line(line)
            elif self._backlog_bytes + len(line) <= BACKLOG_BYTES:
                self._backlog.append(line)
                self._backlog_bytes += len(line)
                self.next_seq += 1
            else:
                self._dropped += 1
                self.lost += 1

    def _write_line(self, line: bytes) -> None:
        """Write a line whose `seq` is the next one."""
        self._pending = line
        try:
            if os.write(self._fd, line) != len(line):
                _short_write()
            self.next_seq += 1
            self._unsynced.append(line)
            self._pending = None
            if self._sync_mode == "record":
                self._after_write()
        except OSError as error:
            self._fail(error)

    def _settle(self) -> bool:
        """Put things right after something unusual; tell whether the journal takes a line.

        Raises:
            RunStateError: If the run has ended.
        """
        pending = self._pending
        if pending is _CLOSED:
            message = (
                f"{self.label} has ended; begin a new run, or go on with it: Run(…, resume=path)"
            )
            raise RunStateError(message)
        if pending is _DEGRADED:
            return time.monotonic() >= self._retry_at and self._reopen()
        if not isinstance(pending, bytes):
            return False
        size = os.fstat(self._fd).st_size
        self.next_seq += 1
        self.next_step = _step_after(pending, self.next_step)
        if os.pread(self._fd, len(pending), max(0, size - len(pending))) == pending:
            self._unsynced.append(pending)
            self._pending = None
            return True
        self._leave_journal()
        self._backlog.append(pending)
        self._pending = _DEGRADED
        return self._reopen()

    # -- durability

    def sync(self) -> None:
        """Make every record durable that was logged before this call.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._sync_lock:
            with self._lock:
                if self._fd < 0:
                    return
                journal, descriptor = self._journal, os.dup(self._fd)
                self._syncing, self._unsynced = self._unsynced, []
            try:
                _check_linked(descriptor)
                _datasync(descriptor)
            except OSError as error:
                with self._lock:
                    if journal == self._journal and self._fd >= 0:
                        self._leave_journal(confirm=False)
                        self._go_on(error)
            else:
                with self._lock:
                    self._syncing = []
            finally:
                os.close(descriptor)

    def tick(self) -> bool:
        """Do what is due each second; tell whether records were synced or are waiting.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        if self._pending is _DEGRADED:
            with self._lock:
                if self._pending is _DEGRADED:
                    self._reopen()
            return True
        if self._unsynced and self._sync_mode != "none":
            self.sync()
            return True
        with self._lock:
            if self._fd >= 0:
                try:
                    _check_linked(self._fd)
                except OSError as error:
                    self._leave_journal()
                    self._go_on(error)
        return False

    def touch(self) -> None:
        """Show a sign of life: set the time of the journal's last modification."""
        with self._lock, contextlib.suppress(OSError):
            if self._fd >= 0:
                os.utime(self._fd)

    def close(self) -> None:
        """Sync and close; records that no journal took are lost, which is said once."""
        self.sync()
        with self._lock:
            if self._pending is _FORKED:
                return
            if self._pending is _DEGRADED:
                self._reopen()
            self.lost += len(self._backlog)
            if self._backlog or self._dropped:
                self._warn("lost", f"{self.lost} records of {self.label} are lost: {self._reason}")
            descriptor, self._fd = self._fd, -1
            self._pending = _CLOSED
            if descriptor >= 0:
                try:
                    os.close(descriptor)
                except OSError as error:  # a full disk on NFS shows itself here
                    self._warn("close", f"closing the journal of {self.label} failed: {error}")
        _recorders.discard(self)

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
        if self._sync_mode == "record":
            try:
                _datasync(self._fd)
                self._unsynced.clear()
            except OSError as error:
                self._leave_journal(confirm=False)
                self._go_on(error)
        elif sum(map(len, self._unsynced)) > BACKLOG_BYTES:
            # They are in the kernel; the memory serves only a disk that then fails to sync.
            del self._unsynced[: len(self._unsynced) // 2]

    # -- failures

    def _fail(self, error: OSError) -> None:
        """Go on in the next journal with the line that could not be written."""
        line = self._pending
        self._leave_journal()
        if isinstance(line, bytes):
            self._backlog.append(line)
            self.next_seq += 1
            self.next_step = _step_after(line, self.next_step)
        self._go_on(error)

    def _go_on(self, error: OSError) -> None:
        """Try the next journal at once; if that fails too, keep records in memory."""
        self._pending = _DEGRADED
        self._reason = error.strerror or str(error)
        if self._strict or not self._reopen():
            self._degrade()
        else:
            self._warn(
                "journal",
                f"{self.label}: {self._reason}; recording goes on in {self._journal}",
            )

    def _degrade(self) -> None:
        """Keep records in memory from now on, and say so once."""
        self._pending = _DEGRADED
        self._backlog_bytes = sum(map(len, self._backlog))
        if self._strict:
            message = f"cannot record into {self.label}: {self._reason}"
            raise WriteError(errno.EIO, message)
        self._warn(
            "write",
            f"cannot record into {self.label}: {self._reason}; training goes on, records are kept "
            f"in memory (up to {BACKLOG_BYTES // 2**20} MiB) and written when it works again",
        )

    def _reopen(self) -> bool:
        """Open the next journal and write what waits; tell whether that worked."""
        directory = None
        waiting, self._backlog = self._backlog, []
        try:
            directory = self._open_journal(self.next_seq - len(waiting))
            for line in waiting:
                if os.write(self._fd, line) != len(line):
                    _short_write()
                self._unsynced.append(line)
        except OSError as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._reason = error.strerror or str(error)
            self._backlog = waiting[len(self._unsynced) :]
            if self._unsynced:
                self._leave_journal()
            elif self._fd >= 0:
                self._drop_journal(directory)
            self._backlog_bytes = sum(map(len, self._backlog))
            return False
        self._backlog_bytes = 0
        self._pending = None
        self._warned.discard("write")
        if self._dropped:
            gap = {"records": self._dropped, "reason": self._reason}
            self._dropped = 0
            self._write_line(encode({"seq": self.next_seq, "time": time.time(), "gap": gap}))
        return self._pending is None

    def _open_journal(self, first_seq: int) -> Directory:
        """Create this rank's next journal and write its header.

        Raises:
            OSError: If the file system refuses.
        """
        directory = self._open_directory()
        ordinal = _next_ordinal(directory, self._rank)
        while True:
            name = naming.journal_name(self._rank, ordinal)
            try:
                descriptor = directory.create(name, append=True)
                break
            except FileExistsError:
                ordinal += 1
        try:
            write_all(descriptor, encode(self._header(directory, ordinal, first_seq)))
            directory.sync()
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                directory.remove(name)
            raise
        self._fd, self._journal = descriptor, name
        return directory

    def _leave_journal(self, *, confirm: bool = True) -> None:
        """Close a journal that failed; what is not known to be durable goes to the backlog.

        Args:
            confirm: Ask a last fsync; not after one failed, as the kernel then forgets the error.
        """
        descriptor, self._fd = self._fd, -1
        doubtful = self._syncing + self._unsynced
        self._syncing, self._unsynced = [], []
        if descriptor < 0:
            return
        try:
            _check_linked(descriptor)
            if confirm:
                os.fsync(descriptor)
                doubtful = []
        except OSError:
            pass
        self._backlog = doubtful + self._backlog
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def _drop_journal(self, directory: Directory | None) -> None:
        """Remove a journal into which no record went."""
        descriptor, self._fd = self._fd, -1
        with contextlib.suppress(OSError):
            os.close(descriptor)
        if directory is not None:
            with contextlib.suppress(OSError):
                directory.remove(self._journal)

    def _disregard(self) -> None:
        """Lose a record that a forked process logged; its parent owns the journal."""
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
        """Make the locks, in a new process too: those of the parent may be held for ever."""
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()

    def disown(self) -> None:
        """Stop recording in this process: it was forked, and the parent goes on."""
        self._renew_locks()
        if self._pending is not _CLOSED:
            self._pending = _FORKED


def _step_after(line: bytes, default: int) -> int:
    """Return the automatic step after a line that failed."""
    step = orjson.loads(line).get("step")
    return step + 1 if isinstance(step, int) else default


def _next_ordinal(directory: Directory, rank: int) -> int:
    """Return the ordinal after the newest journal of a rank."""
    places = [naming.parse_journal_name(name) for name in directory.names()]
    return max((place[1] for place in places if place and place[0] == rank), default=-1) + 1


def _check_linked(descriptor: int) -> None:
    """Refuse a file that has no name any more: what is written to it is lost at the end."""
    if os.fstat(descriptor).st_nlink == 0:
        raise OSError(errno.ENOENT, "the journal was deleted")


def _short_write() -> NoReturn:
    """Treat a short write as what it is the first sign of."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _disown_all() -> None:
    """In a forked child: the journals belong to the parent."""
    for recorder in list(_recorders):
        recorder.disown()


os.register_at_fork(after_in_child=_disown_all)
