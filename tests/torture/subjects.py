"""What is damaged: whole runs in memory, what a reader and a validator say of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml import open_run, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackboxml.reader import RunReader
    from blackboxml.validation import Report

BASES = Path(__file__).resolve().parents[2] / "fixtures" / "bases"
JOURNAL = re.compile(r"metrics(?:\.r([1-9][0-9]*))?(?:\.([1-9][0-9]*))?\.jsonl")

Session = tuple[int, int]
"""Attempt and rank."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a validator says: the verdict, and the findings without their words."""

    verdict: str
    findings: frozenset[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Values:
    """What a reader gives.

    Attributes:
        logged: The tables of all groups in both views, and the records in both: what was logged.
        identity: Status, configuration and the members of the manifest that the format defines.
        sessions: All points by attempt and rank, each as text, in order.
    """

    logged: str
    identity: str
    sessions: dict[Session, list[str]]


@dataclass(frozen=True, slots=True)
class Base:
    """A good run.

    Attributes:
        name: Of its directory.
        files: Its files by path.
        sealed: Whether its manifest lists tables and digests.
        packed: Whether the journals are gone.
        said: What a validator says of it.
        values: What a reader gives.
    """

    name: str
    files: dict[str, bytes]
    sealed: bool
    packed: bool
    said: Said
    values: Values


def load(path: Path) -> Base:
    """Return a run that lies in a directory."""
    files = {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
    try:
        sealed = json.loads(files["run.json"])["sealed"]
    except (KeyError, ValueError):
        sealed = None
    return Base(
        path.name,
        files,
        sealed is not None,
        sealed is not None and sealed["packed"],
        look(path),
        read(path),
    )


def look(path: Path) -> Said:
    """Validate a run."""
    return said(validate(path))


def said(report: Report) -> Said:
    """Return a report without its words."""
    return Said(
        report.verdict,
        frozenset(
            (each.rule, each.severity, each.file, each.line, each.offset, each.pointer)
            for each in report.problems
        ),
    )


def read(path: Path) -> Values:
    """Read all of a run."""
    reader = open_run(path)
    sessions: dict[Session, list[str]] = {}
    points = list(reader.records("all"))
    for point in points:
        sessions.setdefault((point.attempt, point.rank), []).append(repr(point))
    logged = repr((_tables(reader), points, list(reader.records("effective"))))
    return Values(logged, repr(_identity(reader)), sessions)


def _tables(reader: RunReader) -> list[Any]:
    """Return every table of a run, typed."""
    found: list[Any] = []
    for group in reader.groups:
        for view in ("effective", "all"):
            table = reader.arrow(group, view)
            schema = [(field.name, str(field.type)) for field in table.schema]
            found.append((group, view, schema, [column.to_pylist() for column in table.columns]))
    return found


def _identity(reader: RunReader) -> tuple[Any, ...]:
    """Return what a reader says of a run as a whole."""
    manifest = reader.manifest
    return (
        reader.id,
        reader.name,
        reader.tags,
        reader.status,
        str(reader.start),
        str(reader.end),
        manifest.get("exception"),
        manifest.get("environment"),
        manifest.get("lineage"),
        manifest.get("attempts"),
        reader.config,
    )


def committed(data: bytes | None) -> bytes:
    """Return a journal up to its last line feed."""
    return b"" if data is None else data[: data.rfind(b"\n") + 1]


def journals(files: Mapping[str, bytes | None]) -> dict[str, tuple[int, int]]:
    """Return rank and ordinal of each metrics journal."""
    found = {name: JOURNAL.fullmatch(name) for name, data in files.items() if data is not None}
    return {
        name: (int(match[1] or 0), int(match[2] or 0))
        for name, match in found.items()
        if match is not None
    }
