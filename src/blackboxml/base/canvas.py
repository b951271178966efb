"""Lines and bars drawn with characters.

Strategy: plotext draws lines and axes. It knows no gaps and slows down with the number of points,
so each series is thinned to what the canvas can show, and cut where values are not finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import plotext

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

_TEN_THOUSAND: Final = 10_000
_LEAST_HEIGHT: Final = 6


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot.

    Attributes:
        label: What the legend calls it.
        x: Ascending, of the shape (n,).
        y: Values, NaN where there is none, of the shape (n,).
    """

    label: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """A series and how it is drawn.

    Attributes:
        series: What to draw.
        marker: A marker of plotext, such as `braille`, or one character.
        colour: What plotext calls its colour, None for none.
    """

    series: Series
    marker: str
    colour: str | None = None


def draw_lines(
    lines: Sequence[Line],
    width: int,
    height: int,
    label: str,
    *,
    origin: float = 0.0,
    scale: float = 1.0,
    connected: bool = True,
) -> str:
    """Return lines with axes, as text with the colours of a terminal.

    Args:
        lines: At least one, each with a finite value.
        width: Columns.
        height: Lines.
        label: What the horizontal axis is called.
        origin: The x that is shown as 0, with one for which a fraction makes sense.
        scale: What x is divided by for showing.
        connected: Draw lines, where points alone are drawn otherwise.
    """
    _begin(width, height)
    _set_axes([each.series for each in lines], width, height + 2, origin, scale)
    for line in lines:
        x = (line.series.x - origin) / scale
        draw = plotext.plot if connected else plotext.scatter
        for piece_x, piece_y in pieces(*thin(x, line.series.y, 2 * width)):
            draw(piece_x.tolist(), piece_y.tolist(), marker=line.marker, color=line.colour)
    plotext.xlabel(label)
    return str(plotext.build())


def draw_bars(
    values: npt.NDArray[np.float64], bins: int, width: int, height: int, label: str, *, marker: str
) -> str:
    """Return how often values occur, as text with the colours of a terminal.

    Args:
        values: At least one that is finite.
        bins: Number of bars.
        width: Columns.
        height: Lines.
        label: What the horizontal axis is called.
        marker: A marker of plotext, or one character.
    """
    _begin(width, height)
    low, high = widened(float(values.min()), float(values.max()))
    counts, edges = np.histogram(values, bins, (low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    plotext.bar(middles.tolist(), counts.tolist(), marker=marker, width=1.0, minimum=0)
    plotext.xlim(low, high)
    places = ticks(low, high, max(2, width // 14))
    plotext.xticks(places, labels(places))
    most = float(counts.max())
    places = ticks(0.0, most, max(2, height // 3), whole=True)
    plotext.ylim(0, most * 1.02)
    plotext.yticks(places, labels(places))
    plotext.xlabel(label)
    return str(plotext.build())


def _begin(width: int, height: int) -> None:
    """Empty the canvas, of which there is one."""
    plotext.clear_figure()
    plotext.limit_size(False, False)  # noqa: FBT003 - its own signature
    plotext.theme("clear")
    plotext.plot_size(width, max(_LEAST_HEIGHT, height))


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """Return round numbers between two bounds.

    Args:
        low: Lower bound.
        high: Upper bound, above `low`.
        count: About how many are wanted.
        whole: Only integers.

    >>> ticks(0.0, 1.0, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1.0, float(round(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def _set_axes(
    drawn: Sequence[Series], width: int, height: int, origin: float, scale: float
) -> None:
    """Set limits and round ticks."""
    low = min(float(np.nanmin(each.y)) for each in drawn)
    high = max(float(np.nanmax(each.y)) for each in drawn)
    low, high = widened(low, high)
    margin = 0.04 * (high - low)
    plotext.ylim(low - margin, high + margin)
    places = ticks(low, high, max(2, (height - 4) // 2))
    plotext.yticks(places, labels(places))
    left = (min(float(each.x[0]) for each in drawn) - origin) / scale
    right = (max(float(each.x[-1]) for each in drawn) - origin) / scale
    left, right = widened(left, right)
    plotext.xlim(left, right)
    places = ticks(left, right, max(2, width // 11), whole=origin == 0.0)
    plotext.xticks(places, labels(places))


def widened(low: float, high: float) -> tuple[float, float]:
    """Return bounds with room between them, also around a single value."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) / 2 or 1.0
    return low - room, high + room


def labels(places: Sequence[float]) -> list[str]:
    """Return ticks as short numbers, all with as many decimals."""
    if not places:
        return []
    largest = max(map(abs, places))
    gap = min((b - a for a, b in pairwise(places)), default=largest) or 1.0
    if largest >= 1e7 or largest < 1e-4:  # noqa: PLR2004
        digits = max(0, math.floor(math.log10(largest or 1.0)) - math.floor(math.log10(gap)))
        return [f"{place:.{min(digits + 1, 8)}g}" for place in places]
    decimals = next(n for n in range(12) if abs(round(gap, n) - gap) <= 1e-6 * gap or n == 11)  # noqa: PLR2004
    return [
        f"{place:,.{decimals}f}" if largest >= _TEN_THOUSAND else f"{place:.{decimals}f}"
        for place in places
    ]


def thin(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], buckets: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the least and the greatest value of each bucket along x, if there are many points."""
    if len(x) <= 4 * buckets or x[-1] <= x[0]:
        return x, y
    bucket = ((x - x[0]) * (buckets / (x[-1] - x[0]))).astype(np.int64)
    first = np.flatnonzero(np.diff(bucket, prepend=-1))
    extremes = np.stack([np.fmin.reduceat(y, first), np.fmax.reduceat(y, first)], axis=1)
    return np.repeat(x[first], 2), extremes.ravel()


def pieces(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Return a series cut where values are missing."""
    there = np.isfinite(y)
    edges = np.flatnonzero(np.diff(there.astype(np.int8), prepend=0, append=0))
    return [
        (x[begin:end], y[begin:end]) for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]
