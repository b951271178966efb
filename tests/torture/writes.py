"""The log of a disk that remembers each write, flush and mark."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

WROTE, FLUSHED, MARKED, ZEROED = b"wfmz"
_HEAD: Final = struct.Struct("<BQQ")

Entry = tuple[int, int, bytes]
"""Kind, offset and data; of `ZEROED`, the size as text."""


def write_entry(kind: int, offset: int, data: bytes) -> bytes:
    """Return an entry as it stands in a log."""
    return _HEAD.pack(kind, offset, len(data)) + data


def read_log(path: Path) -> list[Entry]:
    """Return the entries of a log."""
    data, at, entries = path.read_bytes(), 0, []
    while at + _HEAD.size <= len(data):
        kind, offset, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        entries.append((kind, offset, data[at : at + size]))
        at += size
    return entries
