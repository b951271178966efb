"""The pages of a Parquet file: which of them have a checksum.

The libraries verify a checksum where there is one and say nothing where there is none, so the
header of each page is read here: a struct of Thrift's compact protocol, of which two numbers count.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow.parquet as pq

_SIZE_FIELD: Final = 3
_CRC_FIELD: Final = 4
_LONGEST_HEADER: Final = 2**20
_FIRST_READ: Final = 2**9
"""A header with its statistics is far shorter; one that is not is read again, in whole."""

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_INTEGERS: Final = frozenset([_I16, _I32, _I64])
_DEEPEST: Final = 8
_LONG_DELTA: Final = 15
_MOST_BITS: Final = 63


class Page(NamedTuple):
    """Where a page stands, how many bytes follow its header, and whether it has a checksum."""

    offset: int
    size: int
    checked: bool


def pages(descriptor: int, file: pq.ParquetFile) -> Iterator[Page]:
    """Yield every page of a file whose columns have been read.

    The library ends the process over some damaged metadata of columns; reading them raises first.

    Args:
        descriptor: The file, open for reading.
        file: The same, as the library sees it.

    Raises:
        ValueError: If what stands where a page has to be is none.
    """
    for group in range(file.metadata.num_row_groups):
        row_group = file.metadata.row_group(group)
        for at in range(row_group.num_columns):
            column = row_group.column(at)
            offset = column.data_page_offset
            if column.has_dictionary_page:
                offset = min(offset, column.dictionary_page_offset)
            end = offset + column.total_compressed_size
            while offset < end:
                page, length = _page(descriptor, offset)
                yield page
                offset += length + page.size


def pages_in(data: bytes, column: pq.ColumnChunkMetaData) -> bool:
    """Tell whether a column of a small file is pages that all have a checksum."""
    offset = column.data_page_offset
    if column.has_dictionary_page:
        offset = min(offset, column.dictionary_page_offset)
    end = offset + column.total_compressed_size
    while offset < end:
        header = _Header(data[offset : offset + _FIRST_READ])
        numbers = header.struct(_DEEPEST)
        if _CRC_FIELD not in numbers or numbers[_SIZE_FIELD] < 0:
            return False
        offset += header.place + numbers[_SIZE_FIELD]
    return True


def _page(descriptor: int, offset: int) -> tuple[Page, int]:
    """Return a page, and the length of its header."""
    for count in (_FIRST_READ, _LONGEST_HEADER):
        header = _Header(os.pread(descriptor, count, offset))
        try:
            numbers = header.struct(_DEEPEST)
        except IndexError:
            continue
        size = numbers.get(_SIZE_FIELD, -1)
        if size < 0:
            break
        return Page(offset, size, _CRC_FIELD in numbers), header.place
    raise ValueError(f"there is no page at offset {offset:,}")


class _Header:
    """Bytes of Thrift's compact protocol, read from their beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def struct(self, levels: int) -> dict[int, int]:
        """Return the integers of a struct by the number of their field; the rest is passed over.

        Raises:
            IndexError: If it goes on after the last byte.
            ValueError: If it is none.
        """
        if levels == 0:
            raise ValueError("the header of a page is nested too deeply")
        found: dict[int, int] = {}
        field = 0
        while head := self._byte():
            kind, delta = head & 15, head >> 4
            field = field + delta if delta else self._integer()
            if kind in _INTEGERS:
                found[field] = self._integer()
            elif kind not in {_TRUE, _FALSE}:  # the value of a bool is its kind
                self._skip(kind, levels)
        return found

    def _byte(self) -> int:
        byte = self._data[self.place]
        self.place += 1
        return byte

    def _count(self) -> int:
        """Return an unsigned integer of seven bits to the byte, the least ones first."""
        value = shift = 0
        while shift <= _MOST_BITS:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that another byte follows
                return value
            shift += 7
        raise ValueError("the header of a page holds a number that is too long")

    def _integer(self) -> int:
        """Return a signed integer: 0, -1, 1, -2, … are counted from 0."""
        count = self._count()
        return (count >> 1) ^ -(count & 1)

    def _skip(self, kind: int, levels: int) -> None:
        """Pass over a value."""
        if kind in _INTEGERS:
            self._count()
        elif kind in {_TRUE, _FALSE, _BYTE}:
            self._byte()
        elif kind == _DOUBLE:
            self.place += 8
        elif kind == _BINARY:
            length = self._count()  # which moves the place itself
            self.place += length
        elif kind == _STRUCT:
            self.struct(levels - 1)
        elif kind in {_LIST, _SET}:
            head = self._byte()
            size = self._count() if head >> 4 == _LONG_DELTA else head >> 4
            for _ in range(size):
                self._skip(head & 15, levels - 1)
        else:
            raise ValueError(f"the header of a page holds a value of the unknown kind {kind}")
