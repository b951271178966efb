"""`visualise_run`: the metrics of a run as pictures, one a metric."""

from __future__ import annotations

import hashlib
import logging
import math
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.extras import require
from blackboxml.base.naming import group_of
from blackboxml.errors import BlackboxError, ManifestError, NotARunError
from blackboxml.foreign.legacy import load_legacy
from blackboxml.reader import open_run

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger("blackboxml")

EPOCH: Final = "epoch"
"""The metric that, where it is logged, is the horizontal axis."""

VALIDATION: Final = "val_"
"""A metric of this prefix is drawn over the one without it."""

_SUFFIX = "_vs_epochs.png"
_LONGEST_STEM = 200  # bytes; a file's name may have 255
_MARKED_POINTS = 60
_DENSE_POINTS = 500
_COLOURS = ("#2563eb", "#ea580c")
_GREY = "#4b5563"
_SIZE, _DPI = (8.0, 4.8), 150
_WITHOUT_WINDOWS = frozenset(["agg", "cairo", "pdf", "pgf", "ps", "svg", "template"])

Points = tuple[list[float], list[float]]
"""Places and values of a line; NaN where a value is missing."""


def visualise_run(
    run_path: str | os.PathLike[str],
    save_path: str | os.PathLike[str] | None = None,
    show: bool = True,  # noqa: FBT001, FBT002 - the signature of 0.5
) -> list[Path] | None:
    """Draw each metric of a run against its epochs, with its `val_` counterpart on the same axes.

    The horizontal axis is the metric `epoch` where it was logged along with the metric, otherwise
    the index of the record. A record of the metric's group that lacks the metric, or has one that
    is not finite, leaves a gap; a metric of which no two such records in a row have a value, as of
    one that is logged every tenth step, is drawn through. Of several ranks the least one that
    logged the metric is drawn, and of the history what no rewind superseded.

    A run without steps, or that cannot be read, is logged, and so is a metric that cannot be drawn.

    Args:
        run_path: A run directory or its `run.json`, of this version or of blackboxml 0.5.
        save_path: A folder for one `<metric>_vs_epochs.png` a metric, made if it is missing; `/` in
            a name becomes `_`, and a name that is taken so is given a number. None writes nothing.
        show: Show the figures in windows, where there is a display. Otherwise none is left open.

    Returns:
        The files that were written, in the order of the metrics' names; None without `save_path`,
        and where there was nothing to draw.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
        OSError: If `save_path` cannot be made.
    """
    require("matplotlib", "plot")
    loaded = _load(Path(run_path))
    if loaded is None:
        return None
    name, steps = loaded
    metrics = _metrics(steps)
    if not metrics:
        logger.warning("%s has no metrics to draw", run_path)
        return None
    folder = None if save_path is None else Path(save_path)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    easel = _Easel(show=show)
    written = []
    for metric, stem in _stems(metrics).items():
        try:
            figure = easel.figure()
            _draw(figure, name, metric, steps)
            if folder is not None:
                file = folder / f"{stem}{_SUFFIX}"
                figure.savefig(file)
                written.append(file)
        except Exception:
            logger.exception("metric %r of %s cannot be drawn", metric, run_path)
    easel.present()
    return None if folder is None else written


class _Easel:
    """Makes figures, and shows them if that is wanted and possible.

    Figures that are not to be shown never come near a display, nor into the list of open ones.
    """

    def __init__(self, *, show: bool) -> None:
        """Choose."""
        self._pyplot: Any = None
        self._open: list[Figure] = []
        if show:
            self._pyplot = require("matplotlib.pyplot", "plot")
            if self._pyplot.get_backend().lower() in _WITHOUT_WINDOWS:
                logger.info("there is no display: figures are not shown")
                self._pyplot = None

    def figure(self) -> Figure:
        """Return an empty figure."""
        options = {"figsize": _SIZE, "dpi": _DPI, "layout": "constrained", "facecolor": "white"}
        if self._pyplot is None:
            made: Figure = require("matplotlib.figure", "plot").Figure(**options)
            return made
        with self._pyplot.rc_context({"figure.max_open_warning": 0}):
            made = self._pyplot.figure(**options)
        self._open.append(made)
        return made

    def present(self) -> None:
        """Show the figures, and wait until they are closed unless the session is interactive."""
        if self._pyplot is None or not self._open:
            return
        self._pyplot.show()
        if not self._pyplot.isinteractive():
            for figure in self._open:
                self._pyplot.close(figure)


def _load(path: Path) -> tuple[str, dict[int, list[Mapping[str, Any]]]] | None:
    """Return the name of a run, and its steps by rank; None, and a message, if there are none."""
    steps: dict[int, list[Mapping[str, Any]]] = {}
    try:
        try:
            reader = open_run(path)
            name = reader.name
            for record in reader.records():
                steps.setdefault(record.rank, []).append(record.metrics)
        except (NotARunError, ManifestError):
            legacy = load_legacy(path)
            if legacy is None:
                raise
            name = legacy["name"]
            steps[0] = [step for step in legacy["steps"] if isinstance(step, dict)]
    except (BlackboxError, OSError) as error:
        logger.error("%s cannot be drawn: %s", path, error)  # noqa: TRY400 - a message, no trace
        return None
    if not any(steps.values()):
        logger.warning("%s has no steps to draw", path)
        return None
    return name, steps


