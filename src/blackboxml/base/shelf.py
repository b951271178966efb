"""Arrays that are put by in a file which nobody else sees and which is gone with its process."""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from blackboxml.base.files import write_all

if TYPE_CHECKING:
    import numpy.typing as npt


class Place(NamedTuple):
    """Where an array is."""

    offset: int
    size: int
    dtype: np.dtype[Any]


class Shelf:
    """The file, which closes when nothing refers to the shelf any more.

    Attributes:
        close: Closes it now.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        """Make the file in a folder, by default that for temporary files."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the shelf
        self._end = 0
        self.close = weakref.finalize(self, self._file.close)

    def put(self, column: npt.NDArray[Any]) -> Place:
        """Put an array by."""
        place = Place(self._end, column.nbytes, column.dtype)
        write_all(self._file.fileno(), column.tobytes())
        self._end += column.nbytes
        return place

    def get(self, place: Place) -> npt.NDArray[Any]:
        """Return an array that was put by."""
        return np.frombuffer(os.pread(self._file.fileno(), place.size, place.offset), place.dtype)
