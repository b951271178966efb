"""The headers of the objects in an HDF5 file, message by message, as the library wrote them.

The library gives an attribute or a filter in some ten calls each. For small files that is most of
the work, so what it wrote is compared as bytes. It has opened the object before: that the bytes are
whole, and the right ones, is known by its checksums.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

NIL, DATASPACE, LINK_INFO, DATATYPE, FILL_OLD, FILL, LINK, EXTERNAL, LAYOUT = range(9)
GROUP_INFO, FILTERS, ATTRIBUTE = 10, 11, 12
CONTINUATION, ATTRIBUTE_INFO, REFERENCES = 16, 21, 22

_SIGNATURE: Final = b"OHDR\x02"
_NEXT: Final = b"OCHK"
_TIMES, _PHASES, _ORDER = 0x20, 0x10, 0x04
_WIDTHS: Final = {0: "<B", 1: "<H", 2: "<I", 3: "<Q"}
_UNDEFINED: Final = b"\xff" * 8
_MOST_PARTS: Final = 64


class Attribute(NamedTuple):
    """An attribute: its name, its type and shape as the file spells them, its value."""

    name: bytes
    kind: bytes
    value: bytes


def messages(data: bytes, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield the messages of an object: kind and content.

    Args:
        data: The whole file.
        address: Where the header begins.

    Raises:
        ValueError: If it is spelled in another way than this knows.
        struct.error: If it ends too early.
    """
    if data[address : address + 5] != _SIGNATURE:
        raise ValueError("no header of version 2")
    flags = data[address + 5]
    place = address + 6 + (16 if flags & _TIMES else 0) + (4 if flags & _PHASES else 0)
    width = _WIDTHS[flags & 3]
    (size,) = struct.unpack_from(width, data, place)
    place += struct.calcsize(width)
    head = 6 if flags & _ORDER else 4
    parts = [(place, place + size)]
    for begin, end in parts:
        place = begin
        while place + head <= end:
            kind, length = data[place], int.from_bytes(data[place + 1 : place + 3], "little")
            content = data[place + head : place + head + length]
            if data[place + 3] & 2 or place + head + length > end:
                raise ValueError("a message that is shared, or cut off")
            place += head + length
            if kind == CONTINUATION:
                more, count = struct.unpack("<QQ", content)
                if data[more : more + 4] != _NEXT or len(parts) == _MOST_PARTS:
                    raise ValueError("no continuation of a header")
                parts.append((more + 4, more + count - 4))
            elif kind != NIL:
                yield kind, content


def attribute(content: bytes) -> Attribute:
    """Return the attribute that a message holds.

    Raises:
        ValueError: If it is spelled in another way than this knows.
    """
    version, flags, name, kind, space, _ = struct.unpack_from("<BBHHHB", content)
    if version != 3 or flags:  # noqa: PLR2004 - the version that the library writes
        raise ValueError("an attribute of another version, or of a committed type")
    place = 9 + name
    end = place + kind + space
    return Attribute(content[9 : 9 + name - 1], content[place:end], content[end:])


def is_compact(content: bytes) -> bool:
    """Tell by the message of kind ATTRIBUTE_INFO whether all attributes are messages too."""
    place = 4 if content[1] & 1 else 2
    return content[place : place + 8] == _UNDEFINED
