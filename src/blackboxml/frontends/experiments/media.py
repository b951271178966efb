"""Media of a run as simplegrad's queries return them."""

from __future__ import annotations

import base64
import io
import logging
from typing import TYPE_CHECKING, Any, Final

from blackboxml.errors import BlackboxError
from blackboxml.extras import require
from blackboxml.foreign import values as foreign

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader

logger = logging.getLogger("blackboxml")

_MODES: Final = {"L": 1, "RGB": 3, "RGBA": 4}
_DIMENSIONS: Final = 3

CHANNELS: Final = tuple(_MODES.values())
"""How many of them an image may have; with another number it is an array."""


def to_pixels(width: int, height: int, channels: int, data: bytes) -> npt.NDArray[np.uint8]:
    """Return raw rows of 8 bits a channel as an array of shape (height, width, channels).

    Raises:
        ValueError: If there are not so many bytes.
    """
    import numpy as np

    if width * height * channels != len(data):
        raise ValueError(f"{len(data)} bytes are no image of {width} × {height} × {channels}")
    return np.frombuffer(data, np.uint8).reshape(height, width, channels)


def read_media(reader: RunReader, kind: str) -> dict[str, list[dict[str, Any]]]:
    """Return the media of a kind by name, by step; one that is damaged is left out and logged.

    Args:
        reader: The run.
        kind: `histogram`, `image` or `text`.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for record in reader.media():
        try:
            content = _content(reader, record, kind)
        except (BlackboxError, OSError, ValueError) as error:
            logger.warning("a medium of %s is left out: %s", reader.path, error)
            continue
        if content is not None:
            place = {"step": record.step, **content, "log_time": record.time}
            found.setdefault(record.name, []).append(place)
    for places in found.values():
        places.sort(key=lambda place: place["step"])
    return found


def _content(reader: RunReader, record: MediaRecord, kind: str) -> dict[str, Any] | None:
    """Return a medium, None if it is not of the kind."""
    if kind == "image":
        return _image(reader, record)
    if record.kind != kind:
        return None
    value = foreign.from_medium(reader, record)
    if kind == "text":
        return {"content": value}
    value = foreign.from_json(value)
    said = {"bucket_edges": value["edges"], "bucket_counts": value["counts"]}
    return said | ({"nonfinite": value["nonfinite"]} if "nonfinite" in value else {})


def _image(reader: RunReader, record: MediaRecord) -> dict[str, Any] | None:
    """Return an image as raw rows of 8 bits a channel, None for what is no image."""
    if record.kind == "array":
        array = foreign.from_medium(reader, record)
        if array.dtype != "uint8" or array.ndim != _DIMENSIONS:
            return None
        height, width, channels = array.shape
        data = array.tobytes()
    elif record.kind == "image":
        images = require("PIL.Image", "image")
        with images.open(io.BytesIO(reader.load(record))) as image:
            mode = image.mode if image.mode in _MODES else "RGBA"
            width, height, channels = image.width, image.height, _MODES[mode]
            data = image.convert(mode).tobytes()
    else:
        return None
    encoded = base64.b64encode(data).decode()
    return {"width": width, "height": height, "channels": channels, "data_b64": encoded}
