"""Delimited text, wide or long: `.csv`, `.tsv`.

Import. The separator is that which is most often in the header (comma, semicolon, tab, bar); the
encoding is UTF-8, with or without a byte order mark; with semicolons a comma in a number is that of
decimals. A wide table has one row a step; a long one has the columns name, step, value. Which
column is the step, and which the time, is told by its name: see `tabular.STEPS` and
`tabular.TIMES`. An empty cell was not logged; a cell that is no number is a text. Quoting is that
of RFC 4180: https://www.rfc-editor.org/rfc/rfc4180

Export. `layout=wide` (default) writes a folder `<target>/<run>/` with `<group>.wide.csv` for each
group and `about.json`; `layout=long` writes `<target>/<run>.csv`. A target that ends in `.csv` or
`.tsv` is the one file, and then each row of a wide table holds what one group logged. What the
table has no place for stands in `<file>.about.json` beside it. A number is the shortest text that
gives the same value again, `nan` and `inf` where it is not finite; an empty cell was not logged.
Statistics across ranks are the columns `<metric>/mean` and so on. A name that a spreadsheet would
take for a formula gets a `'` in front. Media are lost.
"""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.errors import ConversionError
from blackboxml.foreign import delimited, layout, tabular
from blackboxml.foreign.interchange import open_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from blackboxml.foreign.interchange import ForeignRun, Item, Ledger
    from blackboxml.foreign.tabular import Plan
    from blackboxml.reader import RunReader

EXTRA: Final = None
SUFFIXES: Final = (".csv", ".tsv")
_MOST_BYTES: Final = 2**28
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")


def recognise(path: Path) -> bool:
    """Tell whether a file is a table with steps, or a folder was exported."""
    if path.is_dir():
        return _about(path) is not None and bool(layout.tables(path, SUFFIXES))
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    names = delimited.header(path)
    if len(names) < 2 or any(delimited.number(name) is not None for name in names):  # noqa: PLR2004
        return False
    return tabular.roles(names).step is not None


def members(path: Path) -> set[str]:
    """Return the tables of an exported folder, and what is beside them."""
    return {"about.json", *(table.name for table in layout.tables(path, SUFFIXES))}


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the one run of a file or folder."""
    about = _about(path)
    beside = [] if about is None else [layout.beside(path)]
    yield tabular.foreign_run(path, layout.tables(path, SUFFIXES), about, _items, beside)


def _about(path: Path) -> dict[str, Any] | None:
    """Return what an export kept beside its tables."""
    place = layout.beside(path)
    try:
        if place.is_symlink() or place.stat().st_size > _MOST_BYTES:
            return None
        with open_plain(place) as file:
            return tabular.check_about(json.loads(file.read()))
    except (OSError, ValueError, RecursionError) as error:
        raise_refusal(error)
        return None


def _items(path: Path, about: dict[str, Any] | None, ledger: Ledger) -> Iterator[Item]:
    """Yield the items of one table."""
    labels = delimited.header(path)
    found = tabular.roles(labels, about)
    rows = tabular.Rows(ledger, found, about)
    comma = delimited.separator(path) == ";"
    texts = {label for label in (found.name,) if label is not None}
    for line, cells in delimited.rows(path, ledger):
        values = {
            label: text if label in texts else _value(text, comma=comma)
            for label, text in cells.items()
        }
        yield from rows.take(values, f"{path}:{line}")
    yield from rows.finish()


def _value(text: str, *, comma: bool) -> bool | float | str:
    """Return the number in a cell, or its text."""
    if comma and _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    value = delimited.number(text)
    return text if value is None else value


# -- export


def write(run: RunReader, target: Path, ledger: Ledger, options: Mapping[str, Any]) -> Path:
    """Write the effective history of a run; see the head of this module.

    Raises:
        ConversionError: If the layout is unknown, or the target file holds something else.
    """
    shape = options.get("layout", "wide")
    if shape not in ("wide", "long"):
        raise ConversionError(f"no layout is called {shape!r}; there are: wide, long")
    plan = tabular.plan(run, ledger)
    path = layout.place(run, target, SUFFIXES, ".csv" if shape == "long" else "")
    if path.suffix in SUFFIXES and (shape == "long" or path == target):
        rows = _long(run, plan) if shape == "long" else _wide(run, plan, list(run.groups))
        new = layout.scratch(path)
        _write(new, rows, "\t" if path.suffix == ".tsv" else ",")
        _write_about(layout.beside(path), plan)
        new.replace(path)
        return path
    with layout.renewed(path) as folder:
        for stem, groups in layout.files(run).items():
            _write(folder / f"{stem}.wide.csv", _wide(run, plan, groups), ",")
        _write_about(layout.beside(folder), plan)
    return path


def _write(path: Path, rows: Iterable[Any], separator: str) -> None:
    """Write rows as RFC 4180 has them, but with line feeds."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows(rows)


def _write_about(path: Path, plan: Plan) -> None:
    """Write what the tables have no place for."""
    path.write_text(json.dumps(plan.about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _wide(run: RunReader, plan: Plan, groups: list[str]) -> Iterator[list[Any]]:
    """Yield the header, and the rows of some groups."""
    width = sum(len(plan.columns[group]) for group in groups)
    yield [*plan.keys, *(each.label for group in groups for each in plan.columns[group])]
    before = 0
    for group in groups:
        columns = plan.columns[group]
        behind = [None] * (width - before - len(columns))
        ahead: list[Any] = [None] * before
        start = len(plan.keys)
        flags = [start + at for at, each in enumerate(columns) if each.type == "bool"]
        names = [*plan.keys, *(each.column for each in columns)]
        for row in tabular.rows(run, group, names):
            cells = list(row)
            for at in flags:
                cells[at] = _SPELLED[row[at]]
            yield [*cells[:start], *ahead, *cells[start:], *behind] if before or behind else cells
        before += len(columns)


def _long(run: RunReader, plan: Plan) -> Iterator[list[Any]]:
    """Yield the header, and a row for each value."""
    yield ["name", *plan.keys, "value"]
    start = len(plan.keys)
    for group, columns in plan.columns.items():
        names = [*plan.keys, *(each.column for each in columns)]
        for row in tabular.rows(run, group, names):
            index = row[:start]
            for column, value in zip(columns, row[start:], strict=True):
                if value is not None:
                    spelled = _SPELLED[value] if column.type == "bool" else value
                    yield [column.label, *index, spelled]


_SPELLED: Final = {True: "true", False: "false", None: None}
