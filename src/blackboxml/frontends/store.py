"""Runs as plain dicts, in the shape that blackboxml 0.5 wrote: load, list, delete."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml import manifest as manifests
from blackboxml.collection import find_runs, open_runs
from blackboxml.errors import BlackboxError, ManifestError, NotARunError
from blackboxml.model import LIMITS, MANIFEST
from blackboxml.reader import open_run

if TYPE_CHECKING:
    from blackboxml.reader import RunReader

logger = logging.getLogger("blackboxml")


def load_run(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a run as a dict: name, tags, environment, start, end, duration_seconds, steps.

    Args:
        path: A run directory or its `run.json`; one that blackboxml 0.5 wrote is returned as it is.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        json.JSONDecodeError: If `run.json` is damaged and there is no journal to rebuild it from.
    """
    try:
        reader = open_run(path)
    except NotARunError:
        legacy = _load_legacy(Path(path))
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
        except (BlackboxError, OSError) as error:
            logger.warning("%s cannot be read and is left out: %s", path, error)
    return sorted(runs, key=lambda run: manifests.seconds(run["start"]), reverse=True)


def delete_runs(base_dir: str | os.PathLike[str] = "blackboxml_logs") -> int:
    """Delete the runs below a folder and return how many there were.

    Only directories that are runs go; other files stay. A run that is being written is left alone,
    with a warning.
    """
    deleted = 0
    for path, reader in list(open_runs(base_dir)):
        if isinstance(reader, BlackboxError):
            try:
                legacy = isinstance(reader, NotARunError) and _load_legacy(path) is not None
            except ManifestError:
                legacy = False
            if not legacy:
                logger.warning("%s is not known to be a run and stays: %s", path, reader)
                continue
        elif reader.status == "running":
            logger.warning("%s is being written and stays", path)
            continue
        shutil.rmtree(path)
        deleted += 1
    return deleted


def _as_dict(reader: RunReader) -> dict[str, Any]:
    """Return a run in the shape of 0.5."""
    end = reader.end
    return {
        "name": reader.name,
        "tags": reader.tags,
        "environment": dict(reader.manifest["environment"]),
        "start": reader.start.isoformat(),
        "end": None if end is None else end.isoformat(),
        "duration_seconds": reader.duration_seconds,
        "steps": [record.metrics for record in reader.records()],
    }


def _load_legacy(path: Path) -> dict[str, Any] | None:
    """Return a `run.json` of blackboxml 0.5, or None if it is something else.

    Raises:
        ManifestError: If it is no JSON.
    """
    file = path if path.name == MANIFEST else path / MANIFEST
    try:
        if file.stat().st_size > LIMITS.manifest_bytes * 16:
            return None
        text = file.read_text(encoding="utf-8")
    except OSError:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{file} is damaged: {error}"
        raise ManifestError(message, text) from None
    if isinstance(document, dict) and isinstance(document.get("steps"), list):
        if isinstance(document.get("name"), str) and isinstance(document.get("start"), str):
            return document
    return None
