"""`TrainingLog`: rows by time, and a status."""

from __future__ import annotations

import atexit
import logging
import uuid as uuids
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.naming import check_metric_name
from blackboxml.collection.catalogue import Catalogue
from blackboxml.errors import RunStateError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.training_log import (
    EXTENSION,
    MISSING,
    STATUS,
    Extent,
    Place,
    read_history,
)
from blackboxml.frontends.run import Run
from blackboxml.frontends.training_log.argument import appended, read_uuid, refuse_key
from blackboxml.frontends.training_log.cells import Cells
from blackboxml.frontends.training_log.lineage import ancestors
from blackboxml.frontends.training_log.rows import Rows
from blackboxml.frontends.training_log.settings import read_settings
from blackboxml.frontends.training_log.value import Flat, Stored, freeze, store
from blackboxml.model import INT64_MAX
from blackboxml.reader import open_run

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self


logger = logging.getLogger("blackboxml")

DEFAULTS: Final[dict[str, Any]] = {
    "iterations_done": 0,
    "epochs_done": 0,
    "_epoch_ends": Flat(),
    "resumed_from": None,
}
"""The status of a log to which nothing happened yet."""

_logs: weakref.WeakValueDictionary[int, TrainingLog] = weakref.WeakValueDictionary()


class TrainingLog(Rows):
    """What happened at each time of a training, and its status, in a run directory.

    `log[time][key]` is a value; a row without one is an empty mapping. Each value is in the kernel
    when it is set. Values are numbers, texts, bytes, None, arrays, and lists, tuples and dicts of
    these but arrays; others are refused. A run is made when the first value is set. All methods may
    be called from any thread. It is a dict for those who want one, such as pandas; a row that was
    only looked at is among the times, as in Blocks, but not among `keys`, `values` and `items`.

    >>> import tempfile
    >>> from blackboxml.frontends.training_log import TrainingLog
    >>> log = TrainingLog(tempfile.mkdtemp())
    >>> log[1]["cost"] = 0.5
    >>> log.status["iterations_done"] += 1
    >>> log.current_row
    {'cost': 0.5}
    >>> log.close()

    Attributes:
        status: Values that are not bound to a time.
        log_dir: Folder of the runs.
        name: The name of the run.
        max_blob_size: Bytes of a value, other than a text, above which there is one warning.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "blackboxml_logs",
        uuid: uuids.UUID | str | None = None,
        *,
        name: str = "training_log",
        seal: bool = True,
    ) -> None:
        """Begin a log, or go on with one.

        Args:
            log_dir: Folder of runs.
            uuid: Id of a log to go on with; one that is not there is begun with this id.
            name: The name of the run, if it is begun.
            seal: Write tables, datasets and checksums when the run ends.

        Raises:
            ValueError: If `uuid` is none.
        """
        super().__init__()
        self.log_dir = Path(log_dir)
        self.name = name
        self._seal = seal
        self.max_blob_size = read_settings().max_blob_size
        self._id = uuids.uuid4().hex if uuid is None else read_uuid(uuid).hex
        self._run: Run | None = None
        self._path: Path | None = None
        self._loaded = False
        self._closed = False
        self._warned = False
        self._outcome: tuple[str, str] | None = None
        self._parent: tuple[str, Extent] | None = None
        self._extent = Extent(0, 0)
        self._numbers: dict[Place, tuple[int, int]] = {}
        self._inherited: dict[int, dict[str, Any]] = {}
        self._shadowing: set[Place] = set()
        self.status = Cells(self, None)
        for key, value in DEFAULTS.items():
            self.status.keep(key, value)
        if uuid is not None:
            self._load(None)
        _logs[id(self)] = self

    # -- identity

    @property
    def uuid(self) -> uuids.UUID:
        """The id of this log, which is that of its run."""
        return uuids.UUID(self._id)

    @property
    def h_uuid(self) -> str:
        """The id as 32 hexadecimal digits."""
        return self._id

    @property
    def path(self) -> Path | None:
        """The run directory, None before the first value is set."""
        return self._path if self._run is None else self._run.path

    def resume(self) -> None:
        """Go on as a new log, which knows what this one holds now.

        The old one ends here and stays as it is; what it holds shows in the new one wherever that
        has no value of its own.
        """
        with self._lock:
            if self._path is None and self._run is None:
                self._begin()
            self._end("interrupted")
            old, self._id = self._id, uuids.uuid4().hex
            self._parent = old, self._extent
            self._run = self._path = self._outcome = None
            self._loaded = self._closed = False
            self._extent = Extent(0, 0)
            self._numbers, self._shadowing = {}, set()
            for time, row in self._rows.items():
                if row:
                    held = {key: row.held(key) for key in row}
                    self._inherited.setdefault(time, {}).update(held)
            self.status.keep("resumed_from", old)

    def __reduce__(self) -> Any:
        """Pickle where the log is and how much of it there is; it stays the log it was.

        What is loaded from that shows the log as it is now, whatever happens to it later, and
        becomes a new log, resumed from this one, as soon as anything is set in it.
        """
        with self._lock:
            if self._path is None and self._run is None:
                self._begin()
            place = str(self.log_dir.absolute()), self._id, self.name
            return _restore, (type(self), *place, self._extent.points, self._extent.media)

    # -- rows

    @property
    def current_row(self) -> Cells:
        """The row of the iterations that are done."""
        return self[self.status["iterations_done"]]

    @property
    def previous_row(self) -> Cells:
        """The row of one iteration before.

        Raises:
            ValueError: If no iteration is done.
        """
        done = self.status["iterations_done"]
        if done < 1:
            raise ValueError("no iteration is done, so there is no row before the current one")
        return self[done - 1]

    @property
    def last_epoch_row(self) -> Cells:
        """The row in which the last epoch ended.

        Raises:
            IndexError: If no epoch ended.
        """
        ends = self.status["_epoch_ends"]
        if not ends:
            raise IndexError("no epoch ended yet; `log.status['_epoch_ends']` is empty")
        return self[ends[-1]]

    def __repr__(self) -> str:
        """Return id and place."""
        return f"<{type(self).__name__} {self._id} in {str(self.log_dir)!r}>"

    def _make(self, time: int) -> Cells:
        """Return an empty row."""
        return Cells(self, time)

    # -- recording

    def put(self, cells: Cells, key: str, value: Any) -> None:
        """Record one value of a row or of the status."""
        number = value if type(value) is float else foreign.number(value)
        if number is None or type(key) is not str:
            self.put_all(cells, {key: value})
            return
        step, name = cells.slot, key
        if step is None:
            step, name = self._step(cells), STATUS + key
            self._numbers.setdefault((None, key), (0, 0))
        elif key.startswith(STATUS):
            refuse_key(key)
        with self._lock:
            (self._run or self._begin()).log({name: number}, step)
            self._extent.points += 1
            if self._numbers or key in cells:
                self._count(cells, key)
            self._keep(cells, key, number)
            if key == "training_finished":
                self._notice(key, number, 0)

    def put_all(self, cells: Cells, values: Mapping[str, Any]) -> None:
        """Record several values of a row or of the status: all, or none if one is refused."""
        prefix = STATUS if cells.slot is None else ""
        numbers: dict[str, Any] = {}
        others: list[tuple[str, Stored]] = []
        for key, value in values.items():
            if type(key) is not str or (not prefix and key.startswith(STATUS)):
                refuse_key(key)
            check_metric_name(prefix + key)
            number = foreign.number(value)
            if number is None:
                others.append((key, store(key, value)))
            else:
                numbers[key] = number
        if not values:
            return
        with self._lock:
            run = self._run or self._begin()
            if numbers:
                named = {prefix + key: number for key, number in numbers.items()}
                run.log(named, self._step(cells))
                self._extent.points += 1
            for key, number in numbers.items():
                self._count(cells, key)
                self._keep(cells, key, number)
                self._notice(key, number, 0)
            for key, stored in others:
                self._put_other(run, cells, key, stored)

    def _put_other(self, run: Run, cells: Cells, key: str, stored: Stored) -> None:
        """Record a value that is no number."""
        self._take_away(run, cells, key)
        name = key if cells.slot is not None else STATUS + key
        old = cells.held(key) if self._is_own(cells, key) else MISSING
        tail = appended(old, stored.value)
        if tail is None:
            run.log_media(name, stored.kind, self._step(cells), **stored.content)
        else:
            tree = store(key, tail).content["value"]["value"]
            run.log_media(name, "event", self._step(cells), value={"append": tree})
        self._extent.media += 1
        self._keep(cells, key, stored.value)
        self._notice(key, stored.value, stored.bytes)

    def remove(self, cells: Cells, key: str, *, inherited: bool = False) -> None:
        """Record that a value of this log does not count.

        Args:
            cells: A row or the status.
            key: The key.
            inherited: Leave a value alone that an ancestor has; otherwise that is an error.

        Raises:
            KeyError: If there is no value.
        """
        with self._lock:
            held = cells.held(key)
            if held is MISSING:
                raise KeyError(key)
            run = self._run or self._begin()  # which may make what is there an ancestor's
            if not self._is_own(cells, key):
                if inherited:
                    return
                raise KeyError(f"{key} is a value of a log that this one was resumed from")
            self._take_away(run, cells, key, always=True)
            cells.drop(key)
            self._shadowing.discard((cells.slot, key))
            if cells.slot is not None and key in self._inherited.get(cells.slot, ()):
                cells.keep(key, self._inherited[cells.slot][key])

    def _count(self, cells: Cells, key: str) -> None:
        """Count a number in that takes the place of what stands there."""
        place = cells.slot, key
        known = self._numbers.get(place)
        if known is not None:
            self._numbers[place] = known[0] + 1, known[1]
        elif cells.slot is None:
            self._numbers[place] = 1, 0
        elif key in cells and self._holds_number(cells, key):
            self._numbers[place] = 2, 0

    def _holds_number(self, cells: Cells, key: str) -> bool:
        """Tell whether a number stands in a row that this log recorded."""
        return type(cells.held(key)) in (float, int, bool) and self._is_own(cells, key)

    def _is_own(self, cells: Cells, key: str) -> bool:
        """Tell whether what stands there was recorded by this log, and not by an ancestor."""
        if cells.slot is None or key not in self._inherited.get(cells.slot, ()):
            return True
        return (cells.slot, key) in self._shadowing

    def _keep(self, cells: Cells, key: str, value: Any) -> None:
        """Hold a value that was recorded."""
        slot = cells.slot
        if slot is not None and self._inherited and key in self._inherited.get(slot, ()):
            self._shadowing.add((slot, key))
        dict.__setitem__(cells, key, value)

    def _take_away(self, run: Run, cells: Cells, key: str, *, always: bool = False) -> None:
        """Record that the numbers at a place do not count any more, if there are any.

        Args:
            run: The run.
            cells: A row or the status.
            key: The key.
            always: Record it anyway, for a medium does not count any more either.
        """
        place = cells.slot, key
        own = cells.slot is not None and self._holds_number(cells, key)
        made, taken = self._numbers.get(place) or (int(own), 0)
        if made == taken and not always:
            return
        name = key if cells.slot is not None else STATUS + key
        run.log_media(name, "event", self._step(cells), value={"deleted": made})
        self._extent.media += 1
        self._numbers[place] = made, made

    def _step(self, cells: Cells) -> int:
        """Return the step of what is recorded of a row, or of the status."""
        if cells.slot is not None:
            return cells.slot
        done = self.status.held("iterations_done")
        return done if type(done) is int and 0 <= done <= INT64_MAX else 0

    def _notice(self, key: str, value: Any, size: int) -> None:
        """Look at a value that was recorded."""
        if key == "got_exception" and isinstance(value, str):
            self._outcome = "failed", value
        elif key == "training_finished" and value:
            self._outcome = self._outcome or ("completed", "")
        if size > self.max_blob_size and not self._warned:
            self._warned = True
            logger.warning(
                "%s has %d bytes; large values belong into files of their own, not into a log",
                key,
                size,
            )

    # -- life

    def close(self, status: str | None = None) -> None:
        """End the run; calling it again does nothing.

        Args:
            status: `completed`, `failed` or `interrupted`; by default as the log says: failed if it
                has `got_exception`, else completed.
        """
        with self._lock:
            self._closed = True
            if status is not None:
                self._outcome = None
            self._end(status or "completed")

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run; an exception of the training is recorded and goes on to the caller."""
        with self._lock:
            self._closed = True
            if error is None:
                self._end("completed")
                return
            self._outcome = None
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
            self._end("interrupted" if stopped else "failed", None if stopped else error)

    def _end(
        self, status: str, error: BaseException | None = None, *, seal: bool | None = None
    ) -> None:
        """End the run, as the log says or else with a status."""
        if self._run is None:
            return
        run, self._run = self._run, None
        self._path = run.path
        said, text = self._outcome or (status, "")
        run.finish(said, _describe(text) if text else error, seal=seal)

    def _begin(self) -> Run:
        """Begin to record: a new run, the next attempt of one, or one that was resumed."""
        if self._closed:
            message = f"the log {self._id} was closed; go on with TrainingLog(…, uuid=log.uuid)"
            raise RunStateError(message)
        if self._loaded:
            self.resume()
        if self._path is not None:
            self._run = Run(self.name, resume=self._path, seal=self._seal).start()
            return self._run
        parent, extent = self._parent or (None, None)
        said = {} if extent is None else {"points": extent.points, "media": extent.media}
        self._run = Run(
            self.name,
            log_dir=self.log_dir,
            run_id=self._id,
            parent=parent,
            extensions={EXTENSION: said},
            seal=self._seal,
        ).start()
        self._write_status()
        return self._run

    def _write_status(self) -> None:
        """Record the status that a resumed log begins with."""
        known = self.status.copy()
        for key in known:
            self.status.drop(key)
        for key, value in DEFAULTS.items():
            self.status.keep(key, value)
        for key, value in known.items():
            if key not in DEFAULTS or type(value) is not type(DEFAULTS[key]) or value:
                self.put(self.status, key, value)
        for key in DEFAULTS.keys() - known:
            self.remove(self.status, key)

    def _load(self, until: Extent | None) -> None:
        """Read what there is of this log and its ancestors.

        Args:
            until: How much of this log counts, None for all of it.
        """
        runs = {entry.id: entry for entry in Catalogue(self.log_dir).runs() if entry.id is not None}
        entry = runs.get(self._id)
        if entry is None:
            return
        self._path, self.name = entry.path, entry.name
        for older, extent in reversed(list(ancestors(entry, runs))):
            inherited = read_history(open_run(older.path), {}, extent).values
            for (slot, key), value in inherited.items():
                if slot is not None:
                    self._inherited.setdefault(slot, {})[key] = freeze(value)
        for time, values in self._inherited.items():
            for key, value in values.items():
                self[time].keep(key, value)
        found = read_history(open_run(entry.path), DEFAULTS, until)
        self._numbers, self._extent = found.numbers, found.extent
        for key in DEFAULTS:
            self.status.drop(key)
        for (slot, key), value in found.values.items():
            self._keep(self.status if slot is None else self[slot], key, freeze(value))


