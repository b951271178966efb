"""Media of a run in a terminal: which there are, and what texts, tables and histograms hold.

Images, figures and files are told by their paths. Nothing here prints.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from blackboxml.base import naming
from blackboxml.cli.terminal import number, safe, size
from blackboxml.errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader

_MOST_LINES: Final = 20
_MOST_CELLS: Final = 2**22
_MOST_BYTES: Final = 2**26
_BAR: Final = 40
_FULL, _HASH = "█", "#"


@dataclass(slots=True)
class Entry:
    """The media of one name and kind.

    Attributes:
        name: Their full name.
        kind: Their kind.
        count: How many there are.
        first_step: The least step.
        last_step: The greatest step.
        bytes: Size of their files.
    """

    name: str
    kind: str
    count: int
    first_step: int
    last_step: int
    bytes: int


def overview(media: Iterable[MediaRecord]) -> list[Entry]:
    """Return media by name and kind, in the order of their first records."""
    found: dict[tuple[str, str], Entry] = {}
    for record in media:
        key = record.name, record.kind
        entry = found.setdefault(key, Entry(*key, 0, record.step, record.step, 0))
        entry.count += 1
        entry.first_step = min(entry.first_step, record.step)
        entry.last_step = max(entry.last_step, record.step)
        entry.bytes += record.bytes or 0
    return list(found.values())


def media_table(entries: Iterable[Entry]) -> Table:
    """Return media as a table, a line for each name and kind."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("MEDIA", overflow="fold", min_width=10)
    table.add_column("KIND")
    for title in ("N", "STEPS", "SIZE"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in entries:
        steps = f"{each.first_step}–{each.last_step}"
        room = size(each.bytes) if each.bytes else "-"
        table.add_row(Text(safe(each.name)), safe(each.kind), str(each.count), steps, room)
    return table


def choose(reader: RunReader, name: str) -> list[MediaRecord]:
    """Return the media that are to be shown: all of a name, or the last of each.

    Args:
        reader: The run.
        name: Full, or without its group; empty for the last of each name and kind.

    Raises:
        MetricError: If the run has no such medium.
    """
    media = list(reader.media())
    if not name:
        return list({(each.name, each.kind, each.entry): each for each in media}.values())
    names = dict.fromkeys(each.name for each in media)
    wanted = {each for each in names if name in {each, naming.short_name(each)}}
    if not wanted:
        there = ", ".join(names) or "none"
        raise MetricError(f"{reader.path} has no medium {name!r:.80}; it has {there:.1000}")
    return [each for each in media if each.name in wanted]


def heading(record: MediaRecord) -> Text:
    """Return what a medium is, and when it was logged."""
    text = Text.assemble((safe(record.name), "bold"), f"  {safe(record.kind)}  step {record.step}")
    for what in ("rank", "attempt"):
        if value := getattr(record, what):
            text.append(f"  {what} {value}", "dim")
    if record.entry is not None:
        text.append(f"  {safe(record.entry)}")
    return text


def describe(record: MediaRecord) -> dict[str, Any]:
    """Return a medium for a program; what it lacks is left out."""
    said = {name: getattr(record, name) for name in record.__slots__}
    return {key: each for key, each in said.items() if each is not None and each != ()}


def draw(reader: RunReader, record: MediaRecord, *, whole: bool, ascii_only: bool) -> Iterator[Any]:
    """Yield what a medium holds, as far as a terminal can show it.

    Args:
        reader: The run.
        record: The medium.
        whole: Show all lines of a text and all rows of a table, not only the first ones.
        ascii_only: Draw with characters of ASCII.
    """
    most = None if whole else _MOST_LINES
    if record.reference is not None:
        yield Text(safe(record.reference["uri"]))
        return
    try:
        yield from _content(reader, record, most, _HASH if ascii_only else _FULL)
    except (OSError, LookupError, TypeError, ValueError) as error:  # a value of no form
        yield Text(f"cannot be shown: {safe(error)}", "red")
    if record.file is not None:
        yield Text(safe(f"{reader.path / record.file} ({size(record.bytes or 0)})"))


def _content(
    reader: RunReader, record: MediaRecord, most: int | None, mark: str
) -> Iterator[RenderableType]:
    """Yield what is in a medium; of images and files nothing."""
    small = record.file is None or (record.bytes or 0) <= _MOST_BYTES
    if record.kind not in {"text", "table", "histogram", "graph", "event", "array"} or not small:
        return
    if record.kind == "array":
        yield _array(reader, record)
        return
    if record.media_type is not None and record.media_type.endswith("parquet"):
        yield from _frame(reader.load(record), most)
        return
    value = record.value
    if record.file is not None:
        data = reader.load(record)
        value = data.decode(errors="replace") if record.kind == "text" else json.loads(data)
    if record.kind == "text":
        yield from _lines(str(value).splitlines(), most)
    elif record.kind == "table":
        yield from _rows(value["columns"], value["rows"], most)
    elif record.kind == "histogram":
        yield _histogram(value, mark)
    elif record.kind == "graph":
        yield Text(f"{len(value['nodes']):,} nodes, {len(value['edges']):,} edges")
    else:
        yield from _lines([json.dumps(value, ensure_ascii=False)], most)


def _lines(lines: list[str], most: int | None) -> Iterator[Text]:
    """Yield the first lines of a text, and how many more there are."""
    for line in lines[:most]:
        yield Text(safe(line))
    if most is not None and len(lines) > most:
        yield Text(f"… {len(lines) - most:,} more lines", "dim")


def _rows(columns: list[Any], rows: list[list[Any]], most: int | None) -> Iterator[RenderableType]:
    """Yield the first rows of a table, and how many more there are."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(Text(safe(column)), overflow="fold")
    for row in rows[:most]:
        table.add_row(*(Text(_cell(cell)) for cell in row))
    yield table
    if most is not None and len(rows) > most:
        yield Text(f"… {len(rows) - most:,} more rows", "dim")


def _cell(value: Any) -> str:
    """Return a cell of a table in a few characters."""
    return number(value) if isinstance(value, int | float | None) else safe(value)


def _frame(data: bytes, most: int | None) -> Iterator[RenderableType]:
    """Yield the first rows of a Parquet file that is not too large to be decoded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True) as file:
            metadata = file.metadata
            if metadata.num_rows * metadata.num_columns > _MOST_CELLS:
                yield Text(f"{metadata.num_rows:,} rows of {metadata.num_columns:,} columns")
                return
            frame = file.read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from None
    shown = frame.slice(0, frame.num_rows if most is None else most)
    cells = [column.to_pylist() for column in shown.columns]
    yield from _rows(frame.column_names, [list(row) for row in zip(*cells, strict=True)], None)
    if shown.num_rows < frame.num_rows:
        yield Text(f"… {frame.num_rows - shown.num_rows:,} more rows", "dim")


