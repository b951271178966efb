"""A folder as a client of NFS shows it: with old attributes, and with writes that come later.

    python -m tests.torture.client SERVER FOLDER OPTIONS

serves the folder SERVER as FOLDER. Options, in JSON: `attributes`, for how many seconds sizes,
times and names are taken for what they were, also that a name is not there; `writes`, after how
many seconds at most what was written reaches the server, unless it is synced or the file closed;
`skew`, by how many seconds the clock of the server is ahead of ours.

As in NFS, opening a file asks the server for its attributes (close to open), and making, renaming
and removing names is done by the server at once. A process that is killed loses nothing: its
machine lives.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import mfusepy as fuse

_STEP: Final = 0.02
_KEYS: Final = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
_TIMES: Final = ("st_atime", "st_mtime", "st_ctime")


Entry = tuple[str, dict[str, int], int]
"""A name, what kind of thing has it, and no offset."""


def _entry(found: os.DirEntry[str]) -> Entry:
    kind = stat.S_IFDIR if found.is_dir(follow_symlinks=False) else stat.S_IFREG
    return found.name, {"st_ino": found.inode(), "st_mode": kind}, 0


@dataclass(slots=True)
class Open:
    """A file that is open.

    Attributes:
        path: Where it was opened.
        fd: On the server.
        appends: Whether each write goes to its end.
        waiting: What was written and has not reached the server: offset and data.
        since: When the oldest of it was written.
    """

    path: str
    fd: int
    appends: bool
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    since: float = 0.0

    @property
    def end(self) -> int:
        """Where the file ends for this client, by what it has written itself."""
        return max((offset + len(data) for offset, data in self.waiting), default=0)


class Client(fuse.Operations):  # type: ignore[misc]
    """One client of the server."""

    use_ns = True

    def __init__(
        self, server: str, attributes: float = 0.0, writes: float = 0.0, skew: float = 0.0
    ) -> None:
        """Connect."""
        self._server = server
        self._attributes, self._writes, self._skew = attributes, writes, skew
        self._lock = threading.RLock()
        self._known: dict[str, tuple[float, dict[str, Any] | None]] = {}
        self._listed: dict[str, tuple[float, list[Entry]]] = {}
        self._open: dict[int, Open] = {}
        self._next = 1

    def init(self, path: str) -> None:
        """Begin to send what was written."""
        del path
        threading.Thread(target=self._send, daemon=True).start()

    def _send(self) -> None:
        while True:
            time.sleep(_STEP)
            with self._lock:
                for handle in self._open.values():
                    if handle.waiting and time.monotonic() - handle.since >= self._writes:
                        self._deliver(handle)

    def _deliver(self, handle: Open) -> None:
        waiting, handle.waiting = handle.waiting, []
        for offset, data in waiting:
            os.pwrite(handle.fd, data, offset)
        if waiting:
            self._ask(handle.path)

    def _at(self, path: str) -> str:
        return self._server + path

    def _forget(self, *paths: str) -> None:
        """Ask again for what this client has changed itself."""
        for path in paths:
            self._known.pop(path, None)
            self._listed.pop(str(Path(path).parent), None)

    # -- attributes and names

    def _ask(self, path: str) -> dict[str, Any] | None:
        try:
            said = os.lstat(self._at(path))
        except FileNotFoundError:
            found = None
        else:
            found = {key: getattr(said, key) for key in _KEYS}
            skew = int(self._skew * 1e9)
            found |= {key: getattr(said, f"{key}_ns") + skew for key in _TIMES}
        self._known[path] = (time.monotonic() + self._attributes, found)
        return found

    def _attribute(self, path: str) -> dict[str, Any]:
        until, found = self._known.get(path, (0.0, None))
        if time.monotonic() >= until:
            found = self._ask(path)
        if found is None:
            raise fuse.FuseOSError(errno.ENOENT)
        ends = [each.end for each in self._open.values() if each.path == path]
        return found | {"st_size": max([found["st_size"], *ends])}

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return what was known a while ago."""
        del fh
        with self._lock:
            return self._attribute(path)

    def readdir(self, path: str, fh: int) -> list[Entry]:
        """Return the names that were there a while ago."""
        del fh
        with self._lock:
            until, names = self._listed.get(path, (0.0, []))
            if time.monotonic() >= until:
                with os.scandir(self._at(path)) as found:
                    names = [_entry(each) for each in found]
                self._listed[path] = (time.monotonic() + self._attributes, names)
            return names

    # -- files

    def open(self, path: str, flags: int) -> int:
        """Open a file, with the attributes that the server has now."""
        with self._lock:
            self._ask(path)
            return self._opened(path, flags & ~(os.O_CREAT | os.O_EXCL))

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        """Make a file that nobody else has made."""
        del fi
        with self._lock:
            self._forget(path)
            return self._opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def _opened(self, path: str, flags: int, mode: int = 0o600) -> int:
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        plain = (flags & (os.O_CREAT | os.O_EXCL | os.O_TRUNC)) | (os.O_RDWR if writes else 0)
        handle, self._next = self._next, self._next + 1
        fd = os.open(self._at(path), plain | os.O_NOFOLLOW, mode)
        self._open[handle] = Open(path, fd, bool(flags & os.O_APPEND))
        return handle

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Read as much as there was a while ago, and what this client has written itself."""
        with self._lock:
            for each in self._open.values():
                if each.path == path and each.waiting:
                    self._deliver(each)
                    self._ask(path)
            try:
                end = self._attribute(path)["st_size"]
            except fuse.FuseOSError:  # removed, and open all the same
                end = os.fstat(self._open[fh].fd).st_size
            return os.pread(self._open[fh].fd, max(0, min(size, end - offset)), offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Take what is to be written; the server has it later."""
        del path
        with self._lock:
            handle = self._open[fh]
            if handle.appends:  # to the end as this client sees it, who alone writes the file
                offset = max(os.fstat(handle.fd).st_size, handle.end)
            if not handle.waiting:
                handle.since = time.monotonic()
            handle.waiting.append((offset, bytes(data)))
            return len(data)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        """Send what was written."""
        del datasync
        return self.flush(path, fh)

    def flush(self, path: str, fh: int) -> int:
        """Send what was written; closing does so, too."""
        with self._lock:
            if fh in self._open:
                self._deliver(self._open[fh])
                self._ask(path)
        return 0

    def release(self, path: str, fh: int) -> int:
        """Close a file."""
        self.flush(path, fh)
        with self._lock:
            os.close(self._open.pop(fh).fd)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Cut a file."""
        del fh
        with self._lock:
            self._forget(path)
            os.truncate(self._at(path), length)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """Set the times of a file, by the clock of the server if none are given."""
        with self._lock:
            self._forget(path)
            os.utime(self._at(path), ns=times)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        """Set the mode of a file."""
        with self._lock:
            self._forget(path)
            os.chmod(self._at(path), stat.S_IMODE(mode))
        return 0

    # -- names, which the server makes, renames and removes at once

    def mkdir(self, path: str, mode: int) -> int:
        """Make a folder."""
        with self._lock:
            self._forget(path)
            os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        """Remove a folder."""
        with self._lock:
            self._forget(path)
            os.rmdir(self._at(path))
        return 0

    def unlink(self, path: str) -> int:
        """Remove a file."""
        with self._lock:
            self._forget(path)
            os.unlink(self._at(path))
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        """Rename a file over another."""
        del flags
        with self._lock:
            self._forget(old, new)
            for handle in self._open.values():
                if handle.path == old:
                    self._deliver(handle)
                    handle.path = new
            os.rename(self._at(old), self._at(new))
        return 0

    def link(self, target: str, source: str) -> int:
        """Give a file another name."""
        with self._lock:
            self._forget(target, source)
            os.link(self._at(source), self._at(target))
        return 0


if __name__ == "__main__":
    os.umask(0o022)
    fuse.FUSE(
        Client(sys.argv[1], **json.loads(sys.argv[3])),
        sys.argv[2],
        foreground=True,
        nothreads=True,
        direct_io=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
        use_ino=True,
    )
