"""The directory of a run that is being written, and the documents in it that are replaced.

It is claimed when the file system lets it be, which may be later than the first record. A document
that cannot be written is owed, warned of once, and written when that works again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from blackboxml.base.files import Directory
from blackboxml.errors import NotARunError, WriteError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("blackboxml")


class Documents:
    """Replaces the documents of a run.

    Attributes:
        path: The run directory; it changes when the name is taken, or the directory is moved.
        owed: What could not be written yet, by name.
        lock: Held while documents change. Reentrant, as the handler of a signal may end a run that
            is writing one.
    """

    def __init__(
        self,
        path: Path,
        directory: Directory | None,
        may_warn: Callable[[], bool],
        *,
        strict: bool,
    ) -> None:
        """Prepare.

        Args:
            path: The run directory.
            directory: It, opened; None to claim `path` where there is nothing yet.
            may_warn: Tells whether nobody else says that the file system refuses.
            strict: Raise `WriteError` where the default is to warn and go on.
        """
        self.path = path
        self.owed: dict[str, bytes] = {}
        self.lock = threading.RLock()
        self._directory = directory
        self._claimed = directory is not None
        self._may_warn = may_warn
        self._strict = strict
        self._warned = False

    def open(self) -> Directory:
        """Return the run directory; claim it the first time that the file system works.

        Raises:
            OSError: If the file system refuses.
        """
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

    def close(self) -> None:
        """Close the directory; calling it again does nothing."""
        with self.lock:
            if self._directory is not None:
                self._directory.close()

    def follow(self) -> None:
        """Find out where the directory is now, if it was moved and the system tells."""
        directory = self._directory
        if directory is None or directory.is_at(self.path):
            return
        with contextlib.suppress(OSError):
            moved = Path(os.readlink(f"/proc/self/fd/{directory.fd}"))
            if directory.is_at(moved):
                self.path = directory.path = moved

    def names(self) -> list[str]:
        """Return the entries of the directory; none where it is not there yet."""
        return [] if self._directory is None else self._directory.names()

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a document, or None where there is none.

        Raises:
            OSError: If the file system refuses to show it.
            LimitError: If it is longer.
            UnsafePathError: If it is no regular file.
        """
        if name in self.owed:
            return self.owed[name]
        if self._directory is None:
            return None
        try:
            return self._directory.read(name, limit)
        except FileNotFoundError:
            return None

    def set_aside(self, name: str) -> str:
        """Give a document that cannot be used a name that is free, and return that.

        Raises:
            OSError: If the file system refuses.
        """
        with self.lock:
            return self.open().set_aside(name)

    def replace(self, name: str, data: bytes) -> None:
        """Replace a document; what the file system refuses is owed, and warned of once.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self.lock:
            self.owed[name] = data
            try:
                if self._directory is None:
                    raise FileNotFoundError(errno.ENOENT, "there is no run directory")
                self._directory.replace(name, data)
                self.owed.pop(name, None)
            except OSError as error:
                message = f"cannot write {self.path / name}: {error.strerror or error}"
                if self._strict:
                    raise WriteError(error.errno or errno.EIO, message, str(self.path)) from None
                if not self._warned and self._may_warn():
                    self._warned = True
                    logger.warning("%s; it is tried again while training goes on", message)

    def remove(self, name: str) -> None:
        """Remove a document, if the file system lets it."""
        if self._directory is not None:
            with contextlib.suppress(OSError):
                self._directory.remove(name)

    def pay(self) -> None:
        """Write the documents that are owed."""
        with self.lock:
            for name, data in list(self.owed.items()):
                self.replace(name, data)


def _claim(path: Path) -> Path:
    """Make a run directory that nobody else has, durably, and return it."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.name}_{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            number += 1
        else:
            break
    for folder in {path.parent, *(each.parent for each in missing)}:
        # A disk that fails here will fail the journal, too.
        with contextlib.suppress(OSError), Directory(folder) as directory:
            directory.sync()
    return candidate


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path that stays right when the process changes its working directory."""
    try:
        return Path(path).absolute()
    except FileNotFoundError:  # the working directory was deleted
        return Path(path)
