"""Curves as pictures: a mean line, its deviation as a band, and one page of all.

Figures are made without pyplot: nothing of it is global, and no window can open.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.base.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blackboxml.frontends.history.curves import Curve

FORMATS: Final = ("png", "svg")

_COLOURS: Final = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#ca8a04")
_GREY: Final = "#4b5563"
_LIGHT: Final = "#e5e7eb"
_SIZE: Final = (8.0, 4.5)
_DPI: Final = 150
_CELL: Final = (4.6, 2.9)
_MARKED_POINTS: Final = 60
_DENSE_POINTS: Final = 2_000
_MOST_POINTS: Final = 20_000
_MOST_CELLS: Final = 60
_CHAINS: Final = 128
_LONGEST_TITLE: Final = 60


def draw_curve(
    curve: Curve,
    *,
    title: str | None = None,
    colour: int = 0,
    num_chains: int | None = _CHAINS,
    subplots_kwargs: Mapping[str, Any] | None = None,
    plot_kwargs: Mapping[str, Any] | None = None,
) -> Figure:
    """Return the picture of one curve.

    Args:
        curve: What to draw.
        title: Above the picture; by default the name of the metric.
        colour: Which of the colours.
        num_chains: Most chains of a vector that are drawn.
        subplots_kwargs: For the figure: `figsize`, `dpi` and so on.
        plot_kwargs: For the line: `color`, `linewidth` and so on.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure = _figure({"figsize": _SIZE, "dpi": _DPI, **(subplots_kwargs or {})})
    axes = figure.add_subplot()
    lines = _draw(axes, curve, colour, num_chains, dict(plot_kwargs or {}))
    _dress(axes, curve, title or curve.name, size=12)
    if len(lines) > 1:
        legend = axes.legend(
            handles=lines,
            frameon=False,
            loc="lower right",
            fontsize=9,
            labelcolor=_GREY,
            bbox_to_anchor=(1.0, 1.0),
            ncols=len(lines),
            borderaxespad=0.4,
            handlelength=1.5,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def draw_summary(
    curves: Sequence[Curve], title: str, *, num_chains: int | None = _CHAINS
) -> Figure:
    """Return one page with a small picture of each curve, the first sixty of them.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    shown = curves[:_MOST_CELLS]
    columns = min(3, max(1, len(shown)), max(1, math.ceil(math.sqrt(len(shown)))))
    rows = max(1, math.ceil(len(shown) / columns))
    size = (_CELL[0] * columns, _CELL[1] * rows + 0.5)
    figure = _figure({"figsize": size, "dpi": 110})
    for place, curve in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        _draw(axes, curve, place, num_chains, {})
        _dress(axes, curve, curve.name, size=10, small=True)
    left = len(curves) - len(shown)
    more = f" (the first {len(shown)} of {len(curves)} metrics)" if left else ""
    figure.suptitle(
        _title(title, 100) + more, fontsize=13, x=0.01, ha="left", color="#111827", parse_math=False
    )
    return figure


def _figure(options: dict[str, Any]) -> Figure:
    """Return an empty figure that keeps its labels within its edges."""
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    return Figure(**{"layout": "constrained", **options})


def _draw(
    axes: Axes, curve: Curve, colour: int, num_chains: int | None, options: dict[str, Any]
) -> list[Any]:
    """Draw a curve with its spread; return what belongs into a legend."""
    own = options.pop("color", _COLOURS[colour % len(_COLOURS)])
    x, middle = curve.x, curve.middle
    step = max(1, math.ceil(len(x) / _MOST_POINTS))
    pick = slice(None, None, step)
    handles: list[Any] = []
    across = "chains" if curve.chains is not None else "ranks"
    options = {"linewidth": 1.6 if len(x) <= _DENSE_POINTS else 0.9, **options}
    few = np.count_nonzero(np.isfinite(middle)) <= _MARKED_POINTS
    (line,) = axes.plot(
        x[pick],
        _joined(middle)[pick],
        color=own,
        marker="o" if few else None,
        markersize=3.5,
        solid_capstyle="round",
        zorder=3,
        label="mean" if curve.statistics else curve.name,
        **options,
    )
    handles.append(line)
    if not curve.statistics:
        return handles
    std = curve.statistics.get("std")
    if std is not None:
        handles.append(
            axes.fill_between(
                x[pick],
                (middle - std)[pick],
                (middle + std)[pick],
                color=own,
                alpha=0.25,
                linewidth=0,
                zorder=2,
                label=f"± std of {across}",
            )
        )
    low, high = curve.statistics.get("min"), curve.statistics.get("max")
    if low is not None and high is not None:
        handles.append(
            axes.fill_between(
                x[pick],
                low[pick],
                high[pick],
                color=own,
                alpha=0.10,
                linewidth=0,
                zorder=1,
                label=f"min to max of {across}",
            )
        )
    if curve.chains is not None and num_chains:
        for chain in curve.chains[:num_chains]:
            axes.plot(x[pick], chain[pick], color=own, alpha=0.15, linewidth=0.5, zorder=1)
    return handles


def _joined(values: Any) -> Any:
    """Return values without gaps where no two neighbours are there, so that a line can be seen."""
    there = np.isfinite(values)
    if there.all() or not there.any() or (there[1:] & there[:-1]).any():
        return values
    places = np.arange(len(values))
    joined = np.interp(places, places[there], values[there])
    first, last = np.flatnonzero(there)[[0, -1]]
    return np.where((places >= first) & (places <= last), joined, np.nan)


def _dress(axes: Axes, curve: Curve, title: str, *, size: int, small: bool = False) -> None:
    """Put on the title, the names of the axes and the grid; `$` in a name is no mathematics."""
    axes.set_title(
        _title(title, 40 if small else _LONGEST_TITLE),
        fontsize=size,
        loc="left",
        pad=6 if small else 10,
        color="#111827",
        parse_math=False,
    )
    axes.set_xlabel(
        _title(curve.label, 40), color=_GREY, fontsize=8 if small else 10, parse_math=False
    )
    if curve.unit or not small:
        short = curve.name.rpartition("/")[2]
        name = f"{short} [{curve.unit}]" if curve.unit else short
        axes.set_ylabel(
            _title(name, 40), color=_GREY, fontsize=8 if small else 10, parse_math=False
        )
    axes.grid(visible=True, color=_LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.tick_params(colors=_GREY, length=0, labelsize=8 if small else 9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#d1d5db")
    if not np.isfinite(curve.middle).any():
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", color=_GREY)
    if all(place.is_integer() for place in curve.x.tolist()):
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _title(text: str, longest: int) -> str:
    """Return a name on one line, shortened where it is too long to be read."""
    line = " ".join(text.encode(errors="replace").decode().split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
