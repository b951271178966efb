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
from blackboxml.model import CONFIG, MANIFEST

UNSETTLED: Final = "?"
"""Begins the state of a run that is to be read again whatever its files look like."""

_STEM: Final = "metrics"
"""What the names of journals begin with."""

_FIRST: Final = naming.journal_name(0, 0)
"""The only journal of most runs."""

_SEALED: Final = "="
"""Begins the state of a sealed run."""

_BARE: Final = "-"
"""Begins the state of a sealed run without a configuration."""

_MANIFEST: Final = f"/{MANIFEST}"
_CONFIG: Final = f"/{CONFIG}"


def files(path: str) -> list[str] | None:
    """Return the files of a run by which it is known to have changed, None if it is no run."""
    try:
        names = os.listdir(path)
    except OSError:
        return None
    journals = [
        name
        for name in names
        if name == _FIRST
        or (name.startswith(_STEM) and naming.parse_journal_name(name) is not None)
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
    numbers = [*parts[0].split(" "), *parts[-2].split(" ")[1:], *parts[-1].split(" ")[1:]]
    try:
        if parts[-1].endswith(" - - 0"):
            return f"{_BARE}{hash(tuple(map(int, numbers[:5])))}"
        return f"{_SEALED}{hash(tuple(map(int, numbers)))}"
    except ValueError:  # it went away
        return UNSETTLED


def is_unchanged(path: str, known: str) -> bool:
    """Tell whether a run is what it was; False also where it cannot be told."""
    kind = known[0]
    if kind not in {_SEALED, _BARE}:
        parts = known.split("|")
        names = [part.split(" ", 1)[0] for part in parts[1:]]
        return kind != UNSETTLED and parts[0] == _stamp(path) and known == state(path, names)
    try:
        d, m = os.lstat(path), os.lstat(path + _MANIFEST)
        if kind == _BARE:
            numbers = d.st_ino, d.st_mtime_ns, m.st_ino, m.st_size, m.st_mtime_ns
            return known == f"{_BARE}{hash(numbers)}"
        c = os.lstat(path + _CONFIG)
    except OSError:
        return False
    own = d.st_ino, d.st_mtime_ns, m.st_ino, m.st_size, m.st_mtime_ns
    return known == f"{_SEALED}{hash((*own, c.st_ino, c.st_size, c.st_mtime_ns))}"


def first_file(known: str) -> list[str]:
    """Return name and inode of the first file of a state, which is a journal if there is one."""
    parts = known.removeprefix(UNSETTLED).split("|")
    return parts[1].split(" ")[:2] if len(parts) > 1 else []


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
