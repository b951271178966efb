"""The configurations and last values of many runs: one cell for each value, of any type.

Runs may have few columns in common, and then a table of all would be mostly empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from blackboxml.base.scalar import NON_FINITE
from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy.typing as npt

CONFIG: Final = "config"
"""Begins the column of a hyper-parameter: `config.model.depth`."""

LAST: Final = "last."
"""Begins the column of the last values of a metric: `last.train/loss`."""

NOTHING, BOOL, INT64, FLOAT64, TEXT, JSON = range(6)
"""What a cell holds; JSON is a list, or a value of a type that JSON does not have."""

_SPELLED: Final = frozenset([TEXT, JSON])

ABSENT: Final = 8
"""Added to the kind of a last value that is not there."""

KINDS: Final = {"bool": BOOL, "int64": INT64, "float64": FLOAT64}


@dataclass(frozen=True)
class Cells:
    """Values by run and column.

    Attributes:
        runs: The row of the run of each, ascending.
        columns: Its place in `names`.
        kinds: What it holds.
        values: The number itself, the bits of a float64, or a place in `texts`.
        names: The columns.
        texts: All texts, each once.
    """

    runs: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    columns: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    kinds: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    values: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    names: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, runs: Iterable[tuple[bytes, bytes]]) -> Cells:
        """Return those of runs: each the JSON of its configuration, and of its metrics."""
        found = _Gathering()
        counts = []
        for config, metrics in runs:
            before = len(found.columns)
            if config != b"{}":
                found.add_config(orjson.loads(config))
            found.add_metrics(orjson.loads(metrics))
            counts.append(len(found.columns) - before)
        kinds = np.array(found.kinds, np.uint8)
        pairs = list(zip(found.kinds, found.values, strict=True))
        values = np.array([0 if kind == FLOAT64 else value for kind, value in pairs], np.int64)
        floats = np.array([value for kind, value in pairs if kind == FLOAT64], np.float64)
        values[kinds == FLOAT64] = floats.view(np.int64)
        return cls(
            np.repeat(np.arange(len(counts), dtype=np.uint32), counts),
            np.array(found.columns, np.uint32),
            kinds,
            values,
            list(found.names),
            list(found.texts),
        )

    def merged(self, order: npt.NDArray[np.int64], count: int, other: Cells) -> Cells:
        """Return the cells of some runs of this and another one.

        Args:
            order: Of each run its row here, or `count` and more for one of the other.
            count: How many runs are here.
            other: Cells of others.
        """
        names = {name: place for place, name in enumerate(self.names)}
        texts = {text: place for place, text in enumerate(self.texts)}
        renamed = [names.setdefault(name, len(names)) for name in other.names]
        respelled = [texts.setdefault(text, len(texts)) for text in other.texts]
        values = other.values.copy()
        spelled = _spelled(other.kinds)
        if respelled:
            values[spelled] = np.array(respelled, np.int64)[values[spelled]]
        place = np.full(max(count, int(order.max(initial=-1)) + 1), -1, np.int64)
        place[order] = np.arange(len(order))
        columns = np.array(renamed, np.uint32)[other.columns] if renamed else other.columns
        runs = place[np.concatenate([self.runs, other.runs + np.uint32(count)])]
        kept = np.flatnonzero(runs >= 0)
        kept = kept[np.argsort(runs[kept], kind="stable")]
        return Cells(
            runs[kept].astype(np.uint32),
            np.concatenate([self.columns, columns])[kept],
            np.concatenate([self.kinds, other.kinds])[kept],
            np.concatenate([self.values, values])[kept],
            list(names),
            list(texts),
        ).pruned()

    def pruned(self) -> Cells:
        """Return the same without names and texts that no cell has."""
        used = np.flatnonzero(np.bincount(self.columns, minlength=len(self.names)))
        spelled = _spelled(self.kinds)
        said, places = np.unique(self.values[spelled], return_inverse=True)
        if len(used) == len(self.names) and len(said) == len(self.texts):
            return self
        values = self.values.copy()
        values[spelled] = places
        return Cells(
            self.runs,
            np.searchsorted(used, self.columns).astype(np.uint32),
            self.kinds,
            values,
            [self.names[place] for place in used.tolist()],
            [self.texts[place] for place in said.tolist()],
        )

    # -- as the parts of a file

    def dump(self) -> dict[str, bytes]:
        """Return all as named parts."""
        return {
            "cells": orjson.dumps({"names": self.names, "texts": self.texts}),
            **{f"cells.{name}": getattr(self, name).tobytes() for name in _TYPES},
        }

    @classmethod
    def load(cls, parts: Mapping[str, bytes], count: int) -> Cells:
        """Return the cells of such parts, of so many runs.

        Raises:
            ValueError: If they do not fit together.
            LookupError: If one is missing.
        """
        said = orjson.loads(parts["cells"])
        arrays = {
            name: np.frombuffer(parts[f"cells.{name}"], kind) for name, kind in _TYPES.items()
        }
        found = cls(**arrays, names=said["names"], texts=said["texts"])
        if len({len(each) for each in arrays.values()}) > 1:
            raise ValueError("cells that do not fit together")
        for places, size in (
            (found.runs, count),
            (found.columns, len(found.names)),
            (found.values[_spelled(found.kinds)], len(found.texts)),
        ):
            if len(places) and not 0 <= places.min() <= places.max() < size:
                raise ValueError("cells of runs, columns or texts that are not there")
        return found


_TYPES: Final = {"runs": np.uint32, "columns": np.uint32, "kinds": np.uint8, "values": np.int64}


def _spelled(kinds: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell which cells hold texts."""
    return np.isin(kinds, [*_SPELLED])


