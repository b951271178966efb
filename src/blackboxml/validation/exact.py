"""Whether a small table or dataset is, to the byte where it matters, what a sealer writes.

Each function proves it or gives up: what gives up is looked at by the checks, which explain. The
libraries read the values and verify the checksums; what the files say of themselves is compared
as bytes.
"""

from __future__ import annotations

import re
import struct
import threading
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blackboxml.journal.table import INDEX, METADATA, METRIC
from blackboxml.seal.dataset import COORDINATES, DIMENSION
from blackboxml.validation import headers
from blackboxml.validation.page import pages_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Values = npt.NDArray[Any]

_SUPERBLOCK: Final = struct.Struct("<8sBBBBQQQQ")
_LATEST: Final = 2
_SPACE: Final = struct.Struct("<BBBBQQ")
_FILTERS: Final = struct.Struct("<BB HHHI HHHI HHH")
_SCALE_KIND: Final = b"\x13\x00\x00\x00%b\x02\x00\x00\x00"
_TEXT_KIND: Final = b"\x13\x11\x00\x00%b\x02\x00\x00\x00"
_SCALE_NAME: Final = b"This is a netCDF dimension but not a netCDF variable."
_NO_SHAPE_BYTES: Final = 4
_LIST_BYTES: Final = 20
"""How many bytes the shape takes of a single value, and of a list."""

_ATTACHED: Final = headers.spell(
    b"DIMENSION_LIST",
    bytes.fromhex("19000000100000001700000008000000020101010100000000000000" + "0100000000000000"),
    _LIST_BYTES,
    b"",
)
_LISTED: Final = (
    b"V\x02\x00\x00\x10\x00\x00\x00dataset\x00\x00\x17\x00\x00\x00\x08\x00\x00\x00dimension\x00\x08"
    b"\x10\x00\x00\x00\x04\x00\x00\x00\x00\x00 \x00\x02\x01\x01\x01"
)
_TRACKED: Final = 3
_ORDERED, _NAMED = 0x04, 0x10
"""Flags of a link: its order is told, and in which characters its name is."""
_PAGE: Final = re.compile(rb"(?:\x15[\x80-\xff]*[\x00-\x7f]){4}\x1c\x15([\x80-\xff]*[\x00-\x7f])")
"""The header of a data page: four numbers, the fourth its checksum, then how many values it has."""

