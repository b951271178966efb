"""Records of TensorBoard's event files: framing, checksums, and what is left after damage.

An event file is a row of records: length of the data (uint64), masked CRC-32C of these eight bytes
(uint32), data, masked CRC-32C of the data (uint32), all little-endian. The mask is
`rotate_right(crc, 15) + 0xa282ead8`. See
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details and
https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4 for CRC-32C.

A CRC is linear: that of a message is the exclusive or of what each byte contributes by its
distance from the end. So the checksums of many records of one length, or of the many blocks of one
long record, are computed column by column.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    Report: TypeAlias = Callable[[int, int, str], None]
    Bytes: TypeAlias = npt.NDArray[np.uint8]
    Words: TypeAlias = npt.NDArray[np.uint32]
    Rows: TypeAlias = npt.NDArray[np.int64]

CHUNK: Final = 2**20
"""Bytes that are read and decoded at once."""

LONGEST: Final = 2**28
"""Bytes of a record that is read; a longer one is passed over."""

HEAD: Final = 12
"""Bytes before the data of a record: its length, and the checksum of that."""

FOOT: Final = 4
"""Bytes after it."""

_BLOCK: Final = 256
_SHORT: Final = 2**12  # bytes up to which a loop over them is faster than columns
_BATCHED: Final = 2**14  # bytes of messages whose checksums are computed at once
_TOGETHER: Final = 2**11  # of these messages
_SEGMENT: Final = 2**20  # bytes of a long message that are in memory in several forms
_length: Final = struct.Struct("<Q").unpack_from
_ALIKE: Final = 32  # records of one size after which more are expected,
_AHEAD: Final = 1024  # and how many of these are looked at together
_POLYNOMIAL: Final = 0x82F63B78  # of CRC-32C, lowest bit first
_MASK: Final = 0xA282EAD8
_ALL_ONES: Final = 0xFFFFFFFF
_MOST_TRIALS: Final = 2**28  # bytes that are tried as records while looking for the next good one


class Chunk(NamedTuple):
    """Whole records that lie side by side, the length of each being certain.

    Attributes:
        data: Bytes of the file.
        offset: Where they begin in the file.
        starts: Where the data of each record begin in `data`.
        lengths: How many bytes they are.
    """

    data: bytes
    offset: int
    starts: Rows
    lengths: Rows


# -- CRC-32C


@cache
def _positions() -> Words:
    """Return what a byte contributes: row k is for a byte that k more follow, k below 256."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    rows = np.empty((_BLOCK, 256), np.uint32)
    rows[0] = table
    for k in range(1, _BLOCK):
        rows[k] = table[rows[k - 1] & 255] ^ (rows[k - 1] >> 8)
    return rows


def _advance(operator: Words, register: Words) -> Words:
    """Return registers after as many zero bytes as the operator stands for."""
    found: Words = operator[0][register & 255]
    for k in (1, 2, 3):
        found = found ^ operator[k][(register >> (8 * k)) & 255]
    return found


@cache
def _operator(power: int) -> Words:
    """Return the operator of 2^power zero bytes: what each byte of a register becomes."""
    if power:
        half = _operator(power - 1)
        return _advance(half, half)
    table, low = _positions()[0], np.arange(256, dtype=np.uint32)
    return np.stack([table, low, low << 8, low << 16])


@cache
def _table() -> list[int]:
    """Return what a byte contributes that none follows."""
    found: list[int] = _positions()[0].tolist()
    return found


@cache
def _start(length: int) -> int:
    """Return what the all-ones at the beginning and the end make of so many zero bytes."""
    register = np.array([_ALL_ONES], np.uint32)
    for power in range(length.bit_length()):
        if length >> power & 1:
            register = _advance(_operator(power), register)
    return int(register[0]) ^ _ALL_ONES


def mask(crc: int) -> int:
    """Return a checksum as it stands in a file."""
    return ((crc >> 15 | crc << 17) + _MASK) & _ALL_ONES


def checksum(data: bytes | memoryview) -> int:
    """Return the masked CRC-32C of some bytes, however many."""
    view, length = memoryview(data), len(data)
    if length <= _SHORT:
        register, table = _ALL_ONES, _table()
        for byte in view:
            register = table[(register ^ byte) & 255] ^ (register >> 8)
        return mask(register ^ _ALL_ONES)
    operator = _operator(_SEGMENT.bit_length() - 1)
    first = length % _SEGMENT
    register = _contribution(view[:first])
    for at in range(first, length, _SEGMENT):
        moved = _advance(operator, np.array([register], np.uint32))
        register = int(moved[0]) ^ _contribution(view[at : at + _SEGMENT])
    return mask(register ^ _start(length))


