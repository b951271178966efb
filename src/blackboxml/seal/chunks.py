"""Chunks of an HDF5 variable as they stand in the file: shuffled, deflated, with a checksum.

HDF5's own filters do the same, deflating by zlib: ISA-L takes a third of that time, and other
threads go on meanwhile. What a chunk looks like is said in H5Zshuffle.c, H5Zdeflate.c and
H5Zfletcher32.c of https://github.com/HDFGroup/hdf5/tree/develop/src.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

try:
    from isal.isal_zlib import compress
except ImportError:
    from zlib import compress

if TYPE_CHECKING:
    import h5py
    import numpy.typing as npt

_LEVEL: Final = 1


class Chunks:
    """Writes a variable of one dimension from its beginning, in whole chunks."""

    def __init__(self, variable: h5py.Dataset) -> None:
        """Begin with no value; the filters are shuffle, deflate and Fletcher-32."""
        self._variable = variable
        self._size = int(variable.chunks[0])
        self._at = 0
        self._rest: npt.NDArray[Any] = np.empty(0, variable.dtype)

    def append(self, values: npt.NDArray[Any]) -> None:
        """Write the next values of the variable's type; less than a chunk waits in memory."""
        if len(self._rest):
            values = np.concatenate([self._rest, values])
        whole = len(values) - len(values) % self._size
        for start in range(0, whole, self._size):
            self._put(values[start : start + self._size])
        self._rest = values[whole:].copy()

    def finish(self) -> None:
        """Write what waits; beyond the end of the variable, the last chunk holds zeros."""
        if len(self._rest):
            last = np.zeros(self._size, self._rest.dtype)
            last[: len(self._rest)] = self._rest
            self._put(last)
            self._rest = self._rest[:0]

    def _put(self, values: npt.NDArray[Any]) -> None:
        """Write a chunk."""
        self._variable.id.write_direct_chunk((self._at,), encode(values))
        self._at += self._size


def encode(values: npt.NDArray[Any]) -> bytes:
    """Return values as a chunk of them stands in a file."""
    shuffled = values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()
    deflated = compress(shuffled, _LEVEL)
    return deflated + fletcher32(deflated).to_bytes(4, "little")


def fletcher32(data: bytes) -> int:
    """Return the Fletcher-32 checksum of some bytes, read as big-endian integers of 16 bits."""
    words = np.frombuffer(data + bytes(len(data) % 2), ">u2").astype(np.uint64)
    first = int(words.sum())
    second = int(words @ np.arange(len(words), 0, -1, dtype=np.uint64))
    return _fold(second) << 16 | _fold(first)


def _fold(total: int) -> int:
    """Return a sum in ones' complement of 16 bits: 65535 for its multiples, 0 for 0 alone."""
    return (total - 1) % 0xFFFF + 1 if total else 0
