"""What a training script hands over, as values that owe nothing to its objects.

Nothing that is kept is a tensor: one that is changed in place later would change the history, and
one with a gradient would hold its whole graph in memory.
"""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.scalar import spell, to_number
from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blackboxml.model import Number

PLAIN: Final = frozenset([float, int, bool])

_OTHERS: Final = (str, bytes, bytearray, list, tuple, set, frozenset, dict, type(None))
_DEEPEST: Final = 32


def scalar(value: Any) -> Number | None:
    """Return a value as a number, None if it is none; an array of one element is one."""
    if isinstance(value, _OTHERS):
        return None
    try:
        return to_number(value)
    except ValueError:
        pass
    try:
        shape = tuple(value.shape)
        single = shape and math.prod(shape) == 1
        return (
            to_number(value.reshape(()) if hasattr(value, "reshape") else value) if single else None
        )
    except Exception:  # noqa: BLE001 - whatever it is, it is no number
        return None


def snapshot(value: Any, depth: int = _DEEPEST) -> Any:
    """Return a copy that no later change reaches: numbers, texts, NumPy arrays and containers.

    What is of another kind becomes its text.
    """
    if value is None or type(value) in PLAIN or isinstance(value, (str, bytes, PurePath)):
        return value
    number = scalar(value)
    if number is not None:
        return number
    if depth > 0 and isinstance(value, dict):
        return {str(key): snapshot(each, depth - 1) for key, each in value.items()}
    if depth > 0 and isinstance(value, (list, tuple)):
        items = [snapshot(each, depth - 1) for each in value]
        return tuple(items) if isinstance(value, tuple) else items
    if depth > 0 and isinstance(value, (set, frozenset)):
        return [snapshot(each, depth - 1) for each in sorted(value, key=repr)]
    found = array(value) if hasattr(value, "shape") else None
    return text(value) if found is None else found


def array(value: Any) -> Any:
    """Return numbers as a new NumPy array of at least one dimension, None if they are none.

    Nested lists of unequal lengths are none; complex and half precision keep their type, and
    bfloat16, which NumPy lacks, becomes float32.
    """
    import numpy as np

    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            if str(value.dtype) == "torch.bfloat16":
                value = value.float()
            value = value.numpy()
        elif hasattr(value, "numpy") and not isinstance(value, np.ndarray):
            value = value.numpy()
        found = np.array(value)
    except Exception:  # noqa: BLE001 - tensors of any library; what gives no array is none
        return None
    return found if found.ndim and found.dtype.kind in "biufc" else None


def text(value: object) -> str:
    """Return what an object says of itself, also if it cannot."""
    try:
        found = str(value)
    except Exception:  # noqa: BLE001 - the object is not ours
        found = f"<{type(value).__name__}>"
    return found.encode(errors="backslashreplace").decode()


def plain(value: Any) -> Any:
    """Return a snapshot as strict JSON; numbers that JSON lacks are the texts of the journal."""
    found: Any
    match value:
        case None | bool() | str():
            found = value if not isinstance(value, str) else text(value)
        case int():
            found = value if INT64_MIN <= value <= INT64_MAX else float(value)
        case float():
            found = spell(value)
        case dict():
            found = {text(key): plain(each) for key, each in value.items()}
        case list() | tuple():
            found = [plain(each) for each in value]
        case PurePath():
            found = text(value.as_posix())
        case _:
            found = plain(value.tolist()) if hasattr(value, "tolist") else text(value)
    return found


def leaves(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield snapshots by name, those in mappings as `key.sub`."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from leaves({f"{key}.{name}": each for name, each in value.items()})
        else:
            yield key, value
