"""The items of a chunk of records: numbers as columns, everything else in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.foreign.interchange import Medium, Point
from blackboxml.journal.metric import Points

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blackboxml.converters.tensorboard.scalars import Batch, Integers
    from blackboxml.journal.metric import Column

_LEAST: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Start:
    """A session began here, at a step; see `SessionLog.START`."""

    step: int


class _Layout:
    """The records of a chunk that hold the same metrics, of the same types."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._blocks: list[tuple[Integers, list[Column]]] = []
        self._rows: list[int] = []
        self._values: list[tuple[float, ...]] = []

    def add_block(self, rows: Integers, columns: list[Column]) -> None:
        """Add records that stand in columns."""
        self._blocks.append((rows, columns))

    def add(self, row: int, values: tuple[float, ...]) -> None:
        """Add one record."""
        self._rows.append(row)
        self._values.append(values)

    def settle(self) -> tuple[Integers, list[Column]]:
        """Return rows and columns of all, in order."""
        if self._rows:
            self.add_block(np.array(self._rows), list(np.array(self._values).T))
            self._rows, self._values = [], []
        if len(self._blocks) > 1:
            rows = np.concatenate([block[0] for block in self._blocks])
            columns = zip(*(block[1] for block in self._blocks), strict=True)
            order = np.argsort(rows)
            self._blocks = [(rows[order], [np.concatenate(each)[order] for each in columns])]
        return self._blocks[0]


class Page:
    """The items of a chunk, record by record.

    Attributes:
        others: Lists of items, for records that are more than numbers.
        highest: The highest step; None where a session begins, for then it depends on the place.
        latest: The last time, in Unix seconds.
    """

    def __init__(self, size: int, rank: int) -> None:
        """Begin with nothing.

        Args:
            size: How many records there are.
            rank: Of their points.
        """
        self.others: dict[int, list[Any]] = {}
        self.highest: int | None = _LEAST
        self.latest = -math.inf
        self._rank = rank
        self._steps = np.zeros(size, np.int64)
        self._times = np.zeros(size)
        self._which = np.full(size, -1)
        self._layouts: list[_Layout] = []
        self._known: dict[Any, int] = {}

    def place(self, batch: Batch, names: Sequence[tuple[str, ...]]) -> None:
        """Put the points of a batch where they belong."""
        rows = batch.rows
        self._steps[rows], self._times[rows] = batch.steps, batch.times
        types = tuple(column.dtype for column in batch.values)
        for k, layout in enumerate(names):
            chosen = np.flatnonzero(batch.which == k) if len(names) > 1 else slice(None)
            place = self._layout(layout, types)
            self._which[rows[chosen]] = place
            columns = [column[chosen] for column in batch.values]
            self._layouts[place].add_block(rows[chosen], columns)
        self.note(int(batch.steps.max()), float(batch.times.max()))

    def place_point(self, row: int, step: int, time: float, metrics: dict[str, float]) -> None:
        """Put a point of floats where it belongs."""
        self._steps[row], self._times[row] = step, time
        place = self._which[row] = self._layout(tuple(metrics), None)
        self._layouts[place].add(row, tuple(metrics.values()))
        self.note(step, time)

    def _layout(self, names: tuple[str, ...], types: Any) -> int:
        """Return the place of a layout."""
        place = self._known.get((names, types))
        if place is None:
            place = self._known[names, types] = len(self._layouts)
            self._layouts.append(_Layout(names))
        return place

    def note(self, step: int, time: float) -> None:
        """Remember how far the points came."""
        self.latest = max(self.latest, time)
        if self.highest is not None:
            self.highest = max(self.highest, step)

    def points(self, begin: int, end: int) -> Iterator[Points]:
        """Yield the points of a stretch of records, if there are any."""
        rows = np.flatnonzero(self._which[begin:end] >= 0) + begin
        if not len(rows):
            return
        places, which = np.unique(self._which[rows], return_inverse=True)
        layouts, values = [], []
        for place in places.tolist():
            own, columns = self._layouts[place].settle()
            part = slice(*np.searchsorted(own, (begin, end)))
            layouts.append(self._layouts[place].names)
            values.append([column[part] for column in columns])
        yield Points(self._steps[rows], self._times[rows], which, layouts, values, self._rank)

    def highest_of(self, begin: int, end: int) -> int | None:
        """Return the highest step among some records."""
        rows = slice(begin, end)
        steps: list[int] = self._steps[rows][self._which[rows] >= 0].tolist()
        steps += [
            one.step
            for at, items in self.others.items()
            for one in items
            if begin <= at < end and isinstance(one, Point | Medium)
        ]
        return max(steps, default=None)

    def firsts(self) -> dict[str, tuple[int, float | None]]:
        """Return step and time of the first point of each metric, unless a session begins here."""
        found: dict[str, tuple[int, float | None]] = {}
        rows: dict[str, int] = {}
        for layout in self._layouts:
            row = int(layout.settle()[0][0])
            for name in layout.names:
                if row < rows.get(name, row + 1):
                    rows[name] = row
                    found[name] = int(self._steps[row]), float(self._times[row])
        for row, items in sorted(self.others.items()):
            for one in items:
                if isinstance(one, Start):
                    return {}
                for name in one.metrics if isinstance(one, Point) else ():
                    if row < rows.get(name, row + 1):
                        rows[name] = row
                        found[name] = one.step, one.time
        return found
