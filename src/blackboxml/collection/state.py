"""The files of a run as they were when it was read: if they are so again, nothing changed.

A state is text: inode and time of the directory, then `name inode size time` of each file, with `|`
between them. The time of a directory changes with the names in it, so equal times prove that it has
the files it had.

Of a sealed run only the manifest and the configuration are looked at. Its journals are trusted:
nobody opens a journal again, and one that is added, replaced or removed shows in the time of the
directory. The two documents are replaced by renaming, which shows there too, except by people: an
editor may write into a file.
"""

from __future__ import annotations

import os
from typing import Final

from blackboxml.base import naming
from blackboxml.model import CONFIG, MANIFEST

UNSETTLED: Final = "?"
"""Begins the state of a run that is to be read again whatever its files look like."""

_STEM: Final = "metrics"
"""What the names of journals begin with."""

_NO_CONFIG: Final = f"{CONFIG} - - 0"
_WITHOUT_JOURNALS: Final = 2
"""How many `|` the state has of a run of which no journal is looked at."""


def files(path: str) -> list[str] | None:
    """Return the files of a run by which it is known to have changed, None if it is no run."""
    try:
        names = os.listdir(path)
    except OSError:
        return None
    journals = [
        name
        for name in names
        if name.startswith(_STEM) and naming.parse_journal_name(name) is not None
    ]
    if MANIFEST not in names and not journals:
        return None
    return [*sorted(journals), MANIFEST, CONFIG]


def state(path: str, names: list[str]) -> str:
    """Return the state of a run."""
    parts = [_stamp(path)]
    for name in names:
        try:
            found = os.lstat(f"{path}/{name}")
        except OSError:
            parts.append(f"{name} - - 0")
        else:
            parts.append(f"{name} {found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return "|".join(parts)


def sealed(known: str) -> str:
    """Return the state of a run whose journals are trusted."""
    parts = known.split("|")
    return "|".join([parts[0], *parts[-2:]])


def is_unchanged(path: str, known: str) -> bool:
    """Tell whether a run is what it was; False also where it cannot be told."""
    if known[0] == UNSETTLED:
        return False
    if known.count("|") != _WITHOUT_JOURNALS:
        parts = known.split("|")
        names = [part.split(" ", 1)[0] for part in parts[1:]]
        return parts[0] == _stamp(path) and known == state(path, names)
    try:  # of a hundred thousand runs, most are like this
        folder = os.lstat(path)
        said = os.lstat(f"{path}/{MANIFEST}")
        start = (
            f"{folder.st_ino} {folder.st_mtime_ns}"
            f"|{MANIFEST} {said.st_ino} {said.st_size} {said.st_mtime_ns}|"
        )
        if known.endswith(_NO_CONFIG):
            return known == start + _NO_CONFIG
        said = os.lstat(f"{path}/{CONFIG}")
    except OSError:
        return False
    return known == f"{start}{CONFIG} {said.st_ino} {said.st_size} {said.st_mtime_ns}"


def first_file(known: str) -> list[str]:
    """Return name and inode of the first file of a state, which is a journal if there is one."""
    return known.removeprefix(UNSETTLED).split("|")[1].split(" ")[:2]


def journal_sizes(known: str) -> dict[str, int]:
    """Return the sizes of the journals of a run by name."""
    found = (part.split(" ") for part in known.split("|")[1:-2])
    return {name: int(size) for name, _, size, _ in found if size != "-"}


def newest(known: str) -> int:
    """Return the latest time of change in a state, in nanoseconds."""
    return max(int(part.rsplit(" ", 1)[1]) for part in known.split("|"))


def _stamp(path: str) -> str:
    """Return inode and time of a directory."""
    try:
        found = os.lstat(path)
    except OSError:
        return "- 0"
    return f"{found.st_ino} {found.st_mtime_ns}"
