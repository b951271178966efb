"""`track`: each dict that a generator yields becomes a step of a run."""

from __future__ import annotations

import functools
import inspect
import logging
from contextlib import closing
from typing import TYPE_CHECKING, Any, ParamSpec

from blackboxml.frontends.run import Run

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    P = ParamSpec("P")

logger = logging.getLogger("blackboxml")


def track(
    name: str,
    tags: Iterable[str] | None = None,
    log_dir: str | os.PathLike[str] = "blackboxml_logs",
    **options: Any,
) -> Callable[[Callable[P, Any]], Callable[P, list[Any]]]:
    """Record what a generator function yields; calling it returns the list of it.

    Each call is a run of its own. An exception in the function ends the run as failed and goes on
    to the caller. A function that is no generator runs once and is not recorded, with a warning.

    Args:
        name: Name of the run.
        tags: Any texts.
        log_dir: Folder of runs; made if it is missing.
        **options: Further options of `Run`.

    >>> import tempfile
    >>> @track("fit", log_dir=tempfile.mkdtemp())
    ... def train(steps):
    ...     for step in range(steps):
    ...         yield {"loss": 1.0 / (step + 1)}
    >>> train(2)
    [{'loss': 1.0}, {'loss': 0.5}]
    """
    # Each call is a run with these tags, and an iterator would be used up by the first.
    labels = tags if tags is None or isinstance(tags, str) else list(tags)

    def decorate(function: Callable[P, Any]) -> Callable[P, list[Any]]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> list[Any]:
            steps: Any = function(*args, **kwargs)
            yields = inspect.isgenerator(steps)
            if not yields:
                _refuse(function, steps)
                return []
            yielded: list[Any] = []
            # A step that cannot be stored closes the generator too, while the run is still open.
            with Run(name, labels, log_dir, **options) as run, closing(steps):
                for metrics in steps:
                    run.log(metrics)
                    yielded.append(metrics)
            return yielded

        return wrapper

    return decorate


def _refuse(function: Callable[..., Any], result: object) -> None:
    """Say why nothing was recorded."""
    called = getattr(function, "__qualname__", repr(function))
    if inspect.isasyncgen(result):
        cure = "it is an async generator, which @track cannot run: use `with Run(…)` inside it"
    elif inspect.iscoroutine(result):
        result.close()
        cure = "it is a coroutine, which @track cannot run: use `with Run(…)` inside it"
    else:
        cure = "did not yield; `yield` a dict of metrics for each step, or use `with Run(…)`"
    logger.warning(
        "@track expected a generator function, but %s %s; nothing was recorded", called, cure
    )