class _Gathering:
    """Cells as they come, of all runs.

    Attributes:
        columns: The column of each cell.
        kinds: What it holds.
        values: Its value: a number, or the place of a text.
        names: The places of columns by name.
        texts: The places of texts.
    """

    def __init__(self) -> None:
        self.columns: list[int] = []
        self.kinds: list[int] = []
        self.values: list[float] = []
        self.names: dict[str, int] = {}
        self.texts: dict[str, int] = {}
        self._metrics: dict[str, int] = {}

    def add_config(self, tree: Any, name: str = CONFIG) -> None:
        """Add the values of a typed tree; `.` in a key is written `%2E`, and `%` as `%25`."""
        if type(tree) is dict and tree and not (len(tree) == 1 and next(iter(tree))[:1] == "$"):
            for key, value in tree.items():
                spelled = key
                if "%" in key or "." in key:
                    spelled = key.replace("%", "%25").replace(".", "%2E")
                self.add_config(value, f"{name}.{spelled}")
        elif name != CONFIG:
            kind, value = _value(tree)
            if kind in _SPELLED:
                value = self.texts.setdefault(value, len(self.texts))
            self.columns.append(self.names.setdefault(name, len(self.names)))
            self.kinds.append(kind)
            self.values.append(value)

    def add_metrics(self, metrics: Mapping[str, list[Any]]) -> None:
        """Add the last values of a run."""
        columns, kinds, values = self.columns.append, self.kinds.append, self.values.append
        known = self._metrics
        for name, said in metrics.items():
            kind, last = said[0], said[1]
            column = known.get(name)
            if column is None:
                column = known[name] = self.names.setdefault(LAST + name, len(self.names))
            columns(column)
            kinds(kind if last is not None else kind + ABSENT)
            values(0 if last is None else NON_FINITE[last] if type(last) is str else last)


def _value(tree: Any) -> tuple[int, Any]:
    """Return kind and value of what is no mapping."""
    kind = _PLAIN.get(type(tree))
    if kind == INT64 and not INT64_MIN <= tree <= INT64_MAX:
        return JSON, str(tree)
    if kind is not None:
        return kind, 0 if tree is None else tree
    if isinstance(tree, dict) and len(tree) == 1:
        ((tag, content),) = tree.items()
        if isinstance(content, str) and tag in _TAGGED:
            return _TAGGED[tag](content)
        if tag == "$tuple":
            return _value(content)
        if tag == "$repr" and isinstance(content, dict) and isinstance(content.get("text"), str):
            return TEXT, content["text"]
    return JSON, orjson.dumps(tree).decode()


_TAGGED: Final[dict[str, Callable[[str], tuple[int, Any]]]] = {
    "$float": lambda text: (FLOAT64, NON_FINITE.get(text, math.nan)),
    "$int": lambda text: (JSON, text),
    "$path": lambda text: (TEXT, text),
    "$bytes": lambda text: (TEXT, text),
}
_PLAIN: Final = {type(None): NOTHING, bool: BOOL, int: INT64, float: FLOAT64, str: TEXT}
