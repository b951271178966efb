"""One call, passed on to every backend."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from blackboxml.backends import Logged
from blackboxml.tracker.lane import DirectLane, QueuedLane, name_of
from blackboxml.tracker.snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from blackboxml.tracker.lane import Lane

logger = logging.getLogger("blackboxml")

TIMEOUT: Final = 60.0
"""Seconds that `finish` waits for slow backends."""


class Tracker:
    """Passes every call on to each of its backends, in their order.

    What a backend raises is logged once for each backend and method, with a count at the end, and
    reaches neither the other backends nor the caller; only an interrupt does. Values are copied at
    the call. A slow backend is called on a thread of its own and never waited for; when more than
    10,000 calls wait, the oldest point is dropped and counted. A process that was forked passes
    nothing on.

    Args:
        backends: The backends; or a lane, where one is still being made.
        timeout: Seconds that `finish` waits for slow backends.
    """

    def __init__(self, backends: Iterable[Any] = (), *, timeout: float = TIMEOUT) -> None:
        self._lanes = [_lane(backend) for backend in backends]
        self._timeout = timeout
        self._process = os.getpid()
        self._finished = self._warned = False
        if self._lanes:
            atexit.register(self.finish)

    def log(
        self,
        metrics: Mapping[str, Any],
        step: int | None = None,
        commit: bool = True,  # noqa: FBT001, FBT002 - as the users' scripts say
    ) -> None:
        """Log values by name.

        Args:
            metrics: Values by name.
            step: Passed on; a backend that is given none counts by itself.
            commit: Whether a row is complete with this call.

        Raises:
            TypeError: If `metrics` is no mapping.
        """
        given = _mapping("metrics", metrics)
        if self._usable("log"):
            values = {str(name): snapshot(value) for name, value in given.items()}
            point = Logged(values, snapshot(step), commit, time.time())
            for lane in self._lanes:
                lane.log(point)

    def log_config(self, config: Any) -> None:
        """Log hyper-parameters: a mapping, a dataclass instance or a namespace.

        Raises:
            TypeError: If it is none of these.
        """
        self._call("log_config", _mapping("config", config))

    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]) -> None:
        """Log a table, given as rows."""
        self._call("log_table", key, list(columns), [list(row) for row in data])

    def log_image(self, key: str, image_path: Any, caption: str | None = None) -> None:
        """Log an image file; it may be written over after the call."""
        self._call("log_image", key, os.fspath(image_path), caption)

    def log_artifacts(self, artifacts: Mapping[str, Any]) -> None:
        """Log files and folders by label; they must stay as they are until `finish`."""
        paths = _mapping("artifacts", artifacts)
        self._call("log_artifacts", {label: os.fspath(path) for label, path in paths.items()})

    def watch(self, model: Any, **kwargs: Any) -> None:
        """Let the backends that can follow the gradients of a model."""
        if self._usable("watch"):
            for lane in self._lanes:
                lane.watch(model, kwargs)

    def finish(self, timeout: float | None = None) -> None:
        """Finish every backend, wait for the slow ones, and say what they were not given in time.

        Called once more, or in a forked process, it does nothing. A script that ends without it is
        finished as it ends.

        Args:
            timeout: Seconds to wait, instead of those the tracker was made with.
        """
        if self._finished or os.getpid() != self._process:
            return
        self._finished = True
        atexit.unregister(self.finish)
        seconds = self._timeout if timeout is None else timeout
        for lane in self._lanes:
            lane.close()
        deadline = time.monotonic() + seconds
        for lane in self._lanes:
            left = lane.left(deadline)
            if left:
                calls = ", ".join(f"{count} × {method}" for method, count in left.items())
                logger.warning(
                    "Tracker backend %s has not taken all within %g s: %s left, and lost if the "
                    "process ends before it does",
                    *(lane.faults.name, seconds, calls),
                )
            lane.faults.summarise()

    def get_backend(self, name: str) -> Any:
        """Return the last backend of a name; None if there is none, or it is not connected yet."""
        for lane in reversed(self._lanes):
            if lane.faults.name == name and lane.backend is not None:
                return lane.backend
        return None

    @property
    def wandb_run(self) -> Any:
        """The run of the backend `wandb`, or None."""
        return getattr(self.get_backend("wandb"), "run", None)

    @property
    def mlflow_run(self) -> Any:
        """The run of the backend `mlflow`, or None."""
        return getattr(self.get_backend("mlflow"), "run", None)

    def __enter__(self) -> Self:
        """Return the tracker."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish."""
        self.finish()

    def _call(self, method: str, *arguments: Any) -> None:
        if self._usable(method):
            for lane in self._lanes:
                lane.call(method, *map(snapshot, arguments))

    def _usable(self, method: str) -> bool:
        """Tell whether a call can be passed on; the first that cannot is said."""
        if not self._lanes:
            return False
        if not self._finished and os.getpid() == self._process:
            return True
        if not self._warned:
            self._warned = True
            why = "after finish()" if self._finished else "by a forked process"
            logger.warning("Tracker.%s() was called %s; it is not passed on", method, why)
        return False


class NullTracker(Tracker):
    """Passes nothing on."""

    def __init__(self) -> None:
        super().__init__()


def _lane(backend: Any) -> Lane:
    if isinstance(backend, DirectLane | QueuedLane):
        return backend
    if getattr(backend, "slow", False) is True:
        return QueuedLane(name_of(backend), lambda: backend)
    return DirectLane(backend)


def _mapping(what: str, given: Any) -> Mapping[Any, Any]:
    """Return the members of a mapping, a dataclass instance or a namespace."""
    if isinstance(given, Mapping):
        return given
    if what == "config" and hasattr(given, "__dict__"):
        members: dict[str, Any] = vars(given)
        return members
    raise TypeError(f"{what} is a {type(given).__name__}, wanted a mapping of names to values")
