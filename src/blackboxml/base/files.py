"""A run directory as the file system sees it: safe to open, safe to replace.

Strategy: everything goes through a descriptor of the directory, so that a run keeps working while
it is moved. A file is opened component by component without following a link, and only if it is a
regular file; a FIFO never blocks and a device is never touched. A document is replaced by
temporary file, fsync, rename, fsync of the directory, so that a reader or a crash sees the old one
or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeGuard

from blackboxml.errors import LimitError, NotARunError, RunIsLiveError, UnsafePathError
from blackboxml.model import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

_SEGMENT = re.compile(r"(?![-.])[A-Za-z0-9._-]{1,128}\Z")
_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_BLOCK = 2**20
_HDF5_NUMBER: Final = re.compile(r"errno = ([0-9]+)")

CLAIM_SECONDS: Final = 30.0
"""How long somebody waits who is to finish off a run that another process is at."""

_CLAIM_POLL: Final = 0.01

_LINKS_UNSUPPORTED = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

SYNC_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What a file system says that cannot sync a file or a directory."""

_ABSENT: Final = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
        *(errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG, errno.EILSEQ),
    )
)
"""What the system says where no regular file is."""


def check_relative(name: str) -> None:
    """Refuse a path that a run must not name.

    Args:
        name: Path inside a run, `/`-separated.

    Raises:
        UnsafePathError: If it is absolute, has an empty, `.` or `..` segment, or a character
            outside `A-Z a-z 0-9 . _ -`.
    """
    for segment in name.split("/"):
        if not _SEGMENT.match(segment):
            message = (
                f"{name!r} is not a path inside a run: each segment must match "
                "[A-Za-z0-9._-]{1,128} and not begin with '.' or '-'"
            )
            raise UnsafePathError(message)


def is_refusal(error: Exception) -> TypeGuard[OSError]:
    """Tell whether the file system refuses to show a file that is there.

    It may show it another time, so it is neither absent nor damaged. The libraries raise the same
    class over damaged content, but without the number of an error, or with one below zero.
    """
    number = error.errno if isinstance(error, OSError) else None
    return number is not None and number > 0 and number not in _ABSENT


def is_hidden(error: Exception) -> bool:
    """Tell whether that is so for another reason than permission, where runs are looked for.

    What this user may not see is none of his runs.
    """
    return is_refusal(error) and not isinstance(error, PermissionError)


def raise_refusal(error: Exception, name: str | None = None) -> None:
    """Raise an error again if that is what it says, with the name of the file if it has none."""
    if is_refusal(error):
        error.filename = error.filename or name
        raise error


