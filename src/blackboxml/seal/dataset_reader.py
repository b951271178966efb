"""A netCDF-4/HDF5 file as a sealer writes it, opened safely.

Strategy: every link, filter, type, declared size and attribute is looked at before one value is
read, once, by the calls of HDF5 itself: the mappings of h5py ask the file again for each member.
"""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import h5py
import numpy as np

from blackboxml.base.files import raise_hdf5_refusal
from blackboxml.errors import TableError
from blackboxml.model import LIMITS, Limits
from blackboxml.seal.dataset import CHUNK_ROWS

if TYPE_CHECKING:
    import numpy.typing as npt

DIMENSION_LIST, REFERENCE_LIST, NAME = b"DIMENSION_LIST", b"REFERENCE_LIST", b"NAME"
"""The attributes by which HDF5 attaches dimensions to a variable, and those of a dimension."""

TEXTS: Final = frozenset(
    ["metric", "statistic", "coordinates", "units", "long_name", "dtype", "medium"]
)
"""What a variable may say of itself, each in one text."""

ROOT_TEXTS: Final = frozenset(["format", "version", "run_id", "run_name", "group"])
"""The same of a file."""

_KNOWN: Final = TEXTS | ROOT_TEXTS | {"_FillValue"}
_CLASS: Final = b"CLASS"
_ATTACHMENTS: Final = frozenset([DIMENSION_LIST, REFERENCE_LIST, _CLASS, NAME])
_ATTRIBUTE_BYTES: Final = 2**20
_FILTERS: Final = frozenset(
    [h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32]
)
_PLAIN: Final = frozenset(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)) | {
    np.dtype(np.float32),
    np.dtype(np.float64),
}
_MOST_DIMENSIONS: Final = 32
_SLOTS: Final = 127
"""How many chunks of an open variable have a place: HDF5 2 takes 64 KiB to have 8,191 of them."""

_BYTES: Final = 2 * CHUNK_ROWS * 8
"""How much of an open variable is kept, which is read once from begin to end."""

