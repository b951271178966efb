"""Arrays in files: `.npy` of version 1.0, looked at before anything is allocated or decoded.

The header is a literal of Python, which NumPy reads without evaluating it. What it declares is
compared with the bytes that are there; arrays of objects, which would be unpickled, are refused.
"""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MEDIA_TYPE: Final = "application/x-npy"

_MAGIC: Final = b"\x93NUMPY\x01\x00"
_LONGEST_HEADER: Final = 10_000
_MOST_DIMENSIONS: Final = 64
_DAMAGE: Final = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, SyntaxError),
    TypeError,
)


class Header(NamedTuple):
    """What a file says of its array.

    Attributes:
        dtype: Type of the numbers: bool, integers, floats or complex numbers.
        shape: Lengths of the dimensions.
        columns_first: Whether the first index changes fastest.
        offset: Where the numbers begin.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    columns_first: bool
    offset: int


def read_header(descriptor: int) -> Header:
    """Return what the file of an array says of it.

    Raises:
        ValueError: If it is no such file, holds no numbers, or has another size than it declares.
        OSError: If it cannot be read.
    """
    beginning = os.pread(descriptor, _LONGEST_HEADER + 10, 0)
    return _check(beginning, os.fstat(descriptor).st_size)


def read_array(data: bytes) -> npt.NDArray[Any]:
    """Return the array of a file; it shares the memory of its content.

    Raises:
        ValueError: If it is no such file, holds no numbers, or has another size than it declares.
    """
    import numpy as np

    header = _check(data, len(data))
    flat = np.frombuffer(data, header.dtype, offset=header.offset)
    if header.columns_first:
        return flat.reshape(header.shape[::-1]).T
    return flat.reshape(header.shape)


def _check(beginning: bytes, size: int) -> Header:
    """Return the header of a file of a size."""
    import numpy as np

    if not beginning.startswith(_MAGIC):
        raise ValueError("it is no .npy file of version 1.0")
    file = io.BytesIO(beginning[8:])
    try:
        shape, columns_first, dtype = np.lib.format.read_array_header_1_0(
            file, max_header_size=_LONGEST_HEADER
        )
    except _DAMAGE as error:
        raise ValueError(f"its header is damaged: {error}") from None
    if dtype.hasobject or dtype.kind not in "biufc":
        raise ValueError(f"it holds {dtype!s:.80}, wanted numbers")
    if any(length < 0 for length in shape) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"its shape is {shape!r:.80}")
    offset = 8 + file.tell()
    declared = math.prod(shape) * dtype.itemsize
    if declared != size - offset:
        raise ValueError(f"it declares {declared:,} bytes of numbers and has {size - offset:,}")
    return Header(dtype, shape, columns_first, offset)
