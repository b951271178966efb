"""Figures of matplotlib as PNG and SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from blackboxml.encoding import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterable

_TYPES: Final = {"png": "image/png", "svg": "image/svg+xml"}


def encode_figure(
    figure: Any, formats: Iterable[str] = ("png",), *, dpi: float | None = None
) -> list[Encoded]:
    """Return a figure once in each format.

    Args:
        figure: A figure of matplotlib, or anything with its `savefig`.
        formats: Some of `png` and `svg`.
        dpi: Dots per inch of a PNG; by default what the figure says.

    Raises:
        ValueError: If it is no figure, or a format is unknown.
    """
    wanted = [formats] if isinstance(formats, str) else list(formats)
    if not wanted or not set(wanted) <= _TYPES.keys():
        raise ValueError(f"formats is {wanted!r:.80}, wanted some of {', '.join(_TYPES)}")
    drawn: Any = figure if hasattr(figure, "savefig") else getattr(figure, "figure", None)
    if not callable(getattr(drawn, "savefig", None)):
        kind = type(figure).__name__
        raise ValueError(f"a {kind} is no figure of matplotlib")  # noqa: TRY004 - as in `to_array`
    found = []
    for form in wanted:
        file = io.BytesIO()
        drawn.savefig(file, format=form, dpi=dpi or "figure")
        found.append(Encoded("figure", data=file.getvalue(), media_type=_TYPES[form]))
    return found
