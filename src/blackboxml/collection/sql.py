"""SQL over many runs: DuckDB over the tables of `scan_runs` and `scan_metrics`.

Strategy: a table is a LazyFrame, of which DuckDB asks for the columns and rows that a query needs.
The query may come from anywhere, so it sees these tables and nothing else: no files, no extensions.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base import naming
from blackboxml.base.extras import require
from blackboxml.collection.catalogue import Catalogue
from blackboxml.collection.points import PointTable, metric_groups
from blackboxml.collection.runs import RunTable
from blackboxml.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import polars as pl

RUNS: Final = "runs"
"""The table of all runs."""

UNNAMED: Final = "metrics"
"""The table of the metrics without a prefix, which is also the name of their files."""

_TAKEN: Final = re.compile(rf"(?:{RUNS}|{UNNAMED})_*", re.IGNORECASE)
_LOCKED: Final = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}


class Database:
    """The runs below a folder as tables.

    One is called `runs`, the others as the groups of metrics; that of the metrics without a prefix
    is `metrics`. A group called `runs` or `metrics` has a `_` behind its name. SQL does not tell
    capital letters from small ones: of names that differ in nothing else, the later ones have `_2`,
    `_3`, … behind them, tables as well as columns.
    """

    def __init__(self, root: str | os.PathLike[str], *, refresh: bool = True) -> None:
        """Look at the runs.

        Args:
            root: Folder of runs.
            refresh: As in `scan_runs`.
        """
        place, ledger = os.fspath(root), Catalogue(root).ledger(refresh=refresh)
        table = RunTable(ledger, place)

        def points(group: str) -> Callable[[], pl.LazyFrame]:
            return lambda: PointTable(ledger, place, group, None).scan()

        self._scans: dict[str, Callable[[], pl.LazyFrame]] = {RUNS: table.scan}
        for group, name in _table_names(metric_groups(table)).items():
            self._scans[name] = points(group)

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return the columns of each table and their types."""
        return {name: dict(self._frame(name).collect_schema()) for name in self._scans}

    def query(self, text: str) -> pl.DataFrame:
        """Return the result of one or more statements: that of the last, empty if it has none.

        Raises:
            QueryError: If DuckDB refuses; says why in its words.
            MissingDependencyError: If DuckDB is not installed.
        """
        import polars as pl

        duckdb = require("duckdb", "duckdb")
        connection = duckdb.connect(":memory:", config=_LOCKED)
        try:
            statements = [each.query for each in connection.extract_statements(text)]
            asked = {
                name.lower() for each in statements for name in connection.get_table_names(each)
            }
            for name in self._scans:
                if name.lower() in asked or not asked:
                    connection.register(name, self._frame(name))
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET lock_configuration = true")
            found = None
            for each in statements:
                found = connection.sql(each)
            return pl.DataFrame() if found is None else pl.DataFrame(found.to_arrow_table())
        except duckdb.Error as error:
            raise QueryError(str(error)) from None
        finally:
            connection.close()

    def _frame(self, name: str) -> pl.LazyFrame:
        """Return a table with columns that SQL can tell apart."""
        frame = self._scans[name]()
        columns = frame.collect_schema().names()
        renamed = _distinct(columns, lambda name: name)
        return frame.rename({old: new for old, new in renamed.items() if old != new})


def _table_names(groups: Iterable[str]) -> dict[str, str]:
    """Return the table of each group."""

    def spell(group: str) -> str:
        return f"{group}_" if _TAKEN.fullmatch(group) else group or UNNAMED

    return _distinct(groups, spell)


def _distinct(names: Iterable[str], spell: Callable[[str], str]) -> dict[str, str]:
    """Return what each is called such that no two are the same to SQL."""
    taken: set[str] = set()
    found = {}
    for name in names:
        found[name] = naming.distinct(spell(name), lambda new: new.lower() in taken)
        taken.add(found[name].lower())
    return found
