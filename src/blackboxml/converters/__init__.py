"""Converters: one module for each foreign format, both ways, and the table that lists them.

A module of this folder, which is a folder itself where a format takes more than one file, has

    EXTRA: str | None        name of the optional dependency group it needs, if any
    recognise(path) -> bool  whether a file or folder is of this format, by its content
    members(path) -> set     of a folder: the names in it that belong to the run, so that no other
                             format looks at them; {"*"} for all that is below
    read(path) -> Iterator[ForeignRun]            the runs there, if it can import
    write(run, target, ledger, options) -> Path   puts one run into a target, if it can export
    SCHEMES: tuple[str, ...] of URIs that `read` and `write` take as text, if there are any

and nothing in it imports another module of this folder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blackboxml.foreign.interchange import ForeignRun, Ledger
    from blackboxml.reader import RunReader

FORMATS: Final[dict[str, str]] = {
    "blackboxml_legacy": "blackboxml 0.5 and 0.2: run.json, metrics_*.json",
    "mlflow": "MLflow: mlruns/, mlflow.db, tracking servers",
    "simplegrad": "simplegrad's Tracker: one SQLite file of runs",
    "blocks": "Blocks' training log: SQLite, pickle, checkpoint",
    "ezpz": "ezpz's History and CSV tracker: JSON Lines, HDF5, metrics.csv",
    "transformers": "Hugging Face Transformers: trainer_state.json",
    "ray": "Ray Tune: result.json, progress.csv, params.json",
    "ultralytics": "Ultralytics YOLO: results.csv, args.yaml",
    "lightning": "PyTorch Lightning CSVLogger: metrics.csv, hparams.yaml",
    "keras": "Keras CSVLogger",
    "tensorboard": "TensorBoard: event files",
    "csv": "CSV and other delimited text, wide or long",
    "jsonl": "JSON Lines: one object a row",
    "parquet": "Parquet tables",
    "netcdf": "netCDF, as xarray reads it",
}
"""Name of each module and what it is, in the order in which a path is tried."""


class Importer(Protocol):
    """A module that reads a foreign format."""

    def recognise(self, path: Path) -> bool:
        """Tell whether a file or folder is of this format."""

    def members(self, path: Path) -> set[str]:
        """Return the names in a folder that belong to it."""

    def read(self, path: Path | str) -> Iterator[ForeignRun]:
        """Yield the runs at a path."""


class Exporter(Protocol):
    """A module that writes a foreign format."""

    def write(
        self, run: RunReader, target: Path | str, ledger: Ledger, options: Mapping[str, Any]
    ) -> Path | str:
        """Put a run into a target and return what was made."""


def importer(name: str) -> Importer | None:
    """Return the importer of a format, or None if it can only be written."""
    module = import_module(f"{__name__}.{name}")
    return cast("Importer", module) if hasattr(module, "read") else None


def exporter(name: str) -> Exporter | None:
    """Return the exporter of a format, or None if it can only be read."""
    module = import_module(f"{__name__}.{name}")
    return cast("Exporter", module) if hasattr(module, "write") else None
