"""The logs that a log was resumed from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from blackboxml.foreign.training_log import EXTENSION, Extent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blackboxml.collection.entry import Entry

logger = logging.getLogger("blackboxml")


def ancestors(entry: Entry, runs: Mapping[str, Entry]) -> Iterator[tuple[Entry, Extent | None]]:
    """Yield the logs that one was resumed from, the nearest first, and how much of them counts.

    Args:
        entry: The log.
        runs: The runs beside it, by id.
    """
    seen = {entry.id}
    while True:
        parent = entry.lineage.get("parent")
        if not isinstance(parent, str) or parent in seen:
            return
        if parent not in runs:
            logger.warning("%s, which %s was resumed from, is not there", parent, entry.path)
            return
        until = _extent(entry.extensions.get(EXTENSION))
        entry = runs[parent]
        seen.add(parent)
        yield entry, until


def _extent(said: Any) -> Extent | None:
    """Return how much of a parent counts, None for all of it."""
    if isinstance(said, dict) and all(type(said.get(key)) is int for key in ("points", "media")):
        return Extent(said["points"], said["media"])
    return None