def _histogram(value: Any, mark: str) -> RenderableType:
    """Return a histogram: a bar for each bin, or for some bins together where there are many."""
    edges, counts = map(list, (map(float, value["edges"]), map(float, value["counts"])))
    together = -(-len(counts) // _BAR)
    starts = range(0, len(counts), together)
    sums = [sum(counts[at : at + together]) for at in starts]
    finite = [each for each in sums if 0 < each < float("inf")]
    greatest = max(finite, default=1.0)
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 0))
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for at, count in zip(starts, sums, strict=True):
        share = min(max(count / greatest, 0.0), 1.0) if count == count else 0.0  # noqa: PLR0124
        bar = mark * max(round(_BAR * share), int(count > 0))
        right = edges[min(at + together, len(counts))]
        shown = int(count) if float(count).is_integer() else count
        table.add_row(number(edges[at]), number(right), number(shown), Text(bar, "cyan"))
    if value.get("nonfinite"):
        table.add_row("", "NaN/Inf", number(value["nonfinite"]), "")
    return table


def _array(reader: RunReader, record: MediaRecord) -> Text:
    """Return type and shape of an array."""
    from blackboxml.base import npy
    from blackboxml.base.files import Directory

    with Directory(reader.path) as directory, directory.reading(str(record.file)) as descriptor:
        header = npy.read_header(descriptor)
    names = f" ({', '.join(record.dims)})" if record.dims else ""
    return Text(f"{header.dtype} of shape {header.shape}{safe(names)}")
