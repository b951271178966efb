"""The rows of a log as a mapping, in the idioms of both backends of Blocks."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from blackboxml.frontends.training_log.argument import read_time
from blackboxml.frontends.training_log.cells import Cells

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, KeysView, ValuesView


class Rows(dict[int, Cells]):
    """Rows by time. It is a dict for those who ask for one, such as pandas.

    What is in it is in `_rows`, so that nobody gets past the methods.
    """

    def __init__(self) -> None:
        """Begin without a row."""
        super().__init__()
        self._rows: dict[int, Cells] = {}
        self._lock = threading.RLock()

    def _make(self, time: int) -> Cells:
        """Return an empty row."""
        raise NotImplementedError

    def __getitem__(self, time: int) -> Cells:
        """Return a row; one without values is an empty mapping that can be written to.

        Raises:
            ValueError: If the time is no integer from 0 to 2^63 − 1.
        """
        row = self._rows.get(time) if type(time) is int else None
        if row is None:
            number = read_time(time)
            row = self._rows.get(number)
            if row is None:
                row = self._rows.setdefault(number, self._make(number))
        return row

    def __setitem__(self, time: int, values: Mapping[str, Any]) -> None:
        """Let a row have these values of this log, and no others."""
        if not isinstance(values, Mapping):
            kind = type(values).__name__
            message = f"a row is a {kind}, wanted a mapping of keys to values"
            raise ValueError(message)  # noqa: TRY004 - one kind of error for all arguments
        row = self[time]
        new = dict(values)
        with self._lock:
            row.retain(new)
            row.update(new)

    def __delitem__(self, time: int) -> None:
        """Delete the values of this log in a row.

        Raises:
            KeyError: If there is no such row.
        """
        number = read_time(time)
        row = self._rows.get(number)
        if row is None:
            raise KeyError(time)
        row.clear()
        if not row:
            del self._rows[number]

    def __iter__(self) -> Iterator[int]:
        """Yield the times, ascending."""
        return iter(sorted(self._rows))

    def __len__(self) -> int:
        """Return how many times there are."""
        return len(self._rows)

    def __contains__(self, time: object) -> bool:
        """Tell whether there is a row, without making one."""
        try:
            return read_time(time) in self._rows
        except ValueError:
            return False

    def get(self, time: int, default: Any = None) -> Any:
        """Return a row, or the default if there is none, without making one."""
        return self[time] if time in self else default  # noqa: SIM401 - this is that

    def setdefault(self, time: int, default: Any = None) -> Cells:
        """Return a row; one without a value is given these first."""
        if default and not self[time]:
            self[time] = default
        return self[time]

    def update(self, *others: Any, **_: Any) -> None:
        """Give rows these values, and no others, by time."""
        for time, values in dict(*others).items():
            self[time] = values

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        """Give rows these values, and no others, by time."""
        self.update(other)
        return self

    def pop(self, time: int, *default: Any) -> Any:
        """Delete the values of this log in a row, and return all that it had."""
        if default and time not in self:
            return default[0]
        values = self[time].copy() if time in self else None
        del self[time]
        return values

    def popitem(self) -> tuple[int, Any]:
        """Delete the values of this log in the last row, and return its time and all it had."""
        if not self._rows:
            raise KeyError("the log has no rows")
        time = max(self._rows)
        return time, self.pop(time)

    def clear(self) -> None:
        """Delete all values of this log in rows."""
        for time in list(self._rows):
            del self[time]

    def __eq__(self, other: object) -> bool:
        """Tell whether another mapping has the same values in its rows."""
        return isinstance(other, Mapping) and self.copy() == dict(other.items())

    __hash__ = None

    def keys(self) -> KeysView[int]:  # type: ignore[override]
        """Return the times at which there is a value, ascending."""
        return self.copy().keys()

    def values(self) -> ValuesView[Cells]:  # type: ignore[override]
        """Return the rows that have a value, by time."""
        return self.copy().values()

    def items(self) -> ItemsView[int, Cells]:  # type: ignore[override]
        """Return times and rows that have a value, by time."""
        return self.copy().items()

    def copy(self) -> dict[int, Cells]:
        """Return a plain dict of the rows that have a value, by time."""
        return {time: row for time, row in sorted(self._rows.items()) if row}
