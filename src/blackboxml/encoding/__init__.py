"""Python values as media: what `Run.log_image` and its like make of their arguments.

Each function takes a value and returns it `Encoded`, or raises ValueError with one clause and its
cure, for the caller to put the name of the medium before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import os


class Encoded(NamedTuple):
    """A medium without its name and step: arguments of `RunWriter.log_media`.

    Attributes:
        kind: As in the specification.
        value: The thing itself as JSON, if that is how it is kept.
        data: The content of its file.
        path: A file to be copied.
        media_type: Of the file, such as `image/png`.
    """

    kind: str
    value: Any = None
    data: bytes | None = None
    path: str | os.PathLike[str] | None = None
    media_type: str | None = None
