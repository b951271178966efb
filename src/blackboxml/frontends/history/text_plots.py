"""Curves as text: `tplot` for what a script has at hand, and files of all that was recorded."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.base import variable
from blackboxml.base.canvas import Line, Series, draw_bars, draw_lines
from blackboxml.frontends.history.console import STATISTICS
from blackboxml.frontends.history.values import array

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from blackboxml.frontends.history.curves import Curve

logger = logging.getLogger("blackboxml")

DEFAULT_MARKER: Final = "hd"
MARKERS: Final = ("braille", "fhd", "hd")
TYPES: Final = ("line", "hist", "scatter")
MAX_WIDTH: Final = 120
MAX_HEIGHT: Final = 40

_SIZE: Final = (75, 25)
_BINS: Final = 30
_MOST_LABEL: Final = 60
_LARGEST: Final = 1e300
_SIGNS: Final = {"mean": "·", "min": "-", "max": "+", "std": "*"}
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")


def tplot(
    y: Any,
    x: Any = None,
    label: str | None = None,
    *,
    title: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    marker: str | None = None,
    bins: int | None = None,
    logfreq: int = 1,
    outfile: str | os.PathLike[str] | None = None,
    plot_type: str | None = None,
    append: bool = True,
    verbose: bool = False,
    figsize: tuple[int, int] | None = None,
    quiet: bool = False,
) -> str:
    """Return values drawn with characters, and write them into a file.

    Args:
        y: Numbers: a list, an array, a tensor or a `DataArray`, which brings its own `x`. Of what
            has several axes the mean over all but the last is drawn.
        x: As many; the number of each value by default.
        label: What the line is called.
        title: Above the plot; by default of the labels.
        xlabel: What the horizontal axis is called.
        ylabel: What the vertical axis is called.
        marker: `braille`, `fhd`, `hd` or one character; `EZPZ_TPLOT_MARKER`, then `hd`.
        bins: Bars of a histogram.
        logfreq: What the numbers of the values are multiplied by, where there is no `x`.
        outfile: A file; its folder is made.
        plot_type: `line`, `hist` or `scatter`; `EZPZ_TPLOT_TYPE`, then `line`.
        append: Append to the file, where it would otherwise be begun anew.
        verbose: Log where the plot was written.
        figsize: Columns and lines; at most `EZPZ_TPLOT_MAX_WIDTH` and `EZPZ_TPLOT_MAX_HEIGHT`.
        quiet: Do not log the plot even if `EZPZ_TPLOT_STDOUT` is on.

    Raises:
        ValueError: If the values are no numbers, or the type is none.
    """
    values, places = _numbers(y, x, logfreq)
    name = " ".join(each for each in (ylabel or label,) if each)
    heading = title if title is not None else name
    kind = resolve_plot_type(plot_type)
    series = Series(name, places, values)
    text = _plot(
        kind, {resolve_marker(marker): series}, heading, xlabel or "", bins=bins, figsize=figsize
    )
    _deliver(text, outfile, append=append, verbose=verbose, quiet=quiet)
    return text


def tplot_dict(
    data: Mapping[str, Any],
    *,
    xlabel: str | None = None,
    ylabel: str | None = None,
    title: str | None = None,
    outfile: str | os.PathLike[str] | None = None,
    append: bool = True,
    figsize: tuple[int, int] | None = None,
) -> str:
    """Return several lines in one plot, drawn with characters; see `tplot`.

    Raises:
        ValueError: If values are no numbers.
    """
    signs = [resolve_marker(None), "·", "+", "-", "*", "o", "x"]
    lines = {}
    for place, (key, given) in enumerate(data.items()):
        values, places = _numbers(given, None, 1)
        lines[signs[place] if place < len(signs) else chr(ord("a") + place % 26)] = Series(
            key, places, values
        )
    heading = title if title is not None else ylabel or ""
    text = _plot("line", lines, heading, xlabel or "", figsize=figsize)
    _deliver(text, outfile, append=append)
    return text


def texts(curve: Curve, plot_type: str | None = None) -> dict[str, str]:
    """Return the plots of a curve by what follows its name in the name of their file.

    Args:
        curve: What to draw.
        plot_type: `line`, `hist` or `scatter`; by default that of the environment.
    """
    kind = resolve_plot_type(plot_type)
    marker = resolve_marker(None)
    heading = f"{curve.name} [{curve.unit}]" if curve.unit else curve.name
    own = Series(curve.name, curve.x, curve.y)
    found = {"": _plot(kind, {marker: own}, heading, curve.label)}
    if curve.statistics:
        several = {
            _SIGNS[each]: Series(f"{curve.name}/{each}", curve.x, curve.statistics[each])
            for each in ("max", "min", "mean")
            if each in curve.statistics
        }
        found["_summary"] = _plot("line", several | {marker: own}, heading, curve.label)
        bars = [
            _plot("hist", {marker: Series(each, curve.x, values)}, f"{curve.name}/{each}")
            for each in STATISTICS
            if (values := curve.statistics.get(each)) is not None
        ]
        found["_hist"] = "\n".join(bars)
    if "dt" in curve.name:
        found["-hist"] = _plot("hist", {marker: own}, heading)
    return found


def resolve_marker(marker: str | None) -> str:
    """Return a marker: the given one, that of `EZPZ_TPLOT_MARKER`, or `hd`."""
    found = marker or os.environ.get("EZPZ_TPLOT_MARKER", "") or DEFAULT_MARKER
    return found if found in MARKERS or len(found) == 1 else DEFAULT_MARKER


def resolve_plot_type(plot_type: str | None, default: str = "line") -> str:
    """Return a type: the given one, that of `EZPZ_TPLOT_TYPE`, or the default.

    Raises:
        ValueError: If the given one is none.
    """
    if plot_type is not None and plot_type not in TYPES:
        raise ValueError(f"plot_type is {plot_type!r}, wanted {', '.join(TYPES)}")
    found = plot_type or os.environ.get("EZPZ_TPLOT_TYPE", "")
    return found if found in TYPES else default


def _plot(
    kind: str,
    lines: Mapping[str, Series],
    heading: str,
    label: str = "",
    *,
    bins: int | None = None,
    figsize: tuple[int, int] | None = None,
) -> str:
    """Return a plot of lines by their markers, with its heading and a legend."""
    width, height = _clamped(figsize or _SIZE)
    drawn = {marker: each for marker, each in lines.items() if np.isfinite(each.y).any()}
    head = [" ".join(heading.split())[:width].center(width).rstrip()]
    if len(lines) > 1:
        legend = "   ".join(f"{_sign(marker)} {each.label}" for marker, each in lines.items())
        head.append(legend[:width].center(width).rstrip())
    if not drawn:
        return "\n".join([*head, "no finite values to plot".center(width).rstrip(), ""])
    room = height - len(head)
    if kind == "hist":
        (marker, series), *_ = drawn.items()
        finite = series.y[np.isfinite(series.y)]
        text = draw_bars(finite, bins or _BINS, width, room, label, marker=marker)
    else:
        some = [Line(_ascending(each), marker) for marker, each in drawn.items()]
        text = draw_lines(some, width, room, label, connected=kind == "line")
    body = [line.rstrip() for line in _ESCAPES.sub("", text).splitlines()]
    return "\n".join([*head, *body, ""])


def _deliver(
    text: str,
    outfile: str | os.PathLike[str] | None,
    *,
    append: bool,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Write a plot into a file, and log it where that is wanted."""
    if variable.flag("EZPZ_TPLOT_STDOUT") and not quiet:
        logger.info("\n%s", text)
    if outfile is None:
        return
    from pathlib import Path

    path: Path = Path(outfile)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if append else "w", encoding="utf-8") as file:
        file.write(text + "\n")
    if verbose:
        logger.info("plotted into %s", path)


