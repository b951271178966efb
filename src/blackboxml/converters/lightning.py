"""PyTorch Lightning's `CSVLogger`: `metrics.csv`, with `hparams.yaml` beside it.

A row holds what was logged at a trainer step, cells being empty for what was not. The column
`epoch` is a metric like the others. No times and no status are recorded.
Source: https://lightning.ai/docs/pytorch/stable/api/lightning.pytorch.loggers.csv_logs.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from blackboxml.foreign import delimited, tabular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.foreign.interchange import ForeignRun

EXTRA: Final = "lightning"

METRICS: Final = "metrics.csv"
HPARAMS: Final = "hparams.yaml"


def recognise(path: Path) -> bool:
    """Tell whether a folder holds `metrics.csv` with a column `step`."""
    return (path / METRICS).is_file() and "step" in delimited.header(path / METRICS)


def members(path: Path) -> set[str]:
    """Return the two files."""
    del path
    return {METRICS, HPARAMS}


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the one run of a folder, called as its parent and it are: `logs/version_0`."""
    run = tabular.folder_run(path, METRICS, HPARAMS, "lightning", step="step")
    yield replace(run, name=f"{path.resolve().parent.name}/{run.name}")
