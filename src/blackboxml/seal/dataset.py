"""A group as one netCDF-4/HDF5 file that `xarray.open_dataset` opens: written, and opened safely.

Strategy: only what every HDF5 reader understands and what cannot be abused: chunked variables in
the root group, deflate with shuffle and Fletcher-32, attributes of fixed length. A reader looks at
every link, filter and declared size before it reads one value.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final, Self

import h5py
import numpy as np
import pyarrow as pa

from blackboxml.base import naming
from blackboxml.errors import TableError
from blackboxml.journal.table import INDEX
from blackboxml.model import DATASET_FORMAT, LIMITS, VERSION, Limits
from blackboxml.seal.chunks import Chunks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import numpy.typing as npt

    from blackboxml.journal.table import GroupSchema, Key

DIMENSION: Final = "draw"
COORDINATES: Final = ("step", "time", "rank", "attempt")
CHUNK_ROWS: Final = 16_384
STORED: Final[dict[str, Any]] = {
    "compression": "gzip",
    "compression_opts": 1,
    "shuffle": True,
    "fletcher32": True,
    "track_times": False,
}
"""How every variable is stored."""

_DIMENSION_NAME = "This is a netCDF dimension but not a netCDF variable."
_FILTERS = frozenset([h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32])
_FILLS: dict[type, tuple[Any, ...]] = {
    np.float64: (float("nan"), 9.969209968386869e36, -9.969209968386869e36, 2.0**1023),
    np.int64: (-(2**63), 2**63 - 1, -(2**62), 2**62, -(2**61), 2**61),
    np.int8: (-1,),
}
_ATTACHMENTS = frozenset(["DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"])
_ATTRIBUTE_BYTES = 2**20
_PLAIN = frozenset(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)) | {
    np.dtype(np.float32),
    np.dtype(np.float64),
}
_MOST_DIMENSIONS = 32
_CACHE_SLOTS, _READ_SLOTS = 13, 127
"""How many chunks of an open variable have a place: HDF5 2 takes 64 KiB to have 8,191 of them."""

_READ_BYTES = 2 * CHUNK_ROWS * 8
"""How much of an open variable is kept, which is read once from begin to end."""

_REFERENCES = h5py.vlen_dtype(h5py.ref_dtype)
_REFERRED = np.dtype(
    {
        "names": ["dataset", "dimension"],
        "formats": [h5py.ref_dtype, np.dtype("<u4")],
        "offsets": [0, 8],
        "itemsize": 16,
    }
)
_TYPES: dict[pa.DataType, type] = {
    pa.float64(): np.float64,
    pa.int64(): np.int64,
    pa.bool_(): np.int8,
}


class DatasetWriter:
    """Writes the effective rows of one group, a piece at a time.

    Attributes:
        variables: Name of each column's variable.
        fills: The value that stands for "not logged", for columns that need one.
        dimensions: What its variables run along.
    """

    def __init__(  # noqa: PLR0917 - one caller, which has them all
        self,
        path: str,
        group: GroupSchema,
        rows: int,
        run: Mapping[str, str],
        fills: Mapping[Key, Any],
        described: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Create the file.

        Args:
            path: Where; it must not exist.
            group: Columns and their types.
            rows: How many rows will come.
            run: `id` and `name`.
            fills: Value for "not logged" by column; a column without one has no gaps.
            described: `unit` and `description` by metric.
        """
        self.variables = variables(group)
        self.fills = dict(fills)
        self._keys = group.keys
        self._columns: dict[str, Chunks] = {}
        self._sink = _Sink(path, "xb+")
        self._file = h5py.File(
            self._sink, "w", libver="latest", track_order=True, rdcc_nslots=_CACHE_SLOTS
        )
        chunk = max(1, min(rows, CHUNK_ROWS, 2**25 // (8 * (len(self._keys) + 4))))
        self._options: dict[str, Any] = {
            "shape": (rows,),
            "chunks": (chunk,),
            "maxshape": (rows or None,),
            **STORED,
        }
        for name, text in (
            ("format", DATASET_FORMAT),
            ("version", VERSION),
            ("run_id", run["id"]),
            ("run_name", run["name"]),
            ("group", group.name),
        ):
            set_text(self._file, name, text)
        self.dimensions = Dimensions(self._file)
        self.dimensions.create(DIMENSION, rows, self._options)
        for name in COORDINATES:
            self._create(name, INDEX[name].to_pandas_dtype(), {})
        for key in self._keys:
            self._create_metric(key, group.type_of(key), described.get(key[0], {}))

    def _create_metric(self, key: Key, kind: pa.DataType, said: Mapping[str, str]) -> None:
        """Create the variable of a column with its attributes."""
        attributes = {"metric": key[0]}
        if key[1] is not None:
            attributes["statistic"] = key[1]
        if "unit" in said and key[1] != "count":
            attributes["units"] = said["unit"]
        if "description" in said:
            attributes["long_name"] = said["description"]
        attributes["coordinates"] = " ".join(COORDINATES)
        if kind == pa.bool_() and key not in self.fills:
            attributes["dtype"] = "bool"
        self._create(self.variables[key], _TYPES[kind], attributes, self.fills.get(key))

    def _create(
        self, name: str, kind: Any, attributes: Mapping[str, str], fill: Any = None
    ) -> None:
        """Create a variable along `draw`."""
        variable = self._file.create_dataset(name, dtype=kind, fillvalue=fill, **self._options)
        self._columns[name] = Chunks(variable)
        if fill is not None:
            variable.attrs.create("_FillValue", fill, dtype=kind)
        for attribute, text in attributes.items():
            set_text(variable, attribute, text)
        self.dimensions.attach(variable, [DIMENSION])

    @property
    def file(self) -> h5py.File:
        """The file, for what does not stand in rows of the table."""
        return self._file

    def check(self) -> None:
        """Raise what the file system has refused so far."""
        self._sink.check()

    def append(self, table: pa.Table) -> None:
        """Write the next rows.

        Args:
            table: Rows of the sealed table's schema.

        Raises:
            OSError: If the file system refuses.
        """
        self._sink.check()
        for name in COORDINATES:
            self._columns[name].append(table.column(name).to_numpy())
        for place, key in enumerate(self._keys, start=len(INDEX)):
            values = filled(table.column(place), self.fills.get(key))
            self._columns[self.variables[key]].append(values)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what waits, and close the file.

        Raises:
            OSError: If the file system refuses.
        """
        with self._sink:
            try:
                if error is None:
                    for column in self._columns.values():
                        column.finish()
                    self.dimensions.close()
            finally:
                self._file.close()
        if error is None:
            self._sink.check()


class _Sink(io.FileIO):
    """A file whose failures HDF5 does not see: it could not close the file any more.

    Attributes:
        error: The first failure.
    """

    error: OSError | None = None

    def check(self) -> None:
        """Raise the first failure."""
        if self.error is not None:
            raise self.error

    def write(self, data: Any) -> int:
        """Write all of some bytes."""
        with memoryview(data) as view:
            done = 0
            while done < len(view) and self.error is None:
                try:
                    done += super().write(view[done:]) or 0
                except OSError as error:
                    self.error = error
            return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


class Dataset:
    """A dataset that was checked before a value is read.

    Attributes:
        names: The variables.
    """

    def __init__(self, path: str, limits: Limits = LIMITS) -> None:
        """Open and check.

        Raises:
            TableError: If the file is damaged, or holds what a run's dataset must not hold.
        """
        try:
            self._file = h5py.File(
                path, "r", locking=False, rdcc_nslots=_READ_SLOTS, rdcc_nbytes=_READ_BYTES
            )
        except OSError as error:
            message = f"{path} is not readable as HDF5: {error}"
            raise TableError(message, "BB-DAT-016") from None
        self._opened: dict[str, h5py.Dataset] = {}
        try:
            self.names = _check(self._file, limits)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            self._file.close()
            if isinstance(error, TableError):
                raise
            message = f"{path} is damaged: {error}"
            raise TableError(message, "BB-DAT-016") from None

    def read(self, name: str, rows: slice) -> npt.NDArray[Any]:
        """Return rows of a variable: a part of its first dimension.

        Raises:
            TableError: If a checksum of the file is wrong.
        """
        try:
            values: npt.NDArray[Any] = self._variable(name)[rows]
        except OSError as error:
            message = f"variable {name!r} is damaged: {error}"
            raise TableError(message, "BB-DAT-017") from None
        return values

    def attributes(self, name: str | None = None) -> dict[str, Any]:
        """Return the attributes of a variable, or of the file: texts and numbers.

        Those by which HDF5 itself attaches scales to dimensions are left out.

        Raises:
            TableError: If one is of variable length, a reference, or too large.
        """
        target = self._file if name is None else self._variable(name)
        found: dict[str, Any] = {}
        try:
            for key in target.attrs:
                if key not in _ATTACHMENTS:
                    found[key] = _read_attribute(target.attrs, key)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            if isinstance(error, TableError):
                raise
            message = f"the attributes of {name or 'the file'!r} are damaged: {error}"
            raise TableError(message, "BB-DAT-016") from None
        return found

    def _variable(self, name: str) -> h5py.Dataset:
        """Return a variable, opened once."""
        found = self._opened.get(name)
        if found is None:
            found = self._opened[name] = self._file[name]
        return found

    @property
    def file(self) -> h5py.File:
        """The file, for what is neither a value nor an attribute."""
        return self._file

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable."""
        return tuple(self._variable(name).shape)

    def type_of(self, name: str) -> str:
        """Return the type of a variable, as numpy names it."""
        return str(self._variable(name).dtype)

    def __enter__(self) -> Self:
        """Return the dataset."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()


def variables(group: GroupSchema) -> dict[Key, str]:
    """Return the variable name of each column of a group."""
    columns = group.columns()
    names = naming.variable_names(columns.values())
    return {key: names[column] for key, column in columns.items()}


def choose_fill(kind: pa.DataType, used: set[int]) -> Any:
    """Return a value for "not logged" that the column does not use.

    Args:
        kind: Type of the column.
        used: Positions in `fill_candidates` of those that are values of the column.

    Raises:
        TableError: If the column uses all of them.
    """
    for place, candidate in enumerate(fill_candidates(kind)):
        if place not in used:
            return candidate
    message = f"a {kind} column holds every value that could stand for 'not logged'"
    raise TableError(message, "BB-DAT-010")


def fill_candidates(kind: pa.DataType) -> tuple[Any, ...]:
    """Return the values that may stand for "not logged"; the first unused one is taken.

    The second of the floats is netCDF's default fill value, NC_FILL_DOUBLE.
    """
    return _FILLS[_TYPES[kind]]


def holds(values: npt.NDArray[Any], fill: Any) -> bool:
    """Tell whether values hold a fill value, also for who reads them as float64, as xarray does."""
    if fill != fill:  # noqa: PLR0124 - NaN is the only value that differs from itself
        return bool(np.isnan(values).any())
    return bool((values.astype(np.float64) == np.float64(fill)).any())


def filled(column: pa.ChunkedArray | pa.Array, fill: Any) -> npt.NDArray[Any]:
    """Return a column as it stands in the file."""
    if column.type == pa.bool_():
        column = column.cast(pa.int8())
    if column.null_count:
        column = column.fill_null(fill)
    array: npt.NDArray[Any] = column.to_numpy()
    return array


class Dimensions:
    """The dimensions of a file, and which variables run along them.

    HDF5's own way to attach a variable writes the list of all that are attached anew: for many
    variables, a file of the square of their number. Here each list is written once.
    """

    def __init__(self, file: h5py.File) -> None:
        """Begin with none."""
        self._file = file
        self._scales: dict[str, h5py.Dataset] = {}
        self._attached: dict[str, list[tuple[h5py.Reference, int]]] = {}

    def create(self, name: str, length: int, options: Mapping[str, Any] | None = None) -> None:
        """Create a dimension without values of its own."""
        if options is None:
            options = {
                "shape": (length,),
                "chunks": (min(length, CHUNK_ROWS),),
                **STORED,
            }
        created = self._file.create_dataset(name, dtype="f4", **options)
        created.make_scale(f"{_DIMENSION_NAME}{length:>10}")
        self._scales[name], self._attached[name] = created, []

    def attach(self, variable: h5py.Dataset, names: Sequence[str]) -> None:
        """Say along which dimensions a variable runs."""
        scales = np.empty(len(names), object)
        for axis, name in enumerate(names):
            scales[axis] = np.array([self._scales[name].ref], h5py.ref_dtype)
            self._attached[name].append((variable.ref, axis))
        variable.attrs.create("DIMENSION_LIST", scales, dtype=_REFERENCES)

    def close(self) -> None:
        """Write down which variables are attached to each dimension."""
        for name, attached in self._attached.items():
            if attached:
                listed = np.array(attached, _REFERRED)
                self._scales[name].attrs.create("REFERENCE_LIST", listed)


def set_text(target: Any, name: str, text: str) -> None:
    """Set a text of fixed length."""
    data = text.encode() or b"\0"
    target.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", len(data)))


def _read_attribute(attributes: Any, key: str) -> Any:
    """Return an attribute of fixed size: a text, or an array of numbers."""
    identity = attributes.get_id(key)
    kind = identity.get_type()
    text = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
    number = isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID)
    if not text and not number:
        message = f"the attribute {key!r} is neither a text of fixed length nor numbers"
        raise TableError(message, "BB-DAT-012")
    if identity.get_storage_size() > _ATTRIBUTE_BYTES:
        message = f"the attribute {key!r} has {identity.get_storage_size():,} bytes"
        raise TableError(message, "BB-LIM-005")
    value = attributes[key]
    if text:
        return value.decode() if isinstance(value, bytes) else str(value)
    return value


def _check(file: Any, limits: Limits) -> list[str]:
    """Return the variables of a file after looking at everything that could do harm."""
    if len(file) > limits.metric_names:
        message = f"{file.filename} holds {len(file):,} objects"
        raise TableError(message, "BB-LIM-005")
    _check_attributes("/", file)
    names = []
    declared = 0
    for name in file:
        link = file.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            message = f"{name!r} is a link to another place; it is not followed"
            raise TableError(message, "BB-DAT-012")
        if file.get(name, getclass=True) is not h5py.Dataset:
            message = f"{name!r} is not a variable"
            raise TableError(message, "BB-DAT-012")
        variable = file[name]
        declared += _check_variable(name, variable)
        if declared > limits.table_bytes:
            message = f"it declares {declared:,} bytes, a reader accepts {limits.table_bytes:,}"
            raise TableError(message, "BB-LIM-005")
        _check_attributes(name, variable)
        names.append(name)
    return names


def _check_variable(name: str, variable: Any) -> int:
    """Return how many bytes reading a variable may take.

    Raises:
        TableError: If it reads other files, runs a plug-in, or is not plain numbers.
    """
    creation = variable.id.get_create_plist()
    if variable.is_virtual or variable.external:
        message = f"{name!r} keeps its values outside the file"
        raise TableError(message, "BB-DAT-012")
    if variable.chunks is None:
        message = f"{name!r} does not keep its values in chunks"
        raise TableError(message, "BB-DAT-011")
    filters = {creation.get_filter(index)[0] for index in range(creation.get_nfilters())}
    if filters != _FILTERS:
        message = f"{name!r} has the filters {sorted(filters)}, wanted {sorted(_FILTERS)}"
        raise TableError(message, "BB-DAT-011")
    if variable.dtype not in _PLAIN:
        message = f"{name!r} is of type {variable.dtype}"
        raise TableError(message, "BB-DAT-007" if variable.dtype.kind in "biuf" else "BB-DAT-012")
    if not 1 <= variable.ndim <= _MOST_DIMENSIONS:
        message = f"{name!r} has the shape {variable.shape}, wanted 1 to {_MOST_DIMENSIONS}"
        raise TableError(message, "BB-DAT-004")
    lengths = map(max, variable.shape, variable.chunks)
    return math.prod(map(int, lengths)) * int(variable.dtype.itemsize)


def _check_attributes(name: str, target: Any) -> None:
    """Refuse attributes that hold more than texts of fixed length and numbers."""
    for key in target.attrs:
        kind = target.attrs.get_id(key).get_type()
        text = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
        number = isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID)
        if not (text or number or key in _ATTACHMENTS):
            message = f"the attribute {key!r} of {name!r} is neither a fixed text nor a number"
            raise TableError(message, "BB-DAT-012")
