"""A block of journal lines, many at a time: made, cut, checked, parsed."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from blackboxml.base.checksum import crc32
from blackboxml.base.scalar import spell
from blackboxml.errors import MetricError
from blackboxml.journal import SUFFIX_BYTES, Block
from blackboxml.model import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.journal.metric import Column, Points

_CHECK_BYTES: Final = 2**18
_SUFFIX: Final = b',"crc":""}'
_DIGITS: Final = 8  # of a checksum
_AT_ONCE: Final = 2**11  # lines whose checksums are computed; more leave the caches
_COLON, _COMMA = b":,"
_JSON: Final = orjson.OPT_SERIALIZE_NUMPY


def _piece(text: bytes) -> pa.BinaryScalar:
    """Return what all lines have at a place."""
    return pa.scalar(text, pa.binary())


_SEQ, _STEP, _TIME = _piece(b'{"seq"'), _piece(b',"step"'), _piece(b',"time"')
_METRICS_END, _CRC, _LINE_END = _piece(b"}"), _piece(b',"crc":"'), _piece(b'"}\n')
_NOTHING = _piece(b"")  # between pieces
_NOT_FINITE: Final = pa.array(
    [b":" + orjson.dumps(spell(number)) for number in (-math.inf, math.nan, math.inf)], pa.binary()
)


def encode_points(points: Points, first_seq: int) -> bytes:
    """Return points as lines, the same ones as if they had been encoded one by one.

    Args:
        points: At least one record; what `Vocabulary.check` accepts.
        first_seq: `seq` of the first.

    Raises:
        MetricError: If a line is longer than a line may be.
    """
    alike: dict[tuple[np.dtype[Any], ...], list[int]] = {}
    for place, columns in enumerate(points.values):
        alike.setdefault(tuple(column.dtype for column in columns), []).append(place)
    rows = points.rows()
    heads, lines = [], []
    for layouts in alike.values():
        found = np.concatenate([rows[place] for place in layouts])
        order = found.argsort()
        lines.append(found[order])
        heads.append(_encode_alike(points, layouts, lines[-1], order, first_seq))
    if len(heads) > 1:
        heads = [pa.concat_arrays(heads).take(pa.array(np.concatenate(lines).argsort()))]
    return _with_checksums(heads[0])


def _encode_alike(
    points: Points, layouts: list[int], lines: Column, order: Column, first_seq: int
) -> pa.BinaryArray:
    """Return records as lines without their end, whose layouts have the same types.

    Args:
        points: The points.
        layouts: The layouts.
        lines: Which records have one of them, ascending.
        order: Where each of these is, if those of a layout follow those of the one before.
        first_seq: `seq` of the first of all points.
    """
    sizes = [len(points.values[place][0]) for place in layouts]
    which = np.repeat(np.arange(len(layouts)), sizes)[order]
    pieces: list[Any] = [_SEQ, _texts(lines + first_seq)]
    pieces += [_STEP, _texts(points.steps[lines]), _TIME, _texts(points.times[lines])]
    lead = b',"metrics":{'
    for place in range(len(points.layouts[layouts[0]])):
        keys = [lead + orjson.dumps(points.layouts[layout][place]) for layout in layouts]
        values = np.concatenate([points.values[layout][place] for layout in layouts])
        pieces += [_choose(keys, which), _texts(values[order])]
        lead = b","
    return pc.binary_join_element_wise(*pieces, _METRICS_END, _NOTHING)


def _choose(texts: list[bytes], which: Column) -> pa.BinaryArray | pa.BinaryScalar:
    """Return which of some texts each line has, or the only one."""
    return _piece(texts[0]) if len(texts) == 1 else pa.array(texts, pa.binary()).take(which)


def _texts(values: Column) -> pa.BinaryArray:
    """Return numbers as they stand in a record, each with a colon before it."""
    data = bytearray(orjson.dumps(np.ascontiguousarray(values), None, _JSON))
    array = np.frombuffer(data, np.uint8)
    ends = np.empty(len(values) + 1, np.int32)
    ends[0], ends[1:-1], ends[-1] = 0, np.flatnonzero(array == _COMMA), len(array) - 1
    array[ends[:-1]] = _COLON
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    texts = pa.BinaryArray.from_buffers(pa.binary(), len(values), buffers)
    if values.dtype.kind != "f" or (finite := np.isfinite(values)).all():
        return texts
    return pc.if_else(finite, texts, _NOT_FINITE.take(np.isnan(values) + 2 * (values > 0)))


def _with_checksums(heads: pa.BinaryArray) -> bytes:
    """Return heads as whole lines."""
    count = len(heads)
    longest = pc.max(pc.binary_length(heads)).as_py() + SUFFIX_BYTES + 1
    if longest > LIMITS.line_bytes:
        message = (
            f"a record has {longest:,} bytes, a line may have {LIMITS.line_bytes:,}; "
            "log it in several calls with the same step"
        )
        raise MetricError(message)
    parts = (heads.slice(start, _AT_ONCE).to_pylist() for start in range(0, count, _AT_ONCE))
    found = np.fromiter(map(crc32, chain.from_iterable(parts)), ">u4", count)
    digits = pa.py_buffer(found.tobytes().hex().encode())
    crcs = pa.Array.from_buffers(pa.binary(_DIGITS), count, [None, digits]).cast(pa.binary())
    lines = pc.binary_join_element_wise(heads, _CRC, crcs, _LINE_END, _NOTHING)
    _, ends, data = lines.buffers()
    size = int(np.frombuffer(ends, np.int32, count + 1)[-1])
    return bytes(data.slice(0, size))


def check_lines(data: bytes, line_bytes: int) -> int:
    """Return how many lines there are, or -1 if a checksum is wrong or a line too long."""
    count = 0
    start = 0
    while start < len(data):
        end = data.find(b"\n", min(start + _CHECK_BYTES, len(data) - 1)) + 1
        lines = data[start:end].split(b"\n")
        lines.pop()
        if not _check_some(lines, line_bytes):
            return -1
        count += len(lines)
        start = end
    return count


def _check_some(lines: list[bytes], line_bytes: int) -> bool:
    """Tell whether all lines end in their checksum."""
    if max(map(len, lines)) >= line_bytes or min(map(len, lines)) <= SUFFIX_BYTES:
        return False
    suffix = b"".join([line[-SUFFIX_BYTES:-10] + line[-2:] for line in lines])
    if suffix != _SUFFIX * len(lines):
        return False
    digits = b"".join([line[-10:-2] for line in lines])
    if digits.lower() != digits:
        return False
    try:
        stated = np.frombuffer(bytes.fromhex(digits.decode("ascii")), ">u4")
    except ValueError:
        return False
    found = np.fromiter((crc32(line[:-SUFFIX_BYTES]) for line in lines), np.uint32, len(lines))
    return bool(np.array_equal(stated, found))


def parse_lines(data: bytes, schema: pa.Schema) -> pa.Table | None:
    """Return records as a table, or None if one does not fit the schema exactly."""
    import pyarrow.json as pj

    try:
        return pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(block_size=len(data) + 1, use_threads=False),
            parse_options=pj.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="error"
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def cut(block: Block, size: int, most: int | None = None) -> Iterator[Block]:
    """Yield a block in pieces of about a size, each of whole lines.

    Args:
        block: Whole lines.
        size: Bytes of a piece.
        most: How many cuts at the most.
    """
    data, start, cuts = block.data, 0, 0
    while start < len(data) and cuts != most:
        end = data.find(b"\n", start + size) + 1
        if not end:
            break
        yield Block(block.offset + start, data[start:end])
        start, cuts = end, cuts + 1
    if start < len(data):
        yield Block(block.offset + start, data[start:])


def without_end(block: Block) -> Iterator[Block]:
    """Yield a block, with its last line apart if that is an event: most journals close with one."""
    place = block.data.rfind(b"\n", 0, -1) + 1
    if place and b'"metrics"' not in block.data[place:]:
        yield Block(block.offset, block.data[:place])
        yield Block(block.offset + place, block.data[place:])
    else:
        yield block
