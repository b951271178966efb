"""A second process that looks at the files of sealed runs, from the last run on.

Looking at a hundred thousand runs is three hundred thousand calls of the system, one after another.
While a catalogue begins with the first run, this begins with the last one; where they meet, all has
been looked at.
"""

from __future__ import annotations

import os
import sys
from array import array
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from blackboxml.base.process import cores
from blackboxml.collection import fingerprint
from blackboxml.collection import state as states

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

WORTH_IT: Final = 20_000
"""So many runs take a few times as long as it takes to start a process."""

_NUMBER_BYTES: Final = 8
_PIPE_BYTES: Final = 2**20


class Scout:
    """What the other process has found so far; where there cannot be one, nothing."""

    def __init__(self, root: str, places: Sequence[str]) -> None:
        """Send a process to the runs at some places below a root, if it is worth it."""
        self._last = len(places) - 1
        self._asked = 0
        self._found = array("q")
        self._rest = b""
        self._process: subprocess.Popen[bytes] | None = None
        if len(places) >= WORTH_IT and _can_start():
            with suppress(OSError):
                self._start(os.fsencode(fingerprint.END.join(chain([root], places))))

    def _start(self, given: bytes) -> None:
        """Start the process."""
        import subprocess
        import tempfile

        with tempfile.TemporaryFile() as file:
            file.write(given)
            file.seek(0)
            self._process = subprocess.Popen(  # noqa: S603 - a program of ours
                [sys.executable, "-I", "-S", fingerprint.__file__],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        os.set_blocking(self._sink, False)

    @property
    def _sink(self) -> int:
        """Where the process tells what it finds."""
        assert self._process is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101 - likewise
        return self._process.stdout.fileno()

    def is_unchanged(self, row: int, path: str, known: str) -> bool:
        """Tell whether a run is what it was; False also where it cannot be told.

        Args:
            row: Which of the places it is at.
            path: Where that is.
            known: Its state as it was.
        """
        self._asked += 1
        if self._asked % fingerprint.AT_ONCE == 0 and self._process is not None:
            self._hear()
        at = self._last - row
        if at < len(self._found) and known[0] == states.SEALED:
            return known == f"{states.SEALED}{self._found[at]}"
        return states.is_unchanged(path, known)

    def _hear(self) -> None:
        """Take in what the process has found since."""
        with suppress(BlockingIOError):
            data = self._rest + os.read(self._sink, _PIPE_BYTES)
            whole = len(data) - len(data) % _NUMBER_BYTES
            self._found.frombytes(data[:whole])
            self._rest = data[whole:]

    def __enter__(self) -> Self:
        """Return the scout."""
        return self

    def __exit__(self, *_: object) -> None:
        """Call the process back."""
        if self._process is not None:
            self._process.kill()
            with self._process:
                pass


def _can_start() -> bool:
    """Tell whether there is a processor for another process, and an interpreter to run it."""
    # A program that has Python built in is started again by its name, whatever that does.
    name = Path(sys.executable or "").name.lower()
    return cores() > 1 and name.startswith(("python", "pypy")) and not hasattr(sys, "frozen")
