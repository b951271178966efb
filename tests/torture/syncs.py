"""What a power cut may leave, told from what was synced: a disk as forgetful as POSIX lets it be.

This needs no privileges, unlike `power`. While a run is written, each sync notes what it makes
durable, and what all files and folders hold at that moment. After a cut just before a sync, each of
them, by itself, is as it was when it was last synced, as it is at that moment, or, if it is a file,
somewhere between; one that was never synced may be empty.
"""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    Drawn = tuple[Path, str, int]

Content = bytes | dict[str, int]
"""What a file holds, or the names of a folder and the inodes behind them."""


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync of a file or folder.

    Attributes:
        inode: What was synced.
        content: What it held.
        around: What everything held just before.
    """

    inode: int
    content: Content
    around: dict[int, Content]


@dataclass(slots=True)
class Notes:
    """What was synced and acknowledged, in order.

    Attributes:
        folder: Where the runs are.
        entries: Syncs, and texts for what was acknowledged.
    """

    folder: Path
    entries: list[Sync | str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: list[int] = field(default_factory=list)

    def mark(self, text: str) -> None:
        """Note that something was acknowledged."""
        with self._lock:
            self.entries.append(text)

    def sync(self, descriptor: int) -> None:
        """Note what is synced."""
        with self._lock:
            self._kept.append(os.dup(descriptor))  # so that no other file gets its inode
            content = _content(f"/proc/self/fd/{descriptor}")
            around = dict(self._look(self.folder))
            self.entries.append(Sync(os.fstat(descriptor).st_ino, content, around))

    def _look(self, place: Path) -> Iterator[tuple[int, Content]]:
        """Yield what a folder and all in it hold."""
        content = _content(os.fspath(place))
        yield place.stat().st_ino, content
        for name in content if isinstance(content, dict) else ():
            with suppress(FileNotFoundError):  # another thread is at work
                yield from self._look(place / name)

    def watch(self) -> None:
        """Note all syncs of this process from now on."""
        from blackboxml.writer import recorder

        os.fsync = os.fdatasync = self.sync  # type: ignore[assignment]
        recorder._datasync = self.sync

    def close(self) -> None:
        """Let all files go."""
        for descriptor in self._kept:
            os.close(descriptor)


def _content(place: str) -> Content:
    """Return what a file or folder holds."""
    if os.path.isdir(place):
        names: dict[str, int] = {}
        for name in os.listdir(place):
            with suppress(FileNotFoundError):
                names[name] = os.stat(f"{place}/{name}", follow_symlinks=False).st_ino
        return names
    with open(place, "rb") as file:
        return file.read()


class Disk:
    """What is left of a folder after a cut."""

    def __init__(self, root: int, entries: list[Sync | str], cut: int, chance: Random) -> None:
        """Decide for each file and folder which of its contents is there."""
        self._root = root
        self._content: dict[int, Content] = {}
        for entry in entries[:cut]:
            if isinstance(entry, Sync):
                self._content[entry.inode] = entry.content
        coming = next((entry for entry in entries[cut:] if isinstance(entry, Sync)), None)
        for inode, content in coming.around.items() if coming is not None else ():
            durable = self._content.get(inode, {} if isinstance(content, dict) else b"")
            if isinstance(content, bytes) and isinstance(durable, bytes):
                size = chance.choice([0, len(content), chance.randint(0, len(content))])
                grown = content[: max(size, len(durable))]
                self._content[inode] = grown if content.startswith(durable) else durable
            else:
                self._content[inode] = chance.choice([durable, content])

    def lay_out(self, target: Path) -> None:
        """Make the files."""
        self._lay_out(self._root, target)

    def _lay_out(self, inode: int, place: Path) -> None:
        content = self._content.get(inode, b"")
        if isinstance(content, bytes):
            place.write_bytes(content)
            return
        place.mkdir()
        for name, inside in content.items():
            self._lay_out(inside, place / name)


def note(where: str, variant: str, target: str) -> None:
    """Do the work of `power` in a folder, and write what was noted into a file."""
    from tests.torture.power import VARIANTS, work

    folder = Path(where)
    notes = Notes(folder)
    notes.mark("begun 0")
    notes.watch()
    VARIANTS[variant]()
    work(folder, lambda stage, records: notes.mark(f"{stage} {records}"))
    notes.close()
    Path(target).write_bytes(pickle.dumps((folder.stat().st_ino, notes.entries)))


def states(scratch: Path, seed: int, count: int, variant: str = "") -> Iterator[Drawn]:
    """Yield states in which a power cut may leave the disk, each in a folder of its own.

    Args:
        scratch: Where all happens.
        seed: What the states are drawn from.
        count: How many.
        variant: A library that is known to be bad.

    Yields:
        Folders, each with the stage and the number of records that were acknowledged last.
    """
    folder, noted = scratch / "runs", scratch / "noted"
    folder.mkdir()
    code = "import sys; from tests.torture.syncs import note; note(*sys.argv[1:])"
    command = [sys.executable, "-c", code, folder, variant, noted]
    subprocess.run(command, check=True, cwd=Path(__file__).resolve().parents[2])
    root, entries = pickle.loads(noted.read_bytes())
    chance = random.Random(seed)
    for number in range(count):
        cut = chance.randint(1, len(entries))
        stage, records = [text for text in entries[:cut] if isinstance(text, str)][-1].split()
        place = scratch / str(number)
        Disk(root, entries, cut, chance).lay_out(place)
        yield place, stage, int(records)
