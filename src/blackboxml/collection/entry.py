"""What a catalogue says of one run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from blackboxml.base.scalar import NON_FINITE, spell
from blackboxml.collection.cells import KINDS
from blackboxml.config import decode_config
from blackboxml.errors import BlackboxError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from blackboxml.model import Number

UNREADABLE: Final = "unreadable"
"""The status of a run that cannot be opened."""

LIVE: Final = frozenset(["running", "stale"])
"""Statuses that may change although no file does."""


_TYPES: Final = {kind: name for name, kind in KINDS.items()}
_UNKNOWN: Final = (None, None, None)


class Series(NamedTuple):
    """One metric of a run: its effective values.

    Attributes:
        type: `bool`, `int64` or `float64`.
        last: The value at the greatest step, of equal steps the one that was logged last; None if
            there is none.
        last_step: That step; None where only the manifest of a sealed run was asked.
        min: Least finite value; None if there is none, or where only the manifest was asked.
        max: Greatest finite value, likewise.
        n: Number of values, those that are not finite included.
    """

    type: str
    last: Number | None
    last_step: int | None
    min: Number | None
    max: Number | None
    n: int


@dataclass(slots=True)
class Facts:
    """What was read of one run; documents stand as JSON until somebody asks for them.

    Attributes:
        metrics: By name, the fields of its `Series`.
        mark: How far the journal of a run that may go on was read; empty if that is not known.
        sealed: Whether the manifest of a sealed run said it all.
        whole: Whether nothing about the metrics is left to be learned.
    """

    id: str | None = None
    name: str = ""
    status: str = UNREADABLE
    start: float | None = None
    end: float | None = None
    problem: str | None = None
    whole: bool = False
    sealed: bool = False
    tags: bytes = b"[]"
    config: bytes = b"{}"
    lineage: bytes = b"{}"
    extensions: bytes = b"{}"
    metrics: bytes = b"{}"
    mark: bytes = b""


class Entry:
    """One run of a catalogue.

    Attributes:
        place: Its path below the folder of the catalogue.
        state: The files as they were when it was read.
        facts: What was read.
    """

    def __init__(self, root: Path, place: str, state: str, facts: Facts) -> None:
        """Take what a catalogue read of the run at a place below a root."""
        self._root = root
        self.place = place
        self.state = state
        self.facts = facts

    def __repr__(self) -> str:
        """Return name, status and place."""
        return f"<Entry {self.name!r} {self.status} at {str(self.path)!r}>"

    def measured(self, metrics: dict[str, Series]) -> Entry:
        """Return the run with all there is to know of its metrics."""
        facts = replace(self.facts, metrics=dump_series(metrics), whole=True)
        return Entry(self._root, self.place, self.state, facts)

    @cached_property
    def metrics(self) -> dict[str, Series]:
        """What it logged, by name."""
        return load_series(self.facts.metrics)

    @cached_property
    def path(self) -> Path:
        """The run directory."""
        return self._root / self.place

    @property
    def id(self) -> str | None:
        """32 hexadecimal digits; None of a run that cannot be read."""
        return self.facts.id

    @property
    def name(self) -> str:
        """The name as the user gave it; empty where that is lost."""
        return self.facts.name

    @property
    def status(self) -> str:
        """As `RunReader.status`, or `unreadable`."""
        return self.facts.status

    @property
    def start(self) -> float | None:
        """When the run began, in Unix seconds."""
        return self.facts.start

    @property
    def end(self) -> float | None:
        """When it ended, None if that is not known."""
        return self.facts.end

    @property
    def problem(self) -> str | None:
        """Why the run cannot be read, or its configuration; None if all can be."""
        return self.facts.problem

    @cached_property
    def tags(self) -> list[str]:
        """The tags as the user gave them."""
        found: list[str] = orjson.loads(self.facts.tags)
        return found

    @cached_property
    def config(self) -> dict[str, Any]:
        """The hyper-parameters; empty where there are none or the file is damaged."""
        try:
            return decode_config(orjson.loads(self.facts.config))
        except ConfigError:
            return {}

    @cached_property
    def lineage(self) -> dict[str, Any]:
        """Where the run comes from, such as `parent`."""
        found: dict[str, Any] = orjson.loads(self.facts.lineage)
        return found

    @cached_property
    def extensions(self) -> dict[str, Any]:
        """What the manifest says besides, by domain name in reverse."""
        found: dict[str, Any] = orjson.loads(self.facts.extensions)
        return found


def explain(error: Exception) -> str:
    """Return why a run cannot be read, as text; the error may name a file whose name is none."""
    said = str(error) if isinstance(error, BlackboxError) else f"{type(error).__name__}: {error}"
    return said.encode(errors="backslashreplace").decode()


def dump_series(metrics: Mapping[str, Series]) -> bytes:
    """Return metrics as JSON: kind, last value and count, then what else is known.

    The floats that JSON cannot spell are spelled as the format does.
    """
    return orjson.dumps(
        {
            name: (KINDS[kind], last if last is None else spell(last), n, *rest)
            for name, (kind, last, *rest, n) in metrics.items()
        }
    )


def load_series(text: bytes) -> dict[str, Series]:
    """Return metrics from JSON."""
    found = {}
    for name, (kind, last, n, *rest) in orjson.loads(text).items():
        known = NON_FINITE[last] if isinstance(last, str) else last
        last_step, low, high = rest or _UNKNOWN
        found[name] = Series(_TYPES[kind], known, last_step, low, high, n)
    return found


def finite(value: Number | None) -> Number | None:
    """Return a number, None for one that is NaN or infinite."""
    return value if value is not None and math.isfinite(value) else None
