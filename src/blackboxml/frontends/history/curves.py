"""What there is to draw of a dataset: a curve a metric, with its spread across ranks or chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.frontends.history.console import STATISTICS, is_counter

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import xarray as xr

    Numbers = npt.NDArray[np.float64]

DRAW: Final = "draw"


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric.

    Attributes:
        name: Its full name.
        unit: Its unit; empty if it has none.
        label: What the horizontal axis is called.
        x: Where each value stands, of the shape (n,).
        y: Values of this rank, or means over chains, of the shape (n,), NaN where there is none.
        chains: Single chains of a vector or matrix, of the shape (chains, n); None of a number.
        statistics: `mean`, `max`, `min` and `std` across ranks, or over chains, each like `y`;
            empty where there are none.
    """

    name: str
    unit: str
    label: str
    x: Numbers
    y: Numbers
    chains: Numbers | None
    statistics: dict[str, Numbers]

    @property
    def counts(self) -> bool:
        """Whether the metric is a counter."""
        return is_counter(self.name)

    @property
    def middle(self) -> Numbers:
        """The mean where there is one, the values otherwise."""
        return self.statistics.get("mean", self.y)

    @property
    def latest(self) -> float | None:
        """The last value; None if there is none."""
        there = np.flatnonzero(~np.isnan(self.y))
        return float(self.y[there[-1]]) if len(there) else None


def curves(dataset: xr.Dataset, xkey: str | None = None) -> list[Curve]:
    """Return the curves of a dataset, in its order; statistics belong to the curve of their metric.

    Args:
        dataset: Variables along `draw`.
        xkey: A variable to draw against, by its name or that of its metric; by default `step`, or
            the number of the row.
    """
    named = {str(dataset[name].attrs.get("metric", name)): dataset[name] for name in dataset}
    x, label = _axis(dataset, named, xkey)
    found = []
    for key, variable in named.items():
        base = _base(key, named)
        if base is not None or variable.dtype.kind not in "biuf" or DRAW not in variable.dims:
            continue
        values = _rows(variable)
        chains = values if values.ndim > 1 else None
        statistics = {
            each: _rows(named[own]) for each in STATISTICS if (own := _companion(key, each, named))
        }
        if chains is not None:
            statistics, values = _over_chains(chains)
        unit = str(variable.attrs.get("units", ""))
        found.append(Curve(key, unit, label, x, values, chains, statistics))
    return found


def _axis(dataset: xr.Dataset, named: Mapping[str, Any], xkey: str | None) -> tuple[Numbers, str]:
    """Return the horizontal places of the rows, and what they are."""
    size = dataset.sizes.get(DRAW, 0)
    for key, variable in named.items():
        wanted = xkey is not None and xkey in {key, str(variable.name), key.rpartition("/")[2]}
        if wanted and variable.dims == (DRAW,) and variable.dtype.kind in "biuf":
            return variable.to_numpy().astype(np.float64), str(xkey)
    if "step" in dataset.coords and dataset.coords["step"].dims == (DRAW,):
        return dataset.coords["step"].to_numpy().astype(np.float64), "step"
    return np.arange(size, dtype=np.float64), DRAW


def _rows(variable: Any) -> Numbers:
    """Return the values as (n,), or (all else, n)."""
    values = variable.transpose(..., DRAW).to_numpy().astype(np.float64)
    return values if values.ndim == 1 else values.reshape(-1, values.shape[-1])  # type: ignore[no-any-return]


def _base(key: str, named: Mapping[str, Any]) -> str | None:
    """Return the metric that a statistic is of; None of a metric."""
    for mark in "/_":
        base, found, last = key.rpartition(mark)
        if found and last in STATISTICS and base in named:
            return base
    return None


def _companion(key: str, statistic: str, named: Mapping[str, Any]) -> str | None:
    """Return the name under which a statistic of a metric is there."""
    return next((own for mark in "/_" if (own := f"{key}{mark}{statistic}") in named), None)


def _over_chains(chains: Numbers) -> tuple[dict[str, Numbers], Numbers]:
    """Return the statistics over chains, and their mean."""
    there = ~np.isnan(chains)
    number = there.sum(axis=0)
    with np.errstate(all="ignore"):
        filled = np.where(there, chains, 0.0)
        mean = filled.sum(axis=0) / number
        std = np.sqrt(np.where(there, np.square(chains - mean), 0.0).sum(axis=0) / number)
        low = np.where(number, np.where(there, chains, np.inf).min(axis=0), np.nan)
        high = np.where(number, np.where(there, chains, -np.inf).max(axis=0), np.nan)
    return {"mean": mean, "max": high, "min": low, "std": std}, mean
