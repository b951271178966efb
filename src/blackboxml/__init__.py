"""blackboxml: an open file format for machine-learning training runs.

Record with `Run` or `track`, read with `open_run`. Names are loaded when they are first used, so
that importing this package costs a training script almost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from blackboxml.version import __version__

if TYPE_CHECKING:
    from blackboxml.conversion import convert
    from blackboxml.errors import BlackboxError
    from blackboxml.frontends.history import History
    from blackboxml.frontends.metric_store import MetricStore
    from blackboxml.frontends.run import Run
    from blackboxml.frontends.store import delete_runs, list_runs, load_run
    from blackboxml.frontends.track import track
    from blackboxml.frontends.visualise import visualise_run
    from blackboxml.reader import RunReader, open_run
    from blackboxml.validation import validate
    from blackboxml.writer import RunWriter

_EXPORTS = {
    "BlackboxError": "blackboxml.errors",
    "History": "blackboxml.frontends.history",
    "MetricStore": "blackboxml.frontends.metric_store",
    "Run": "blackboxml.frontends.run",
    "RunReader": "blackboxml.reader",
    "RunWriter": "blackboxml.writer",
    "delete_runs": "blackboxml.frontends.store",
    "convert": "blackboxml.conversion",
    "list_runs": "blackboxml.frontends.store",
    "load_run": "blackboxml.frontends.store",
    "open_run": "blackboxml.reader",
    "track": "blackboxml.frontends.track",
    "validate": "blackboxml.validation",
    "visualise_run": "blackboxml.frontends.visualise",
}

__all__ = [
    "BlackboxError",
    "History",
    "MetricStore",
    "Run",
    "RunReader",
    "RunWriter",
    "__version__",
    "convert",
    "delete_runs",
    "list_runs",
    "load_run",
    "open_run",
    "track",
    "validate",
    "visualise_run",
]


def __getattr__(name: str) -> Any:
    """Load a name of the front door when it is first used."""
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """Return the names of the front door."""
    return sorted(__all__)
