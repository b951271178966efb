"""Ultralytics YOLO: `results.csv`, one row an epoch from 1, with `args.yaml` beside it.

Older versions pad names and cells with blanks. The column `time` of newer ones is the number of
seconds since the training began, and stays a metric. No moments and no status are recorded.
Source: https://docs.ultralytics.com/modes/train/
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from blackboxml.foreign import delimited, tabular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.foreign.interchange import ForeignRun

EXTRA: Final = "ultralytics"

RESULTS: Final = "results.csv"
ARGS: Final = "args.yaml"

_PREFIXES: Final = ("train/", "metrics/", "val/", "lr/")


def recognise(path: Path) -> bool:
    """Tell whether a folder holds `results.csv` with epochs, and columns such as `val/dfl_loss`."""
    if not (path / RESULTS).is_file():
        return False
    names = delimited.header(path / RESULTS)
    return "epoch" in names and any(name.startswith(_PREFIXES) for name in names)


def members(path: Path) -> set[str]:
    """Return the two files."""
    del path
    return {RESULTS, ARGS}


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the one run of a folder, called as its arguments say, or as the folder is."""
    run = tabular.folder_run(path, RESULTS, ARGS, "ultralytics", step="epoch", restarts=True)
    yield replace(run, name=str(run.config.get("name") or run.name))
