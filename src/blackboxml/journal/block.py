"""A block of journal lines, many at a time: made, cut, checked, parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import pyarrow as pa

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
_OPEN_SUFFIX: Final = b',"crc":"00000000"}\n'
_DIGITS: Final = np.arange(-11, -3)  # of a checksum, from the end of its line
_JSON: Final = orjson.OPT_SERIALIZE_NUMPY


def encode_points(points: Points, first_seq: int) -> bytes:
    """Return points as lines, the same ones as if they had been encoded one by one.

    Args:
        points: At least one record; what `Vocabulary.check` accepts.
        first_seq: `seq` of the first.

    Raises:
        MetricError: If a line is longer than a line may be.
    """
    heads: Any = np.empty(len(points), object)
    seqs = np.arange(first_seq, first_seq + len(points))
    for rows, names, columns in zip(points.rows(), points.layouts, points.values, strict=True):
        given = (seqs[rows], points.steps[rows], points.times[rows], *columns)
        members = b",".join(orjson.dumps(name).replace(b"%", b"%%") + b":%b" for name in names)
        line = b'{"seq":%b,"step":%b,"time":%b,"metrics":{' + members + b"}"
        heads[rows] = [line % texts for texts in zip(*map(_texts, given), strict=True)]
    return _with_checksums(heads.tolist())


def _texts(values: Column) -> list[bytes]:
    """Return numbers as they stand in a record."""
    texts = orjson.dumps(np.ascontiguousarray(values), None, _JSON)[1:-1].split(b",")
    if values.dtype.kind == "f":
        for at in np.flatnonzero(~np.isfinite(values)).tolist():
            texts[at] = orjson.dumps(spell(float(values[at])))
    return texts


def _with_checksums(heads: list[bytes]) -> bytes:
    """Return heads as whole lines: with room for the checksums, which are then put there."""
    count = len(heads)
    sizes = np.fromiter(map(len, heads), np.int64, count) + len(_OPEN_SUFFIX)
    if sizes.max() > LIMITS.line_bytes:
        message = (
            f"a record has {sizes.max():,} bytes, a line may have {LIMITS.line_bytes:,}; "
            "log it in several calls with the same step"
        )
        raise MetricError(message)
    found = np.fromiter(map(crc32, heads), ">u4", count)
    lines = bytearray(_OPEN_SUFFIX.join([*heads, b""]))
    digits = np.frombuffer(found.tobytes().hex().encode(), np.uint8).reshape(count, 8)
    np.frombuffer(lines, np.uint8)[np.cumsum(sizes)[:, None] + _DIGITS] = digits
    return bytes(lines)


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
