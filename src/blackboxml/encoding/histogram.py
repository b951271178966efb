"""Numbers as a histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from blackboxml.encoding import Encoded
from blackboxml.encoding.array import to_array

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MOST_BINS: Final = 1_000_000


def encode_histogram(values: Any, bins: int = 30) -> Encoded:
    """Return how many of some numbers fall into bins of equal width from the least to the greatest.

    Numbers that are NaN or infinite are in no bin; `nonfinite` counts them, if there are any. No
    number at all makes empty bins from 0 to 1.

    Args:
        values: Real numbers of any shape.
        bins: How many, from 1 to 1,000,000.

    Raises:
        ValueError: If the values are no real numbers, or `bins` is none of these integers.
    """
    import numpy as np

    if type(bins) is not int or not 1 <= bins <= MOST_BINS:
        raise ValueError(f"bins is {bins!r:.80}, wanted an integer from 1 to {MOST_BINS:,}")
    array = to_array(values).ravel()
    if array.dtype.kind == "c":
        raise ValueError("complex numbers have no order; give their real parts or absolute values")
    array = array.astype(np.float64, copy=False)
    finite = array[np.isfinite(array)]
    counts, edges = _count(finite, bins)
    value: dict[str, Any] = {"edges": edges.tolist(), "counts": counts.tolist()}
    if len(finite) < len(array):
        value["nonfinite"] = len(array) - len(finite)
    return Encoded("histogram", value=value)


def _count(
    finite: npt.NDArray[np.float64], bins: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return counts, shape (bins,), and edges, shape (bins + 1,)."""
    import numpy as np

    if not len(finite):
        return np.histogram(finite, bins)
    most = float(np.finfo(np.float64).max)
    top = max(abs(float(finite.min())), abs(float(finite.max())))
    scale = 8.0 if top > most / 8 else 1.0  # the width from end to end must be a float64 too
    low, high = float(finite.min()) / scale, float(finite.max()) / scale
    if low == high:
        low, high = low - 0.5, high + 0.5
    least = 2 * bins * float(np.spacing(top / scale))  # the edges between must be different numbers
    if high - low < least:
        low, high = low - least, high + least
    counts, edges = np.histogram(finite / scale, bins, (low, high))
    return counts, np.clip(edges, -most / scale, most / scale) * scale
