"""What a catalogue says of one run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from blackboxml.config import decode_config
from blackboxml.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from blackboxml.model import Number

UNREADABLE: Final = "unreadable"
"""The status of a run that cannot be opened."""

LIVE: Final = frozenset(["running", "stale"])
"""Statuses that may change although no file does."""


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
    """What was read of one run; documents stand as JSON until somebody asks for them."""

    id: str | None = None
    name: str = ""
    status: str = UNREADABLE
    start: float | None = None
    end: float | None = None
    tags: str = "[]"
    config: str = "{}"
    lineage: str = "{}"
    extensions: str = "{}"
    problem: str | None = None
    mark: str | None = None
    whole: bool = False


class Entry:
    """One run of a catalogue.

    Attributes:
        place: Its path below the folder of the catalogue.
        metrics: What it logged, by name.
        state: The files as they were when it was read.
        facts: What was read.
    """

    def __init__(
        self, root: Path, place: str, state: str, facts: Facts, metrics: dict[str, Series]
    ) -> None:
        """Take what a catalogue read of the run at a place below a root."""
        self._root = root
        self.place = place
        self.state = state
        self.facts = facts
        self.metrics = metrics

    def __repr__(self) -> str:
        """Return name, status and place."""
        return f"<Entry {self.name!r} {self.status} at {str(self.path)!r}>"

    def says_the_same(self, other: Entry) -> bool:
        """Tell whether all that was read is equal."""
        return (self.state, self.facts, self.metrics) == (other.state, other.facts, other.metrics)

    def measured(self, metrics: dict[str, Series]) -> Entry:
        """Return the run with all there is to know of its metrics."""
        facts = replace(self.facts, whole=True)
        return Entry(self._root, self.place, self.state, facts, metrics)

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
        """Why the run cannot be read, None if it can."""
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


def finite(value: Number | None) -> Number | None:
    """Return a number, None for one that is NaN or infinite."""
    return value if value is not None and math.isfinite(value) else None
