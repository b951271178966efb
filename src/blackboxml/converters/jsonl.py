"""JSON Lines: `.jsonl`, `.ndjson`, one JSON object a row.

Import. Nested objects become names joined by `/`. Which member is the step, and which the time, is
told by its name: see `tabular.STEPS` and `tabular.TIMES`; a file with the members name, step and
value is a long table. The words `NaN`, `Infinity` and `-Infinity` are numbers, as texts and as the
tokens that Python's `json` writes. `null` was not logged; texts, lists and empty objects become
media. A line that is no JSON object is counted with its number and its offset in bytes.
Source: https://jsonlines.org

Export. One file `<target>/<run>.jsonl`, or the target itself if it has the suffix. The first line
is `{"blackbox": about}`, which is what rows have no place for; each other line holds what one group
logged: step, time, rank and attempt where they are not all 0, and metrics by full name. A number is
the shortest text that gives the same value again; one that is not finite is a text. Statistics
across ranks are the members `<metric>/mean` and so on. Media are lost.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.naming import distinct
from blackboxml.base.scalar import NON_FINITE, spell
from blackboxml.foreign import layout, tabular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blackboxml.foreign.interchange import ForeignRun, Item, Ledger
    from blackboxml.reader import RunReader

EXTRA: Final = None
SUFFIXES: Final = (".jsonl", ".ndjson")
_LONGEST_LINE: Final = 2**26
_DEEPEST: Final = 50
_FIRST: Final = 20
"""So many lines may come before the first that is whole."""


def recognise(path: Path) -> bool:
    """Tell whether a file was exported, or its first object has a step."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    if _about(path) is not None:
        return True
    with path.open("rb") as file:
        for _ in range(_FIRST):
            row = _parse(file.readline(_LONGEST_LINE))
            if row is not None:
                journal = isinstance(row.get("format"), dict) or "crc" in row
                names = [name for name, _ in _leaves(row, "", _DEEPEST)]
                return not journal and tabular.roles(names).step is not None
    return False


def members(path: Path) -> set[str]:
    """Return nothing: a run is one file."""
    del path
    return set()


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the one run of a file."""
    about = _about(path)
    yield tabular.foreign_run(path, [path], about, _items)


def _about(path: Path) -> dict[str, Any] | None:
    """Return what an export keeps in the first line."""
    with path.open("rb") as file:
        head = file.readline(_LONGEST_LINE)
    if not head.startswith(b'{"blackbox"'):
        return None
    tree = _parse(head)
    return None if tree is None else tabular.check_about(tree.get("blackbox"))


def _items(path: Path, about: dict[str, Any] | None, ledger: Ledger) -> Iterator[Item]:
    """Yield the items of a file."""
    rows: tabular.Rows | None = None
    for where, row in _rows(path, ledger, headed=about is not None):
        cells = _cells(row, where, ledger, plain=about is not None)
        if rows is None:
            rows = tabular.Rows(ledger, tabular.roles(list(cells), about), about)
        yield from rows.take(cells, where)
    if rows is not None:
        yield from rows.finish()


def _rows(path: Path, ledger: Ledger, *, headed: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a file, and where they are."""
    offset = number = 0
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            number += 1
            begin, offset = offset, offset + len(line)
            if (headed and number == 1) or not line.strip(b" \t\r\n\0"):
                continue
            where = f"{path}:{number}"
            row = _parse(line)
            if row is not None:
                yield where, row
                continue
            ledger.unreadable("step", "a line is no JSON object", where=f"{where}, offset {begin}")
            while not line.endswith(b"\n") and (line := file.readline(_LONGEST_LINE)):
                offset += len(line)  # the rest of one that is too long


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line, or None."""
    try:
        row = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a name that comes again the later ones get a number."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    found = {}
    for name, value in pairs:
        found[distinct(name, found.__contains__)] = value
    return found


def _cells(row: dict[str, Any], where: str, ledger: Ledger, *, plain: bool) -> dict[str, Any]:
    """Return the values of an object by name."""
    cells: dict[str, Any] = {}
    for name, value in row.items() if plain else _leaves(row, "", _DEEPEST):
        label = distinct(name, cells.__contains__)
        if label != name:
            what = "a name that comes again in an object is told apart by a number"
            ledger.changed("field", what, where=f"{where}: {name!r:.80}")
        cells[label] = NON_FINITE.get(value, value) if isinstance(value, str) else value
    return cells


def _leaves(tree: dict[str, Any], before: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the leaves, names joined by `/`; what nests too deep stays a tree."""
    for name, value in tree.items():
        if isinstance(value, dict) and value and depth:
            yield from _leaves(value, f"{before}{name}/", depth - 1)
        else:
            yield before + name, value


# -- export


def write(run: RunReader, target: Path, ledger: Ledger, options: Mapping[str, Any]) -> Path:
    """Write the effective history of a run; see the head of this module.

    Raises:
        ConversionError: If the target file holds something else.
    """
    del options
    plan = tabular.plan(run, ledger)
    path = layout.place(run, target, SUFFIXES, ".jsonl")
    new = layout.scratch(path)
    with new.open("w", encoding="utf-8", newline="\n") as file:
        encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
        file.write(encode({"blackbox": plan.about}) + "\n")
        for group, columns in plan.columns.items():
            names = [*plan.keys, *(each.column for each in columns)]
            labels = [*plan.keys, *(each.label for each in columns)]
            for row in tabular.rows(run, group, names):
                cells = {
                    label: spell(value)
                    for label, value in zip(labels, row, strict=True)
                    if value is not None
                }
                file.write(encode(cells) + "\n")
    new.replace(path)
    return path
