"""The curves of `Tracker.get_results`, drawn by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from blackboxml.base.extras import require

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from blackboxml.frontends.experiments.manager import RecordInfo

_MARKED_POINTS: Final = 8
"""Lines with fewer points than this an inch have markers."""

_WITHOUT_WINDOWS: Final = frozenset(["agg", "cairo", "pdf", "pgf", "ps", "svg", "template"])


def plot(  # noqa: PLR0917 - the signature of simplegrad
    results: Mapping[str, Sequence[RecordInfo]],
    selected: Sequence[str] | None = None,
    num_cols: int = 2,
    cell_w: float = 8,
    cell_h: float = 5,
    path: str | os.PathLike[str] | None = None,
    color: str | None = None,
) -> Figure:
    """Draw each metric as a line, show that where there is a display, and return the figure.

    Args:
        results: Values by metric, as `Tracker.get_results` returns them.
        selected: Metrics to draw, all by default; one without values leaves its cell empty.
        num_cols: Cells side by side.
        cell_w: Width of a cell in inches.
        cell_h: Height of a cell in inches.
        path: A file for the picture, its format by its suffix.
        color: Colour of all lines; by default each has its own.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    return _draw("plot", results, selected, (num_cols, cell_w, cell_h), (path, color))


def scatter(  # noqa: PLR0917 - the signature of simplegrad
    results: Mapping[str, Sequence[RecordInfo]],
    selected: Sequence[str] | None = None,
    num_cols: int = 2,
    cell_w: float = 8,
    cell_h: float = 5,
    path: str | os.PathLike[str] | None = None,
    color: str | None = None,
) -> Figure:
    """Draw each metric as points; arguments and errors are those of `plot`."""
    return _draw("scatter", results, selected, (num_cols, cell_w, cell_h), (path, color))


def _draw(
    kind: Literal["plot", "scatter"],
    results: Mapping[str, Sequence[RecordInfo]],
    selected: Sequence[str] | None,
    grid: tuple[int, float, float],
    options: tuple[str | os.PathLike[str] | None, str | None],
) -> Figure:
    """Draw each metric in a cell of its own."""
    pyplot = require("matplotlib.pyplot", "plot")
    (columns, width, height), (path, color) = grid, options
    metrics = list(selected or results)
    rows = max(1, -(-len(metrics) // columns))
    figure, cells = pyplot.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
        layout="constrained",
    )
    try:
        for place, axes in enumerate(cells.flat):
            if place < len(metrics):
                records = results.get(metrics[place], ())
                few = len(records) < _MARKED_POINTS * width
                _fill(axes, kind, records, {"color": color or f"C{place % 10}"}, few=few)
                axes.set_title(metrics[place])
            else:
                axes.axis("off")
        if path is not None:
            figure.savefig(path)
        if pyplot.get_backend().lower() not in _WITHOUT_WINDOWS:
            pyplot.show()
    finally:
        pyplot.close(figure)
    return figure  # type: ignore[no-any-return]


def _fill(
    axes: Any,
    kind: Literal["plot", "scatter"],
    records: Sequence[RecordInfo],
    options: dict[str, Any],
    *,
    few: bool,
) -> None:
    """Draw one metric."""
    steps = [record.step for record in records]
    values = [record.value for record in records]
    if kind == "plot":
        options["marker"] = "o" if few else None
    getattr(axes, kind)(steps, values, **options)
    axes.set_xlabel("Step")
    axes.set_ylabel("Value")
    axes.grid(visible=True)
