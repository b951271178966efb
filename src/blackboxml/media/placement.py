"""Where series stand in a dataset: the names of their variables, dimensions and coordinates.

This is what the chapter on datasets says of arrays and histograms, step by step. A sealer, a reader
and a validator all take it from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from blackboxml.base import naming

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from blackboxml.media.series import Part, Series

DRAW: Final = "draw"
COORDINATES: Final = ("step", "time", "rank", "attempt")
_UNUSUAL: Final = re.compile(r"%|\s|\A\.")


class Rows(NamedTuple):
    """What the rows of a dataset are told apart by.

    Attributes:
        rank: The rank of each.
        attempt: The attempt of each.
        step: The step of each.
    """

    rank: npt.NDArray[np.int32]
    attempt: npt.NDArray[np.int32]
    step: npt.NDArray[np.int64]


class Variable(NamedTuple):
    """A variable of a series.

    Attributes:
        name: Its name.
        dims: The names of its dimensions.
        shape: Their lengths.
        dtype: Its type.
        attributes: What is said of it.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Placed:
    """A series with its variables.

    Attributes:
        series: The series.
        order: Which of its media stands at each place of the first dimension.
        coordinates: The coordinates along its own first dimension; none where that is `draw`.
        variables: One for each part of the series.
    """

    series: Series
    order: npt.NDArray[np.int64]
    coordinates: tuple[Variable, ...]
    variables: tuple[Variable, ...]

    def coordinate(self, variable: Variable) -> npt.NDArray[Any]:
        """Return the values of one of its coordinates."""
        name = variable.name.rpartition(".")[2]
        values: npt.NDArray[Any] = getattr(self.series, name)
        return values

    @property
    def dimensions(self) -> dict[str, int]:
        """Lengths of its dimensions."""
        pairs = (
            pair for each in self.variables for pair in zip(each.dims, each.shape, strict=True)
        )
        return dict(pairs)


def place_series(
    series: Sequence[Series], columns: Iterable[str], rows: Rows | None
) -> list[Placed]:
    """Return where series stand in a dataset.

    Args:
        series: Those that the dataset holds, in order.
        columns: The variables of the columns of the table.
        rows: The rows of the dataset; None if no series has as many media.
    """
    taken = {DRAW, *COORDINATES, *columns}
    shared = _shared(series, taken)
    taken |= shared
    placed = []
    for each in series:
        order = _align(each, rows)
        base = _base(each.name)
        while (found := _name(each, base, shared, order)).names & taken:
            base += "_"
        taken |= found.names
        placed.append(found.placed)
    return placed


def _shared(series: Sequence[Series], taken: set[str]) -> set[str]:
    """Return the dimensions that several series may share."""
    lengths: dict[str, set[int]] = {}
    for each in series:
        for part in each.parts:
            for name, length in zip(part.dims, part.shape, strict=bool(part.dims)):
                lengths.setdefault(name, set()).add(length)
    return {name for name, found in lengths.items() if len(found) == 1} - taken


def _base(name: str) -> str:
    """Return what the names of a series begin with."""
    (column,) = naming.column_names([name]).values()
    if _UNUSUAL.search(column.replace("/", ".")):
        return naming.percent_encode(column)
    return column.replace("/", ".")


class _Named(NamedTuple):
    """A series with names, and all of these that are its own."""

    placed: Placed
    names: set[str]


def _name(
    series: Series, base: str, shared: set[str], order: npt.NDArray[np.int64] | None
) -> _Named:
    """Return a series with the names that begin with a base."""
    count = len(series)
    draw = DRAW
    coordinates: tuple[str, ...] = COORDINATES
    own: set[str] = set()
    about = {"medium": series.name}
    found: list[Variable] = []
    if order is None:
        order = np.arange(count)
        draw = f"{base}.{DRAW}"
        coordinates = tuple(f"{base}.{each}" for each in COORDINATES)
        own |= {draw, *coordinates}
        types = ("i8", "f8", "i4", "i4")
        found = [
            Variable(name, (draw,), (count,), np.dtype(kind), about)
            for name, kind in zip(coordinates, types, strict=True)
        ]
    variables = []
    for part in series.parts:
        name = f"{base}.{part.suffix}" if part.suffix else base
        dims = _dimensions(part, base, shared)
        own |= {name, *(each for each in dims if each not in shared)}
        said = {**about, "coordinates": " ".join(coordinates)}
        if part.is_bool:
            said["dtype"] = "bool"
        variables.append(Variable(name, (draw, *dims), (count, *part.shape), part.dtype, said))
    return _Named(Placed(series, order, tuple(found), tuple(variables)), own)


def _dimensions(part: Part, base: str, shared: set[str]) -> tuple[str, ...]:
    """Return the names of the dimensions of a part behind the first one."""
    if not part.dims:
        return tuple(f"{base}.dim_{at}" for at in range(len(part.shape)))
    return tuple(name if name in shared else f"{base}.{name}" for name in part.dims)


def _align(series: Series, rows: Rows | None) -> npt.NDArray[np.int64] | None:
    """Return which medium of a series each row stands for, None if they are not one for one."""
    if rows is None or len(series) != len(rows.step):
        return None
    ours, theirs = (np.lexsort((each.step, each.attempt, each.rank)) for each in (series, rows))
    last: Any = None
    for key in ("rank", "attempt", "step"):
        mine, other = getattr(series, key)[ours], getattr(rows, key)[theirs]
        if not np.array_equal(mine, other):
            return None
        same = mine[1:] == mine[:-1]
        last = same if last is None else last & same
    if last.any():
        return None
    order = np.empty(len(series), np.int64)
    order[theirs] = ours
    return order


def dimensions(placed: Iterable[Placed]) -> Mapping[str, int]:
    """Return the dimensions of series but `draw`, with their lengths."""
    found: dict[str, int] = {}
    for each in placed:
        found |= each.dimensions
    found.pop(DRAW, None)
    return found
