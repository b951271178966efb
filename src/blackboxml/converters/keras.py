"""Keras' `CSVLogger`: a file of delimited text whose first column is `epoch`, from 0.

With `append=True` a further training begins again at 0 and supersedes what came after. An array is
written as text, and comes over as text. No times, no status and no hyper-parameters are recorded.
Source: https://keras.io/api/callbacks/csv_logger/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blackboxml.foreign import delimited, tabular
from blackboxml.foreign.interchange import ForeignRun, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXTRA: Final = None

_SUFFIXES: Final = (".csv", ".tsv", ".log", ".txt")


def recognise(path: Path) -> bool:
    """Tell whether the first column of a file is `epoch`, and none is a step."""
    if path.suffix not in _SUFFIXES or not path.is_file():
        return False
    names = delimited.header(path)
    return len(names) > 1 and names[0] == "epoch" and "step" not in names


def members(path: Path) -> set[str]:
    """Return nothing: a run is one file."""
    del path
    return set()


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the one run of a file."""
    yield ForeignRun(
        source=str(path),
        key="",
        fingerprint=fingerprint([path]),
        name=path.stem,
        items=lambda ledger: tabular.points(path, ledger, step="epoch", restarts=True),
        files=[path],
    )
