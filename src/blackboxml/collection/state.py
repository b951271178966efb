"""The files of a run as they were when it was read: if they are so again, nothing changed.

A state is text: inode and time of the directory, then `name inode size time` of each file, with `|`
between them. The time of a directory changes with the names in it, so equal times prove that it has
the files it had.

Of a sealed run only the directory, the manifest and the configuration are looked at, and the state
is a hash of these numbers, as there may be very many. Its journals are trusted: nobody opens a
journal again, and one that is added, replaced or removed shows in the time of the directory. The
two documents are replaced by renaming, which shows there too, except by people: an editor may write
into a file.
"""

from __future__ import annotations

import os
from typing import Final

from blackboxml.base import naming
from blackboxml.collection.fingerprint import fingerprint
from blackboxml.collection.listing import names_in
from blackboxml.model import CONFIG, MANIFEST

UNSETTLED: Final = "?"
"""Begins the state of a run that is to be read again whatever its files look like."""

_STEM: Final = "metrics"
"""What the names of journals begin with."""

_FIRST: Final = naming.journal_name(0, 0)
"""The only journal of most runs."""

SEALED: Final = "="
"""Begins the state of a sealed run."""

_BARE: Final = "-"
"""Begins the state of a sealed run without a configuration."""

_FOLDER: Final = "{} {}"
_NO_FOLDER: Final = "- 0"
_DOCUMENTS: Final = frozenset([MANIFEST, CONFIG])


class Look:
    """The files of a run as they are now.

    Attributes:
        folder: Inode and time of the directory; empty if it is gone.
        files: By name inode, size and time, empty of one that is missing: the journals in order,
            the manifest, and the configuration.
    """

    __slots__ = ("files", "folder")

    def __init__(self, path: str, names: list[str]) -> None:
        """Look at a run directory, and at files of it."""
        self.folder = _stamp(path)
        self.files: dict[str, tuple[int, ...]] = {}
        for name in names:
            try:
                found = os.lstat(f"{path}/{name}")
            except OSError:
                self.files[name] = ()
            else:
                self.files[name] = found.st_ino, found.st_size, found.st_mtime_ns

    def state(self) -> str:
        """Return the state of the run."""
        parts = [_FOLDER.format(*self.folder) if self.folder else _NO_FOLDER]
        for name, numbers in self.files.items():
            parts.append(f"{name} {' '.join(map(str, numbers)) or '- - 0'}")
        return "|".join(parts)

    def sealed(self) -> str:
        """Return the state of the run if its journals are trusted."""
        manifest, config = self.files[MANIFEST], self.files[CONFIG]
        if not self.folder or not manifest:  # it went away
            return UNSETTLED
        kind = SEALED if config else _BARE
        return f"{kind}{hash((*self.folder, *manifest, *config))}"

    def journal_sizes(self) -> dict[str, int]:
        """Return the sizes of the journals by name."""
        return {
            name: numbers[1]
            for name, numbers in self.files.items()
            if numbers and name not in _DOCUMENTS
        }

    def newest(self) -> int:
        """Return the latest time of change, in nanoseconds."""
        return max((each[-1] for each in (self.folder, *self.files.values()) if each), default=0)

    def goes_on(self, known: str) -> bool:
        """Tell whether the first file, which is a journal if there is one, is that of a state."""
        name, numbers = next(iter(self.files.items()))
        _, _, files = known.partition("|")
        return bool(numbers) and files.startswith(f"{name} {numbers[0]} ")


def look(path: str) -> Look | None:
    """Look at the files of a run by which it is known to have changed, None if it is no run.

    Raises:
        OSError: If the directory is hidden.
    """
    names = names_in(path)
    journals = [
        name
        for name in names
        if name == _FIRST
        or (name.startswith(_STEM) and naming.parse_journal_name(name) is not None)
    ]
    if MANIFEST not in names and not journals:
        return None
    return Look(path, [*sorted(journals), MANIFEST, CONFIG])


def is_unchanged(path: str, known: str) -> bool:
    """Tell whether a run is what it was; False also where it cannot be told."""
    kind = known[0]
    if kind == SEALED:  # nearly all are
        try:
            return known == f"{SEALED}{fingerprint(path)}"
        except OSError:
            return False
    if kind == UNSETTLED:
        return False
    if kind == _BARE:
        return known == Look(path, [MANIFEST, CONFIG]).sealed()
    folder, *parts = known.split("|")
    stamp = _stamp(path)
    if not stamp or folder != _FOLDER.format(*stamp):
        return False
    return known == Look(path, [part.split(" ", 1)[0] for part in parts]).state()


def _stamp(path: str) -> tuple[int, ...]:
    """Return inode and time of a directory, nothing if it is gone."""
    try:
        found = os.lstat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns
