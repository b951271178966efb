"""What a training prints, kept in `console.log` of its run.

The `write` of `sys.stdout` and `sys.stderr` is wrapped, so that loggers that hold these streams are
heard too, and terminals stay terminals. What C libraries and child processes write to the file
descriptors themselves is not: a pipe in their place fills up while the interpreter is held, and
then training stands still.

Text is only put aside where it is printed; a thread does the rest. Of a line that is drawn again
and again, as progress bars do with carriage returns, the last state is kept. Control sequences go,
secrets are hidden, long lines are cut. What is printed too fast or beyond the bound is left out,
and a line says how much.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("blackboxml")

LOG: Final = "console.log"

MOST_BYTES: Final = 16 * 2**20
"""Size of the log; what is printed later is left out."""

MOST_WAITING: Final = 2**20
"""Characters that may wait for the thread."""

LONGEST_LINE: Final = 4096
SECONDS: Final = 0.5
"""Between two writes."""

_NAMES: Final = ("stdout", "stderr")
_SEQUENCE: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)

_lock = threading.RLock()
_captures: list[Console] = []
_taps: list[tuple[Any, Any]] = []
"""Streams that are listened to, each with what stands in place of its `write`."""


class Console:
    """Listens to what is printed until it is stopped."""

    def __init__(self, append: Callable[[bytes], int], mask: Callable[[str], str]) -> None:
        """Begin to listen.

        Args:
            append: Appends to the log, and returns how large that is then.
            mask: Hides secrets.
        """
        self._append = append
        self._mask = mask
        self._room: int | None = None
        self._queue: list[tuple[int, str]] = []
        self._waiting = 0
        self._dropped = 0
        self._open = ["", ""]
        self._warned = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="blackboxml-console", daemon=True)
        with _lock:
            _captures.append(self)
            _tap()
        self._thread.start()

    def take(self, stream: int, text: str) -> None:
        """Put aside what was printed; called wherever that is, so it neither waits nor prints."""
        if self._waiting + len(text) > MOST_WAITING:
            self._dropped += len(text)
        else:
            self._waiting += len(text)
            self._queue.append((stream, text))

    def stop(self) -> None:
        """Stop listening and write what is left."""
        with _lock:
            if self in _captures:
                _captures.remove(self)
            if not _captures:
                _untap()
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        """Write what was put aside, until it is stopped."""
        going = True
        while going:
            going = not self._stop.wait(SECONDS)
            try:
                lines = list(self._lines(last=not going))
                self._write(lines)
            except Exception as error:  # noqa: BLE001 - what is printed is not worth a training
                self._warn(f"what is printed is not recorded: {error}")

    def _lines(self, *, last: bool) -> Iterator[str]:
        """Yield the lines that are complete by now; at last, those that are not too."""
        queue, self._queue = self._queue, []
        dropped, self._waiting, self._dropped = self._dropped, 0, 0
        for stream, text in queue:
            *complete, rest = (self._open[stream] + text.replace("\r\n", "\n")).split("\n")
            yield from map(_redrawn, complete)
            self._open[stream] = rest if len(rest) < LONGEST_LINE else _redrawn(rest, keep=True)
            if len(self._open[stream]) > 2 * LONGEST_LINE:
                yield self._open[stream]
                self._open[stream] = ""
        if dropped:
            yield f"[blackboxml: {dropped:,} characters printed too fast are left out]"
        if last:
            yield from (_redrawn(rest) for rest in self._open if rest)
            self._open = ["", ""]

    def _write(self, lines: list[str]) -> None:
        """Append lines to the log, as far as there is room."""
        if self._room is None and lines:
            self._room = MOST_BYTES - self._append(b"")
        if not lines or self._room is None or self._room <= 0:
            return
        text = "".join(f"{_cut(line)}\n" for line in self._mask("\n".join(lines)).split("\n"))
        data = text.encode("utf-8", "replace")
        if len(data) > self._room:
            cut = data.rfind(b"\n", 0, self._room) + 1
            data = data[:cut] + f"[blackboxml: more than {MOST_BYTES:,} bytes; it ends]\n".encode()
        self._room = MOST_BYTES - self._append(data)

    def _warn(self, message: str) -> None:
        """Warn once."""
        if not self._warned:
            self._warned = True
            logger.warning("%s", message)


def _redrawn(line: str, *, keep: bool = False) -> str:
    """Return the last state of a line that was drawn over by carriage returns.

    Args:
        line: A line without its line feed.
        keep: Keep the sign that what comes next draws over it.
    """
    states = [state for state in line.split("\r") if state]
    again = "\r" if keep and line.endswith("\r") else ""
    return (states[-1] if states else "") + again


def _cut(line: str) -> str:
    """Return a line as plain text of a bounded length."""
    line = _SEQUENCE.sub("", line)
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[:LONGEST_LINE]} [blackboxml: {len(line) - LONGEST_LINE:,} characters more]"


def _tap() -> None:
    """Listen to the streams as they are now."""
    for number, name in enumerate(_NAMES):
        stream = getattr(sys, name)
        if stream is None or any(stream is tapped for tapped, _ in _taps):
            continue
        write = stream.write

        def tap(text: str, *, write: Any = write, number: int = number) -> Any:
            result = write(text)
            for capture in tuple(_captures):
                capture.take(number, text)
            return result

        try:
            stream.write = tap
        except AttributeError:
            logger.warning("%s takes no listener: what is printed there is not recorded", name)
        else:
            _taps.append((stream, tap))


def _untap() -> None:
    """Give the streams back; one that somebody else has wrapped since is only passed through."""
    while _taps:
        stream, tap = _taps.pop()
        if vars(stream).get("write") is tap:
            with contextlib.suppress(AttributeError):
                del stream.write


def _forget() -> None:
    """In a forked child: what it prints is not the run's."""
    global _lock  # noqa: PLW0603 - that of the parent may be held for ever
    _lock = threading.RLock()
    _captures.clear()
    _untap()


os.register_at_fork(after_in_child=_forget)