def _metrics(steps: Mapping[int, Iterable[Mapping[str, Any]]]) -> list[str]:
    """Return the metrics that get a picture of their own, sorted."""
    found = {key for own in steps.values() for step in own for key in step if _is_name(key)}
    return sorted(
        key
        for key in found - {EPOCH}
        if not (key.startswith(VALIDATION) and key.removeprefix(VALIDATION) in found - {EPOCH})
    )


def _is_name(key: object) -> bool:
    """Tell whether a key can be the name of a metric."""
    return isinstance(key, str) and bool(key)


def _stems(metrics: Sequence[str]) -> dict[str, str]:
    """Return the name of each metric's file, less its suffix; no two are equal, even without case.

    A metric whose name needs no change keeps it.
    """
    wanted = {metric: _shorten(metric.replace("/", "_").replace("\0", "_")) for metric in metrics}
    stems: dict[str, str] = {}
    taken: set[str] = set()
    reserved = {stem.casefold() for stem in wanted.values()}
    for metric in sorted(metrics, key=lambda each: (wanted[each] != each, each)):
        stem = wanted[metric]
        number = count(2)
        if stem.casefold() in taken:
            while stem.casefold() in taken | reserved:
                stem = f"{wanted[metric]}_{next(number)}"
        taken.add(stem.casefold())
        stems[metric] = stem
    return {metric: stems[metric] for metric in metrics}


def _shorten(stem: str) -> str:
    """Return a name that a file system takes: one that is too long ends in a digest."""
    data = stem.encode(errors="replace")
    if len(data) <= _LONGEST_STEM:
        return data.decode()
    digest = hashlib.sha256(data).hexdigest()[:8]
    return f"{data[:_LONGEST_STEM].decode(errors='ignore')}-{digest}"


def _draw(
    figure: Figure, name: str, metric: str, steps: Mapping[int, Sequence[Mapping[str, Any]]]
) -> None:
    """Draw a metric and its counterpart.

    Raises:
        ValueError: If the metric has no number.
    """
    axes = figure.add_subplot()
    lines = []
    for key, colour in zip((metric, VALIDATION + metric), _COLOURS, strict=True):
        own = next((each for _, each in sorted(steps.items()) if any(key in at for at in each)), [])
        points = _points(own, key)
        if points is not None:
            lines.append(_line(axes, points, key, colour))
    if not lines:
        raise ValueError(f"{metric!r:.80} has no value that is a number")
    _dress(axes, lines, f"{_title(metric)} vs Epochs — {_title(name)}", metric)


def _points(steps: Sequence[Mapping[str, Any]], key: str) -> Points | None:
    """Return the line of a metric, or None if it has no number."""
    group = group_of(key)
    indices = [
        index
        for index, step in enumerate(steps)
        if any(group_of(each) == group for each in step if _is_name(each) and each != EPOCH)
    ]
    values = [_number(steps[index].get(key)) for index in indices]
    if all(map(math.isnan, values)):
        return None
    places = [_number(steps[index].get(EPOCH)) for index in indices]
    there = [not math.isnan(value) for value in values]
    if all(math.isnan(place) for place, is_there in zip(places, there, strict=True) if is_there):
        places = [float(index) for index in indices]
    if not any(left and right for left, right in pairwise(there)):
        kept = [at for at, is_there in enumerate(there) if is_there]
        places, values = [places[at] for at in kept], [values[at] for at in kept]
    return places, values


def _number(value: object) -> float:
    """Return a value as a float, NaN if it is no finite number."""
    if not isinstance(value, bool | int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _line(axes: Axes, points: Points, label: str, colour: str) -> Any:
    """Draw a line; points are marked where they are few, or stand alone between gaps."""
    places, values = points
    there = [False, *(not math.isnan(value) for value in values), False]
    marked = [
        at
        for at in range(len(values))
        if there[at + 1] and (len(values) <= _MARKED_POINTS or not (there[at] or there[at + 2]))
    ]
    (line,) = axes.plot(
        places,
        values,
        color=colour,
        linewidth=1.8 if len(values) <= _DENSE_POINTS else 1.0,
        marker="o" if marked else None,
        markersize=4,
        markevery=marked or None,
        solid_capstyle="round",
        solid_joinstyle="round",
    )
    # A label that begins with an underscore would be left out of the legend.
    line.set_label(f" {_title(label)}" if label.startswith("_") else _title(label))
    return line


def _dress(axes: Axes, lines: Sequence[Any], title: str, metric: str) -> None:
    """Put on the title, the names of the axes, the legend and the grid.

    Names are shown as they are: what looks like mathematics between dollars is none.
    """
    axes.set_title(title, fontsize=12, loc="left", pad=12, parse_math=False)
    axes.set_xlabel("Epochs", color=_GREY)
    axes.set_ylabel(_title(metric, 40), color=_GREY, parse_math=False)
    legend = axes.legend(handles=lines, frameon=False, loc="best")
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.grid(visible=True, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.tick_params(colors=_GREY, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#d1d5db")
    places = [place for line in lines for place in line.get_xdata() if not math.isnan(place)]
    if all(place.is_integer() for place in places):
        locator: Any = axes.xaxis.get_major_locator()
        locator.set_params(integer=True)


def _title(text: str, longest: int = 60) -> str:
    """Return a name on one line, shortened where it is too long to be read."""
    line = " ".join(text.encode(errors="replace").decode().split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
