"""Files of pictures and of texts: every curve of a dataset, and one page of all."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.naming import group_of, short_name
from blackboxml.frontends.history.curves import curves
from blackboxml.frontends.history.place import file_names
from blackboxml.frontends.history.plots import FORMATS, draw_curve, draw_summary
from blackboxml.frontends.history.text_plots import texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import xarray as xr

    from blackboxml.frontends.history.curves import Curve
    from blackboxml.frontends.history.place import Place

SUMMARY: Final = "summary"


@dataclass(slots=True)
class Drawn:
    """Pictures of one dataset.

    Attributes:
        summary: Path of the page of all, in its place; empty if there was nothing to draw.
        images: Path of the picture of each metric.
        failed: What could not be drawn, and why.
    """

    summary: str = ""
    images: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def draw_pictures(
    dataset: xr.Dataset,
    place: Place,
    folder: str,
    *,
    title: str,
    xkey: str | None,
    num_chains: int | None,
    subplots_kwargs: Mapping[str, Any] | None,
    plot_kwargs: Mapping[str, Any] | None,
) -> Drawn:
    """Draw every metric that is no counter, and a page of all, below a folder of a place."""
    drawn = Drawn()
    found = [curve for curve in curves(dataset, xkey) if not curve.counts]
    names = _stems(found, [SUMMARY])
    for at, curve in enumerate(found):
        try:
            figure = draw_curve(
                curve,
                colour=at,
                num_chains=num_chains,
                subplots_kwargs=subplots_kwargs,
                plot_kwargs=plot_kwargs,
            )
            paths = save_figure(figure, place, folder + names[curve.name])
            drawn.images[curve.name] = paths[0].relative_to(place.root).as_posix()
        except ImportError:
            raise
        except Exception as error:  # noqa: BLE001 - one metric must not cost the others theirs
            drawn.failed[curve.name] = f"{type(error).__name__}: {error}"
    if found:
        figure = draw_summary(found, title, num_chains=num_chains)
        paths = save_figure(figure, place, folder + SUMMARY)
        drawn.summary = paths[0].relative_to(place.root).as_posix()
    return drawn


def draw_texts(
    dataset: xr.Dataset,
    place: Place,
    folder: str,
    *,
    plot_type: str | None,
    append: bool,
    xkey: str | None,
) -> list[str]:
    """Draw every metric that is no counter as text, below a folder of a place; return the files.

    Of the metric `loss` these are `loss.txt`, and with statistics `loss_summary.txt` and
    `loss_hist.txt`; of one with `dt` in its name there is a histogram, too.
    """
    found = [curve for curve in curves(dataset, xkey) if not curve.counts]
    names = _stems(found)
    written = []
    for curve in found:
        for suffix, text in texts(curve, plot_type).items():
            name = f"{folder}{names[curve.name]}{suffix}.txt"
            before = ""
            path = place.root / name
            if append and path.is_file() and not place.is_own(name):
                before = path.read_text("utf-8", errors="replace")
            place.put_text(name, f"{before}{text}\n")
            written.append(name)
    return written


def save_figure(figure: Any, place: Place, name: str) -> list[Path]:
    """Write a figure in all formats; return the paths, that of the PNG first."""
    paths = []
    for kind in FORMATS:
        paths.append(place.put(f"{name}.{kind}", partial(figure.savefig, format=kind)))
        figure.set_layout_engine("none")  # it stays as it was laid out, which takes its time
    return paths


def _stems(found: Sequence[Curve], reserved: Sequence[str] = ()) -> dict[str, str]:
    """Return the file name of each curve; without their group where all are of one."""
    alone = len({group_of(curve.name) for curve in found}) == 1
    shown = [short_name(curve.name) if alone else curve.name for curve in found]
    names = file_names(shown, reserved)
    return {curve.name: names[name] for curve, name in zip(found, shown, strict=True)}
