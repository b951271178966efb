"""A group as one netCDF-4/HDF5 file that `xarray.open_dataset` opens, and how it is written.

Strategy: only what every HDF5 reader understands and what cannot be abused: chunked variables in
the root group, deflate with shuffle and Fletcher-32, attributes of fixed length.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final, Self

import h5py
import numpy as np
import pyarrow as pa

from blackboxml.base import naming
from blackboxml.errors import TableError
from blackboxml.journal.table import INDEX
from blackboxml.model import DATASET_FORMAT, VERSION
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
_FILLS: dict[type, tuple[Any, ...]] = {
    np.float64: (float("nan"), 9.969209968386869e36, -9.969209968386869e36, 2.0**1023),
    np.int64: (-(2**63), 2**63 - 1, -(2**62), 2**62, -(2**61), 2**61),
    np.int8: (-1,),
}
_CACHE_SLOTS = 13
"""How many chunks of an open variable have a place."""

_SCALAR = h5py.h5s.create(h5py.h5s.SCALAR)
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
            _set(variable, "_FillValue", np.array(fill, kind))
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
        scales = np.empty(len(names), _REFERENCES)
        for axis, name in enumerate(names):
            scales[axis] = np.array([self._scales[name].ref], h5py.ref_dtype)
            self._attached[name].append((variable.ref, axis))
        _set(variable, "DIMENSION_LIST", scales)

    def close(self) -> None:
        """Write down which variables are attached to each dimension."""
        for name, attached in self._attached.items():
            if attached:
                listed = np.array(attached, _REFERRED)
                _set(self._scales[name], "REFERENCE_LIST", listed)


def set_text(target: Any, name: str, text: str) -> None:
    """Set a text of fixed length, which a new object does not have yet."""
    data = text.encode() or b"\0"
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(data))
    kind.set_cset(h5py.h5t.CSET_UTF8)
    kind.set_strpad(h5py.h5t.STR_NULLPAD)
    _set(target, name, np.array(data, f"S{len(data)}"), kind)


def _set(
    target: Any, name: str, value: npt.NDArray[Any], kind: h5py.h5t.TypeID | None = None
) -> None:
    """Set an attribute that a new object does not have yet.

    h5py's mapping would look for one first, write under another name, and rename it.

    Args:
        target: A variable, or the file.
        name: The attribute.
        value: A number, or numbers or references.
        kind: The type, if it is not that of the value.
    """
    space = h5py.h5s.create_simple(value.shape) if value.shape else _SCALAR
    stored = kind or h5py.h5t.py_create(value.dtype, logical=True)
    attribute = h5py.h5a.create(target.id, name.encode(), stored, space)
    attribute.write(value, mtype=kind or h5py.h5t.py_create(value.dtype))
