"""Summaries: what TensorBoard shows of one name at one step, as messages."""

from __future__ import annotations

import json
import math
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from blackboxml.foreign.tensorboard import messages
from blackboxml.foreign.tensorboard.messages import member

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackboxml.model import Number

_FLOAT32: Final = struct.Struct("<f")
_FLOAT64: Final = struct.Struct("<d")
_FLOAT_KEY: Final = messages.integer(messages.EXACT_FLOAT << 3 | messages.FIXED64)
_INT_KEY: Final = messages.integer(messages.EXACT_INT << 3 | messages.FIXED64)


def scalar(tag: str, value: Number, metadata: bytes = b"") -> bytes:
    """Return a value of a summary: a number as float32, and exactly where that is not enough.

    Args:
        tag: Its name.
        value: The number.
        metadata: What is said about the tag, with its first value.
    """
    try:
        rounded = _FLOAT32.pack(value)
    except OverflowError:
        rounded = _FLOAT32.pack(math.copysign(math.inf, value))
    said = _head(tag) + rounded
    if isinstance(value, bool):
        said += member(messages.EXACT_BOOL, int(value))
    elif isinstance(value, int):
        said += _INT_KEY + value.to_bytes(8, "little", signed=True)
    elif value == value and _FLOAT32.unpack(rounded)[0] != value:  # noqa: PLR0124 - not of NaN
        said += _FLOAT_KEY + _FLOAT64.pack(value)
    return member(1, said + (member(9, metadata) if metadata else b""))


@lru_cache(4096)
def _head(tag: str) -> bytes:
    """Return what stands before a number."""
    return member(1, tag) + messages.integer(messages.SIMPLE << 3 | messages.FIXED32)


def of_tensor(
    tag: str, tensor: bytes, plugin: str, content: bytes = b"", exact: Any = None
) -> bytes:
    """Return a summary of one tensor.

    Args:
        tag: Its name.
        tensor: It.
        plugin: What shows it.
        content: What that is told.
        exact: What this package reads instead, as JSON.
    """
    said = member(1, tag) + member(8, tensor) + member(9, messages.metadata(plugin, content))
    if exact is not None:
        said += member(messages.EXACT_MEDIUM, json.dumps(exact))
    return member(1, said)


def of_text(tag: str, text: str, exact: Any = None) -> bytes:
    """Return a summary of a text in Markdown."""
    return of_tensor(tag, messages.tensor([text.encode()], []), "text", exact=exact)


def of_images(tag: str, images: Sequence[bytes], exact: Any = None) -> bytes:
    """Return a summary of the images of one name and step, given as the content of files."""
    width, height = size(images[0]) or (0, 0)
    strings = [str(width).encode(), str(height).encode(), *images]
    return of_tensor(tag, messages.tensor(strings, [len(strings)]), "images", exact=exact)


def markdown(value: Any) -> str:
    """Return JSON as Markdown: an object of `columns` and `rows` as a table, all else indented."""
    if isinstance(value, dict) and set(value) == {"columns", "rows"}:
        lines = [value["columns"], ["---"] * len(value["columns"]), *value["rows"]]
        return "\n".join("|" + "|".join(map(_cell, line)) + "|" for line in lines)
    return "\n".join(f"    {line}" for line in json.dumps(value, indent=2).splitlines())


def size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels of an image of a kind that a browser shows."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:  # noqa: PLR2004
        return struct.unpack(">II", data[16:24])
    if data[:4] == b"GIF8" and len(data) >= 10:  # noqa: PLR2004
        return struct.unpack("<HH", data[6:10])
    if data[:2] == b"BM" and len(data) >= 26:  # noqa: PLR2004
        width, height = struct.unpack("<ii", data[18:26])
        return abs(width), abs(height)
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return 0, 0  # TensorBoard asks the browser
    return None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG: they are in its frame header."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:  # noqa: PLR2004
        if data[at + 1] in {0xC0, 0xC1, 0xC2, 0xC3}:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.replace("|", "\\|").replace("\n", " ")