def raise_hdf5_refusal(error: Exception, name: str | None = None) -> None:
    """Raise the error of the system that stands behind one of HDF5, if that is a refusal.

    HDF5 mostly tells its number in words, and not always in an `OSError`.
    """
    raise_refusal(error, name)
    if said := _HDF5_NUMBER.search(str(error)):
        number = int(said[1])
        raise_refusal(OSError(number, os.strerror(number)), name)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, going on after a short write.

    Raises:
        OSError: If the file system refuses.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def let_go(descriptor: int) -> None:
    """Close a descriptor that was read from, or synced: what closing says then means nothing."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


class Directory:
    """An open directory; all names are relative to it.

    Attributes:
        path: Where it was when it was opened.
        fd: Descriptor of the directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a directory.

        Raises:
            NotARunError: If there is none at `path`.
        """
        self.path = Path(path)
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            message = f"{self.path} is not a directory; give the path of a run"
            raise NotARunError(errno.ENOENT, message, str(self.path)) from None

    def close(self) -> None:
        """Close the descriptor; calling it again does nothing."""
        if self.fd >= 0:
            descriptor, self.fd = self.fd, -1
            let_go(descriptor)

    def __del__(self) -> None:
        """Close the descriptor with its owner."""
        with contextlib.suppress(AttributeError, OSError):
            self.close()

    def __enter__(self) -> Self:
        """Return the directory itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the descriptor."""
        self.close()

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep others of this machine from finishing off the same run, for a `with` block.

        Nothing rests on it but that two of them do not undo each other's work. The system lets the
        claim of a process go when it dies; a file system that has no locks has no claims.

        Raises:
            RunIsLiveError: If somebody else does not come to an end.
        """
        until = time.monotonic() + CLAIM_SECONDS
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    message = (
                        f"{self.path} is being sealed, packed, mended or resumed by another "
                        "process; try again when that has ended"
                    )
                    raise RunIsLiveError(message) from None
                time.sleep(_CLAIM_POLL)
                continue
            except OSError:
                yield
                return
            try:
                yield
            finally:
                if self.fd >= 0:
                    fcntl.flock(self.fd, fcntl.LOCK_UN)
            return

    def is_at(self, path: Path) -> bool:
        """Tell whether this is the directory at a path."""
        try:
            return os.path.samestat(os.fstat(self.fd), os.stat(path))
        except OSError:
            return False

    def is_deleted(self, path: Path) -> bool:
        """Tell whether the directory has no name any more.

        Some file systems do not count the links; there, only the path can tell.
        """
        return os.fstat(self.fd).st_nlink == 0 and not self.is_at(path)

    def names(self) -> list[str]:
        """Return the entries that are not scratch, in byte order."""
        return sorted(name for name in os.listdir(self.fd) if not name.startswith(SCRATCH))

    def scratch(self) -> list[str]:
        """Return the entries that are scratch: left by a writer or a seal that was killed."""
        return sorted(name for name in os.listdir(self.fd) if name.startswith(SCRATCH))

    def create(self, name: str, *, append: bool = False) -> int:
        """Create a file that must not exist, and return its descriptor (mode 0666 less umask).

        Raises:
            FileExistsError: If the name is taken.
            OSError: If the file system refuses.
        """
        access = os.O_RDWR | os.O_APPEND if append else os.O_RDWR
        return os.open(name, _CREATE | access, 0o666, dir_fd=self.fd)

    def append(self, name: str, data: bytes) -> int:
        """Append to a log, which is made if it is missing; return its size then.

        Raises:
            UnsafePathError: If it is a link or a special file.
            OSError: If the file system refuses.
        """
        try:
            descriptor = self.create(name, append=True)
        except FileExistsError:
            descriptor = self.open(name, os.O_WRONLY | os.O_APPEND)
        try:
            write_all(descriptor, data)
            return os.fstat(descriptor).st_size
        finally:
            let_go(descriptor)

    def open(self, name: str, access: int = os.O_RDONLY) -> int:
        """Open a regular file and return its descriptor.

        Args:
            name: Path inside the run.
            access: Flags for something other than reading.

        Raises:
            UnsafePathError: If the path leaves the run, or a part of it is a link or no file.
            FileNotFoundError: If there is none.
        """
        check_relative(name)
        *folders, last = name.split("/")
        parent = self.fd
        opened: list[int] = []
        try:
            for folder in folders:
                parent = os.open(folder, _OPEN | os.O_DIRECTORY, dir_fd=parent)
                opened.append(parent)
            descriptor = os.open(last, _OPEN | access, dir_fd=parent)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.EMLINK, errno.ENXIO}:
                message = f"{name} in {self.path} is a link or a special file; it is not followed"
                raise UnsafePathError(message) from None
            raise
        finally:
            for folder_descriptor in opened:
                let_go(folder_descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            let_go(descriptor)
            message = f"{name} in {self.path} is not a regular file; it is not read"
            raise UnsafePathError(message)
        return descriptor

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of a file.

        Args:
            name: Path inside the run.
            limit: Most bytes that are accepted.

        Raises:
            LimitError: If the file is larger.
            UnsafePathError: If it is a link or a special file.
            FileNotFoundError: If there is none.
        """
        with self.reading(name) as descriptor:
            if os.fstat(descriptor).st_size > limit:
                message = f"{name} in {self.path} is larger than {limit:,} bytes; raise the limit"
                raise LimitError(message)
            parts = []
            while part := os.read(descriptor, _BLOCK):
                parts.append(part)
            return b"".join(parts)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[int]:
        """Open a regular file for the length of a `with` block; an error of reading names it."""
        descriptor = self.open(name)
        try:
            yield descriptor
        except OSError as error:
            raise_refusal(error, name)
            raise
        finally:
            let_go(descriptor)

    def size(self, name: str) -> int | None:
        """Return the size of a regular file in bytes, or None where there is none."""
        if "/" in name:
            try:
                with self.reading(name) as descriptor:
                    return os.fstat(descriptor).st_size
            except (OSError, UnsafePathError):
                return None
        try:
            status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def replace(self, name: str, data: bytes) -> None:
        """Put a file in place of another, durable and whole, whenever the process dies.

        Raises:
            OSError: If the file system refuses; the old file is then untouched.
        """
        temporary = f"{SCRATCH}{name}-{secrets.token_hex(4)}"
        descriptor = self.create(temporary)
        close: Callable[[int], None] = os.close
        try:
            try:
                write_all(descriptor, data)
                if sync_file(descriptor):
                    close = let_go
            finally:
                close(descriptor)
            self.rename(temporary, name)
        except OSError:
            self.remove(temporary)
            raise
        self.sync()

    def subfolder(self, name: str) -> Directory:
        """Open a folder inside, links not followed; it is made if it is missing.

        Raises:
            OSError: If the file system refuses, or the name is that of something else.
        """
        try:
            os.mkdir(name, dir_fd=self.fd)
        except FileExistsError:
            pass
        else:
            self.sync()
        folder = object.__new__(Directory)
        folder.path = self.path / name
        folder.fd = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=self.fd)
        return folder

    def settle(self, scratch: str, stem: str, suffix: str) -> str:
        """Give a file that is whole a name that nobody else has, and return it.

        It is `stem` and `suffix`, with `-2`, `-3`, … between them when that is taken.

        Raises:
            OSError: If the file system refuses.
        """
        number = 1
        while True:
            name = f"{stem}{f'-{number}' if number > 1 else ''}{suffix}"
            number += 1
            try:
                os.link(scratch, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno not in _LINKS_UNSUPPORTED:
                    raise
                # A file system without hard links: the name is claimed, and then replaced.
                try:
                    os.close(self.create(name))
                except FileExistsError:
                    continue
                self.rename(scratch, name)
                return name
            self.remove(scratch)
            return name

    def link(self, source: str | os.PathLike[str], name: str) -> bool:
        """Give a file elsewhere a name here too; tell whether the file system can do that."""
        try:
            os.link(source, name, dst_dir_fd=self.fd)
        except OSError as error:
            if error.errno in {errno.EXDEV, errno.EMLINK, *_LINKS_UNSUPPORTED}:
                return False
            raise
        return True

    def rename(self, old: str, new: str) -> None:
        """Rename inside the directory; the new name is replaced if it exists."""
        os.rename(old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def set_aside(self, name: str) -> str:
        """Give a file that cannot be used a name that is free, and return that.

        Raises:
            OSError: If the file system refuses.
        """
        taken = set(self.names())
        free = next(new for number in count(1) if (new := f"{name}.damaged-{number}") not in taken)
        self.rename(name, free)
        self.sync()
        return free

    def remove(self, name: str) -> None:
        """Remove a file if it is there; a folder of scratch goes with its content."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except (IsADirectoryError, PermissionError):
            if not self._is_folder(name):
                raise
            folder = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=self.fd)
            try:
                inside = os.listdir(folder)
            finally:
                let_go(folder)
            for entry in inside:
                self.remove(f"{name}/{entry}")
            os.rmdir(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass

    def _is_folder(self, name: str) -> bool:
        """Tell whether a name is that of a folder, links not followed."""
        return stat.S_ISDIR(os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode)

    def sync(self) -> None:
        """Make the names in the directory durable, where the file system can."""
        sync_file(self.fd)


def sync_file(descriptor: int) -> bool:
    """Make a file or directory durable; tell whether the file system can do that.

    Raises:
        OSError: If it can, and failed.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in SYNC_UNSUPPORTED:
            raise
        return False
    return True
