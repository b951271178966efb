"""Failures of a backend: said once for each method, and counted at the end."""

from __future__ import annotations

import logging
import threading
from collections import Counter

logger = logging.getLogger("blackboxml")


class Faults:
    """What went wrong with one backend.

    Attributes:
        name: What messages call it.
    """

    def __init__(self, name: str) -> None:
        """Begin without any."""
        self.name = name
        self._counts: Counter[str] = Counter()
        self._dropped = 0
        self._lock = threading.RLock()  # reentrant: a signal handler may log too

    def failed(self, method: str, error: BaseException, count: int = 1) -> None:
        """Enter calls that failed; the first of a method is said at once."""
        with self._lock:
            first = not self._counts[method]
            self._counts[method] += count
        if first:
            logger.warning("Tracker backend %s.%s() failed: %s", self.name, method, describe(error))

    def dropped(self, limit: int) -> None:
        """Enter a point that was dropped because `limit` calls wait already."""
        with self._lock:
            self._dropped += 1
            first = self._dropped == 1
        if first:
            logger.warning(
                "Tracker backend %s is %s calls behind; from now on the oldest points are dropped",
                *(self.name, f"{limit:,}"),
            )

    def summarise(self) -> None:
        """Say how often it has happened, where it was more than once."""
        with self._lock:
            counts, dropped = self._counts.copy(), self._dropped
        for method, count in counts.items():
            if count > 1:
                logger.warning("Tracker backend %s.%s() failed %d times", self.name, method, count)
        if dropped > 1:
            logger.warning("Tracker backend %s was not given %d points", self.name, dropped)


def describe(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception:  # noqa: BLE001 - the error is as foreign as the backend
        text = ""
    kind = type(error).__name__
    return f"{kind}: {text:.300}" if text else kind
