"""A disk in user space that remembers each write, flush and mark, and can go back to any moment.

    python -m tests.torture.disk IMAGE LOG FOLDER

serves an image as the file `disk` of a folder, to be attached as a loop device. What is written to
its other file, `control`, is a command in JSON: `{"mark": TEXT}` remembers that something was
acknowledged, and `{"cut": N, "mode": MODE, "seed": N}` makes the disk what it may be if power is
lost before the N-th entry of the log. The image itself is never changed.

Modes: all writes before the cut arrived (`prefix`); of those after the last flush each did or did
not (`drop`), or each block of 4 KiB of them (`tear`).
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
import stat
import sys
from pathlib import Path
from typing import Any, Final

import mfusepy as fuse

from tests.torture.writes import (
    FLUSHED,
    MARKED,
    WROTE,
    ZEROED,
    Entry,
    read_log,
    write_entry,
)

BLOCK: Final = 4096


class Disk(fuse.Operations):  # type: ignore[misc]
    """The folder with the disk."""

    use_ns = True

    def __init__(self, image: Path, log: Path) -> None:
        """Map the image; what is written stays in memory."""
        with image.open("rb") as file:
            self._disk = mmap.mmap(
                file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
        self._path = log
        self._log = log.open("ab", buffering=0)
        self._entries: list[Entry] | None = None

    def _note(self, kind: int, offset: int, data: bytes) -> None:
        if self._entries is None:
            self._log.write(write_entry(kind, offset, data))

    def _command(self, command: dict[str, Any]) -> None:
        if "mark" in command:
            self._note(MARKED, 0, command["mark"].encode())
            return
        if self._entries is None:
            self._entries = read_log(self._path)
        self._disk.madvise(mmap.MADV_DONTNEED)
        entries = self._entries[: command["cut"]]
        settled = max((at for at, entry in enumerate(entries) if entry[0] == FLUSHED), default=0)
        chance = random.Random(command["seed"])
        for at, (kind, offset, data) in enumerate(entries):
            doubtful = at > settled and command["mode"] != "prefix"
            if kind == ZEROED:
                self._disk[offset : offset + int(data)] = bytes(int(data))
            elif kind == WROTE and doubtful and command["mode"] == "tear":
                for begin in range(0, len(data), BLOCK):
                    if chance.random() < 0.5:
                        part = data[begin : begin + BLOCK]
                        self._disk[offset + begin : offset + begin + len(part)] = part
            elif kind == WROTE and not (doubtful and chance.random() < 0.5):
                self._disk[offset : offset + len(data)] = data

    # -- what the kernel asks

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return the attributes of the folder and its two files."""
        del fh
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        if path not in {"/disk", "/control"}:
            raise fuse.FuseOSError(errno.ENOENT)
        size = len(self._disk) if path == "/disk" else 0
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}

    def open(self, path: str, flags: int) -> int:
        """Open either file."""
        del path, flags
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Read the disk."""
        del fh
        return bytes(self._disk[offset : offset + size]) if path == "/disk" else b""

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Write the disk, or take a command."""
        del fh
        if path == "/control":
            self._command(json.loads(data))
        else:
            self._disk[offset : offset + len(data)] = data
            self._note(WROTE, offset, data)
        return len(data)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        """Remember that all before this is safe."""
        del datasync, fh
        if path == "/disk":
            self._note(FLUSHED, 0, b"")
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        """Write zeros, as a disk does that is told to forget."""
        del path, fh
        if mode & ~3:
            raise fuse.FuseOSError(errno.EOPNOTSUPP)
        if mode & 2:
            self._disk[offset : offset + size] = bytes(size)
            self._note(ZEROED, offset, str(size).encode())
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Do nothing: a disk keeps its size."""
        del path, length, fh
        return 0


if __name__ == "__main__":
    os.umask(0o077)
    image, log, folder = map(Path, sys.argv[1:])
    fuse.FUSE(Disk(image, log), str(folder), foreground=True, nothreads=True)
