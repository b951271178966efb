"""How calls reach a backend: at once, or through a queue and a thread.

Strategy: a lane never lets an error of its backend out. A queued lane makes its backend on the
thread too, since that may be the slowest call of all. The thread is a daemon: neither a backend
that blocks for ever nor a queue that is still full holds the end of the process.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from blackboxml.tracker.faults import Faults, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from blackboxml.backends import Logged

logger = logging.getLogger("blackboxml")

QUEUE: Final = 10_000
"""Calls that may wait for a slow backend. Past it the oldest point is dropped, so that what is
shown is what happens now; configurations, tables, images and artifacts are kept as long as there is
a point to drop."""


class Lane(Protocol):
    """The way to one backend."""

    faults: Faults

    @property
    def backend(self) -> Any:
        """The backend, or None while it is not there."""

    def log(self, point: Logged) -> None:
        """Pass a point on."""

    def call(self, method: str, *arguments: Any) -> None:
        """Pass another call on."""

    def watch(self, model: Any, options: dict[str, Any]) -> None:
        """Let the backend follow a model."""

    def close(self) -> None:
        """Pass on that this was all."""

    def left(self, deadline: float) -> Counter[str]:
        """Wait until a moment of `time.monotonic`; return what was not delivered, by method."""


class DirectLane:
    """Calls a backend at once."""

    def __init__(self, backend: Any) -> None:
        """Take a backend that is there."""
        self.backend = backend
        self.faults = Faults(name_of(backend))

    def log(self, point: Logged) -> None:
        """Log a point."""
        try:
            self.backend.log(dict(point.metrics), step=point.step, commit=point.commit)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises
            self.faults.failed("log", error)

    def call(self, method: str, *arguments: Any) -> None:
        """Call a method."""
        attempt(self.backend, method, arguments, {}, self.faults)

    def watch(self, model: Any, options: dict[str, Any]) -> None:
        """Let the backend follow a model."""
        attempt(self.backend, "watch", (model,), options, self.faults)

    def close(self) -> None:
        """Finish the backend."""
        self.call("finish")

    def left(self, deadline: float) -> Counter[str]:  # noqa: ARG002 - nothing waits here
        """Return nothing: every call was made."""
        return Counter()


class _Call(NamedTuple):
    method: str
    arguments: tuple[Any, ...]


class QueuedLane:
    """Calls a backend on a thread, in the order of the calls."""

    def __init__(self, name: str, make: Callable[[], Any], limit: int = QUEUE) -> None:
        """Begin to make the backend.

        Args:
            name: What messages call it until it is there.
            make: Makes it; called on the thread.
            limit: Calls that may wait.
        """
        self.faults = Faults(name)
        self.backend: Any = None
        self.error: BaseException | None = None
        self._make = make
        self._limit = limit
        self._waiting: deque[_Call] = deque()
        self._under_way: list[_Call] = []
        # Reentrant: a signal handler may log while the main thread does.
        self._changed = threading.Condition(threading.RLock())
        self._made = threading.Event()
        self._closed = False
        self._copies: str | None = None
        self._thread = threading.Thread(target=self._work, name=f"blackboxml {name}", daemon=True)
        self._thread.start()

    def wait(self, deadline: float) -> bool:
        """Wait until the backend is made or has failed, or the moment; tell whether it has."""
        return self._made.wait(max(0.0, deadline - time.monotonic()))

    def log(self, point: Logged) -> None:
        """Queue a point."""
        self._queue(_Call("log", (point._replace(metrics=dict(point.metrics)),)))

    def call(self, method: str, *arguments: Any) -> None:
        """Queue a call; an image is copied, as the next one may be written over it."""
        if method == "log_image":
            key, path, caption = arguments
            try:
                arguments = (key, self._copy(path), caption)
            except OSError as error:
                self.faults.failed(method, error)
                return
        self._queue(_Call(method, arguments))

    def watch(self, model: Any, options: dict[str, Any]) -> None:
        """Let the backend follow a model, at once: hooks cannot be set while the model runs."""
        if self.backend is None:
            error = self.error or ConnectionError("it is not connected yet; call watch() again")
            self.faults.failed("watch", error)
            return
        attempt(self.backend, "watch", (model,), options, self.faults)

    def close(self) -> None:
        """Queue the last call."""
        self._queue(_Call("finish", ()))
        self._closed = True

    def left(self, deadline: float) -> Counter[str]:
        """Wait until all is delivered, at most to a moment; return what was not, by method."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            return Counter(call.method for call in (*self._under_way, *self._waiting))

    def _queue(self, call: _Call) -> None:
        with self._changed:
            if self._closed or self.error is not None:
                return
            if len(self._waiting) >= self._limit and not self._make_room(call):
                return
            self._waiting.append(call)
            self._changed.notify()

    def _make_room(self, call: _Call) -> bool:
        """Drop the oldest point that waits; tell whether there is room now."""
        for place, waiting in enumerate(self._waiting):
            if waiting.method == "log":
                del self._waiting[place]
                self.faults.dropped(self._limit)
                return True
        if call.method == "finish":
            return True
        self.faults.failed(call.method, OverflowError("too many calls wait"))
        return False

    def _work(self) -> None:
        try:
            self.backend = self._make()
            self.faults.name = name_of(self.backend)
        except BaseException as error:  # noqa: BLE001 - a thread has nobody to raise to
            logger.warning("Tracker backend %s is left out: %s", self.faults.name, describe(error))
            with self._changed:
                self.error = error
                self._waiting.clear()
            self._clean()
            return
        finally:
            self._made.set()
        while self._deliver(self._take()):
            pass
        self._clean()

    def _take(self) -> list[_Call]:
        """Wait for calls, and return the first, or the first few where all are points."""
        with self._changed:
            self._under_way = []
            while not self._waiting:
                self._changed.wait()
            taken = [self._waiting.popleft()]
            if taken[0].method == "log":
                most = getattr(self.backend, "batch", 1)
                while len(taken) < most and self._waiting and self._waiting[0].method == "log":
                    taken.append(self._waiting.popleft())
            self._under_way = taken
            return taken

    def _deliver(self, calls: list[_Call]) -> bool:
        """Make calls; tell whether more may come."""
        method = calls[0].method
        try:
            if method != "log":
                getattr(self.backend, method)(*calls[0].arguments)
            elif getattr(self.backend, "batch", 1) > 1:
                self.backend.log_many([call.arguments[0] for call in calls])
            else:
                (point,) = calls[0].arguments
                self.backend.log(point.metrics, step=point.step, commit=point.commit)
        except BaseException as error:  # noqa: BLE001 - a thread has nobody to raise to
            self.faults.failed(method, error, len(calls))
        if method == "log_image":
            shutil.rmtree(os.path.dirname(calls[0].arguments[1]), ignore_errors=True)
        if method != "finish":
            return True
        with self._changed:
            self._under_way = []
        return False

    def _copy(self, path: str) -> str:
        """Return a copy of a file, of the same name, in a folder of its own."""
        if self._copies is None:
            self._copies = tempfile.mkdtemp(prefix="blackboxml-")
        return shutil.copy(path, tempfile.mkdtemp(dir=self._copies))

    def _clean(self) -> None:
        if self._copies is not None:
            shutil.rmtree(self._copies, ignore_errors=True)


def attempt(
    backend: Any, method: str, arguments: tuple[Any, ...], options: dict[str, Any], faults: Faults
) -> None:
    """Call a method of a backend; an error is entered, an interrupt is let through."""
    try:
        getattr(backend, method)(*arguments, **options)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises
        faults.failed(method, error)


def name_of(backend: Any) -> str:
    """Return what messages call a backend."""
    return str(getattr(backend, "name", None) or type(backend).__name__)
