"""The thread of a writer: it does what is due each second, and shows that the writer lives."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Final, Protocol

from blackboxml.errors import WriteError

logger = logging.getLogger("blackboxml")

SYNC_SECONDS: Final = 1.0
"""Records are durable after this long at most, on a disk that keeps up."""


class Kept(Protocol):
    """Whatever is kept up."""

    @property
    def active(self) -> bool:
        """Whether there is anything left to do."""

    def tick(self, idle: float) -> bool:
        """Do what is due; return whether there was a sign of life."""


class Upkeep:
    """Ticks until what it keeps up ends or is forgotten."""

    def __init__(self, kept: Kept) -> None:
        """Start the thread."""
        self._wake = threading.Event()
        self._thread = threading.Thread(
            target=_run, args=(weakref.ref(kept), self._wake), name="blackboxml", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End it; what it is at may take a moment."""
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(SYNC_SECONDS)


def _run(reference: weakref.ref[Kept], wake: threading.Event) -> None:
    """Run in the thread."""
    touched = time.monotonic()
    said = ""
    while not wake.wait(SYNC_SECONDS):
        kept = reference()
        if kept is None or not kept.active:
            return
        try:
            if kept.tick(time.monotonic() - touched):
                touched = time.monotonic()
        except Exception as error:  # the thread must go on, whatever comes
            if str(error) != said:  # once, and not every second
                said = str(error)
                expected = isinstance(error, WriteError)
                logger.warning("%s", error, exc_info=None if expected else error)
        del kept