_CHUNKED: Final = 2
_KNOWN: Final = frozenset(
    (
        *(headers.FILL, headers.REFERENCES, headers.DATASPACE, headers.DATATYPE),
        *(headers.LAYOUT, headers.FILTERS, headers.ATTRIBUTE, headers.ATTRIBUTE_INFO),
    )
)
_GIVE_UP: Final = (ValueError, KeyError, IndexError, struct.error, OSError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Column:
    """A metric of a group that has a value in every row.

    Attributes:
        metric: Its full name.
        name: Its column.
        variable: Its variable.
        values: float64, int64 or bool, one a row.
        unit: Its unit, if it has one.
        description: Its description, if it has one.
    """

    metric: str
    name: str
    variable: str
    values: Values
    unit: str | None = None
    description: str | None = None


def is_table(
    data: bytes, index: Mapping[str, Values], columns: Sequence[Column], said: bytes
) -> bool:
    """Tell whether a Parquet file holds these columns and nothing else.

    Args:
        data: The file.
        index: The columns that every table opens with.
        columns: The others.
        said: The document under `blackbox` in its metadata.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if not _declares(file, len(index["seq"]), columns, said):
            return False
        read = file.read_row_group(0, use_threads=False)
        wanted = [*index.values(), *(each.values for each in columns)]
        group = file.metadata.row_group(0)  # only now: the library may end over damaged ones
        return all(map(_holds, read.columns, wanted)) and all(
            column.compression == "ZSTD" and (_is_one_page(data, column) or pages_in(data, column))
            for column in map(group.column, range(group.num_columns))
        )
    except (pa.ArrowException, *_GIVE_UP):
        return False


def _is_one_page(data: bytes, column: pq.ColumnChunkMetaData) -> bool:
    """Tell whether a column is one page with a checksum that holds all rows."""
    found = _PAGE.match(data, column.data_page_offset)
    if found is None or column.has_dictionary_page:
        return False
    rows = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(found[1]))
    return bool(rows == 2 * column.num_values)  # signed numbers are spelled twice as large


def _declares(file: pq.ParquetFile, rows: int, columns: Sequence[Column], said: bytes) -> bool:
    """Tell whether a table says of itself what it has to say."""
    found, metadata = file.schema_arrow, file.metadata
    labels = [{METRIC: each.metric.encode()} for each in columns]
    return (
        found.equals(_schema(tuple((each.name, each.values.dtype) for each in columns)))
        and (found.metadata or {}).get(METADATA) == said
        and [found.field(at).metadata for at in range(len(INDEX), len(found))] == labels
        and (metadata.num_rows, metadata.num_row_groups) == (rows, 1)
    )


def _holds(column: pa.ChunkedArray, values: Values) -> bool:
    """Tell whether a column has these values, to the bit, and no null."""
    if column.null_count or column.num_chunks != 1:
        return False
    return bool(column.to_numpy().tobytes() == values.tobytes())


@cache
def _schema(columns: tuple[tuple[str, Any], ...]) -> pa.Schema:
    """Return the schema of a table by names and types of its metrics."""
    fields = [pa.field(name, kind, nullable=False) for name, kind in INDEX.items()]
    return pa.schema(
        [*fields, *(pa.field(name, pa.from_numpy_dtype(kind)) for name, kind in columns)]
    )


def is_dataset(
    data: bytes,
    index: Mapping[str, Values],
    columns: Sequence[Column],
    said: Mapping[str, str],
) -> bool:
    """Tell whether an HDF5 file holds these variables and nothing else.

    Args:
        data: The file.
        index: The columns that every table opens with.
        columns: The others.
        said: The texts that the file has to say of itself.
    """
    try:
        access = _access(threading.get_ident())
        access.set_file_image(data)
        file = h5py.h5f.open(b"dataset", h5py.h5f.ACC_RDONLY, access)
        try:
            return _Comparison(data, file).run(index, columns, said)
        finally:
            file.close()
    except _GIVE_UP:
        return False


@lru_cache(64)
def _access(_: int) -> Any:
    """Return how a file is opened that is in memory; what a thread has of its own."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    return access


class _Comparison:
    """The comparison of one dataset that the library has opened."""

    def __init__(self, data: bytes, file: Any) -> None:
        self._data = data
        self._file = file

    def run(
        self, index: Mapping[str, Values], columns: Sequence[Column], said: Mapping[str, str]
    ) -> bool:
        """Tell whether all is as it has to be."""
        _, version, _, _, _, base, _, _, root = _SUPERBLOCK.unpack_from(self._data)
        if version < _LATEST or base:
            return False
        links, texts = self._root(root)
        wanted: list[tuple[str, Values, list[bytes]]] = [
            (name, index[name], []) for name in COORDINATES
        ]
        wanted += [(each.variable, _stored(each.values), _labels(each)) for each in columns]
        names = [DIMENSION, *(name for name, _, _ in wanted)]
        if [name.decode() for name in links] != names:
            return False
        if sorted(texts) != sorted(_text(key, text) for key, text in said.items()):
            return False
        rows = len(index["seq"])
        draw, *others = links.values()
        return self._is_scale(draw, rows, others) and all(
            self._is_variable(address, name, values, labels)
            for address, (name, values, labels) in zip(others, wanted, strict=True)
        )

    def _root(self, address: int) -> tuple[dict[bytes, int], list[bytes]]:
        """Return the links of the root group in the order of their creation, and its attributes.

        Raises:
            ValueError: If it has something that is neither.
        """
        links: dict[int, tuple[bytes, int]] = {}
        texts: list[bytes] = []
        dense = False
        for kind, content in headers.messages(self._data, address):
            if kind == headers.LINK_INFO:
                dense = content[10:18] != b"\xff" * 8
                if content[1] != _TRACKED:
                    return {}, []
            elif kind == headers.LINK:
                order, name, place = _link(content)
                links[order] = name, place
            elif kind == headers.ATTRIBUTE:
                texts.append(content)
            elif kind == headers.ATTRIBUTE_INFO:
                if not headers.is_compact(content):
                    return {}, []
            elif kind != headers.GROUP_INFO:
                return {}, []
        if dense:
            return self._dense(), texts
        return dict(links[order] for order in sorted(links)), texts

    def _dense(self) -> dict[bytes, int]:
        """Return the links of a root group that has too many for its header."""
        group = h5py.h5g.open(self._file, b"/")
        names: list[bytes] = []
        group.links.iterate(names.append, idx_type=h5py.h5.INDEX_CRT_ORDER)
        if any(group.links.get_info(name).type != h5py.h5l.TYPE_HARD for name in names):
            return {}
        return {name: h5py.h5o.get_info(self._file, name).addr for name in names}

    def _is_variable(self, address: int, name: str, values: Values, labels: list[bytes]) -> bool:
        """Tell whether an object is a variable of these values and labels."""
        opened = h5py.h5d.open(self._file, name.encode())
        attributes = self._plain(address, values.dtype, len(values))
        attached = [each for each in attributes if each.startswith(_ATTACHED)]
        if len(attached) != 1 or sorted(attributes) != sorted(attached + labels):
            return False
        found = np.empty(len(values), values.dtype)
        opened.read(h5py.h5s.ALL, h5py.h5s.ALL, found, _types()[values.dtype])
        return found.tobytes() == values.tobytes()

    def _is_scale(self, address: int, rows: int, attached: list[int]) -> bool:
        """Tell whether an object is the dimension to which all variables are attached."""
        h5py.h5d.open(self._file, DIMENSION.encode())
        count = len(attached)
        kind = _LISTED + struct.pack("<QQ", count, count)
        value = b"".join([struct.pack("<QQ", each, 0) for each in attached])
        listed = headers.spell(b"REFERENCE_LIST", kind, _LIST_BYTES, value)
        wanted = sorted([*_scale(rows), listed])
        return sorted(self._plain(address, np.dtype("f4"), rows)) == wanted

    def _plain(self, address: int, kind: np.dtype[Any], rows: int) -> list[bytes]:
        """Return the attributes of a variable that is plain and of one chunk.

        Raises:
            ValueError: If it is anything else.
        """
        found = headers.messages(self._data, address)
        attributes = [content for message, content in found if message == headers.ATTRIBUTE]
        seen = dict(found)
        if not seen.keys() <= _KNOWN:
            raise ValueError("a message of another kind")
        if (
            seen[headers.DATASPACE] != _SPACE.pack(2, 1, 1, 1, rows, rows)
            or seen[headers.DATATYPE] != _types()[kind].encode()[2:]
            or seen[headers.FILTERS] != _filters(kind.itemsize)
            or seen[headers.LAYOUT][1] != _CHUNKED
            or not headers.is_compact(seen[headers.ATTRIBUTE_INFO])
        ):
            raise ValueError("a variable of another kind")
        return attributes


def _link(content: bytes) -> tuple[int, bytes, int]:
    """Return order, name and address of a hard link.

    Raises:
        ValueError: If it is a link of another kind.
    """
    version, flags = content[:2]
    if version != 1 or flags & ~_NAMED != _ORDERED:
        raise ValueError("a link of another kind")
    order = int.from_bytes(content[2:10], "little")
    place = 11 if flags & _NAMED else 10
    end = place + 1 + content[place]
    if len(content) != end + 8:
        raise ValueError("a link that is cut off")
    return order, content[place + 1 : end], int.from_bytes(content[end:], "little")


def _labels(column: Column) -> list[bytes]:
    """Return the attributes of the variable of a metric."""
    return _spelled(column.metric, column.unit, column.description, column.values.dtype == np.bool_)


@lru_cache(1024)
def _spelled(metric: str, unit: str | None, description: str | None, truth: bool) -> list[bytes]:  # noqa: FBT001
    """Return these attributes as messages."""
    labels = {
        "metric": metric,
        "coordinates": " ".join(COORDINATES),
        "units": unit,
        "long_name": description,
        "dtype": "bool" if truth else None,
    }
    return [_text(key, text) for key, text in labels.items() if text is not None]


@lru_cache(256)
def _scale(rows: int) -> list[bytes]:
    """Return the attributes by which a dimension is one."""
    labels = {b"CLASS": b"DIMENSION_SCALE\0", b"NAME": _SCALE_NAME + b"%10d\0" % rows}
    return [
        headers.spell(key, _SCALE_KIND % struct.pack("<I", len(value)), _NO_SHAPE_BYTES, value)
        for key, value in labels.items()
    ]


def _text(key: str, text: str) -> bytes:
    """Return an attribute that is a text."""
    data = text.encode() or b"\0"
    kind = _TEXT_KIND % struct.pack("<I", len(data))
    return headers.spell(key.encode(), kind, _NO_SHAPE_BYTES, data)


def _stored(values: Values) -> Values:
    """Return values as a dataset holds them."""
    return values.astype(np.int8) if values.dtype == np.bool_ else values


@cache
def _filters(size: int) -> bytes:
    """Return shuffle, deflate and fletcher32 for values of so many bytes."""
    return _FILTERS.pack(2, 3, 2, 1, 1, size, 1, 1, 1, 1, 3, 0, 0)


@cache
def _types() -> dict[Any, Any]:
    """Return the types of HDF5 by those of numpy."""
    little = {
        "f8": h5py.h5t.IEEE_F64LE,
        "f4": h5py.h5t.IEEE_F32LE,
        "i8": h5py.h5t.STD_I64LE,
        "i4": h5py.h5t.STD_I32LE,
        "i1": h5py.h5t.STD_I8LE,
    }
    return {np.dtype(name): kind for name, kind in little.items()}
