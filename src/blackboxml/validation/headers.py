"""The headers of the objects in an HDF5 file, message by message, as the library wrote them.

The library gives an attribute or a filter in some ten calls each. For small files that is most of
the work, so what it wrote is compared as bytes. It has opened the object before: that the bytes are
whole, and the right ones, is known by its checksums.
"""

from __future__ import annotations

import struct
from typing import Final

NIL, DATASPACE, LINK_INFO, DATATYPE, FILL_OLD, FILL, LINK, EXTERNAL, LAYOUT = range(9)
GROUP_INFO, FILTERS, ATTRIBUTE = 10, 11, 12
CONTINUATION, ATTRIBUTE_INFO, REFERENCES = 16, 21, 22

_SIGNATURE: Final = b"OHDR\x02"
_NEXT: Final = b"OCHK"
_TIMES, _PHASES, _ORDER = 0x20, 0x10, 0x04
_CONTINUED: Final = struct.Struct("<QQ")
_ATTRIBUTE: Final = struct.Struct("<BBHHHB")
_UNDEFINED: Final = b"\xff" * 8
_MOST_PARTS: Final = 64


def messages(data: bytes, address: int) -> list[tuple[int, bytes]]:
    """Return the messages of an object: kind and content.

    Args:
        data: The whole file.
        address: Where the header begins.

    Raises:
        ValueError: If it is spelled in another way than this knows.
        IndexError: If it ends too early.
    """
    if data[address : address + 5] != _SIGNATURE:
        raise ValueError("no header of version 2")
    flags = data[address + 5]
    place = address + 6 + (16 if flags & _TIMES else 0) + (4 if flags & _PHASES else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(data[place : place + width], "little")
    head = 6 if flags & _ORDER else 4
    found: list[tuple[int, bytes]] = []
    parts = [(place + width, place + width + size)]
    for begin, end in parts:
        place, last = begin, end - head
        while place <= last:
            start = place + head
            stop = start + (data[place + 1] | data[place + 2] << 8)
            if data[place + 3] & 2 or stop > end:
                raise ValueError("a message that is shared, or cut off")
            kind = data[place]
            place = stop
            if kind == CONTINUATION:
                more, count = _CONTINUED.unpack(data[start:stop])
                if data[more : more + 4] != _NEXT or len(parts) == _MOST_PARTS:
                    raise ValueError("no continuation of a header")
                parts.append((more + 4, more + count - 4))
            elif kind != NIL:
                found.append((kind, data[start:stop]))
    return found


def spell(name: bytes, kind: bytes, shape: int, value: bytes) -> bytes:
    """Return the message of an attribute.

    Args:
        name: Its name.
        kind: Type and shape.
        shape: How many bytes of these are the shape.
        value: Its value.
    """
    sizes = (len(name) + 1, len(kind) - shape, shape)
    return _ATTRIBUTE.pack(3, 0, *sizes, 0) + name + b"\0" + kind + value


def is_compact(content: bytes) -> bool:
    """Tell by the message of kind ATTRIBUTE_INFO whether all attributes are messages too."""
    place = 4 if content[1] & 1 else 2
    return content[place : place + 8] == _UNDEFINED
