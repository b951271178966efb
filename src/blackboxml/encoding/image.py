"""Images: pixels, pictures of Pillow, files and encoded bytes, as PNG or as they are."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.extras import require
from blackboxml.encoding import Encoded
from blackboxml.encoding.array import to_array

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
_BEGINNING: Final = 512
_CHANNELS: Final = (1, 3, 4)
_GREATEST: Final = 255


def encode_image(image: Any) -> Encoded:
    """Return an image: pixels as PNG, a file or encoded bytes as they are.

    Args:
        image: Pixels of shape (height, width) or (height, width, channels) with 1, 3 or 4 channels:
            integers or bools, 0 … 255 or False and True, or floats, 0 … 1; an image of Pillow; the
            path of a file; or the bytes of one.

    Raises:
        ValueError: If it is none of these, or a pixel is out of range.
        OSError: If a file cannot be read.
        MissingDependencyError: If pixels are given and Pillow is not installed.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
        return Encoded("image", data=data, media_type=_recognise(data[:_BEGINNING]))
    if isinstance(image, str | os.PathLike):
        with Path(image).open("rb") as file:
            form = _recognise(file.read(_BEGINNING))
        return Encoded("image", path=image, media_type=form)
    pillow: Any = sys.modules.get("PIL.Image")
    if not (hasattr(pillow, "Image") and isinstance(image, pillow.Image)):
        pixels = to_pixels(image)
        pillow = require("PIL.Image", "image")
        image = pillow.fromarray(pixels)
    elif image.mode in {"CMYK", "YCbCr", "LAB", "HSV", "F"}:
        image = image.convert("RGB")  # PNG has no such colours
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return Encoded("image", data=encoded.getvalue(), media_type="image/png")


def to_pixels(image: Any) -> npt.NDArray[np.uint8]:
    """Return pixels as uint8 of shape (height, width) or (height, width, 3 or 4).

    Floats are multiplied by 255 and rounded.

    Raises:
        ValueError: If the shape is another, or a pixel is out of range or no number.
    """
    import numpy as np

    array = to_array(image)
    shape = array.shape
    flat, coloured = len(shape) == 2, len(shape) == 3 and shape[-1] in _CHANNELS  # noqa: PLR2004
    if not (flat or coloured) or not array.size:
        cure = "; channels come last" if len(shape) == 3 and shape[0] in _CHANNELS else ""  # noqa: PLR2004
        raise ValueError(
            f"pixels of shape {shape} are no image, wanted (height, width) or "
            f"(height, width, 1, 3 or 4){cure}"
        )
    if shape[2:] == (1,):
        array = array[:, :, 0]
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(_GREATEST)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"pixels of type {array.dtype}; wanted integers or floats")
    most = 1 if array.dtype.kind == "f" else _GREATEST
    if array.dtype != np.uint8:
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= most):  # NaN is neither
            raise ValueError(
                f"pixels reach from {low} to {high}, wanted 0 … {most} for {array.dtype}; "
                f"give numpy.clip(image, 0, {most}), or scale them"
            )
    if most == 1:
        array = np.rint(array.astype(np.float32) * _GREATEST)
    return np.ascontiguousarray(array, dtype=np.uint8)


def _recognise(beginning: bytes) -> str:
    """Return the media type of an image by how it begins.

    Raises:
        ValueError: If it is none that is known.
    """
    for signature, media_type in _SIGNATURES:
        if beginning.startswith(signature):
            return media_type
    if beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP":
        return "image/webp"
    if beginning[4:12] in {b"ftypavif", b"ftypavis"}:
        return "image/avif"
    if b"<svg" in beginning:
        return "image/svg+xml"
    raise ValueError(
        f"what begins with {beginning[:8]!r} is no PNG, JPEG, GIF, BMP, TIFF, WebP, AVIF or SVG"
    )
