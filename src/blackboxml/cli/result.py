"""The result of a query in any form, as text; nothing here prints."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from blackboxml.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl
    from rich.console import JustifyMethod

SUFFIXES: Final = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".md": "markdown",
}
"""The form that a file has by its name."""

_UNSAFE: Final = re.compile(r"[|\\]")


def table(found: pl.DataFrame) -> Table:
    """Return a result as a table; floats to five digits."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name, kind in found.schema.items():
        justify: JustifyMethod = "right" if kind.is_numeric() else "left"
        drawn.add_column(Text(terminal.safe(name)), justify=justify, overflow="fold")
    for row in found.iter_rows():
        drawn.add_row(*(Text(_cell(value)) for value in row))
    return drawn


def lines(found: pl.DataFrame, form: str, *, ascii_only: bool = False) -> Iterator[str]:
    """Yield a result line by line.

    Args:
        found: The result.
        form: `csv`, `json`, `jsonl` or `markdown`.
        ascii_only: Escape in JSON what is not ASCII.
    """
    if form == "markdown":
        yield _markdown(found.columns)
        yield _markdown(["--:" if kind.is_numeric() else "---" for kind in found.dtypes])
        yield from (_markdown(map(_cell, row)) for row in found.iter_rows())
    elif form == "json":
        yield terminal.dumps(found.to_dicts(), ascii_only=ascii_only)
    elif form == "jsonl":
        for named in found.iter_rows(named=True):
            yield terminal.dumps(named, indent=None, ascii_only=ascii_only)
    else:
        yield _csv(found.columns)
        yield from (_csv(map(_plain, row)) for row in found.iter_rows())


def _cell(value: Any) -> str:
    """Return a value for a person."""
    if value is None or isinstance(value, bool | int | float):
        return terminal.number(value)
    return terminal.safe(_plain(value))


def _plain(value: Any) -> Any:
    """Return a value as one text or number, as JSON has it."""
    if isinstance(value, bool | list | dict):
        return terminal.dumps(value, indent=None)
    return terminal.plain(value)


def _csv(cells: Any) -> str:
    """Return cells as a line of CSV; null is empty."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _markdown(cells: Any) -> str:
    """Return cells as a line of a table."""
    known = (_UNSAFE.sub(lambda found: f"\\{found[0]}", terminal.safe(cell)) for cell in cells)
    return f"| {' | '.join(known)} |"
