"""Backends: live fan-out to other trackers, one module for each, and the table that lists them.

A module of this folder has a class, named in the table, that derives from `TrackerBackend`; nothing
in it imports another module of this folder. Backends of users are entered by `register_backend`.
"""

from __future__ import annotations

import logging
import os
import sys
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

BACKENDS: Final[dict[str, str]] = {
    "csv": "CSVBackend",
    "mlflow": "MLflowBackend",
    "tensorboard": "TensorBoardBackend",
    "trackio": "TrackioBackend",
    "wandb": "WandbBackend",
}
"""Name of each module and of the class in it."""

PROJECTS: Final = ("WB_PROJECT", "WANDB_PROJECT", "WB_PROJECT_NAME")
"""Environment variables that name the project, in the order in which they are asked."""

logger = logging.getLogger("blackboxml")

_registered: dict[str, Callable[..., Any]] = {}


class Logged(NamedTuple):
    """One call of `log`.

    Attributes:
        metrics: Values by name, which the backend may keep.
        step: As it was given.
        commit: Whether a row is complete with it.
        time: When it was made, in Unix seconds.
    """

    metrics: dict[str, Any]
    step: int | None
    commit: bool
    time: float


class TrackerBackend(ABC):
    """Another tracker. `log`, `log_config` and `finish` must be there, the rest may be.

    A backend is made with the keyword arguments `project_name`, `config`, `outdir` and `rank`, and
    what else was given to `setup_tracker`. It logs `config` itself.

    Attributes:
        name: What messages call it, and `Tracker.get_backend` finds it by.
        slow: Whether its calls may wait, as for a network: it is then made and called on a thread
            of its own, in the order of the calls.
        batch: How many calls of `log` that have piled up a slow backend takes at once, through
            `log_many`; with 1, each goes to `log`.
    """

    name: str = "base"
    slow: ClassVar[bool] = False
    batch: ClassVar[int] = 1

    @abstractmethod
    def log(self, metrics: dict[str, Any], step: int | None = None, *, commit: bool = True) -> None:
        """Log values by name; without `commit` the row goes on with the next call."""

    @abstractmethod
    def log_config(self, config: dict[str, Any]) -> None:
        """Log hyper-parameters; called again, it adds to them."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is left and close; the last call."""

    def log_many(self, points: Sequence[Logged]) -> None:
        """Log several points in their order."""
        for point in points:
            self.log(point.metrics, step=point.step, commit=point.commit)

    def log_table(  # noqa: B027 - a backend need not have it
        self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]
    ) -> None:
        """Log a table as rows."""

    def log_image(  # noqa: B027 - a backend need not have it
        self, key: str, image_path: str, caption: str | None = None
    ) -> None:
        """Log an image file."""

    def log_artifacts(self, artifacts: Mapping[str, str]) -> None:  # noqa: B027
        """Log files and folders by label."""

    def watch(self, model: Any, **kwargs: Any) -> None:  # noqa: B027
        """Follow the gradients of a model."""


class Refused:
    """Values that a tracker does not take: the first is said, the others are counted."""

    def __init__(self, name: str, wanted: str) -> None:
        """Begin without any.

        Args:
            name: Of the backend.
            wanted: What it takes.
        """
        self._name = name
        self._wanted = wanted
        self._count = 0

    def add(self, key: str, value: Any) -> None:
        """Enter a value."""
        self._count += 1
        if self._count == 1:
            logger.warning(
                "Tracker backend %s leaves out %r: it takes %s, not a %s",
                *(self._name, key, self._wanted, type(value).__name__),
            )

    def summarise(self) -> None:
        """Say how many there were, if there was more than one."""
        if self._count > 1:
            logger.warning("Tracker backend %s left out %d values", self._name, self._count)


def send_each(artifacts: Mapping[str, str], send: Callable[[str, str], object]) -> None:
    """Send each artifact, also those behind one that cannot be sent.

    Args:
        artifacts: Paths by label.
        send: Sends one, given its label and path.

    Raises:
        Exception: What the first that could not be sent has raised.
    """
    first: Exception | None = None
    for label, path in artifacts.items():
        try:
            send(label, path)
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises
            first = first or error
    if first is not None:
        raise first


def crashed() -> bool:
    """Tell whether the process ends with an exception that nobody caught."""
    # An interactive session, which has a prompt, goes on after one.
    return hasattr(sys, "last_value") and not hasattr(sys, "ps1")


def register_backend(name: str, cls: Callable[..., Any]) -> None:
    """Let `setup_tracker` find a backend by a name; the last one of a name counts.

    Args:
        name: Without commas or spaces around it.
        cls: Class or function that makes the backend, called as `TrackerBackend` says.

    Raises:
        ValueError: If no list of names could hold the name.
        TypeError: If `cls` cannot be called.
    """
    if not name or "," in name or name != name.strip():
        raise ValueError(f"the backend name {name!r:.80} must be text without commas")
    if not callable(cls):
        raise TypeError(f"the backend {name} is a {type(cls).__name__}, wanted a class")
    _registered[name] = cls


def names() -> list[str]:
    """Return the names of all backends there are."""
    return sorted({*BACKENDS, *_registered})


def backend(name: str) -> Callable[..., Any]:
    """Return what makes a backend.

    Raises:
        LookupError: If none has the name.
    """
    if name in _registered:
        return _registered[name]
    if name not in BACKENDS:
        raise LookupError(f"there is no such backend; there are {', '.join(names())}")
    found: Callable[..., Any] = getattr(import_module(f"{__name__}.{name}"), BACKENDS[name])
    return found


def project(name: str | None) -> str:
    """Return the name of a project: the given one, that of the environment, or that of the script.

    The last is `ezpz.<folder>.<file>`, under which ezpz has kept the runs of the script so far.
    """
    named = name or next((os.environ[each] for each in PROJECTS if os.environ.get(each)), None)
    script = Path(sys.argv[0] or "interactive").absolute()
    return named or f"ezpz.{script.parent.name}.{script.stem}"
