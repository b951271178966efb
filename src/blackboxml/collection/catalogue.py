"""All runs below a folder, with their last values, without opening those that did not change.

Strategy: the directories are the truth. A run is read when its files differ from those it was read
of, by inode, size and time of change; so a look at ten thousand runs is some ten thousand `stat`.
What was read is kept in a cache, which nothing needs.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackboxml.base import naming
from blackboxml.collection.cache import Cache
from blackboxml.collection.entry import LIVE, Entry, Facts
from blackboxml.collection.glance import glance
from blackboxml.collection.tally import series
from blackboxml.errors import BlackboxError
from blackboxml.manifest.status import Watch
from blackboxml.model import CONFIG, MANIFEST, SCRATCH
from blackboxml.reader import open_run

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNSETTLED: Final = "?"
"""Begins the state of a run that is to be read again whatever its files look like."""

_STEM: Final = "metrics"
"""What the names of journals begin with."""

_COARSE_NS: Final = 2 * 10**9
"""Two changes within the coarsest time stamp of a file system look like one."""


class Catalogue:
    """The runs below a folder. Make one, and ask it again whenever you like.

    Any number of processes may use catalogues of one folder while others record into it. All
    methods may be called from any thread.

    >>> import tempfile
    >>> from blackboxml import Run
    >>> from blackboxml.collection.catalogue import Catalogue
    >>> root = tempfile.mkdtemp()
    >>> with Run("demo", log_dir=root, config={"lr": 0.1}) as run:
    ...     run.log({"loss": 0.5})
    >>> [(run.name, run.status, run.metrics["loss"].last) for run in Catalogue(root).runs()]
    [('demo', 'completed', 0.5)]
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Prepare; nothing is read before it is asked for.

        Args:
            root: Folder of runs; one that is missing has none.
        """
        self.root = Path(root)
        self._cache = Cache(self.root)
        self._entries: dict[str, Entry] | None = None
        self._unsaved: set[str] = set()
        self._watches: dict[str, Watch] = {}
        self._lock = threading.RLock()

    def runs(self, *, refresh: bool = True) -> list[Entry]:
        """Return all runs in the order of their paths.

        Args:
            refresh: Look at the files first; otherwise as they were at the last look.
        """
        if refresh or self._entries is None:
            self.refresh()
        return list((self._entries or {}).values())

    def find(self, run_id: str) -> Entry | None:
        """Return the run of an id, None if there is none."""
        return next((entry for entry in self.runs() if entry.id == run_id), None)

    def look(self, entry: Entry) -> Entry | None:
        """Return one run as it is now, without looking at the others; None if it is gone."""
        path = str(entry.path)
        with self._lock:
            files = _files(path)
            if files is None:
                return None
            known = (self._entries or {}).get(entry.place, entry)
            found = self._read(entry.place, _state(path, files), known)
            if self._entries is not None and found is not known:
                self._entries[entry.place] = found
                self._unsaved.add(entry.place)
            return found

    def refresh(self, *, extremes: bool = False) -> None:
        """Look at the files, and read the runs that changed.

        Args:
            extremes: Learn `min` and `max` of sealed runs too, from their tables, once.
        """
        with self._lock, _much_is_kept():
            before = self._cache.load() if self._entries is None else self._entries
            entries: dict[str, Entry] = {}
            for name, state in self._walk(str(self.root), "", before):
                entries[name] = self._read(name, state, before.get(name))
                if extremes:
                    entries[name] = _measured(entries[name])
            changed = {
                name: new
                for name, new in entries.items()
                if before.get(name) is not new or name in self._unsaved
            }
            removed = before.keys() - entries.keys()
            self._entries = entries
            self._watches = {name: self._watches[name] for name in self._watches.keys() & entries}
            if (changed or removed) and self.root.is_dir():
                self._cache.save(changed, removed)
                self._unsaved.clear()

    def _walk(
        self, folder: str, relative: str, before: dict[str, Entry]
    ) -> Iterator[tuple[str, str]]:
        """Yield path and state of the runs below a folder, in byte order, links not followed."""
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            if entry.name.startswith(SCRATCH) or not entry.is_dir(follow_symlinks=False):
                continue
            name, path = relative + entry.name, entry.path
            known = before.get(name)
            if known is not None and (state := _unchanged(path, known.state)) is not None:
                yield name, state
            elif (files := _files(path)) is not None:
                yield name, _state(path, files)
            else:
                yield from self._walk(path, f"{name}/", before)

    def _read(self, name: str, state: str, known: Entry | None) -> Entry:
        """Return a run as it is now."""
        if known is not None and known.state == state:
            return known
        before = None
        if known is not None and _journal(known.state) == _journal(state):
            before = known.facts, known.metrics
        started = time.time_ns()
        watch = lambda: self._watches.setdefault(name, Watch())  # noqa: E731 - of this run
        try:
            facts, metrics = glance(self.root / name, _journals(state), before, watch)
            final = facts.status not in LIVE
        except Exception as error:  # noqa: BLE001 - what hides this run may pass, others are there
            facts, metrics, final = Facts(problem=f"{type(error).__name__}: {error}"), {}, False
        if final:
            self._watches.pop(name, None)
        if not final or _newest(state) > started - _COARSE_NS:
            state = _UNSETTLED + state
        if known is not None and (state, facts, metrics) == (
            known.state,
            known.facts,
            known.metrics,
        ):
            return known
        return Entry(self.root, name, state, facts, metrics)


@contextmanager
def _much_is_kept() -> Iterator[None]:
    """Make many objects without the garbage collector looking at them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _measured(entry: Entry) -> Entry:
    """Return a run with the least and greatest values of its metrics."""
    if entry.facts.whole or entry.problem is not None:
        return entry
    try:
        metrics = series(open_run(entry.path).summary())
    except (BlackboxError, OSError):
        return entry
    return entry.measured({**entry.metrics, **metrics})


