"""A table of runs: what each is, its configuration and its last values, a column each."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import polars as pl
from polars.io.plugins import register_io_source

from blackboxml.base.scalar import spell
from blackboxml.collection.cells import (
    ABSENT,
    BOOL,
    FLOAT64,
    INT64,
    JSON,
    LAST,
    NOTHING,
    TEXT,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from blackboxml.collection.ledger import Ledger

_TIME: Final = pl.Datetime("us", "UTC")
FACTS: Final[dict[str, Any]] = {
    "id": pl.String(),
    "name": pl.String(),
    "path": pl.String(),
    "status": pl.String(),
    "start": _TIME,
    "end": _TIME,
    "duration_seconds": pl.Float64(),
    "tags": pl.List(pl.String),
    "problem": pl.String(),
}
"""The columns that every table of runs begins with."""

_NUMBERS: Final = {BOOL: pl.Boolean(), INT64: pl.Int64(), FLOAT64: pl.Float64()}


class RunTable:
    """The runs of a ledger as columns.

    Attributes:
        schema: Types by column: the facts, then `config.…` and `last.…`, each by name.
    """

    def __init__(self, ledger: Ledger, root: str) -> None:
        """Find out which columns there are; none is made yet."""
        self._ledger = ledger
        self._root = root
        self._cells = ledger.cells
        self._codes = {name: code for code, name in enumerate(ledger.cells.names)}
        self.schema: dict[str, Any] = dict(FACTS)
        for name in sorted(self._codes):
            self.schema[name] = self._type(name)

    def scan(self) -> pl.LazyFrame:
        """Return the runs, of which a query makes the columns that it needs."""

        def read(
            columns: list[str] | None, where: pl.Expr | None, rows: int | None, _: int | None
        ) -> Iterator[pl.DataFrame]:
            frame = self.frame(columns).head(len(self._ledger) if rows is None else rows)
            yield frame if where is None else frame.filter(where)

        return register_io_source(read, schema=self.schema, is_pure=True)

    def frame(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the runs.

        Args:
            columns: Which columns, None for all.
        """
        wanted = self.schema if columns is None else columns
        return pl.DataFrame(
            [self._fact(name) if name in FACTS else self._column(name) for name in wanted]
        )

    def having(self, columns: Sequence[str]) -> set[int]:
        """Return the rows of the runs that have a cell in one of some columns."""
        codes = [self._codes[name] for name in columns]
        return set(self._cells.runs[np.isin(self._cells.columns, codes)].tolist())

    # -- facts

    def _fact(self, name: str) -> pl.Series:
        """Return what the runs are."""
        plain, documents, kind = self._ledger.plain, self._ledger.documents, FACTS[name]
        if name == "path":
            folder = os.path.join(self._root, "")
            return _texts(name, [folder + place for place in self._ledger.places])
        if name == "name":
            return _texts(name, [each or None for each in plain["name"]])
        if name == "tags":
            known: dict[bytes, int] = {}
            which = [known.setdefault(each, len(known)) for each in documents[name].all()]
            distinct = pl.Series(name, [each.decode() for each in known], pl.String)
            return distinct.str.json_decode(kind).gather(which)
        if name in {"start", "end"}:
            return pl.Series(name, self._microseconds(name)).cast(kind)
        if name == "duration_seconds":
            passed = self._microseconds("end") - self._microseconds("start")
            # Not divided by polars, which multiplies by 1e-6: that rounds twice.
            seconds = np.maximum(passed.to_numpy(), 0) / 10**6
            return pl.Series(name, seconds, kind, nan_to_null=True)
        return pl.Series(name, plain[name], kind)

    def _microseconds(self, name: str) -> pl.Series:
        """Return a time in microseconds since 1970."""
        times = pl.Series(name, self._ledger.plain[name], pl.Float64)
        return (times * 1e6).round().cast(pl.Int64)

    # -- configurations and last values

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """Where the cells of each column begin, and where the last ends, once they are sorted."""
        counts = np.bincount(self._cells.columns, minlength=len(self._cells.names))
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        """The cells by column, and by run within one."""
        few = len(self._cells.names) <= 2**16  # then numpy sorts by digits
        columns = self._cells.columns.astype(np.uint16) if few else self._cells.columns
        return np.argsort(columns, kind="stable")

    @cached_property
    def _kinds(self) -> list[set[int]]:
        """What the cells of each column hold."""
        kinds = self._cells.kinds & (ABSENT - 1)
        pairs = np.flatnonzero(np.bincount(self._cells.columns.astype(np.int64) * ABSENT + kinds))
        found: list[set[int]] = [set() for _ in self._cells.names]
        for pair in pairs.tolist():
            found[pair // ABSENT].add(pair % ABSENT)
        return found

    def _of(self, name: str) -> tuple[npt.NDArray[Any], ...]:
        """Return runs, kinds and values of the cells of a column that have a value."""
        code = self._codes[name]
        at = self._order[self._starts[code] : self._starts[code + 1]]
        kinds = self._cells.kinds[at]
        there = (kinds != NOTHING) & (kinds < ABSENT)
        at = at[there]
        return self._cells.runs[at], kinds[there], self._cells.values[at]

    def _type(self, name: str) -> Any:
        """Return the type of a column: one that holds all its values, else text."""
        kinds = self._kinds[self._codes[name]] - {NOTHING}
        if name.startswith(LAST):  # bools, integers and floats join as those of one metric do
            return _NUMBERS[max(kinds)]
        if len(kinds) == 1:
            return _NUMBERS.get(max(kinds), pl.String())
        if kinds == {INT64, FLOAT64}:
            _, kinds_, values = self._of(name)
            whole = values[kinds_ == INT64]
            if np.array_equal(whole.astype(np.float64).astype(object), whole.astype(object)):
                return pl.Float64()
        return pl.String()

    def _column(self, name: str) -> pl.Series:
        """Return a column; null where a run has no such value."""
        runs, kinds, values = self._of(name)
        kind = self.schema[name]
        if kind == pl.String():
            plain = set(kinds.tolist()) <= {TEXT}
            texts: list[str | None] = [None] * len(self._ledger)
            for run, sort, value in zip(
                runs.tolist(), kinds.tolist(), values.tolist(), strict=True
            ):
                texts[run] = self._cells.texts[value] if plain else self._json(sort, value)
            return pl.Series(name, texts, pl.String)
        if kind == pl.Float64():
            values = np.where(kinds == FLOAT64, values.view(np.float64), values)
        full = np.zeros(len(self._ledger), values.dtype)
        full[runs] = values
        column = pl.Series(name, full).cast(kind)
        if len(runs) == len(full):
            return column
        there = np.zeros(len(full), np.bool_)
        there[runs] = True
        return pl.select(pl.when(pl.lit(pl.Series(there))).then(pl.lit(column)).alias(name))[name]

    def _json(self, kind: int, value: int) -> str:
        """Return a value as JSON."""
        if kind == JSON:
            return self._cells.texts[value]
        if kind == TEXT:
            return orjson.dumps(self._cells.texts[value]).decode()
        if kind == FLOAT64:
            return orjson.dumps(spell(np.int64(value).view(np.float64).item())).decode()
        return orjson.dumps(bool(value) if kind == BOOL else value).decode()


def _texts(name: str, texts: list[Any]) -> pl.Series:
    """Return a column of texts; what is not UTF-8 in the name of a file is spelled out."""
    try:
        return pl.Series(name, texts, pl.String)
    except UnicodeEncodeError:
        known = [text and text.encode(errors="backslashreplace").decode() for text in texts]
        return pl.Series(name, known, pl.String)
