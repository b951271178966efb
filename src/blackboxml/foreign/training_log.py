"""A training log as a run holds it: values by time and key, and a status.

Numbers are in the metrics journal and all other values in the media journal, each in its order. Of
a key that has both at one time, a number counts if it came later: the journal of media says so, by
`{"deleted": n}` under the key, which takes away the first n numbers and every medium before it.
`{"append": […]}` under a key makes the list longer that stood there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml.config import decode_config
from blackboxml.errors import BlackboxError
from blackboxml.foreign import values as foreign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader

logger = logging.getLogger("blackboxml")

STATUS: Final = "status/"
"""The names of metrics and media that are the status begin so."""

EXTENSION: Final = "org.blackboxml.training_log"
"""The member of a manifest's `extensions` that marks a log, and says how much of its parent it
knows."""

MISSING: Final = object()
"""In place of a value where there is none."""

Place = tuple[int | None, str]
"""Time and key; None for the status."""


@dataclass(slots=True)
class Extent:
    """How much was recorded: points and media, or how much of them counts."""

    points: int
    media: int


@dataclass(slots=True)
class History:
    """What one run holds.

    Attributes:
        values: By time and key; those of the status have None for a time.
        numbers: How many numbers were recorded at a place, and how many of them were taken away;
            where there is one, and it counts, that is not said.
        extent: How much was recorded.
    """

    values: dict[Place, Any] = field(default_factory=dict)
    numbers: dict[Place, tuple[int, int]] = field(default_factory=dict)
    extent: Extent = field(default_factory=lambda: Extent(0, 0))


def place_of(name: str, step: int) -> Place:
    """Return the place of a metric or a medium."""
    return (None, name.removeprefix(STATUS)) if name.startswith(STATUS) else (step, name)


def read_history(run: RunReader, status: Mapping[str, Any], until: Extent | None = None) -> History:
    """Return what a run holds of its log.

    Args:
        run: The run.
        status: The status that a log begins with.
        until: How much of it counts, None for all.
    """
    found = History(values={(None, key): value for key, value in status.items()})
    counts: dict[Place, int] = {}
    for record in run.records():
        if record.rank or (until is not None and found.extent.points >= until.points):
            continue
        found.extent.points += 1
        for name, value in record.metrics.items():
            place = place_of(name, record.step)
            counts[place] = counts.get(place, 0) + 1
            found.values[place] = value
    taken = _read_media(run, found, counts, until)
    for place, count in counts.items():
        if count > 1 or taken.get(place) or place[0] is None:
            found.numbers[place] = count, taken.get(place, 0)
    found.values = {key: value for key, value in found.values.items() if value is not MISSING}
    return found


def is_log(run: RunReader) -> bool:
    """Tell whether a run is a training log."""
    return EXTENSION in run.manifest.get("extensions", {})


def _read_media(
    run: RunReader, found: History, counts: Mapping[Place, int], until: Extent | None
) -> dict[Place, int]:
    """Add the values that are no numbers; return how many numbers were taken away, by place."""
    taken: dict[Place, int] = {}
    others: dict[Place, Any] = {
        place: value for place, value in found.values.items() if place not in counts
    }
    for record in run.media():
        if record.rank or (until is not None and found.extent.media >= until.media):
            continue
        found.extent.media += 1
        place = place_of(record.name, record.step)
        try:
            _apply(others, taken, place, _value(run, record))
        except (BlackboxError, OSError, TypeError, ValueError) as error:
            logger.warning("%s of %s cannot be read: %s", record.name, run.path, error)
    for place, value in others.items():
        if counts.get(place, 0) <= taken.get(place, 0):
            found.values[place] = value
    return taken


def _value(run: RunReader, record: MediaRecord) -> Any:
    """Return what a medium says: a value, or what becomes of one, as an object of one member."""
    if record.kind != "event":
        return {"value": foreign.from_medium(run, record)}
    said = record.value if record.file is None else orjson.loads(run.load(record))
    known = isinstance(said, dict) and list(said) in (["append"], ["deleted"], ["value"])
    return decode_config(said if known else {"value": said})


def _apply(others: dict[Place, Any], taken: dict[Place, int], place: Place, said: Any) -> None:
    """Take a value, or what becomes of one."""
    if "deleted" in said:
        taken[place] = int(said["deleted"])
        others[place] = MISSING
    elif "append" in said:
        others[place] = [*others.get(place, ()), *said["append"]]
    else:
        others[place] = said["value"]
