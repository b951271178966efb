"""Arrays in files: `.npy` of version 1.0, looked at before anything is allocated or decoded.

The header is a literal of Python, of which three members are looked for and nothing is evaluated.
What they declare is compared with the bytes that are there; arrays of anything but numbers, such as
objects that would be unpickled, are refused.
"""

from __future__ import annotations

import io
import math
import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MEDIA_TYPE: Final = "application/x-npy"

_MAGIC: Final = b"\x93NUMPY\x01\x00"
_LONGEST_HEADER: Final = 10_000
_MOST_DIMENSIONS: Final = 64
_DESCR: Final = re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?[biufc][0-9]{1,2})['"]""")
_ORDER: Final = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE: Final = re.compile(r"""['"]shape['"]\s*:\s*\(([0-9L,\s]*)\)""")
_LENGTH: Final = re.compile("[0-9]{1,19}L?")


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


def write_array(array: Any) -> bytes:
    """Return an array as a file.

    Raises:
        ValueError: If it holds objects.
    """
    import numpy as np

    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), (1, 0), allow_pickle=False)
    return file.getvalue()


def read_header(descriptor: int) -> Header:
    """Return what the file of an array says of it.

    Raises:
        ValueError: If it is no such file, holds no numbers, or has another size than it declares.
        OSError: If it cannot be read.
    """
    beginning = os.pread(descriptor, _LONGEST_HEADER, 0)
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
    offset = 10 + int.from_bytes(beginning[8:10], "little")
    text = beginning[10:offset].decode("latin1")
    kind, order, lengths = (pattern.search(text) for pattern in (_DESCR, _ORDER, _SHAPE))
    if offset > _LONGEST_HEADER or kind is None or order is None or lengths is None:
        raise ValueError(f"its header says nothing of numbers: {text!r:.80}")
    parts = [part.strip() for part in lengths[1].split(",") if part.strip()]
    if len(parts) > _MOST_DIMENSIONS or not all(map(_LENGTH.fullmatch, parts)):
        raise ValueError(f"its shape is {lengths[0]!r:.80}")
    shape = tuple(int(part.rstrip("L")) for part in parts)
    try:
        dtype = np.dtype(kind[1])
    except TypeError:
        raise ValueError(f"it holds {kind[1]!r}, which is no type of numbers") from None
    declared = math.prod(shape) * dtype.itemsize
    if declared != size - offset:
        raise ValueError(f"it declares {declared:,} bytes of numbers and has {size - offset:,}")
    return Header(dtype, shape, order[1] == "True", offset)
