"""What a catalogue knows of all its runs, column by column, so that much is read in little time.

Nothing here is a library with threads of its own: a catalogue works in a forked process too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from blackboxml.collection.cells import Cells
from blackboxml.collection.entry import Entry, Facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

DOCUMENTS: Final = tuple(each.name for each in fields(Facts) if each.type == "bytes")
"""The facts that are JSON, and rarely looked at."""

PLAIN: Final = tuple(each.name for each in fields(Facts) if each.name not in DOCUMENTS)

_PLACE: Final = "\0"
"""Stands between the names of directories, which have everything else."""


@dataclass(frozen=True, slots=True)
class Documents:
    """One JSON document a run.

    Attributes:
        data: All of them, one after another.
        ends: Where each ends.
    """

    data: bytes
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, documents: Sequence[bytes]) -> Documents:
        """Return those of a list."""
        return cls(b"".join(documents), np.cumsum(list(map(len, documents)), dtype=np.int64))

    def __getitem__(self, row: int) -> bytes:
        """Return the document of a run."""
        return self.data[self.ends[row - 1] if row else 0 : self.ends[row]]

    def all(self) -> list[bytes]:
        """Return those of all runs."""
        return [self.data[start:end] for start, end in pairwise([0, *self.ends.tolist()])]

    def take(self, rows: npt.NDArray[np.int64]) -> Documents:
        """Return those of some runs; neighbours stay together."""
        starts = np.concatenate([np.zeros(1, np.int64), self.ends])
        parts = [self.data[starts[start] : starts[end]] for start, end in _stretches(rows)]
        return Documents(b"".join(parts), np.cumsum(self.ends[rows] - starts[rows]))

    def __add__(self, other: Documents) -> Documents:
        """Return those of both."""
        return Documents(
            self.data + other.data, np.concatenate([self.ends, other.ends + len(self.data)])
        )


@dataclass(frozen=True)
class Ledger:
    """The runs below a folder in order, as they were read.

    Attributes:
        places: Their paths below the folder.
        states: Their files as they were when they were read.
        plain: The facts that are not documents, each a list over all runs.
        documents: The others.
        cells: Configurations and last values.
    """

    places: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    plain: Mapping[str, list[Any]] = field(default_factory=lambda: {name: [] for name in PLAIN})
    documents: Mapping[str, Documents] = field(
        default_factory=lambda: {name: Documents.of([]) for name in DOCUMENTS}
    )
    cells: Cells = field(default_factory=Cells)

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Ledger:
        """Return the ledger of runs that were read one by one."""
        facts = [entry.facts for entry in entries]
        return cls(
            [entry.place for entry in entries],
            [entry.state for entry in entries],
            {name: [getattr(each, name) for each in facts] for name in PLAIN},
            {name: Documents.of([getattr(each, name) for each in facts]) for name in DOCUMENTS},
            Cells.of((each.config, each.metrics) for each in facts),
        )

    def __len__(self) -> int:
        """Return how many runs there are."""
        return len(self.places)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where each run is, by its place."""
        return {place: row for row, place in enumerate(self.places)}

    def entry(self, root: Path, row: int) -> Entry:
        """Return a run."""
        said: dict[str, Any] = {name: column[row] for name, column in self.plain.items()}
        said |= {name: column[row] for name, column in self.documents.items()}
        return Entry(root, self.places[row], self.states[row], Facts(**said))

    def entries(self, root: Path) -> list[Entry]:
        """Return all runs."""
        columns = [
            self.plain[name] if name in self.plain else self.documents[name].all()
            for name in _FACTS
        ]
        facts = map(Facts, *columns)
        return [Entry(root, *given) for given in zip(self.places, self.states, facts, strict=True)]

    def merged(self, order: Sequence[int], fresh: Sequence[Entry]) -> Ledger:
        """Return a ledger of some of these runs and of others.

        Args:
            order: Its runs in order: a row of this one, or from its length on one of the others.
            fresh: The others.
        """
        other = Ledger.of(fresh)
        rows = np.array(order, np.int64)
        stretches = _stretches(rows)

        def chosen(own: list[Any], others: list[Any]) -> list[Any]:
            both, found = own + others, list[Any]()
            for start, end in stretches:
                found += both[start:end]
            return found

        return Ledger(
            chosen(self.places, other.places),
            chosen(self.states, other.states),
            {name: chosen(own, other.plain[name]) for name, own in self.plain.items()},
            {
                name: (own + other.documents[name]).take(rows)
                for name, own in self.documents.items()
            },
            self.cells.merged(rows, len(self), other.cells),
        )

    # -- as the parts of a file

    def dump(self) -> dict[str, bytes]:
        """Return all as named parts."""
        return {
            "places": os.fsencode(_PLACE.join(self.places)),
            "plain": orjson.dumps({"count": len(self), "states": self.states, **self.plain}),
            **{f"{name}.json": column.data for name, column in self.documents.items()},
            **{f"{name}.ends": column.ends.tobytes() for name, column in self.documents.items()},
            **self.cells.dump(),
        }

    @classmethod
    def load(cls, parts: Mapping[str, bytes]) -> Ledger:
        """Return the ledger of such parts.

        Raises:
            ValueError: If they do not fit together.
            LookupError: If one is missing.
        """
        plain = orjson.loads(parts["plain"])
        count, states = plain.pop("count"), plain.pop("states")
        places = os.fsdecode(parts["places"]).split(_PLACE) if count else []
        documents = {
            name: Documents(parts[f"{name}.json"], np.frombuffer(parts[f"{name}.ends"], np.int64))
            for name in DOCUMENTS
        }
        columns = [places, states, *plain.values(), *(each.ends for each in documents.values())]
        if plain.keys() != set(PLAIN) or any(len(column) != count for column in columns):
            raise ValueError("columns of different lengths")
        return cls(places, states, plain, documents, Cells.load(parts, count))


_FACTS: Final = tuple(each.name for each in fields(Facts))


def _stretches(rows: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return rows as ranges, in their order: most of them are neighbours."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    starts = rows[np.concatenate([np.zeros(1, np.int64), breaks])]
    ends = rows[np.concatenate([breaks - 1, [len(rows) - 1]])] + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
