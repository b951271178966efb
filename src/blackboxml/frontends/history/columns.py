"""What was logged, in memory: lists of values by name, and on which row of its group each stands.

Strategy: an update appends one row to every group that it names, and its values to one list each;
this is done for many updates at once, when somebody looks. Which names a row has is kept as the
number of a *shape*, so that nothing is stored for values that are absent, and a regular run costs
one small integer a row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base import naming
from blackboxml.frontends.history.console import STATISTICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import numpy.typing as npt

_NO_SHAPE: Final = -1
_MOST_NEW: Final = 16_384

Update = tuple[int, float, Mapping[str, Any]]
"""Step, time and values."""


@dataclass(slots=True)
class Rows:
    """The rows of one group.

    Attributes:
        steps: Step of each.
        times: Unix seconds of each.
        shapes: Number of the shape of each.
        updates: Number of the update of each, ascending.
    """

    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    shapes: array[int] = field(default_factory=lambda: array("q"))
    updates: array[int] = field(default_factory=lambda: array("q"))

    def extend(self, first: int, updates: Sequence[Update], shape: int) -> None:
        """Add rows of updates that are numbered from `first`."""
        self.steps.extend([update[0] for update in updates])
        self.times.extend([update[1] for update in updates])
        self.shapes.extend([shape] * len(updates))
        self.updates.extend(range(first, first + len(updates)))

    def find(self, update: int) -> int | None:
        """Return the row of an update; None if it has none here."""
        row = bisect_left(self.updates, update)
        return row if row < len(self.updates) and self.updates[row] == update else None


@dataclass(frozen=True, slots=True)
class Shape:
    """The names of an update, prepared for others that have the same."""

    number: int
    columns: tuple[tuple[str, list[Any]], ...]
    rows: tuple[Rows, ...]


class Columns:
    """Values by name, and rows by group."""

    def __init__(self) -> None:
        """Begin empty."""
        self._flat: dict[str, list[Any]] = {}
        self._groups: dict[str, dict[str, list[Any]]] = {}
        self._rows: dict[str, Rows] = {}
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._late: dict[str, tuple[list[Any], array[int], str]] = {}
        self._new: list[Update] = []
        self._new_late: list[tuple[int, Update]] = []
        self._folded = 0

    def append(self, step: int, time: float, values: Mapping[str, Any]) -> None:
        """Add a row to each group that `values` names; they are kept as they are."""
        new = self._new
        new.append((step, time, values))
        if len(new) >= _MOST_NEW:
            self._fold()

    @property
    def newest(self) -> int:
        """The number of the newest update, for `place`."""
        return self._folded + len(self._new) - 1

    def place(self, update: int, step: int, time: float, values: Mapping[str, Any]) -> None:
        """Add values to the rows of an update that is there already, as late statistics are.

        Args:
            update: Its number.
            step: Its step.
            time: Its time.
            values: By name; a group that the update did not name gets a row.
        """
        self._new_late.append((update, (step, time, values)))

    @property
    def flat(self) -> dict[str, list[Any]]:
        """Values by full name, in order."""
        self._fold()
        return self._flat

    @property
    def groups(self) -> dict[str, dict[str, list[Any]]]:
        """The same lists by group and short name."""
        self._fold()
        return self._groups

    @property
    def rows(self) -> dict[str, Rows]:
        """Rows by group."""
        self._fold()
        return self._rows

    def _fold(self) -> None:
        """Put new updates into the lists, as many at once as have the same names."""
        new, self._new = self._new, []
        before, self._folded = self._folded, self._folded + len(new)
        first = 0
        while first < len(new):
            keys = tuple(new[first][2])
            last = first + 1
            while last < len(new) and tuple(new[last][2]) == keys:
                last += 1
            some = new[first:last]
            shape = self._shapes.get(keys) or self._learn(keys)
            for key, column in shape.columns:
                column.extend([update[2][key] for update in some])
            for rows in shape.rows:
                rows.extend(before + first, some, shape.number)
            first = last
        late, self._new_late = self._new_late, []
        for update, about in late:
            self._fold_late(update, about)

    def _fold_late(self, update: int, about: Update) -> None:
        """Put late values into the lists."""
        found: dict[str, int] = {}
        for key, value in about[2].items():
            column, places, group = self._late.get(key) or self._learn_late(key)
            row = found.get(group)
            if row is None:
                own = self._rows.setdefault(group, Rows())
                row = own.find(update)
                if row is None:
                    row = len(own.steps)
                    own.extend(update, [about], _NO_SHAPE)
                found[group] = row
            column.append(value)
            places.append(row)

    def _learn_late(self, key: str) -> tuple[list[Any], array[int], str]:
        """Prepare for values of a metric that are placed: a statistic is in its metric's group."""
        group = naming.group_of(key.rpartition("/")[0])
        found = self._late[key] = (self._column(key, group), array("q"), group)
        return found

    def positions(self, key: str) -> npt.NDArray[np.int64]:
        """Return the row in its group of each value of a metric."""
        import numpy as np

        length = len(self.flat[key])
        late = self._late.get(key)
        if late is not None:
            return np.array(late[1], dtype=np.int64)
        rows = self.rows.get(naming.group_of(key))
        if rows is None:
            return np.arange(length)
        own = [shape.number for keys, shape in self._shapes.items() if key in keys]
        found = np.flatnonzero(np.isin(np.array(rows.shapes), own))
        # A user may have changed the lists; the newest rows are then as good a guess as any.
        return found if len(found) == length else np.arange(length)

    def replace(self, data: Mapping[str, Iterable[Any]]) -> None:
        """Take other values in place of all there are; each row then is its own step."""
        self.__init__()  # type: ignore[misc]
        for key, values in data.items():
            base, _, last = key.rpartition("/")
            is_statistic = last in STATISTICS and base in data
            self._column(key, naming.group_of(base if is_statistic else key)).extend(values)
        for group, columns in self.groups.items():
            length = max(map(len, columns.values()), default=0)
            self.rows[group] = Rows()
            self.rows[group].extend(0, [(step, 0.0, {}) for step in range(length)], _NO_SHAPE)

    def _learn(self, keys: tuple[str, ...]) -> Shape:
        """Prepare for updates of certain names."""
        groups = dict.fromkeys(map(naming.group_of, keys))
        shape = self._shapes[keys] = Shape(
            len(self._shapes),
            tuple((key, self._column(key, naming.group_of(key))) for key in keys),
            tuple(self._rows.setdefault(group, Rows()) for group in groups),
        )
        return shape

    def _column(self, key: str, group: str) -> list[Any]:
        """Return the list of a metric of a group; the first value of it makes one."""
        column = self._flat.get(key)
        if column is None:
            column = self._flat[key] = []
            short = key.removeprefix(f"{group}/") if group else key
            self._groups.setdefault(group, {})[short] = column
        return column
