"""What the methods of a log take: times, keys and ids."""

from __future__ import annotations

import operator
import uuid as uuids
from typing import Any, NoReturn

from blackboxml.errors import MetricError
from blackboxml.frontends.training_log.value import Flat
from blackboxml.model import INT64_MAX


def read_uuid(value: uuids.UUID | str) -> uuids.UUID:
    """Return an id.

    Raises:
        ValueError: If it is none.
    """
    try:
        return value if isinstance(value, uuids.UUID) else uuids.UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"uuid is {value!r:.80}, wanted 32 hexadecimal digits") from None


def read_time(time: object) -> int:
    """Return a time as an int.

    Raises:
        ValueError: If it is no integer from 0.
    """
    if type(time) is int and 0 <= time <= INT64_MAX:
        return time
    try:
        number = operator.index(time)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number <= INT64_MAX:
        message = f"time must be a non-negative integer, not {time!r:.80}"
        raise ValueError(message)
    return int(number)


def refuse_key(key: object) -> NoReturn:
    """Say why a key cannot be one.

    Raises:
        MetricError: Always.
    """
    if isinstance(key, str):
        message = f"the key {key!r:.80} begins like the status; use log.status for that"
    else:
        message = f"the key {key!r:.80} is no text; use str() on it"
    raise MetricError(message)


def appended(old: Any, new: Any) -> list[Any] | None:
    """Return what a list has more than an older one, None if it is not that one made longer."""
    if (
        type(old) is Flat
        and type(new) is Flat
        and 0 < len(old) < len(new)
        and new[: len(old)] == old
    ):
        return list(new[len(old) :])
    return None
