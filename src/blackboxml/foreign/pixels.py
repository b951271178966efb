"""Images as raw rows of 8 bits a channel, which is how simplegrad has them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blackboxml.base.extras import require

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MODES: Final = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
"""The modes of images that are kept, and how many channels they have."""

_MOST_PIXELS: Final = 2**26
_DIMENSIONS: Final = 3


class Pixels(NamedTuple):
    """An image: its size, how many channels it has, and its rows one after the other."""

    width: int
    height: int
    channels: int
    data: bytes


def decode(image: bytes, extra: str) -> tuple[Pixels, str] | None:
    """Return the pixels of an image file, and the mode they had; None if it has none, or too many.

    A mode of another kind becomes RGBA.

    Args:
        image: The content of the file.
        extra: The extra of this package that brings Pillow.

    Raises:
        MissingDependencyError: If Pillow is not installed.
    """
    images = require("PIL.Image", extra)
    try:
        with images.open(io.BytesIO(image)) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                return None
            mode = opened.mode if opened.mode in MODES else "RGBA"
            made = opened.convert(mode)
            found = Pixels(made.width, made.height, MODES[mode], made.tobytes())
            return found, opened.mode
    except (OSError, ValueError, SyntaxError, images.DecompressionBombError):
        return None


def of_array(array: npt.NDArray[Any]) -> Pixels | None:
    """Return an array of uint8 and shape (height, width, channels) as an image, None for others."""
    if array.dtype != "uint8" or array.ndim != _DIMENSIONS:
        return None
    height, width, channels = array.shape
    return Pixels(width, height, channels, array.tobytes())


def to_array(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Return an image as an array of shape (height, width, channels).

    Raises:
        ValueError: If its rows have another size than it says.
    """
    import numpy as np

    width, height, channels, data = pixels
    if width * height * channels != len(data):
        raise ValueError(f"{len(data)} bytes are no image of {width} × {height} × {channels}")
    return np.frombuffer(data, np.uint8).reshape(height, width, channels)
