"""What a caller logs, one record or many: stored exactly, or refused with the metric named."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from blackboxml.base import naming
from blackboxml.base.scalar import spell, to_number, to_step
from blackboxml.errors import MetricError
from blackboxml.model import INT64_MAX, INT64_MIN, LIMITS, STATISTICS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Column: TypeAlias = npt.NDArray[Any]

_WORTH: Final = 16  # records of a layout,
_WORTH_ALL: Final = 128  # and of all layouts, from which on columns are faster than records

_NUMBERS: Final = frozenset([float, int])

Point = dict[str, Any]
"""A record that is being made: `step`, `metrics` and perhaps `ranks`."""


@dataclass(slots=True)
class Points:
    """Many records, column by column.

    A layout is the metrics that a record holds, in their order, and the types of their values.

    Attributes:
        steps: An int64 for each record.
        times: Unix seconds for each record.
        which: The layout of each record.
        layouts: The names of each layout, none of them twice; each has a record.
        values: For each layout, the values of each of its metrics: bool, int64 or float64, one for
            each record of that layout, in the order of the records.
        rank: Which rank logged them, from 0.
    """

    steps: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    which: npt.NDArray[np.intp]
    layouts: list[tuple[str, ...]]
    values: list[list[Column]]
    rank: int = 0

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.steps)

    def rows(self) -> list[npt.NDArray[np.intp]]:
        """Return which records have each layout."""
        order = self.which.argsort(kind="stable")
        ends = self.which[order].searchsorted(range(1, len(self.layouts) + 1))
        return [order[begin:end] for begin, end in pairwise([0, *ends.tolist()])]

    @property
    def worth(self) -> bool:
        """Whether there are enough records for columns to be worth the effort."""
        return len(self) >= max(_WORTH_ALL, _WORTH * len(self.layouts))

    def records(self) -> list[tuple[int, float, dict[str, Any]]]:
        """Return step, time and metrics of each record, as Python values."""
        steps, times = self.steps.tolist(), self.times.tolist()
        found: list[Any] = [None] * len(steps)
        for rows, names, columns in zip(self.rows(), self.layouts, self.values, strict=True):
            lists = (column.tolist() for column in (rows, *columns))
            for row, *values in zip(*lists, strict=True):
                found[row] = steps[row], times[row], dict(zip(names, values, strict=True))
        return found


class Stretch(NamedTuple):
    """A part of a journal that was written in one go.

    Attributes:
        journal: File name.
        offset: Where it begins.
        size: Its bytes.
        first_seq: `seq` of its first record.
        records: How many records it holds.
        crc: CRC-32 of its bytes.
    """

    journal: str
    offset: int
    size: int
    first_seq: int
    records: int
    crc: int


class Vocabulary:
    """The metric names of a run; each is checked the first time it comes.

    Attributes:
        known: Names that may be logged without another look.
    """

    def __init__(self) -> None:
        """Begin without a name."""
        self.known: set[str] = set()

    def convert(
        self,
        metrics: object,
        step: object,
        ranks: Mapping[str, Mapping[str, Any]] | None,
        time: object = None,
    ) -> Point:
        """Return what was logged as plain JSON values, owing nothing to the caller's objects.

        Args:
            metrics: A mapping of names to numbers.
            step: An integer, or None for an automatic step.
            ranks: Statistics across ranks by metric name, or None.
            time: Unix seconds, or None for now.

        Raises:
            MetricError: If a name, a value, the step or the time cannot be stored.
        """
        if not isinstance(metrics, Mapping):
            message = f"log() takes a mapping of names to numbers, got {type(metrics).__name__}"
            raise MetricError(message)
        if len(metrics) > LIMITS.metrics_per_record:
            message = (
                f"a record of {len(metrics):,} metrics (the first is {next(iter(metrics))!r:.80}) "
                f"exceeds the limit of {LIMITS.metrics_per_record:,}; log them in several calls "
                "with the same step"
            )
            raise MetricError(message)
        known = self.known
        values: dict[str, Any] = {}
        for name, value in metrics.items():
            own = name if type(name) is str and name in known else self.name(name)
            try:
                number = to_number(value)
            except ValueError as error:
                raise _refusal(name, error) from None
            values[own] = number if number - number == 0 else spell(number)
        point: Point = {"step": None if step is None else read_step(step)}
        if time is not None:
            point["time"] = read_time(time)
        point["metrics"] = values
        if ranks is not None:
            if not isinstance(ranks, Mapping):
                message = f"ranks is {ranks!r:.80}, wanted statistics by metric name"
                raise MetricError(message)
            point["ranks"] = {
                self.name(name): _statistics(name, statistics) for name, statistics in ranks.items()
            }
        return point

    def check(self, points: Points) -> None:
        """Refuse points of which one cannot be stored.

        Raises:
            MetricError: If there is no record, a name or a time cannot be stored, or a record has
                too many metrics.
        """
        for names in points.layouts:
            if not 0 < len(names) <= LIMITS.metrics_per_record:
                most = LIMITS.metrics_per_record
                message = f"a record of {len(names):,} metrics, wanted 1 to {most:,}"
                raise MetricError(message)
            for name in names:
                self.name(name)
        highest = abs(points.times).max(initial=0.0)
        if highest - highest != 0:
            message = "time is not finite, wanted Unix seconds"
            raise MetricError(message)

    def name(self, name: object) -> str:
        """Return the name of a metric if a run may hold it.

        Raises:
            MetricError: Naming what is wrong with it.
        """
        if not isinstance(name, str):
            message = f"the metric name {name!r:.80} is no text; use str() on it"
            raise MetricError(message)
        if name not in self.known:
            naming.check_metric_name(name)
            if len(self.known) >= LIMITS.metric_names:
                message = (
                    f"metric {name!r:.80} would be one more than {LIMITS.metric_names:,} names in "
                    "the run; put what varies into the step or the value, not into the name"
                )
                raise MetricError(message)
            self.known.add(str(name))
        return str(name)


def read_step(step: object) -> int:
    """Return a step as int64.

    Raises:
        MetricError: If it is no integer or too large.
    """
    try:
        number = to_step(step)
    except ValueError as error:
        message = f"step: {error}"
        raise MetricError(message) from None
    return number


def read_time(time: object) -> float:
    """Return a moment as Unix seconds.

    Raises:
        MetricError: If it is no finite number.
    """
    try:
        seconds = float(to_number(time))
    except ValueError as error:
        message = f"time: {error}"
        raise MetricError(message) from None
    if seconds - seconds != 0:
        message = f"time is {seconds}, wanted Unix seconds"
        raise MetricError(message)
    return seconds


def _refusal(name: str, error: ValueError) -> MetricError:
    """Return the error for a value that cannot be stored."""
    return MetricError(f"metric {name!r:.80}: {error}")


def _are_plain(values: Collection[Any]) -> bool:
    """Tell whether values can stand in a record as they are; NaN and the infinities cannot."""
    return (
        _NUMBERS.issuperset(map(type, values))
        and min(values) > INT64_MIN
        and max(values) < INT64_MAX
        and math.isfinite(sum(values))
    )


def _statistics(name: str, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics across ranks of a metric as they stand in a record."""
    if not isinstance(statistics, Mapping):
        message = f"the ranks of {name!r:.80} are {statistics!r:.80}, wanted values by statistic"
        raise MetricError(message)
    unknown = [key for key in statistics if key not in STATISTICS]
    if unknown or not statistics:
        message = (
            f"the ranks of {name!r:.80} hold {unknown or 'nothing'}, "
            f"wanted some of {', '.join(STATISTICS)}"
        )
        raise MetricError(message)
    if _are_plain(statistics.values()):
        return dict(statistics)
    try:
        return {key: spell(to_number(value)) for key, value in statistics.items()}
    except ValueError as error:
        message = f"ranks of {name}"
        raise _refusal(message, error) from None
