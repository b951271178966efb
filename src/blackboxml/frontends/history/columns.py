"""What was logged, in memory: lists of values by name, and on which row of its group each stands.

Strategy: an update appends one row to every group that it names, and its values to one list each.
Which names a row has is kept as the number of a *shape*, so that nothing is stored for values that
are absent, and a regular run costs one small integer a row.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blackboxml import naming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    import numpy.typing as npt


@dataclass(slots=True)
class Rows:
    """The rows of one group.

    Attributes:
        steps: Step of each.
        times: Unix seconds of each.
        shapes: Number of the shape of each.
    """

    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    shapes: array[int] = field(default_factory=lambda: array("l"))


@dataclass(frozen=True, slots=True)
class Shape:
    """The names of an update, prepared for the next one that has the same."""

    number: int
    keys: tuple[str, ...]
    appends: tuple[Callable[[Any], None], ...]
    rows: tuple[Rows, ...]


class Columns:
    """Values by name, and rows by group.

    Attributes:
        flat: Values by full name, in order.
        groups: The same lists by group and short name.
        rows: Rows by group.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.flat: dict[str, list[Any]] = {}
        self.groups: dict[str, dict[str, list[Any]]] = {}
        self.rows: dict[str, Rows] = {}
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._placed: dict[str, array[int]] = {}

    def append(self, step: int, time: float, values: Mapping[str, Any]) -> None:
        """Add a row to each group that `values` names."""
        keys = tuple(values)
        shape = self._shapes.get(keys) or self._learn(keys)
        for append, value in zip(shape.appends, values.values(), strict=True):
            append(value)
        for rows in shape.rows:
            rows.steps.append(step)
            rows.times.append(time)
            rows.shapes.append(shape.number)

    def last_rows(self, groups: Iterable[str]) -> dict[str, int]:
        """Return the number of the newest row of each group."""
        return {group: len(self.rows[group].steps) - 1 for group in groups}

    def place(self, rows: Mapping[str, int], values: Mapping[str, Any]) -> None:
        """Add values to rows that are there already, as statistics that come late."""
        for key, value in values.items():
            self._column(key).append(value)
            self._placed.setdefault(key, array("q")).append(rows[naming.group_of(key)])

    def positions(self, key: str) -> npt.NDArray[np.int64]:
        """Return the row in its group of each value of a metric."""
        import numpy as np

        length = len(self.flat[key])
        placed = self._placed.get(key)
        if placed is not None:
            return np.frombuffer(placed, dtype=np.int64).copy()
        rows = self.rows.get(naming.group_of(key))
        if rows is None:
            return np.arange(length)
        own = [shape.number for shape in self._shapes.values() if key in shape.keys]
        found = np.flatnonzero(np.isin(np.array(rows.shapes), own))
        # A user may have changed the lists; the newest rows are then as good a guess as any.
        return found if len(found) == length else np.arange(length)

    def replace(self, data: Mapping[str, Iterable[Any]]) -> None:
        """Take other values in place of all there are; each row then is its own step."""
        self.__init__()  # type: ignore[misc]
        for key, values in data.items():
            self._column(key).extend(values)
        for group, columns in self.groups.items():
            length = max(map(len, columns.values()), default=0)
            self.rows[group] = Rows(
                array("q", range(length)), array("d", [0.0] * length), array("l", [-1] * length)
            )

    def _learn(self, keys: tuple[str, ...]) -> Shape:
        """Prepare for updates of certain names."""
        groups = dict.fromkeys(map(naming.group_of, keys))
        shape = self._shapes[keys] = Shape(
            len(self._shapes),
            keys,
            tuple(self._column(key).append for key in keys),
            tuple(self.rows.setdefault(group, Rows()) for group in groups),
        )
        return shape

    def _column(self, key: str) -> list[Any]:
        """Return the list of a metric; the first value of it makes one."""
        column = self.flat.get(key)
        if column is None:
            column = self.flat[key] = []
            group = self.groups.setdefault(naming.group_of(key), {})
            group[naming.short_name(key)] = column
        return column
