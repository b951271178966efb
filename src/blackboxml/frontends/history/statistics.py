"""Mean, least, greatest, deviation and number of what each rank has, by the names of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

Statistics = dict[str, dict[str, float]]
"""`mean`, `min`, `max`, `std` and `count` by metric."""

Part = tuple[tuple[str, ...], "npt.NDArray[np.float64]"]
"""Names and values of one rank."""


def combine(parts: Sequence[Part]) -> Statistics:
    """Return the statistics across ranks of every metric that one of them has.

    `std` is of the population, about the mean, so that it is right for large values that are close
    together. A NaN makes all but `count` NaN; `count` says how many ranks had the metric.

    Args:
        parts: Of each rank; the first gives the order.

    >>> combine([(("a", "b"), np.array([1.0, 2.0])), (("b",), np.array([4.0]))])["b"]
    {'mean': 3.0, 'min': 2.0, 'max': 4.0, 'std': 1.0, 'count': 2}
    """
    names = parts[0][0]
    if all(own == names for own, _ in parts):
        return _describe(names, np.array([values for _, values in parts]))
    gathered: dict[str, list[float]] = {}
    for own, values in parts:
        for name, value in zip(own, values.tolist(), strict=True):
            gathered.setdefault(name, []).append(value)
    found: Statistics = {}
    for count in dict.fromkeys(map(len, gathered.values())):
        some = tuple(name for name, values in gathered.items() if len(values) == count)
        found |= _describe(some, np.array([gathered[name] for name in some]).T)
    return {name: found[name] for name in gathered}


def _describe(names: tuple[str, ...], matrix: npt.NDArray[Any]) -> Statistics:
    """Return the statistics of a matrix of ranks × metrics."""
    count = len(matrix)
    with np.errstate(all="ignore"):
        mean = matrix.mean(axis=0)
        # The mean of huge values may overflow, and that of equal ones be off by a rounding.
        least, greatest = matrix.min(axis=0), matrix.max(axis=0)
        mean = np.clip(mean, least, greatest)
        std = np.sqrt(np.square(matrix - mean).mean(axis=0))
    rows = zip(mean.tolist(), least.tolist(), greatest.tolist(), std.tolist(), strict=True)
    return {
        name: {"mean": m, "min": low, "max": high, "std": deviation, "count": count}
        for name, (m, low, high, deviation) in zip(names, rows, strict=True)
    }
