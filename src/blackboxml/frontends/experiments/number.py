"""The numbers of runs in an experiment: 1, 2, 3, …, each given once, by any number of processes.

A number is claimed by creating a file of that name, which fails if it is there. The run says its
number in its manifest; the files only tell which number comes next. A run that says none, because
something else recorded it, or one that was copied into the experiment, has a number that follows
from its id, above all others.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from blackboxml.config import decode_config
from blackboxml.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from blackboxml.collection.entry import Entry

EXTENSION: Final = "org.blackboxml.experiment"
"""The member of a manifest's `extensions` that holds the number, as `run`."""

FOLDER: Final = ".numbers"
_KEPT: Final = 100
_DERIVED: Final = 2**31
"""From here on numbers follow from ids; they stay below 2^32, which every language counts to."""


def claim(experiment: Path, greatest: Callable[[], int]) -> int:
    """Return the next number of an experiment, which nobody else gets.

    Args:
        experiment: The folder.
        greatest: Returns the greatest number that a run has, should no file tell.

    Raises:
        OSError: If the file system refuses.
    """
    folder = experiment / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        claimed = _claimed(folder)
        number = max(claimed, default=greatest() if not claimed else 0) + 1
        try:
            os.close(os.open(folder / str(number), os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        except FileExistsError:
            continue
        claimed = _claimed(folder)
        if max(claimed, default=number) > number + _KEPT:  # it may have been given and forgotten
            _forget(folder, number)
            continue
        for old in claimed:
            if old < number - _KEPT:
                _forget(folder, old)
        return number


def _claimed(folder: Path) -> list[int]:
    """Return the numbers of which there is a file."""
    return [int(name) for name in os.listdir(folder) if name.isdecimal()]


def _forget(folder: Path, number: int) -> None:
    """Remove the file of a number."""
    with suppress(OSError):
        (folder / str(number)).unlink()


def assign(entries: Iterable[Entry]) -> dict[int, Entry]:
    """Return runs by their numbers; of two that say the same, the older one has it."""
    found: dict[int, Entry] = {}
    others = []
    for entry in sorted(entries, key=lambda each: (each.start or 0.0, str(each.path))):
        said = _said(entry)
        if said is None or said in found:
            others.append(entry)
        else:
            found[said] = entry
    for entry in others:
        number = derive(entry.id or "0")
        while number in found:
            number += 1
        found[number] = entry
    return found


def derive(run_id: str) -> int:
    """Return the number of a run that says none."""
    return _DERIVED + int(run_id[:8], 16) % _DERIVED


def _said(entry: Entry) -> int | None:
    """Return the number that a run says it has, or had in a database that it was imported from."""
    for key, member in entry.extensions.items():
        said = member if isinstance(member, dict) else {}
        number: Any = said.get("run") if key == EXTENSION else None
        if said.get("format") == "simplegrad" and isinstance(said.get("extra"), dict):
            with suppress(ConfigError):
                number = decode_config(said["extra"]).get("run_id")
        if type(number) is int and 0 < number < _DERIVED:
            return number
    return None
