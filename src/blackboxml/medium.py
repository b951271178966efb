"""What the value of a medium may be: the last column of the table of kinds in the specification."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from blackboxml.scalar import NON_FINITE

_IN_FILES: Final = frozenset(["image", "array", "figure", "artifact"])


def value_fault(kind: str, value: Any) -> str | None:
    """Return what is wrong with a value as it stands in a record, None if nothing is.

    Args:
        kind: The kind of the medium; of one that this version does not know, any value is right.
        value: Any JSON, numbers that JSON lacks spelled as in a journal.
    """
    if kind in _IN_FILES:
        return f"what is of the kind {kind!r} is in a file, and has no value"
    if kind == "text":
        return None if isinstance(value, str) else "wanted a text"
    if kind == "histogram":
        return _histogram_fault(value)
    if kind == "table":
        return _table_fault(value)
    if kind == "graph":
        return _lists_fault(value, "nodes", "edges")
    return None


def _histogram_fault(value: Any) -> str | None:
    """Return what is wrong with a histogram."""
    if fault := _lists_fault(value, "edges", "counts"):
        return fault
    edges, counts = value["edges"], value["counts"]
    if not all(map(_is_number, [*edges, *counts])):
        return '"edges" and "counts" hold numbers'
    if len(edges) != len(counts) + 1:
        return f"{len(edges):,} edges and {len(counts):,} counts, wanted one edge more than counts"
    numbers = [float(edge) for edge in edges]
    if not all(left <= right for left, right in pairwise(numbers)):
        return '"edges" do not ascend'
    return None


def _table_fault(value: Any) -> str | None:
    """Return what is wrong with a table."""
    if fault := _lists_fault(value, "columns", "rows"):
        return fault
    columns, rows = value["columns"], value["rows"]
    if not all(isinstance(name, str) for name in columns):
        return '"columns" holds names'
    for at, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            return f"row {at:,} is not a list of one cell for each column"
    return None


def _lists_fault(value: Any, *names: str) -> str | None:
    """Return that a value is no object with certain lists, None if it is."""
    if isinstance(value, dict) and all(isinstance(value.get(name), list) for name in names):
        return None
    return f"wanted an object with the lists {' and '.join(names)}"


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number as a record spells it."""
    if isinstance(value, str):
        return value in NON_FINITE
    return isinstance(value, int | float) and not isinstance(value, bool)