# ---- states: `inode time` of the directory, then `name inode size time` of each file ------------


def _files(path: str) -> list[str] | None:
    """Return the files of a run by which it is known to have changed, None if it is no run."""
    try:
        names = os.listdir(path)
    except OSError:
        return None
    journals = sorted(
        name
        for name in names
        if name.startswith(_STEM) and naming.parse_journal_name(name) is not None
    )
    if MANIFEST not in names and not journals:
        return None
    return [*journals, MANIFEST, CONFIG]


def _state(path: str, names: list[str]) -> str:
    """Return the state of a run."""
    parts = [_stamp(path)]
    for name in names:
        try:
            found = os.stat(f"{path}/{name}", follow_symlinks=False)
        except OSError:
            parts.append(f"{name} - - 0")
        else:
            parts.append(f"{name} {found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return "|".join(parts)


def _stamp(path: str) -> str:
    """Return inode and time of a directory; the time changes with the names in it."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return "- 0"
    return f"{found.st_ino} {found.st_mtime_ns}"


def _unchanged(path: str, known: str) -> str | None:
    """Return the state of a run that has the names it had, None if these may be others."""
    parts = known.removeprefix(_UNSETTLED).split("|")
    if known.startswith(_UNSETTLED) or parts[0] != _stamp(path):
        return None
    return _state(path, [part.split(" ", 1)[0] for part in parts[1:]])


def _journal(state: str) -> list[str]:
    """Return name and inode of the first file of a state, which is a journal if there is one."""
    first = state.removeprefix(_UNSETTLED).split("|")[1]
    return first.split(" ")[:2]


def _journals(state: str) -> dict[str, int]:
    """Return the sizes of the journals of a run by name."""
    files = (part.split(" ") for part in state.split("|")[1:-2])
    return {name: int(size) for name, _, size, _ in files if size != "-"}


def _newest(state: str) -> int:
    """Return the latest time of change in a state, in nanoseconds."""
    return max(int(part.rsplit(" ", 1)[1]) for part in state.split("|"))
