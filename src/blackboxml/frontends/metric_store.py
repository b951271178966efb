"""Weighted means of metrics over the batches of an epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from blackboxml.base.scalar import to_number
from blackboxml.errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SMALLEST: Final = 1074
"""Every finite float64 is a multiple of 2^-1074, and a product of two of 2^-2148."""


class MetricStore:
    """Averages metrics, each value weighted by the number of samples it stands for.

    The mean is that of exact arithmetic, rounded once to float64: it depends neither on the order
    of the batches nor on their number. Memory is constant per metric, and no tensor is kept.

    >>> store = MetricStore()
    >>> store.update({"loss": 1.0}, n=30)
    >>> store.update({"loss": 0.0}, n=10)
    >>> store.compute()
    {'loss': 0.75}
    """

    def __init__(self) -> None:
        self._means: dict[str, _Mean] = {}

    def update(self, metrics: Mapping[str, object], n: object = 1) -> None:
        """Add one batch.

        Args:
            metrics: Values by name, numbers as `Run.log` takes them. Batches may have different
                names: each metric is weighted by its own batches.
            n: Weight of the batch, commonly its number of samples; finite and above 0.

        Raises:
            MetricError: A value or `n` is no such number; nothing of the batch is added.
        """
        weight = _number("the weight n", n)
        if not (math.isfinite(weight) and weight > 0):
            raise MetricError(f"the weight n is {weight}; give the number of samples, above 0")
        values = {name: _number(f"metric {name!r:.80}", value) for name, value in metrics.items()}
        for name, value in values.items():
            self._means.setdefault(name, _Mean()).add(value, weight)

    def compute(self) -> dict[str, float]:
        """Return the mean of each metric, in the order in which they were first seen.

        A metric that was NaN once has NaN for its mean.

        Raises:
            ValueError: Nothing was added since the store was made or reset.
        """
        if not self._means:
            raise ValueError("there is nothing to average: call update() before compute()")
        return {name: mean.value() for name, mean in self._means.items()}

    def reset(self) -> None:
        """Forget everything, for the next epoch."""
        self._means.clear()


class _Mean:
    """Sums of weighted values and of weights, as integers of fixed binary point."""

    __slots__ = ("_total", "_unbounded", "_weight")

    def __init__(self) -> None:
        self._total = 0  # in 2^-2148
        self._weight = 0  # in 2^-1074
        self._unbounded = 0.0  # sum of what is not finite

    def add(self, value: float, weight: float) -> None:
        # Denominators are powers of two, so that dividing by one is shifting less.
        weight_over, weight_under = weight.as_integer_ratio()
        self._weight += weight_over << _SMALLEST + 1 - weight_under.bit_length()
        if math.isfinite(value):
            over, under = value.as_integer_ratio()
            shift = 2 * _SMALLEST + 1 - (under * weight_under).bit_length()
            self._total += over * weight_over << shift
        else:
            self._unbounded += value

    def value(self) -> float:
        if self._unbounded:
            return self._unbounded
        return self._total / (self._weight << _SMALLEST)


def _number(what: str, value: object) -> float:
    try:
        return to_number(value)
    except ValueError as error:
        raise MetricError(f"{what}: {error}") from None