def _restore(  # noqa: PLR0917 - what `__reduce__` gives
    kind: type[TrainingLog], log_dir: str, run_id: str, name: str, points: int, media: int
) -> TrainingLog:
    """Return a log as it was when it was pickled.

    Raises:
        FileNotFoundError: If it is not in its folder any more.
    """
    log = TrainingLog.__new__(kind)
    TrainingLog.__init__(log, log_dir, name=name)
    log._id = run_id  # noqa: SLF001 - of this module
    log._load(Extent(points, media))  # noqa: SLF001
    if log.path is None:
        message = f"the log {run_id} is not in {log_dir}, where it was when it was pickled"
        raise FileNotFoundError(message)
    log._loaded = True  # noqa: SLF001
    return log


def _describe(traceback: str) -> dict[str, str]:
    """Return an exception from the text that Python prints of it."""
    lines = [line for line in traceback.splitlines() if line.strip()]
    kind, _, message = (lines[-1] if lines else "").partition(":")
    return {
        "type": kind.strip() or "Exception",
        "message": message.strip(),
        "traceback": traceback,
    }


def _close_all() -> None:
    """End the logs that a process leaves open, before their runs are ended without asking."""
    for log in list(_logs.values()):
        try:
            log._end("interrupted", seal=False)  # noqa: SLF001 - of this module
        except Exception:
            logger.exception("the log %s could not be ended in order", log.h_uuid)


atexit.register(_close_all)
