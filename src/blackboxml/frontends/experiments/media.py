"""Media of a run as simplegrad's queries return them."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any

from blackboxml.errors import BlackboxError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.pixels import decode, of_array

if TYPE_CHECKING:
    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader

logger = logging.getLogger("blackboxml")


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
    pixels = None
    if record.kind == "array":
        pixels = of_array(foreign.from_medium(reader, record))
    elif record.kind == "image" and (found := decode(reader.load(record), "image")) is not None:
        pixels = found[0]
    if pixels is None:
        return None
    encoded = base64.b64encode(pixels.data).decode()
    return {
        "width": pixels.width,
        "height": pixels.height,
        "channels": pixels.channels,
        "data_b64": encoded,
    }
