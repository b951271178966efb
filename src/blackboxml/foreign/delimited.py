"""Tables of text with a header, as loggers write them: rows as cells by column, and where they are.

Nothing is guessed beyond the separator: a cell is empty, a number, a word for true or false, or
text. A row that is too short or too long is entered as unreadable, with its line.
"""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from blackboxml.base.files import raise_refusal
from blackboxml.base.naming import distinct
from blackboxml.foreign.interchange import open_plain
from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.foreign.interchange import Ledger
    from blackboxml.model import Number

SEPARATORS: Final = ",;\t|"

_MOST_DIGITS: Final = 20
"""No integer of 64 bits has more; Python refuses to convert thousands of them."""

_LONGEST_CELL: Final = 2**24
_HEADER_BYTES: Final = 2**22
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_FLOAT: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_WORDS: Final = {"true": True, "false": False}
_MISSING: Final = frozenset(["", "NA", "None", "null"])


class Row(NamedTuple):
    """One row.

    Attributes:
        line: Number of its last line in the file, from 1.
        cells: Text by column, cells without text left out.
    """

    line: int
    cells: dict[str, str]


def header(path: Path) -> list[str]:
    """Return the names of the columns, without blanks around them; none if it is no such file.

    Raises:
        OSError: If the file system refuses to show it.
    """
    try:
        with open_plain(path) as file:
            line = file.readline(_HEADER_BYTES)
        text = line.decode("utf-8-sig")
        names = next(csv.reader([text], delimiter=_separator(text)), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise_refusal(error)
        return []
    if not line.endswith(b"\n") or "\0" in text:
        return []
    return [name.strip() for name in names]


def rows(path: Path, ledger: Ledger) -> Iterator[Row]:
    """Yield the rows of a file behind its header; a header that comes again is left out.

    Args:
        path: The file, in UTF-8.
        ledger: Receives what cannot be read.
    """
    csv.field_size_limit(_LONGEST_CELL)
    with io.TextIOWrapper(open_plain(path), "utf-8-sig", "surrogateescape", newline="") as file:
        first = file.readline()
        heading = header(path)
        names = _apart(heading, ledger)
        reader = csv.reader(_without_nul(file), delimiter=_separator(first))
        while True:
            line = reader.line_num + 2
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                ledger.unreadable("step", "a row cannot be read", where=f"{path}:{line}: {error}")
                continue
            line = reader.line_num + 1
            texts = [cell.strip() for cell in cells]
            if not any(texts) or texts == heading:
                continue
            if len(texts) != len(names):
                what = "a row has another number of cells than the header"
                ledger.unreadable("step", what, where=f"{path}:{line}")
                continue
            found = zip(names, texts, strict=True)
            yield Row(line, {name: text for name, text in found if text not in _MISSING})


def number(text: str) -> Number | None:
    """Return the number in a cell, or None if it is text or an integer beyond 64 bits.

    >>> [number(text) for text in ("1", "0.5", "1e-3", "True", "-inf", "abc")]
    [1, 0.5, 0.001, True, -inf, None]
    """
    if _INTEGER.fullmatch(text):
        integer = int(text) if len(text) <= _MOST_DIGITS else INT64_MAX + 1
        return integer if INT64_MIN <= integer <= INT64_MAX else None
    if _FLOAT.fullmatch(text):
        value = float(text)
        return value if value - value == 0 else None
    if _NOT_FINITE.fullmatch(text):
        return float(text)
    return _WORDS.get(text.lower())


def _apart(names: list[str], ledger: Ledger) -> list[str]:
    """Return names of columns of which no two are equal."""
    found: dict[str, None] = {}
    for name in names:
        label = distinct(name, found.__contains__)
        if label != name:
            what = "a name of a column that comes again is told apart by a number"
            ledger.changed("field", what, where=repr(name)[:80])
        found[label] = None
    return list(found)


def separator(path: Path) -> str:
    """Return the separator of a file, by its header."""
    with open_plain(path) as file:
        return _separator(file.readline(_HEADER_BYTES).decode("utf-8-sig", "replace"))


def _separator(text: str) -> str:
    """Return the separator that is most often in a header."""
    return max(SEPARATORS, key=text.count)


def _without_nul(file: Iterator[str]) -> Iterator[str]:
    """Yield lines; a NUL, as a crash leaves it, becomes a character that is no number."""
    for line in file:
        yield line.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in line else line
