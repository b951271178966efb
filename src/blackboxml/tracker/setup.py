"""A tracker by the names of its backends."""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from blackboxml import backends as rooms
from blackboxml.base import variable
from blackboxml.tracker.fanout import TIMEOUT, NullTracker, Tracker
from blackboxml.tracker.faults import describe
from blackboxml.tracker.lane import DirectLane, QueuedLane

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackboxml.tracker.lane import Lane

logger = logging.getLogger("blackboxml")

VARIABLES: Final = ("EZPZ_TRACKER_BACKENDS", "EZPZ_TRACKERS")
"""Environment variables that name backends, in the order in which they are asked."""

CONNECTING: Final = 30.0
"""Seconds that `setup_tracker` waits for slow backends to connect; after them they go on alone."""


def requested(backends: str | Iterable[str] | None = None) -> list[str] | None:
    """Return the names of the backends that were asked for, or None if nobody has asked.

    Args:
        backends: Names, or a text of them with commas; None asks the environment.
    """
    if backends is None:
        backends = next((os.environ[name] for name in VARIABLES if name in os.environ), None)
    if backends is None:
        return None
    listed = backends.split(",") if isinstance(backends, str) else list(backends)
    wanted = [name.strip() for name in listed if name.strip()]
    if len(wanted) == 1 and (wanted[0].lower() == "none" or variable.is_off(wanted[0])):
        return []
    return wanted


def setup_tracker(
    project_name: str | None = None,
    backends: str | Iterable[str] | None = None,
    config: Any = None,
    outdir: str | os.PathLike[str] | None = None,
    rank: int | None = None,
    *,
    timeout: float = TIMEOUT,
    **kwargs: Any,
) -> Tracker:
    """Return a tracker of the backends of these names; whatever fails is left out with a warning.

    Args:
        project_name: What a backend may call the project or the experiment.
        backends: Names, or a text of them with commas; `none` or nothing gives a `NullTracker`.
            None stands for the environment variable `EZPZ_TRACKER_BACKENDS`, then `EZPZ_TRACKERS`,
            then `wandb`.
        config: Hyper-parameters.
        outdir: Where backends that write files do so; the current directory if it is None.
        rank: Rank of this process; None asks the launcher. Only rank 0 tracks.
        timeout: Seconds that `finish` waits for slow backends.
        **kwargs: Passed on to every backend.
    """
    wanted = requested(backends)
    names = ["wandb"] if wanted is None else wanted
    arguments = {
        "project_name": project_name,
        "config": config,
        "outdir": outdir,
        "rank": variable.rank() if rank is None else rank,
        **kwargs,
    }
    lanes = [lane for name in names if (lane := _open(name, arguments)) is not None]
    deadline = time.monotonic() + CONNECTING
    lanes = [lane for lane in lanes if _connected(lane, deadline)]
    return Tracker(lanes, timeout=timeout) if lanes else NullTracker()


def _open(name: str, arguments: dict[str, Any]) -> Lane | None:
    """Make a backend, or begin to; None if it fails."""
    try:
        make = rooms.backend(name)
        if getattr(make, "slow", False) is True:
            return QueuedLane(name, partial(make, **arguments))
        return DirectLane(make(**arguments))
    except Exception as error:  # noqa: BLE001 - whatever a backend raises
        logger.warning("Tracker backend %s is left out: %s", name, describe(error))
        return None


def _connected(lane: Lane, deadline: float) -> bool:
    """Wait for a slow backend; tell whether it is, or may yet become, usable."""
    if not isinstance(lane, QueuedLane):
        return True
    if not lane.wait(deadline):
        logger.warning(
            "Tracker backend %s is not connected after %g s; what is logged waits for it",
            *(lane.faults.name, CONNECTING),
        )
        return True
    return lane.error is None
