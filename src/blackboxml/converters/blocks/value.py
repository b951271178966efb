"""Values of a training log as items, and values of a run as Blocks stores them."""

from __future__ import annotations

import math
import pickle
import struct
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.converters.blocks.pickles import UnsafePickleError, load, simplify
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import Medium, Point

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.foreign.interchange import Item, Ledger

PICKLE: Final = "application/x-python-pickle"
"""Media type of a pickle that could not be understood and is kept as it is."""

_TEMPLATES: Final = 16
_INT64: Final = 8


class Kept(bytes):
    """A pickle that could not be understood."""

    __slots__ = ()


def is_pickle(data: bytes) -> bool:
    """Tell whether bytes can be the beginning of a pickle; any protocol."""
    return data[:1] == b"\x80" or data[:1] in (b"c", b"(", b"}", b"]")


class Values:
    """Decodes values; what is stored in the same way again and again is found at once."""

    def __init__(self, ledger: Ledger | None) -> None:
        """Begin; without a ledger nothing is told."""
        self._ledger = ledger
        self._name = None if ledger is None else foreign.Names(ledger)
        self._templates: list[tuple[bytes, bytes, int, np.dtype[Any]]] = []

    def items(self, step: int, row: dict[str, Any]) -> Iterator[Item]:
        """Yield what was logged at one time: the numbers as a point, then all else."""
        if self._ledger is None or self._name is None:
            raise TypeError("a ledger is needed")
        metrics = {}
        others = []
        for key, stored in row.items():
            value = stored if type(stored) is float else self.decode(stored)
            number = foreign.number(value)
            if number is None:
                others.append((self._name(key), value))
            else:
                metrics[self._name(key)] = number
        if metrics:
            yield Point(step, None, metrics)
        for name, value in others:
            if isinstance(value, Kept):
                what = "a pickle that needs what is never imported is kept as its bytes"
                self._ledger.unreadable("artifact", what, where=f"{name} at {step}")
                yield Medium(name, "artifact", step, None, data=bytes(value), media_type=PICKLE)
            else:
                yield foreign.to_medium(name, value, step, None, self._ledger)

    def decode(self, value: Any) -> Any:
        """Return a value as it was logged; bytes that are no pickle stay bytes."""
        if not isinstance(value, bytes):
            try:
                return simplify(value)
            except UnsafePickleError as error:
                return f"<{error}>"
        for prefix, suffix, size, kind in self._templates:
            if len(value) == size and value.startswith(prefix) and value.endswith(suffix):
                return np.frombuffer(value, kind, 1, len(prefix))[0]
        try:
            found = simplify(load(value))
        except UnsafePickleError:
            return Kept(value) if is_pickle(value) and value.endswith(b".") else value
        if isinstance(found, np.generic) and len(self._templates) < _TEMPLATES:
            self._learn(value, found)
        return found

    def _learn(self, data: bytes, value: np.generic) -> None:
        """Note where in a pickle the bytes of a NumPy number are, if that is beyond doubt."""
        raw = value.tobytes()
        mark = b"C" + bytes([len(raw)])
        if data.count(mark + raw) != 1:
            return
        start = data.index(mark + raw) + len(mark)
        prefix, suffix = data[:start], data[start + len(raw) :]
        other = bytes(byte ^ 1 for byte in raw)
        try:
            probe = simplify(load(prefix + other + suffix))
        except UnsafePickleError:
            return
        if isinstance(probe, np.generic) and probe.tobytes() == other:
            self._templates.append((prefix, suffix, len(data), value.dtype))

    @staticmethod
    def whole(time: object) -> int | None:
        """Return a time that SQLite holds otherwise than as an integer; None if it is none."""
        if isinstance(time, bytes) and len(time) == _INT64:
            return int(struct.unpack("<q", time)[0])
        if isinstance(time, float) and time.is_integer() and abs(time) < 2.0**63:
            return int(time)
        return None


def freeze(value: Any) -> Any:
    """Return a value as `SQLiteLog` reads it back equal: natively, or pickled.

    Truth values, NaN and bytes would be another value if they stood there natively. The pickles
    are of protocol 2 and name NumPy's modules as they are called since its first version.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        if isinstance(value, float) or -(2**63) <= value < 2**63:
            return value
    elif isinstance(value, float) and math.isinf(value):
        return value
    data = pickle.dumps(value, 2)
    if isinstance(value, np.ndarray):
        return data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray", 1)
    return data


def thaw(value: Any) -> Any:
    """Return a value of a run as one that needs no class of its own to be unpickled."""
    if isinstance(value, dict):
        return {key: thaw(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(thaw(each) for each in value)
    return value.as_posix() if isinstance(value, PurePath) else value
