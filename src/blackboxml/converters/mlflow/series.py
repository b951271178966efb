"""Entries of metrics, column by column, and the points that they are.

MLflow knows single entries: a name, a moment, a step and a value. Those of one moment and step that
lie side by side were logged together, until a name comes again.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from blackboxml.converters.mlflow.run import GREATEST, number
from blackboxml.errors import FormatError
from blackboxml.foreign.interchange import Ledger
from blackboxml.journal.metric import Points
from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from blackboxml.base.shelf import Place, Shelf

    Integers: TypeAlias = npt.NDArray[np.int64]

Value: TypeAlias = tuple[str, int, int, float]
"""Name, milliseconds, step and value of one entry of a metric."""

AT_ONCE: Final = 2**13
"""Entries that are in memory together."""

_EXACT: Final = 2**53


class Names(dict[str, int]):
    """The names of metrics, numbered as they come."""

    def __missing__(self, name: str) -> int:
        """Number a name."""
        return self.setdefault(name, len(self))


class Entries(NamedTuple):
    """Entries of metrics.

    Attributes:
        names: Numbers of their names.
        times: Milliseconds since 1970.
        steps: An int64 for each.
        values: A float64 for each.
    """

    names: Integers
    times: Integers
    steps: Integers
    values: npt.NDArray[np.float64]


def entries(values: Iterator[Value], names: Names) -> Iterator[Entries]:
    """Yield single entries column by column."""
    while part := list(islice(values, AT_ONCE)):
        yield to_columns(*zip(*part, strict=True), names=names)


def to_columns(texts: Any, times: Any, steps: Any, values: Any, *, names: Names) -> Entries:
    """Return names, milliseconds, steps and values as arrays."""
    return Entries(
        np.fromiter(map(names.__getitem__, texts), np.int64, len(texts)),
        np.array(times, np.int64),
        np.array(steps, np.int64),
        np.array(values, np.float64),
    )


def points(parts: Iterable[Entries], names: Names) -> Iterator[Points]:
    """Yield entries as points; what one part leaves open, the next may go on with."""
    rest: Entries | None = None
    for part in parts:
        here = part if rest is None else _join(rest, part)
        starts = _starts(here, len(names))
        last = int(starts[-1])
        if last:
            yield _build(_cut(here, 0, last), starts[:-1], list(names))
        rest = _cut(here, last, len(here.names))
    if rest is not None:
        yield _build(rest, np.zeros(1, np.int64), list(names))


def _join(first: Entries, second: Entries) -> Entries:
    """Return entries behind others."""
    joined: list[Any] = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    return Entries(*joined)


def _cut(whole: Entries, begin: int, end: int) -> Entries:
    """Return some of entries."""
    cut: list[Any] = [column[begin:end] for column in whole]
    return Entries(*cut)


def _starts(found: Entries, names: int) -> Integers:
    """Return where a point begins: at another moment or step, or where a name comes again."""
    new = np.ones(len(found.names), bool)
    new[1:] = np.diff(found.times) != 0
    new[1:] |= np.diff(found.steps) != 0
    moments = np.cumsum(new)
    cells = np.sort(moments * names + found.names)
    for moment in np.unique(cells[1:][cells[1:] == cells[:-1]] // names).tolist():
        seen: set[int] = set()
        for at in range(*np.searchsorted(moments, (moment, moment + 1)).tolist()):
            name = int(found.names[at])
            if name in seen:
                new[at] = True
                seen.clear()
            seen.add(name)
    return np.flatnonzero(new)


def _build(found: Entries, starts: Integers, names: list[str]) -> Points:
    """Return entries as the points that begin at some of them."""
    sizes = np.diff(np.append(starts, len(found.names)))
    which = np.zeros(len(starts), np.intp)
    layouts: list[tuple[str, ...]] = []
    values: list[list[npt.NDArray[Any]]] = []
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        places = starts[rows][:, None] + np.arange(size)
        kinds, own = _kinds(found.names[places])
        for kind, row in enumerate(kinds.tolist()):
            which[rows[own == kind]] = len(layouts)
            layouts.append(tuple(names[each] for each in row))
            values.append(list(found.values[places[own == kind]].T))
    return Points(found.steps[starts], _seconds(found.times[starts]), which, layouts, values)


def _kinds(rows: Integers) -> tuple[Integers, Integers]:
    """Return the different rows of a matrix, and which of them each row is."""
    if (rows == rows[0]).all():
        return rows[:1], np.zeros(len(rows), np.int64)
    kinds, own = np.unique(rows, axis=0, return_inverse=True)
    return kinds, own.reshape(-1)


def _seconds(times: Integers) -> npt.NDArray[np.float64]:
    """Return milliseconds as seconds, each rounded once."""
    if int(np.abs(times).max()) < _EXACT and int(times.min()) > -_EXACT:
        return times / 1000
    return np.array([time / 1000 for time in times.tolist()])


# -- rows of a database


class _Texts(dict[bytes, int]):
    """The numbers of names as they stand in a database."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, data: bytes) -> int:
        """Return the number of a name; bytes that are not UTF-8 are spelled out."""
        if not isinstance(data, bytes):
            raise FormatError("the name of a metric is no text")
        number = self[data] = self._names[_text(data)]
        return number


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


class Series:
    """What one run measured.

    Attributes:
        names: The names of its metrics.
        ledger: What of it could not be read.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.names = Names()
        self.ledger = Ledger()
        self._texts = _Texts(self.names)
        self._shelf = shelf
        self._places: list[list[Place]] = []

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Put rows by: name, milliseconds, step, value, and whether that is NaN.

        Texts are bytes: most are names that come again.

        Raises:
            FormatError: If a name is no text.
        """
        texts, times, steps, values, flags = (rows[field] for field in rows.dtype.names or ())
        numbers = np.where(flags != 0, math.nan, values)
        ends = np.abs(numbers) == GREATEST
        numbers[ends] = np.copysign(math.inf, numbers[ends])
        names = np.fromiter(map(self._texts.__getitem__, texts.tolist()), np.int64, len(texts))
        self._put(Entries(names, times, steps, numbers))

    def add_rows(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Put rows by of which any cell may be anything, their numbers before them."""
        if good := list(_values(rows, self.ledger)):
            self._put(to_columns(*zip(*good, strict=True), names=self.names))

    def _put(self, found: Entries) -> None:
        self._places.append([self._shelf.put(column) for column in found])

    def parts(self) -> Iterator[Entries]:
        """Yield the entries."""
        for places in self._places:
            yield Entries(*map(self._shelf.get, places))

    def points(self, ledger: Ledger) -> Iterator[Points]:
        """Yield the points; enter what could not be read."""
        for remark, count in self.ledger.counts.items():
            ledger.unreadable(remark.kind, remark.what, count, where=remark.where)
        yield from points(self.parts(), self.names)


def _values(rows: Iterable[tuple[Any, ...]], ledger: Ledger) -> Iterator[Value]:
    """Yield the entries of metrics that rows hold."""
    for at, name, value, time, step, flag in rows:
        found = number(value, flag)
        whole = type(time) is int and type(step) is int
        if found is None or not whole or not isinstance(name, bytes):
            what = "a row of no name, number, time and step"
            ledger.unreadable("scalar", what, where=f"metrics, row {at}")
        elif not all(INT64_MIN <= each <= INT64_MAX for each in (time, step)):
            ledger.unreadable("scalar", "a number beyond 64 bits", where=f"metrics, row {at}")
        else:
            yield _text(name), time, step, found
