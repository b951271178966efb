"""All runs below a folder, with their last values, without opening those that did not change.

Strategy: the directories are the truth. A run is read when its files differ from those it was read
of, by inode, size and time of change; so a look at ten thousand runs is some thirty thousand
`stat`. What was read is kept in a cache, which nothing needs.
"""

from __future__ import annotations

import gc
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackboxml.collection import state as states
from blackboxml.collection.cache import Cache
from blackboxml.collection.entry import Entry, Facts, explain
from blackboxml.collection.glance import glance
from blackboxml.collection.ledger import Ledger
from blackboxml.collection.listing import folders_in
from blackboxml.collection.scout import Scout
from blackboxml.collection.tally import series
from blackboxml.errors import BlackboxError
from blackboxml.manifest.status import Watch
from blackboxml.reader import open_run

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_FEW: Final = 10_000
_WRITTEN_WHILE_READ: Final = 50
"""A run takes as long to read as so many take to be written to the cache. Of more than a few, fewer
changes than that are left to the next process to read again."""

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
        self._ledger: Ledger | None = None
        self._unsaved = 0
        self._entries: dict[str, Entry] = {}
        self._looked: dict[str, Entry] = {}
        self._watches: dict[str, Watch] = {}
        self._lock = threading.RLock()

    def runs(self, *, refresh: bool = True) -> list[Entry]:
        """Return all runs in the order of their paths.

        Args:
            refresh: Look at the files first; otherwise as they were at the last look of this or
                another process, of more than 10,000 runs at the last one that found many changed.
        """
        with self._lock, _much_is_kept():
            ledger = self.ledger(refresh=refresh)
            if not self._entries:
                self._entries = {entry.place: entry for entry in ledger.entries(self.root)}
            both = self._entries | self._looked
            return [both[place] for place in ledger.places]

    def find(self, run_id: str) -> Entry | None:
        """Return the run of an id, None if there is none."""
        return next((entry for entry in self.runs() if entry.id == run_id), None)

    def look(self, entry: Entry) -> Entry | None:
        """Return one run as it is now, without looking at the others; None if it is gone."""
        path = str(entry.path)
        with self._lock:
            known = self._looked.get(entry.place) or self._entries.get(entry.place, entry)
            if states.is_unchanged(path, known.state):
                return known
            found = self._read(entry.place, path, known)
            if found is not None and found is not known:
                self._looked[entry.place] = found
            return found

    def refresh(self, *, extremes: bool = False) -> None:
        """Look at the files, and read the runs that changed.

        Args:
            extremes: Learn `min` and `max` of sealed runs too, from their tables, once.
        """
        with self._lock, _much_is_kept():
            before = self._ledger = self._ledger or self._cache.load() or Ledger()
            order: list[int] = []
            fresh: list[Entry] = []
            found: list[int | Entry] = []
            with Scout(str(self.root), before.places) as scout:
                self._walk(str(self.root), "", before, scout, found)
            for entry in map(self._measured, found) if extremes else found:
                if isinstance(entry, int):
                    order.append(entry)
                else:
                    order.append(len(before) + len(fresh))
                    fresh.append(entry)
            self._looked.clear()
            if fresh or len(order) < len(before):
                self._ledger = before.merged(order, fresh)
                self._keep_up(fresh, before)
                self._unsaved += max(len(fresh), len(before) - (len(order) - len(fresh)))
                few = len(order) <= _FEW or len(order) <= self._unsaved * _WRITTEN_WHILE_READ
                if few and self.root.is_dir():
                    self._cache.save(self._ledger)
                    self._unsaved = 0

    def _keep_up(self, fresh: list[Entry], before: Ledger) -> None:
        """Let what is kept of single runs be of those that are there."""
        if self._entries:
            self._entries |= {entry.place: entry for entry in fresh}
        if self._entries or self._watches:
            for place in before.rows.keys() - (self._ledger or before).rows.keys():
                self._entries.pop(place, None)
                self._watches.pop(place, None)

    def ledger(self, *, refresh: bool = True) -> Ledger:
        """Return all that is known of the runs, column by column.

        Args:
            refresh: As in `runs`.
        """
        with self._lock:
            if self._ledger is None and not refresh:
                self._ledger = self._cache.load()
            if refresh or self._ledger is None:
                self.refresh()
            return self._ledger or Ledger()

    def _walk(
        self, folder: str, relative: str, before: Ledger, scout: Scout, found: list[int | Entry]
    ) -> None:
        """Add the runs below a folder, in byte order, links not followed.

        Each is a row of what was known before, or an entry if that does not hold any more. A folder
        that cannot be listed is an entry too, for it may be a run.

        Raises:
            OSError: If the root cannot be listed.
        """
        try:
            names = folders_in(folder)
        except OSError as error:
            if not relative:
                raise
            found.append(self._refused(relative.rstrip("/"), error))
            return
        rows, known, looked = before.rows, before.states, self._looked
        for name in names:
            place, path = relative + name, f"{folder}/{name}"
            row = rows.get(place)
            if (
                row is not None
                and place not in looked
                and scout.is_unchanged(row, path, known[row])
            ):
                found.append(row)
            elif (run := self._visit(place, path, before)) is None:
                self._walk(path, place + "/", before, scout, found)
            else:
                found.append(run)

    def _visit(self, place: str, path: str, before: Ledger) -> int | Entry | None:
        """Look at a directory; what it is, is told as by `_walk`, None if it is no run."""
        row, looked = before.rows.get(place), self._looked.get(place)
        if looked is not None and states.is_unchanged(path, looked.state):
            return looked
        entry = looked
        if entry is None and row is not None:
            entry = self._entries.get(place) or before.entry(self.root, row)
        new = self._read(place, path, entry)
        return row if new is entry and looked is None else new

    def _read(self, place: str, path: str, known: Entry | None) -> Entry | None:
        """Return a run as it is now: the one that is known if that still holds, None if none is."""
        try:
            now = states.look(path)
        except OSError as error:
            return self._refused(place, error)
        if now is None:
            return None
        if known is not None and known.state == now.state():
            return known
        before = known.facts if known is not None and now.goes_on(known.state) else None
        started = time.time_ns()
        watch = lambda: self._watches.setdefault(place, Watch())  # noqa: E731 - of this run
        try:
            facts, final = glance(path, now.journal_sizes(), before, watch)
        except Exception as error:  # noqa: BLE001 - what hides this run may pass, others are there
            facts, final = Facts(problem=explain(error)), False
        if final:
            self._watches.pop(place, None)
        settled = final and now.newest() <= started - _COARSE_NS
        state = now.sealed() if facts.sealed else now.state()
        if not settled:
            state = states.UNSETTLED + state
        if known is not None and (state, facts) == (known.state, known.facts):
            return known
        return Entry(self.root, place, state, facts)

    def _refused(self, place: str, error: OSError) -> Entry:
        """Return what there is to say of a folder that cannot be looked at; it may be a run."""
        return Entry(self.root, place, states.UNSETTLED, Facts(problem=explain(error)))

    def _measured(self, found: int | Entry) -> int | Entry:
        """Return a run with the least and greatest values of its metrics."""
        ledger = self._ledger or Ledger()
        if isinstance(found, int):
            if ledger.plain["whole"][found] or ledger.plain["problem"][found] is not None:
                return found
            entry = ledger.entry(self.root, found)
        else:
            entry = found
        if entry.facts.whole or entry.problem is not None:
            return found
        try:
            return entry.measured(entry.metrics | series(open_run(entry.path).summary()))
        except (BlackboxError, OSError):
            return found


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