def _numbers(y: Any, x: Any, logfreq: int) -> tuple[Any, Any]:
    """Return values and their places.

    Raises:
        ValueError: If they are no numbers, or not as many.
    """
    coordinates = getattr(y, "coords", None)
    if x is None and coordinates is not None and len(y.dims) == 1 and y.dims[0] in coordinates:
        x = coordinates[y.dims[0]].to_numpy()
    values = array(getattr(y, "values", y) if coordinates is not None else y)
    if values is None or values.dtype.kind == "c":
        raise ValueError("the values to plot are no real numbers")
    values = values.astype(np.float64)
    if values.ndim > 1:
        values = values.reshape(-1, values.shape[-1]).mean(axis=0)
    places = np.arange(len(values)) * float(logfreq) if x is None else array(x)
    if places is None or places.dtype.kind not in "biuf" or places.shape != values.shape:
        raise ValueError(f"x is not of the shape {values.shape} of the values")
    return values, places.astype(np.float64)


def _ascending(series: Series) -> Series:
    """Return a series in the order of x, without what is too large to be drawn."""
    order = np.argsort(series.x, kind="stable")
    y = series.y[order]
    return Series(series.label, series.x[order], np.where(np.abs(y) <= _LARGEST, y, np.nan))


def _clamped(size: tuple[int, int]) -> tuple[int, int]:
    """Return columns and lines within what the environment allows."""
    limits = ("EZPZ_TPLOT_MAX_WIDTH", MAX_WIDTH), ("EZPZ_TPLOT_MAX_HEIGHT", MAX_HEIGHT)
    bounded = []
    for wanted, (name, default) in zip(size, limits, strict=True):
        text = os.environ.get(name, "")
        bounded.append(min(wanted, int(text) if text.isdecimal() and int(text) else default))
    return bounded[0], bounded[1]


def _sign(marker: str) -> str:
    """Return how a legend shows a marker."""
    return {"braille": "⠒⠒", "hd": "▞▞", "fhd": "▞▞"}.get(marker, marker * 2)