def _contribution(data: memoryview) -> int:
    """Return what bytes make of a register that is 0."""
    blocks = max(1, -(-len(data) // _BLOCK))
    padded = np.zeros(blocks * _BLOCK, np.uint8)
    padded[len(padded) - len(data) :] = np.frombuffer(data, np.uint8)
    columns = np.ascontiguousarray(padded.reshape(blocks, _BLOCK).T)
    positions = _positions()
    parts = np.zeros(blocks, np.uint32)
    for k in range(_BLOCK):
        parts ^= positions[_BLOCK - 1 - k][columns[k]]
    power = _BLOCK.bit_length() - 1
    while len(parts) > 1:
        if len(parts) % 2:
            parts = np.concatenate([np.zeros(1, np.uint32), parts])
        parts = _advance(_operator(power), parts[0::2]) ^ parts[1::2]
        power += 1
    return int(parts[0])


def checksums(columns: Bytes) -> Words:
    """Return the masked CRC-32C of messages of one length up to 256: the columns of a matrix."""
    length, count = columns.shape
    positions = _positions()
    found = np.full(count, _start(length), np.uint32)
    for k in range(length):
        found ^= positions[length - 1 - k][columns[k]]
    return _masked(found)


def checksums_at(data: Bytes, starts: Rows, lengths: Rows) -> Words:
    """Return the masked CRC-32C of messages of up to `_BATCHED` bytes, wherever they lie."""
    some = [slice(first, first + _TOGETHER) for first in range(0, len(starts), _TOGETHER)]
    return np.concatenate(
        [np.empty(0, np.uint32), *(_some_checksums(data, starts[at], lengths[at]) for at in some)]
    )


def _some_checksums(data: Bytes, starts: Rows, lengths: Rows) -> Words:
    """Return the checksums of some messages; a block of all is in memory in several forms."""
    positions, operator = _positions(), _operator(_BLOCK.bit_length() - 1)
    found = np.zeros(len(starts), np.uint32)
    ends, longest = starts + lengths, int(lengths.max(initial=0))
    for end in range(-(-longest // _BLOCK) * _BLOCK, 0, -_BLOCK):  # of blocks, from the messages'
        rows = np.flatnonzero(lengths > end - _BLOCK)
        first = max(0, end - longest)
        places = (ends[rows] - end)[None, :] + np.arange(first, _BLOCK)[:, None]
        columns = np.where(places < starts[rows], 0, data[np.maximum(places, 0)])
        part = np.zeros(len(rows), np.uint32)
        for k, column in enumerate(columns, first):
            part ^= positions[_BLOCK - 1 - k][column]
        found[rows] = _advance(operator, found[rows]) ^ part
    return _masked(found ^ np.array([_start(length) for length in lengths.tolist()], np.uint32))


def _masked(crcs: Words) -> Words:
    """Return checksums as they stand in a file."""
    rotated: Words = (crcs >> np.uint32(15)) | (crcs << np.uint32(17))
    return rotated + np.uint32(_MASK)


# -- reading


def read_chunks(path: Path, report: Report) -> Iterator[Chunk]:
    """Yield the records of a file whose length is certain; their data are not checked yet.

    Where a length is damaged, the next record is looked for whose length and data are both good.

    Args:
        path: The file.
        report: Called with where damage begins and ends, and what it is.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        yield from _Scan(file, report).chunks()


@dataclass(slots=True)
class _Scan:
    """A file that is being read."""

    file: BinaryIO
    report: Report
    data: bytes = b""
    offset: int = 0
    trials: int = 0

    def chunks(self) -> Iterator[Chunk]:
        while self._fill(CHUNK):
            starts, end, bad = self._walk()
            if starts:
                rows = np.array(starts, np.int64)
                lengths = np.diff(np.append(rows, end)) - (HEAD + FOOT)
                yield Chunk(self.data, self.offset, rows + HEAD, lengths)
            self._drop(end)
            if bad:
                if not self._resynchronise():
                    return
            elif not starts and not self._reach():
                return

    def _fill(self, size: int) -> bool:
        """Have so many bytes at hand, if the file has them; tell whether there are any."""
        missing = size - len(self.data)
        if missing > 0:
            self.data += self.file.read(missing)
        return bool(self.data)

    def _drop(self, size: int) -> None:
        self.data = self.data[size:]
        self.offset += size

    def _walk(self) -> tuple[list[int], int, bool]:
        """Return where whole records begin, where the last ends, and whether damage follows."""
        data, total, at = self.data, len(self.data), 0
        starts: list[int] = []
        size = again = 0
        while at + HEAD <= total:
            starts.append(at)
            before, size = size, HEAD + FOOT + _length(data, at)[0]
            again = again + 1 if size == before else 0
            if again == _ALIKE and at + size <= total:
                ahead = _count_alike(data, at, size)
                starts.extend(range(at + size, at + ahead * size, size))
                at += (ahead - 1) * size
                again = 0
            at += size
        good = _good_heads(np.frombuffer(data, np.uint8), np.array(starts, np.int64))
        if not good.all():
            first = int(np.argmin(good))
            return starts[:first], starts[first], True
        if starts and at > total:  # the last one is not whole
            at = starts.pop()
        return starts, at, False

    def _reach(self) -> bool:
        """Bring in a record that is longer than what is at hand; tell whether to go on."""
        if len(self.data) < HEAD:
            return self._end()
        length = int.from_bytes(self.data[:8], "little")
        whole = HEAD + length + FOOT
        if length > LONGEST:
            if whole > self._remaining():
                return self._end()
            self.report(self.offset, self.offset + whole, f"a record of {length:,} bytes")
            self.file.seek(self.offset + whole)
            self.data, self.offset = b"", self.offset + whole
            return True
        self._fill(whole)
        return len(self.data) >= whole or self._end()

    def _end(self) -> bool:
        """Report that the file ends inside a record."""
        self.report(self.offset, self.offset + len(self.data), "the file ends inside a record")
        return False

    def _remaining(self) -> int:
        """Return how many bytes of the file are not dropped yet."""
        here = self.file.tell()
        end = self.file.seek(0, 2)
        self.file.seek(here)
        return end - self.offset

    def _resynchronise(self) -> bool:
        """Go to the next record that is good; tell whether there is one."""
        begin, remaining = self.offset, self._remaining()
        skip = 1
        while True:
            self._fill(CHUNK)
            found = _possible_heads(np.frombuffer(self.data, np.uint8), skip)
            for at in found:
                if self._is_good(at, remaining - (self.offset - begin)):
                    self._drop(at)
                    self.report(begin, self.offset, "the length of a record is damaged")
                    return True
            if len(self.data) < CHUNK or self.trials > _MOST_TRIALS:
                self.report(begin, begin + remaining, "the length of a record is damaged")
                return False
            self._drop(len(self.data) - HEAD + 1)
            skip = 0

    def _is_good(self, at: int, remaining: int) -> bool:
        """Tell whether there is a whole and good record at a place."""
        end = at + HEAD + FOOT + int.from_bytes(self.data[at : at + 8], "little")
        if end > min(remaining, LONGEST) or self.trials > _MOST_TRIALS:
            return False
        self.trials += end - at
        self._fill(end)
        return len(self.data) >= end and is_intact(self.data, at + HEAD, end - FOOT)


def _count_alike(data: bytes, at: int, size: int) -> int:
    """Return how many records of one size follow each other, the one at a place included."""
    count = min(_AHEAD, (len(data) - at) // size)
    rows = np.frombuffer(data, np.uint8, count * size, at).reshape(count, size)[:, :8]
    differ = (rows != rows[0]).any(axis=1)
    return int(differ.argmax()) if differ.any() else count


def first_records(path: Path, count: int) -> Iterator[bytes]:
    """Yield the first records of a file up to the first that is damaged, cut, or long.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        for _ in range(count):
            head = file.read(HEAD)
            length = int.from_bytes(head[:8], "little")
            if len(head) < HEAD or not is_intact(head, 0, 8) or length > CHUNK:
                return
            data = file.read(length + FOOT)
            if len(data) < length + FOOT or not is_intact(data, 0, length):
                return
            yield data[:length]


def is_intact(data: bytes, start: int, end: int) -> bool:
    """Tell whether data agree with the checksum that follows them."""
    said = int.from_bytes(data[end : end + FOOT], "little")
    return checksum(memoryview(data)[start:end]) == said


def _good_heads(data: Bytes, starts: Rows) -> npt.NDArray[np.bool_]:
    """Tell of places whether the length there agrees with its checksum."""
    heads = data[starts[None, :] + np.arange(HEAD)[:, None]]
    said = np.ascontiguousarray(heads[8:].T).view("<u4")[:, 0]
    return np.asarray(checksums(heads[:8]) == said)


def _possible_heads(data: Bytes, skip: int) -> list[int]:
    """Return the places, from one on, where a length agrees with its checksum."""
    if len(data) < HEAD + skip:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(data, HEAD)[skip:]
    said = np.ascontiguousarray(windows[:, 8:]).view("<u4")[:, 0]
    good = checksums(np.ascontiguousarray(windows[:, :8].T)) == said
    return [int(at) + skip for at in np.flatnonzero(good)]


class Group(NamedTuple):
    """Records of one length, whose data are good.

    Attributes:
        rows: Which records of the chunk they are.
        columns: Their data: a column is a record.
    """

    rows: Rows
    columns: Bytes


def groups(chunk: Chunk, least: int, report: Report) -> Iterator[Group | tuple[int, bytes]]:
    """Yield the good records of a chunk: many of one length at once, or row and data of one.

    Args:
        chunk: The records.
        least: How many of one length are worth a group.
        report: Called with where damaged data begin and end, and what it is.
    """
    data = np.frombuffer(chunk.data, np.uint8)
    single = np.zeros(len(chunk.lengths), bool)
    for length, rows in by_length(chunk.lengths):
        if length > _BATCHED or len(rows) < least:
            single[rows] = True
            continue
        places = chunk.starts[rows][None, :] + np.arange(length + FOOT)[:, None]
        columns = data[places]
        said = np.ascontiguousarray(columns[length:].T).view("<u4")[:, 0]
        if length > _BLOCK:
            good = checksums_at(data, chunk.starts[rows], chunk.lengths[rows]) == said
        else:
            good = checksums(columns[:length]) == said
        for row in rows[~good].tolist():
            _report(chunk, row, report)
        whole = columns[:length] if good.all() else columns[:length, good]
        yield Group(rows[good], whole)
    rows = np.flatnonzero(single)
    good = _are_intact(chunk, data, rows)
    for row, is_good in zip(rows.tolist(), good.tolist(), strict=True):
        if is_good:
            start = int(chunk.starts[row])
            yield row, chunk.data[start : start + int(chunk.lengths[row])]
        else:
            _report(chunk, row, report)


def by_length(lengths: Rows) -> Iterator[tuple[int, Rows]]:
    """Yield each length, and which records have it."""
    order = np.argsort(lengths, kind="stable")
    distinct, firsts = np.unique(lengths[order], return_index=True)
    yield from zip(distinct.tolist(), np.split(order, firsts[1:]), strict=True)


def _are_intact(chunk: Chunk, data: Bytes, rows: Rows) -> npt.NDArray[np.bool_]:
    """Tell of records whether their data agree with the checksum that follows them."""
    starts, lengths = chunk.starts[rows], chunk.lengths[rows]
    good = np.zeros(len(rows), bool)
    small = lengths <= _BATCHED
    feet = (starts + lengths)[small][:, None] + np.arange(FOOT)
    good[small] = checksums_at(data, starts[small], lengths[small]) == data[feet].view("<u4")[:, 0]
    for at in np.flatnonzero(~small).tolist():
        start = int(starts[at])
        good[at] = is_intact(chunk.data, start, start + int(lengths[at]))
    return good


def _report(chunk: Chunk, row: int, report: Report) -> None:
    start = chunk.offset + int(chunk.starts[row])
    end = start + int(chunk.lengths[row])
    report(start - HEAD, end + FOOT, "the data of a record are damaged")


# -- writing


def frame(data: bytes) -> bytes:
    """Return data as a record."""
    length = len(data).to_bytes(8, "little")
    return b"".join(
        (
            length,
            checksum(length).to_bytes(4, "little"),
            data,
            checksum(data).to_bytes(4, "little"),
        )
    )


def seal_records(out: Bytes, starts: Rows, lengths: Rows) -> None:
    """Put length and checksums around the data of many records.

    Args:
        out: Where they lie, with room before and after the data of each.
        starts: Where the data of each begin.
        lengths: How many bytes they are.
    """
    for length, rows in by_length(lengths):
        begin = starts[rows]
        head = np.frombuffer(length.to_bytes(8, "little"), np.uint8)
        crc = checksum(head.tobytes()).to_bytes(4, "little")
        out[(begin - HEAD)[:, None] + np.arange(HEAD)] = np.frombuffer(
            head.tobytes() + crc, np.uint8
        )
        if length > _BATCHED:
            each = [checksum(out[at : at + length].tobytes()) for at in begin.tolist()]
            crcs = np.array(each, "<u4")
        else:
            crcs = checksums_at(out, begin, np.full(len(begin), length)).astype("<u4")
        out[(begin + length)[:, None] + np.arange(FOOT)] = crcs.view(np.uint8).reshape(-1, FOOT)
