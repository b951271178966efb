"""What the command line shows, as text and tables; nothing here prints.

Names, tags and messages come from files that others may have written: control characters in them
are shown, never sent to the terminal.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from blackboxml.base import naming
from blackboxml.base.scalar import spell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import JustifyMethod

    from blackboxml.cli.overview import Overview
    from blackboxml.model import Number, Record, Summary
    from blackboxml.reader import RunReader

STYLES: Final = {
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "interrupted": "yellow",
    "crashed": "bold red",
    "stale": "yellow",
    "unreadable": "red",
}
"""How a status looks."""

# C0, DEL and C1 controls; marks that change the direction of text; line and paragraph separators.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_TITLES: Final = ("NAME", "DATE", "DURATION", "STATUS", "STEPS", "TAGS")
_LEAST_WIDTH: Final = 8
_UNKNOWN: Final = "-"
_DIGITS: Final = 5
_SOFTWARE: Final = ("python", "torch", "tensorflow")


def safe(text: object) -> str:
    r"""Return text with control characters spelled out.

    >>> safe("resnet\x1b[2J\n")
    'resnet\\x1b[2J\\n'
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def duration(seconds: float | None) -> str:
    """Return a duration for a person; `-` where it is not known.

    >>> duration(45.2), duration(826), duration(7530)
    ('45s', '13m 46s', '2h 5m 30s')
    """
    if seconds is None or not math.isfinite(seconds):
        return _UNKNOWN
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes}m {rest}s"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def moment(time: datetime | None) -> str:
    """Return a time in the zone of this machine, to the second; `-` where it is not known."""
    return _UNKNOWN if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def number(value: Number | None) -> str:
    """Return a value of a metric to five digits; integers whole, `-` for none.

    >>> number(0.1234567), number(12345678), number(True), number(float("nan"))
    ('0.12346', '12345678', 'true', 'NaN')
    """
    if value is None:
        return _UNKNOWN
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return f"{value:.{_DIGITS}g}" if math.isfinite(value) else str(spell(value))


def size(count: int) -> str:
    """Return a number of bytes for a person.

    >>> size(999), size(12_345_678)
    ('999 bytes', '12.3 MB')
    """
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:  # noqa: PLR2004 - the step from unit to unit
            break
        value, unit = value / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def plain(value: Any) -> Any:
    """Return anything that a run holds as JSON has it; NaN and infinities become strings."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return spell(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def dumps(document: Any, *, indent: int | None = 2, ascii_only: bool = False) -> str:
    """Return a document as strict JSON, with all control characters escaped.

    Args:
        document: Anything that `plain` takes.
        indent: Spaces of each level, None for all on one line.
        ascii_only: Escape all that is not ASCII.
    """
    text = json.dumps(plain(document), ensure_ascii=ascii_only, allow_nan=False, indent=indent)
    # Those that JSON leaves as they are can only stand inside strings; newlines are its own.
    return _CONTROLS.sub(lambda found: _escaped(found[0]), text)


def runs_table(rows: Sequence[Overview], now: datetime, width: int) -> Table:
    """Return runs as a table, one line each.

    Args:
        rows: The runs in order.
        now: The time, to say how long a run has been going.
        width: Columns of the terminal; names and tags give way, the rest never does.
    """
    lines = [_run_cells(row, now) for row in rows]
    own = [
        max(len(_TITLES[place]), *(line[place].cell_len for line in lines)) for place in range(6)
    ]
    room = max(2 * _LEAST_WIDTH, width - sum(own[1:5]) - 2 * 5)
    name_width = min(own[0], max(room - own[5], room // 2))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in _TITLES:
        justify: JustifyMethod = "right" if title in {"DURATION", "STEPS"} else "left"
        table.add_column(title, no_wrap=True, justify=justify)
    for line in lines:
        line[0].truncate(name_width, overflow="ellipsis")
        line[5].truncate(room - name_width, overflow="ellipsis")
        table.add_row(*line)
    return table


def _run_cells(row: Overview, now: datetime) -> list[Text]:
    """Return a run as the cells of a line."""
    status = row.status or _UNKNOWN
    seconds = row.duration_seconds
    if status == "running" and row.start is not None:
        seconds = max(0.0, (now - row.start).total_seconds())
    tags = Text(", ".join(map(safe, row.tags)) or _UNKNOWN)
    return [
        Text(safe(row.path.name if row.name is None else row.name)),
        Text(moment(row.start)),
        Text(duration(seconds)),
        Text(status, STYLES.get(status, "")),
        Text(_UNKNOWN if row.steps is None else str(row.steps)),
        tags if row.error is None else Text(safe(row.error), "dim"),
    ]


def run_header(reader: RunReader, now: datetime) -> Table:
    """Return what a run is: where, when, on what, with which hyper-parameters.

    Args:
        reader: The run.
        now: The time, to say how long a run has been going.
    """
    manifest = reader.manifest
    verdict = reader.verdict
    seconds = reader.duration_seconds
    if verdict.status == "running":
        seconds = max(0.0, (now - reader.start.astimezone()).total_seconds())
    facts: list[tuple[str, Any]] = [
        ("name", Text(safe(reader.name), "bold")),
        ("status", _status_text(verdict.status, verdict.reason)),
        ("path", safe(reader.path)),
        ("id", safe(reader.id)),
        ("tags", ", ".join(map(safe, reader.tags))),
        ("start", moment(reader.start)),
        ("duration", duration(seconds)),
        ("files", _files(reader)),
        ("environment", _environment(manifest["environment"])),
        ("config", "\n".join(f"{key} = {value}" for key, value in _flatten(reader.config))),
    ]
    attempts = manifest["attempts"]
    if len(attempts) > 1:
        facts.insert(4, ("attempts", str(len(attempts))))
    if exception := manifest.get("exception"):
        told = f"{exception.get('type')}: {exception.get('message')}"
        facts.insert(2, ("exception", Text(safe(told), "red")))
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts:
        if text:
            table.add_row(name, text)
    return table


def metrics_table(summary: Mapping[str, Summary], units: Mapping[str, str]) -> Table:
    """Return the statistics of all metrics, a section a group.

    Args:
        summary: By metric, group by group.
        units: Units of some of them.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("METRIC", overflow="fold", min_width=10)
    for title in ("LAST", "MIN", "MAX", "MEAN", "N", "STEPS"):
        table.add_column(title, justify="right", no_wrap=True)
    nonfinite = any(facts.nonfinite for facts in summary.values())
    if nonfinite:
        table.add_column("NAN/INF", justify="right", no_wrap=True)
    previous = ""
    for place, (metric, facts) in enumerate(summary.items()):
        group = naming.group_of(metric)
        if place and group != previous:
            table.add_row()
        previous = group
        name = Text(safe(metric))
        if metric in units:
            name.append(f" [{safe(units[metric])}]", "dim")
        values = (facts.last, facts.min, facts.max, facts.mean)
        cells = [*map(number, values), str(facts.n), f"{facts.first_step}–{facts.last_step}"]
        if nonfinite:
            cells.append(str(facts.nonfinite))
        table.add_row(name, *cells)
    return table


