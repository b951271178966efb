"""Metrics of a run drawn in a terminal, a plot for each short name; nothing here prints.

Strategy: plotext draws lines and axes. It knows no gaps and slows down with the number of points,
so each series is thinned to what the canvas can show, and cut where values are not finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import plotext
from rich.table import Table
from rich.text import Text

from blackboxml import naming
from blackboxml.cli.terminal import safe
from blackboxml.errors import MetricError
from blackboxml.table import read_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from blackboxml.reader import RunReader

Axis = Literal["step", "time"]

MOST_PLOTS: Final = 4
"""Plots that are drawn if none is asked for."""

_TWO_COLUMNS: Final = 120
_MOST_WIDTH: Final = 160
_LARGEST: Final = 1e300
_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_TEN_THOUSAND: Final = 10_000

# Lines that can be told apart without colour: (marker, how the legend shows it, colour, and what
# plotext calls that).
_LOOKS: Final = (
    ("braille", "⠒⠒", "cyan", "cyan"),
    ("hd", "▄▄", "yellow", "orange"),
    ("dot", "••", "magenta", "magenta"),
    ("x", "xx", "green", "green"),
    ("o", "oo", "red", "red"),
    ("+", "++", "blue", "blue"),
)


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


def choose(reader: RunReader, wanted: Sequence[str]) -> dict[str, list[str]]:
    """Return the metrics to plot by the title of their plot.

    Args:
        reader: The run.
        wanted: Full names, or names without their group for all groups; empty for the first float
            metrics of the run.

    Raises:
        MetricError: If the run has no such metric.
    """
    types = _types(reader)
    if not wanted:
        floats = [metric for metric, kind in types.items() if kind == "float64"] or list(types)
        shorts = list(dict.fromkeys(map(naming.short_name, floats)))[:MOST_PLOTS]
        return {short: [m for m in floats if naming.short_name(m) == short] for short in shorts}
    plots: dict[str, list[str]] = {}
    for name in wanted:
        found = [name] if name in types else [m for m in types if naming.short_name(m) == name]
        if not found:
            there = ", ".join(map(safe, types)) or "none"
            raise MetricError(f"{reader.path} has no metric {name!r}; it has {there}")
        metrics = plots.setdefault(naming.short_name(name) if name in types else name, [])
        metrics += [metric for metric in found if metric not in metrics]
    return plots


def draw(
    reader: RunReader,
    plots: Mapping[str, Sequence[str]],
    *,
    width: int,
    height: int | None = None,
    axis: Axis = "step",
) -> Table:
    """Return the plots, one below the other, or in two columns where there is room.

    Args:
        reader: The run.
        plots: Metrics by title, as `choose` returns them.
        width: Columns of the terminal.
        height: Lines of each plot, None to choose.
        axis: What runs along the horizontal axis.
    """
    columns = 2 if width >= _TWO_COLUMNS and len(plots) > 1 else 1
    own_width = min(width, _MOST_WIDTH) // columns - (columns > 1)
    own_height = height or (20 if len(plots) == 1 else 16)
    drawn = []
    for title, metrics in plots.items():
        series = [_series(reader, metric, axis) for metric in metrics]
        drawn.append(_plot(title, series, own_width, own_height, axis))
    grid = Table.grid(padding=(0, 2 if columns > 1 else 0, 1, 0))
    for place in range(0, len(drawn), columns):
        grid.add_row(*drawn[place : place + columns])
    return grid


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


def _types(reader: RunReader) -> dict[str, str]:
    """Return the type of each metric that has values: `float64`, `int64` or `bool`."""
    if reader.sealed:
        groups = reader.manifest["groups"].values()
        return {
            name: said["type"]
            for group in groups
            for name, said in group["metrics"].items()
            if "type" in said
        }
    found: dict[str, str] = {}
    for group in reader.groups:
        schema = reader.arrow(group).schema
        for field, (metric, statistic) in zip(list(schema)[5:], read_keys(schema), strict=True):
            if statistic is None:
                found[metric] = str(field.type).replace("double", "float64")
    return found


def _series(reader: RunReader, metric: str, axis: Axis) -> Series:
    """Return the values of a metric along an axis; of several ranks those of the first."""
    column = naming.column_names([metric])[metric]
    table = reader.arrow(naming.group_of(metric), columns=[axis, "rank", column])
    logged = table.column(column)
    table = table.filter(logged.is_valid())
    ranks = np.unique(table.column("rank").to_numpy())
    label = safe(metric)
    x = table.column(axis).to_numpy().astype(np.float64)
    y = table.column(column).to_numpy().astype(np.float64)
    if len(ranks) > 1:
        own = table.column("rank").to_numpy() == ranks[0]
        x, y = x[own], y[own]
        label += f" (rank {ranks[0]} of {len(ranks)})"
    order = np.argsort(x, kind="stable")
    y = y[order]
    # Beyond this the difference of two values overflows; it could not be drawn anyway.
    return Series(label, x[order], np.where(np.abs(y) <= _LARGEST, y, np.nan))


def _plot(title: str, series: Sequence[Series], width: int, height: int, axis: Axis) -> Text:
    """Return one plot with title, legend and axes."""
    drawn = [each for each in series if np.isfinite(each.y).any()]
    lines = [Text(safe(title), "bold")]
    if not drawn:
        lines.append(Text("no finite values to plot", "dim"))
        return Text("\n").join(lines)
    start = min(float(each.x[0]) for each in drawn)
    scale, label = 1.0, "step"
    if axis == "time":
        longest = max(float(each.x[-1]) for each in drawn) - start
        scale, unit = next((each for each in _UNITS if longest >= 2 * each[0]), _UNITS[-1])
        label = f"time ({unit})"
    plotext.clear_figure()
    plotext.limit_size(False, False)  # noqa: FBT003 - its own signature
    plotext.theme("clear")
    plotext.plot_size(width, max(6, height - 2))
    _set_axes(drawn, width, height, start if axis == "time" else 0.0, scale)
    legend = Text()
    for place, each in enumerate(drawn):
        marker, sign, colour, plotext_colour = _LOOKS[place % len(_LOOKS)]
        legend.append(f"{'   ' if place else ''}{sign} ", colour).append(each.label)
        x = (each.x - start) / scale if axis == "time" else each.x
        for piece_x, piece_y in _pieces(*_thin(x, each.y, 2 * width)):
            plotext.plot(piece_x.tolist(), piece_y.tolist(), marker=marker, color=plotext_colour)
    plotext.xlabel(label)
    canvas = Text.from_ansi(plotext.build())
    legend.truncate(width, overflow="ellipsis")
    for line in (lines[0], legend):
        line.align("center", width)
    return Text("\n").join([*lines, legend, canvas])


def _set_axes(
    drawn: Sequence[Series], width: int, height: int, origin: float, scale: float
) -> None:
    """Set limits and round ticks."""
    low = min(float(np.nanmin(each.y)) for each in drawn)
    high = max(float(np.nanmax(each.y)) for each in drawn)
    low, high = _widened(low, high)
    margin = 0.04 * (high - low)
    plotext.ylim(low - margin, high + margin)
    places = ticks(low, high, max(2, (height - 4) // 2))
    plotext.yticks(places, _labels(places))
    left = (min(float(each.x[0]) for each in drawn) - origin) / scale
    right = (max(float(each.x[-1]) for each in drawn) - origin) / scale
    left, right = _widened(left, right)
    plotext.xlim(left, right)
    places = ticks(left, right, max(2, width // 11), whole=origin == 0.0)
    plotext.xticks(places, _labels(places))


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return bounds with room between them, also around a single value."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) / 2 or 1.0
    return low - room, high + room


def _labels(places: Sequence[float]) -> list[str]:
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


def _thin(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], buckets: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the least and the greatest value of each bucket along x, if there are many points."""
    if len(x) <= 4 * buckets or x[-1] <= x[0]:
        return x, y
    bucket = ((x - x[0]) * (buckets / (x[-1] - x[0]))).astype(np.int64)
    first = np.flatnonzero(np.diff(bucket, prepend=-1))
    extremes = np.stack([np.fmin.reduceat(y, first), np.fmax.reduceat(y, first)], axis=1)
    return np.repeat(x[first], 2), extremes.ravel()


def _pieces(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Return a series cut where values are missing."""
    there = np.isfinite(y)
    edges = np.flatnonzero(np.diff(there.astype(np.int8), prepend=0, append=0))
    return [
        (x[begin:end], y[begin:end]) for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]