_BROKEN: Final = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What the library raises over a damaged file."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a variable, or the file, says of itself.

    Attributes:
        values: Texts and numbers by name, of those that this format knows.
        texts: Which of them are one text of fixed length, marked as UTF-8.
        attachments: Which of those by which HDF5 attaches dimensions are there.
    """

    values: dict[str, Any]
    texts: frozenset[str]
    attachments: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Stored:
    """A variable as it stands in the file.

    Attributes:
        id: The variable, opened.
        address: Where it stands in the file.
        shape: Its shape.
        dtype: The type of its values.
        attributes: What it says of itself.
    """

    id: h5py.h5d.DatasetID
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: Attributes

    @property
    def is_scale(self) -> bool:
        """Whether it is a dimension."""
        return _CLASS in self.attributes.attachments and bool(h5py.h5ds.is_scale(self.id))


class Dataset:
    """A dataset that was checked before a value is read.

    Attributes:
        variables: What it holds, by name, in the order in which it was created.
        attributes: What the file says of itself.
    """

    def __init__(self, path: str, limits: Limits = LIMITS) -> None:
        """Open and check.

        Raises:
            TableError: If the file is damaged, or holds what a run's dataset must not hold.
            OSError: If the file system refuses to show it.
        """
        try:
            self._file = h5py.File(path, "r", locking=False, rdcc_nslots=_SLOTS, rdcc_nbytes=_BYTES)
        except OSError as error:
            raise_hdf5_refusal(error)
            message = f"{path} is not readable as HDF5: {error}"
            raise TableError(message, "BB-DAT-016") from None
        self._opened: dict[str, h5py.Dataset] = {}
        try:
            self.attributes, self.variables = _read(self._file, limits)
        except _BROKEN as error:
            self._file.close()
            if isinstance(error, TableError):
                raise
            raise_hdf5_refusal(error)
            message = f"{path} is damaged: {error}"
            raise TableError(message, "BB-DAT-016") from None

    def read(self, name: str, rows: slice) -> npt.NDArray[Any]:
        """Return rows of a variable: a part of its first dimension.

        Raises:
            TableError: If a checksum of the file is wrong.
            OSError: If the file system refuses to show it.
        """
        opened = self._opened.get(name)
        if opened is None:
            opened = self._opened[name] = h5py.Dataset(self.variables[name].id)
        try:
            values: npt.NDArray[Any] = opened[rows]
        except OSError as error:
            raise_hdf5_refusal(error)
            message = f"variable {name!r} is damaged: {error}"
            raise TableError(message, "BB-DAT-017") from None
        return values

    @property
    def file(self) -> h5py.File:
        """The file, for how it was written."""
        return self._file

    def __enter__(self) -> Self:
        """Return the dataset."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file.

        Raises:
            OSError: If the file system refuses.
        """
        try:
            self._file.close()
        except RuntimeError as failure:  # so the library says that closing failed
            raise OSError(errno.EIO, str(failure)) from None


def _read(file: h5py.File, limits: Limits) -> tuple[Attributes, dict[str, Stored]]:
    """Return what a file says of itself, and its variables, unless they could do harm."""
    if len(file) > limits.metric_names:
        message = f"{file.filename} holds {len(file):,} objects"
        raise TableError(message, "BB-LIM-005")
    attributes = _read_attributes("/", file.id)
    variables = {}
    declared = 0
    for data in file.id:
        name = data.decode()
        if file.id.links.get_info(data).type != h5py.h5l.TYPE_HARD:
            message = f"{name!r} is a link to another place; it is not followed"
            raise TableError(message, "BB-DAT-012")
        found = h5py.h5o.get_info(file.id, data)
        if found.type != h5py.h5o.TYPE_DATASET:
            message = f"{name!r} is not a variable"
            raise TableError(message, "BB-DAT-012")
        variable = h5py.h5d.open(file.id, data)
        shape, dtype, size = _measure(name, variable)
        declared += size
        if declared > limits.table_bytes:
            message = f"it declares {declared:,} bytes, a reader accepts {limits.table_bytes:,}"
            raise TableError(message, "BB-LIM-005")
        said = _read_attributes(name, variable)
        variables[name] = Stored(variable, found.addr, shape, dtype, said)
    return attributes, variables


def _measure(name: str, variable: h5py.h5d.DatasetID) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape and type of a variable, and how many bytes reading it may take.

    Raises:
        TableError: If it reads other files, runs a plug-in, or is not plain numbers.
    """
    creation = variable.get_create_plist()
    layout = creation.get_layout()
    if layout == h5py.h5d.VIRTUAL or creation.get_external_count():
        message = f"{name!r} keeps its values outside the file"
        raise TableError(message, "BB-DAT-012")
    if layout != h5py.h5d.CHUNKED:
        message = f"{name!r} does not keep its values in chunks"
        raise TableError(message, "BB-DAT-011")
    filters = {creation.get_filter(index)[0] for index in range(creation.get_nfilters())}
    if filters != _FILTERS:
        message = f"{name!r} has the filters {sorted(filters)}, wanted {sorted(_FILTERS)}"
        raise TableError(message, "BB-DAT-011")
    dtype = variable.dtype
    if dtype not in _PLAIN:
        message = f"{name!r} is of type {dtype}"
        raise TableError(message, "BB-DAT-007" if dtype.kind in "biuf" else "BB-DAT-012")
    shape = variable.shape
    if not shape or len(shape) > _MOST_DIMENSIONS:
        message = f"{name!r} has the shape {shape}, wanted 1 to {_MOST_DIMENSIONS}"
        raise TableError(message, "BB-DAT-004")
    lengths = map(max, shape, creation.get_chunk())
    return shape, dtype, math.prod(lengths) * dtype.itemsize


def is_text(kind: h5py.h5t.TypeID) -> bool:
    """Tell whether a type is that of a text of fixed length."""
    return isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()


def _read_attributes(name: str, target: Any) -> Attributes:
    """Return what an object says of itself.

    Raises:
        TableError: If an attribute is not a text of fixed length or numbers, or is too large.
    """
    keys: list[bytes] = []
    h5py.h5a.iterate(target, keys.append)
    values: dict[str, Any] = {}
    texts = set()
    attachments = set()
    for data in keys:
        if data in _ATTACHMENTS:
            attachments.add(data)
            continue
        key = data.decode()
        attribute = h5py.h5a.open(target, data)
        kind = attribute.get_type()
        text = is_text(kind)
        if not text and not isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID):
            message = f"the attribute {key!r} of {name!r} is neither a fixed text nor a number"
            raise TableError(message, "BB-DAT-012")
        if attribute.get_storage_size() > _ATTRIBUTE_BYTES:
            message = f"the attribute {key!r} has {attribute.get_storage_size():,} bytes"
            raise TableError(message, "BB-LIM-005")
        if key not in _KNOWN:
            continue
        extent = attribute.get_space().get_simple_extent_type()
        value: Any = h5py.Empty(attribute.dtype)
        if extent != h5py.h5s.NULL:
            array = np.empty(attribute.shape, attribute.dtype)
            attribute.read(array)
            value = array[()]
        if text:
            value = value.decode() if isinstance(value, bytes) else str(value)
            if extent == h5py.h5s.SCALAR and kind.get_cset() == h5py.h5t.CSET_UTF8:
                texts.add(key)
        values[key] = value
    return Attributes(values, frozenset(texts), frozenset(attachments))
