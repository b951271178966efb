"""Runs that blackboxml 0.5 wrote: one `run.json` with all steps in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml import manifest as manifests
from blackboxml.errors import ManifestError
from blackboxml.model import LIMITS, MANIFEST

if TYPE_CHECKING:
    import os


def load_legacy(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the `run.json` of a run that 0.5 wrote, or None if it is something else.

    Its members are name, tags, environment, start, end, duration_seconds and steps. Numbers that
    are not finite stand there as NaN and Infinity, which is no JSON, and are read all the same.

    Args:
        path: A run directory, or its `run.json`.

    Raises:
        ManifestError: If it is damaged.
    """
    place = Path(path)
    file = place if place.name == MANIFEST else place / MANIFEST
    try:
        if file.stat().st_size > LIMITS.manifest_bytes * 16:
            return None
        text = file.read_text(encoding="utf-8")
    except OSError:
        return None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file} is damaged: {error}") from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{file} is damaged: {error}", text) from None
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        return None
    if not isinstance(document.get("name"), str) or not isinstance(document.get("start"), str):
        return None
    try:
        manifests.seconds(document["start"])
    except ValueError as error:
        message = f"{file} is damaged: its start is {document['start']!r:.80}: {error}"
        raise ManifestError(message, text) from None
    return document
