"""The values of a log: numbers as metrics, all others as media; stored as they are, or refused.

Texts are media of the kind `text`, arrays files of NumPy, and everything else typed JSON in an
`event`. Nothing is pickled. What is kept here of a value is what a reader of the run would get.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from blackboxml.config import decode_config, encode_config
from blackboxml.encoding.array import encode_array, to_array
from blackboxml.errors import ConfigError, MetricError

if TYPE_CHECKING:
    from blackboxml.media.medium import Content

ATOMS: Final = frozenset([float, int, bool, str, bytes, type(None)])
"""Types of values that cannot be changed in place."""

_SMALL_BYTES: Final = 16 * 2**10


class Flat(list[Any]):
    """A list of atoms, which is copied at once."""

    __slots__ = ()


class Stored(NamedTuple):
    """A value that is no number.

    Attributes:
        kind: The kind of the medium.
        content: The medium.
        value: The value as it is read back.
        bytes: How large it is, where Blocks would have pickled it; 0 for others.
    """

    kind: str
    content: Content
    value: Any
    bytes: int


def store(key: str, value: Any) -> Stored:
    """Return a value that is no number as it is to be kept.

    Raises:
        MetricError: If it cannot be kept so that it comes back equal; names the key.
    """
    if isinstance(value, str):
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise MetricError(f"{key!r:.80} is no valid text: {error}") from None
        return Stored("text", {"value": text}, text, 0)
    if isinstance(value, bytes):
        value = bytes(value)
        if len(value) > _SMALL_BYTES:
            content: Content = {"data": value, "media_type": "application/octet-stream"}
            return Stored("artifact", content, value, len(value))
    try:
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            return _store_array(value)
        tree = encode_config({"value": value})
        kept = decode_config(tree)["value"]
        data = orjson.dumps(tree)
    except (ConfigError, ValueError, TypeError, RecursionError) as error:
        raise MetricError(f"{key!r:.80} cannot be stored: {error}") from None
    if not same(value, kept):
        kind = type(value).__name__
        message = (
            f"{key!r:.80} is a {kind}, or holds something, that would not come back as it is; "
            "store numbers, texts, bytes, arrays, or lists, tuples and dicts of these but arrays"
        )
        raise MetricError(message)
    return Stored("event", {"value": tree}, freeze(kept), len(data))


def _store_array(value: Any) -> Stored:
    """Return an array as it is to be kept.

    Raises:
        ValueError: If it holds anything but numbers.
    """
    import numpy as np

    encoded = encode_array(value)
    kept = np.array(to_array(value))
    content: Content = {"data": encoded.data, "media_type": encoded.media_type}
    return Stored("array", content, kept, kept.nbytes)


def same(value: Any, kept: Any) -> bool:
    """Tell whether a value came back as it was: equal, and its containers of the same kind."""
    if isinstance(value, (list, tuple)):
        kind = list if isinstance(value, list) else tuple
        fits = isinstance(kept, kind) and len(value) == len(kept)
        return fits and all(map(same, value, kept))
    if isinstance(value, dict):
        fits = isinstance(kept, dict) and value.keys() == kept.keys()
        return fits and all(same(each, kept[key]) for key, each in value.items())
    if isinstance(kept, (list, dict)) or isinstance(kept, str) is not isinstance(value, str):
        return False
    if isinstance(kept, float) and math.isnan(kept):
        return bool(value != value)  # noqa: PLR0124 - NaN alone
    return bool(value == kept)


def freeze(value: Any) -> Any:
    """Return a value as it is kept in memory."""
    if isinstance(value, list) and ATOMS.issuperset(map(type, value)):
        return Flat(value)
    return value


def thaw(value: Any) -> Any:
    """Return a value as it is given away: what is done to it does not change the log."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is Flat:
        return list(value)
    if kind is list:
        return [thaw(each) for each in value]
    if kind is tuple:
        return tuple(thaw(each) for each in value)
    if kind is dict:
        return {key: thaw(each) for key, each in value.items()}
    return value.copy() if hasattr(value, "dtype") else value
