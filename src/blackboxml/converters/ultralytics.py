"""Ultralytics YOLO: `results.csv`, one row an epoch from 1, with `args.yaml` beside it.

Older versions pad names and cells with blanks. The column `time` of newer ones is the number of
seconds since the training began, and stays a metric. No moments and no status are recorded.
Source: https://docs.ultralytics.com/modes/train/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from blackboxml import delimited, tabular
from blackboxml.hyperparameters import read_yaml
from blackboxml.interchange import ForeignRun, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.interchange import Item, Ledger

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
    """Yield the one run of a folder."""
    files = [path / name for name in (RESULTS, ARGS) if (path / name).is_file()]
    config, why = _args(path)

    def items(ledger: Ledger) -> Iterator[Item]:
        if why:
            ledger.unreadable("config", "the arguments cannot be read", where=why)
        return tabular.points(path / RESULTS, ledger, step="epoch", restarts=True)

    yield ForeignRun(
        source=str(path),
        key="",
        fingerprint=fingerprint(files),
        name=str(config.get("name") or path.resolve().name),
        items=items,
        config=config,
        files=files,
    )


def _args(path: Path) -> tuple[dict[str, Any], str]:
    """Return the arguments of the training, and why they cannot be read."""
    try:
        return read_yaml(path / ARGS, "ultralytics"), ""
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, str(error)
