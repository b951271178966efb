"""PyTorch Lightning's `CSVLogger`: `metrics.csv`, with `hparams.yaml` beside it.

A row holds what was logged at a trainer step, cells being empty for what was not. The column
`epoch` is a metric like the others. No times and no status are recorded.
Source: https://lightning.ai/docs/pytorch/stable/api/lightning.pytorch.loggers.csv_logs.html
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
    """Yield the one run of a folder."""
    files = [path / name for name in (METRICS, HPARAMS) if (path / name).is_file()]
    config, why = _hparams(path)

    def items(ledger: Ledger) -> Iterator[Item]:
        if why:
            ledger.unreadable("config", "the hyper-parameters cannot be read", where=why)
        return tabular.points(path / METRICS, ledger, step="step")

    place = path.resolve()
    yield ForeignRun(
        source=str(path),
        key="",
        fingerprint=fingerprint(files),
        name=f"{place.parent.name}/{place.name}",
        items=items,
        config=config,
        files=files,
    )


def _hparams(path: Path) -> tuple[dict[str, Any], str]:
    """Return the hyper-parameters, and why they cannot be read."""
    try:
        return read_yaml(path / HPARAMS, "lightning"), ""
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, str(error)
