"""A folder for people to look into: nothing that others put there is lost."""

from __future__ import annotations

import contextlib
import filecmp
import secrets
import shutil
from itertools import count
from typing import TYPE_CHECKING

from blackboxml.base.naming import sanitise
from blackboxml.model import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

State = tuple[int, int]


class Place:
    """Files appear whole. One that is in the way and not ours is kept beside, as `report~1.md`.

    Attributes:
        root: The folder.
        written: Paths in it, in the order in which they were written.
        kept: What was in the way, by the name that it has now.
    """

    def __init__(self, root: Path, own: dict[Path, State]) -> None:
        """Begin.

        Args:
            root: The folder; made with the first file.
            own: What this process wrote earlier, and how it left it; grows.
        """
        self.root = root
        self.written: list[str] = []
        self.kept: dict[str, str] = {}
        self._own = own

    def put(self, name: str, write: Callable[[Path], object]) -> Path:
        """Write a file.

        Args:
            name: Its path, relative and with `/`.
            write: Writes the path that it is given, of the same extension.

        Raises:
            OSError: If the file system refuses.
        """
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{SCRATCH}{secrets.token_hex(8)}{path.suffix}")
        try:
            write(scratch)
            self._settle(scratch, path)
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink()
        if name not in self.written:
            self.written.append(name)
        return path

    def put_text(self, name: str, text: str) -> Path:
        """Write a text.

        Raises:
            OSError: If the file system refuses.
        """
        return self.put(name, lambda path: path.write_text(text, "utf-8", errors="replace"))

    def copy(self, source: Path, name: str | None = None) -> Path | None:
        """Copy a file that is there, unless it is where it would be copied to.

        Raises:
            OSError: If the file system refuses.
        """
        name = name or source.name
        path = self.root / name
        if not source.is_file():
            return None
        if path.exists() and path.samefile(source):
            if name not in self.written:
                self.written.append(name)
            return path
        return self.put(name, lambda scratch: shutil.copyfile(source, scratch))

    def is_own(self, name: str) -> bool:
        """Tell whether a file is as this process left it."""
        path = self.root / name
        return path in self._own and path.exists() and self._own[path] == _state(path)

    def _settle(self, scratch: Path, path: Path) -> None:
        """Give a file its name; another one of that name gets a new one."""
        if path.exists() and self._own.get(path) != _state(path):
            if path.is_file() and filecmp.cmp(scratch, path, shallow=False):
                self._own[path] = _state(path)
                return
            aside = next(
                each
                for number in count(1)
                if not (each := path.with_name(f"{path.stem}~{number}{path.suffix}")).exists()
            )
            path.rename(aside)
            self.kept[aside.relative_to(self.root).as_posix()] = path.name
        scratch.replace(path)
        self._own[path] = _state(path)


def _state(path: Path) -> State:
    """Return what tells whether a file was changed since."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def file_names(names: Iterable[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Return a file name, without extension, for each name; no two are equal, even without case.

    >>> file_names(["loss", "head/loss", "head_loss"])
    {'loss': 'loss', 'head/loss': 'head_loss', 'head_loss': 'head_loss_2'}
    """
    found: dict[str, str] = {}
    taken = {each.casefold() for each in reserved}
    for name in names:
        stem = sanitise(name) or "_"
        own = next(
            each
            for number in count(1)
            if (each := stem if number == 1 else f"{stem}_{number}").casefold() not in taken
        )
        taken.add(own.casefold())
        found[name] = own
    return found
