"""Runs as plain dicts, in the shape that blackboxml 0.5 wrote: load, list, delete."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml import manifest as manifests
from blackboxml.collection import find_runs
from blackboxml.errors import ManifestError, NotARunError
from blackboxml.foreign.legacy import load_legacy
from blackboxml.reader import open_run

if TYPE_CHECKING:
    import os

    from blackboxml.reader import RunReader

logger = logging.getLogger("blackboxml")

_MODEL = {"name", "params", "optimizer", "learning_rate"}
"""What the callback for Keras says of a model."""


def load_run(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a run as a dict: name, tags, environment, start, end, duration_seconds, steps.

    What the callback for Keras recorded has `model` behind `environment`.

    Args:
        path: A run directory or its `run.json`; one that blackboxml 0.5 wrote is returned as it is.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        json.JSONDecodeError: If `run.json` is damaged and there is no journal to rebuild it from.
    """
    try:
        reader = open_run(path)
    except (NotARunError, ManifestError):  # 0.5 wrote NaN, which is no JSON
        legacy = load_legacy(Path(path))
        if legacy is None:
            raise
        return legacy
    return _as_dict(reader)


def list_runs(base_dir: str | os.PathLike[str] = "blackboxml_logs") -> list[dict[str, Any]]:
    """Return all runs below a folder as dicts, newest first; see `load_run`.

    A run that cannot be read is left out with a warning; a folder that is missing has none.
    """
    runs: list[dict[str, Any]] = []
    for path in find_runs(base_dir):
        try:
            runs.append(load_run(path))
        except Exception as error:  # noqa: BLE001 - a damaged run must not hide the others
            logger.warning("%s cannot be read and is left out: %s", path, error)
    return sorted(runs, key=lambda run: manifests.seconds(run["start"]), reverse=True)


def delete_runs(base_dir: str | os.PathLike[str] = "blackboxml_logs") -> int:
    """Delete the runs below a folder and return how many there were.

    Only directories that are runs go; other files stay. A run that is being written is left alone,
    with a warning.
    """
    deleted = 0
    for path in list(find_runs(base_dir)):
        if (reason := reason_to_keep(path)) is not None:
            logger.warning("%s stays: %s", path, reason)
            continue
        shutil.rmtree(path)
        deleted += 1
    return deleted


def reason_to_keep(path: Path) -> str | None:
    """Return why a directory must not be deleted, or None if it is a run that has ended."""
    try:
        reader = open_run(path)
        if reader.status == "running":
            return f"it is being written ({reader.verdict.reason})"
    except Exception as error:  # noqa: BLE001 - what is not understood is not deleted
        try:
            legacy = isinstance(error, NotARunError | ManifestError) and load_legacy(path)
        except ManifestError:
            legacy = None
        return None if legacy else f"it is not known to be a run: {getattr(error, 'msg', error)}"
    return None


def _as_dict(reader: RunReader) -> dict[str, Any]:
    """Return a run in the shape of 0.5."""
    end = reader.end
    model = reader.config.get("model")
    described = isinstance(model, dict) and set(model) == _MODEL
    return {
        "name": reader.name,
        "tags": reader.tags,
        "environment": dict(reader.manifest["environment"]),
        **({"model": model} if described else {}),
        "start": reader.start.isoformat(),
        "end": None if end is None else end.isoformat(),
        "duration_seconds": reader.duration_seconds,
        "steps": [record.metrics for record in reader.records()],
    }
