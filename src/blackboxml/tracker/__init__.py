"""Live fan-out to other trackers: `setup_tracker` makes a `Tracker` out of backends."""

from __future__ import annotations

from blackboxml.backends import TrackerBackend, register_backend
from blackboxml.tracker.fanout import NullTracker, Tracker
from blackboxml.tracker.setup import requested, setup_tracker

__all__ = [
    "NullTracker",
    "Tracker",
    "TrackerBackend",
    "register_backend",
    "requested",
    "setup_tracker",
]
