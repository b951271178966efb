"""Metrics of a run drawn in a terminal, a plot for each short name; nothing here prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from rich.table import Table
from rich.text import Text

from blackboxml.base import naming
from blackboxml.base.canvas import Line, Series, draw_lines
from blackboxml.cli.terminal import safe
from blackboxml.errors import MetricError
from blackboxml.journal.table import read_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blackboxml.reader import RunReader

Axis = Literal["step", "time"]

MOST_PLOTS: Final = 4
"""Plots that are drawn if none is asked for."""

_TWO_COLUMNS: Final = 120
_MOST_WIDTH: Final = 160
_LARGEST: Final = 1e300
_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))

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
    legend = Text()
    lines_of = []
    for place, each in enumerate(drawn):
        marker, sign, colour, plotext_colour = _LOOKS[place % len(_LOOKS)]
        legend.append(f"{'   ' if place else ''}{sign} ", colour).append(each.label)
        lines_of.append(Line(each, marker, plotext_colour))
    origin = start if axis == "time" else 0.0
    canvas = Text.from_ansi(
        draw_lines(lines_of, width, height - 2, label, origin=origin, scale=scale)
    )
    legend.truncate(width, overflow="ellipsis")
    for line in (lines[0], legend):
        line.align("center", width)
    return Text("\n").join([*lines, legend, canvas])