def record_line(record: Record, *, rank: bool = False) -> str:
    """Return a point as one line: its step, then its metrics.

    Args:
        record: The point.
        rank: Say which rank logged it.
    """
    parts = [f"step {record.step}"]
    if rank:
        parts.insert(0, f"rank {record.rank}")
    parts += [f"{safe(name)}={number(value)}" for name, value in record.metrics.items()]
    parts += [
        f"{safe(name)}/{statistic}={number(value)}"
        for name, values in record.ranks.items()
        for statistic, value in values.items()
    ]
    return "  ".join(parts)


def units(described: Mapping[str, Any]) -> dict[str, str]:
    """Return the units of metrics out of a sealed manifest's `groups`."""
    return {
        name: str(said["unit"])
        for group in described.values()
        for name, said in group["metrics"].items()
        if "unit" in said
    }


def _status_text(status: str, reason: str) -> Text:
    """Return a status with how it is known."""
    return Text.assemble((status, STYLES.get(status, "")), (f" ({safe(reason)})", "dim"))


def _files(reader: RunReader) -> str:
    """Say what the run consists of."""
    if reader.packed:
        return "packed: tables only; `blackbox seal` makes journals and datasets again"
    if reader.sealed:
        return "sealed: journals, tables, datasets and checksums"
    return "journals; `blackbox seal` makes tables when the run has ended"


def _environment(found: Mapping[str, Any]) -> str:
    """Return the environment in brief."""
    parts = [f"on {found['hostname']}"] if found.get("hostname") else []
    parts += [f"{name} {found[name]}" for name in _SOFTWARE if found.get(name)]
    if found.get("git_commit"):
        dirty = ", uncommitted changes" if found.get("git_dirty") else ""
        parts.append(f"git {found['git_commit']}{dirty}")
    return safe(", ".join(parts))


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, str]]:
    """Return nested hyper-parameters with dotted names."""
    pairs: list[tuple[str, str]] = []
    for key, value in config.items():
        name = f"{prefix}{safe(key)}"
        if isinstance(value, Mapping) and value:
            pairs += _flatten(value, f"{name}.")
        elif isinstance(value, str | PurePath):
            pairs.append((name, safe(value)))
        else:
            pairs.append((name, safe(repr(value))))
    return pairs


def _escaped(character: str) -> str:
    """Return a character as JSON escapes it, but for the LF between lines."""
    return character if character == "\n" else f"\\u{ord(character):04x}"
