"""The rows of a log and its status: dicts whose changes are recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from blackboxml.foreign.training_log import MISSING
from blackboxml.frontends.training_log.value import ATOMS, thaw

if TYPE_CHECKING:
    from collections.abc import Container, ItemsView, Iterator, ValuesView

    from blackboxml.frontends.training_log.log import TrainingLog


class Cells(dict[str, Any]):
    """What a log holds at one time, or in its status. Each value that is set is recorded.

    Values that can be changed in place are given as copies: set them anew to change the log.
    """

    __slots__ = ("_log", "slot")

    def __init__(self, log: TrainingLog, slot: int | None) -> None:
        """Begin without a value.

        Args:
            log: The log.
            slot: The time; None for the status.
        """
        self._log = log
        self.slot = slot

    def __setitem__(self, key: str, value: Any) -> None:
        """Record a value."""
        self._log.put(self, key, value)

    def __delitem__(self, key: str) -> None:
        """Record that a value does not count; that of an ancestor shows again."""
        self._log.remove(self, key)

    def update(self, *others: Any, **more: Any) -> None:
        """Record several values, the numbers among them in one record."""
        self._log.put_all(self, dict(*others, **more))

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        """Record several values."""
        self.update(other)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return a value, and record it first if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Delete a value and return it."""
        if key not in self and default is not MISSING:
            return default
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Delete the value that was set last, and return it with its key."""
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        """Delete all values of this log."""
        self.retain(())

    def retain(self, keys: Container[str]) -> None:
        """Delete the values of this log under other keys."""
        for key in list(self):
            if key not in keys:
                self._log.remove(self, key, inherited=True)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys; being there, it makes `dict(row)` ask for each value."""
        return super().__iter__()

    def __getitem__(self, key: str) -> Any:
        """Return a value."""
        value = super().__getitem__(key)
        return value if type(value) in ATOMS else thaw(value)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        return self[key] if key in self else default  # noqa: SIM401 - this is that

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """Return the values as they are now."""
        return self.copy().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Return keys and values as they are now."""
        return self.copy().items()

    def copy(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {key: self[key] for key in self}

    def __reduce__(self) -> Any:
        """Pickle as a plain dict: the log is pickled by itself."""
        return dict, (self.copy(),)

    def keep(self, key: str, value: Any) -> None:
        """Hold a value that was recorded."""
        super().__setitem__(key, value)

    def drop(self, key: str) -> None:
        """Forget a value, if it is there."""
        super().pop(key, None)

    def held(self, key: str) -> Any:
        """Return the value that is held, not a copy; `MISSING` where there is none."""
        return super().get(key, MISSING)
