"""Many runs: one report each, in the order given, on several cores.

A worker that dies, as when a library ends the process over a damaged file, costs the report of the
run it was looking at: that one is called unreadable, and the others are looked at again.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackboxml.base.process import cores
from blackboxml.errors import BlackboxError
from blackboxml.model import LIMITS, Limits
from blackboxml.validation.report import Level, Report
from blackboxml.validation.single import choose, find_rule, unreadable, validate

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

_CHUNK: Final = 8
"""Runs that a worker is given at once; what one run takes is a matter of milliseconds."""

_AHEAD: Final = 3
"""Chunks of each worker that are under way or wait."""

Paths = list[Path]


def validate_all(
    paths: Iterable[str | os.PathLike[str]],
    *,
    level: Level = "full",
    ignore: Iterable[str] = (),
    jobs: int | None = None,
    limits: Limits = LIMITS,
) -> Iterator[Report]:
    """Yield a report of each run, in the order of the paths, as soon as it is known.

    No run is lost: a path without a run, or one that the system does not let us read, gives a
    report with the verdict `unreadable`.

    Args:
        paths: Run directories; `blackboxml.collection.find_runs` gives those of a tree.
        level: As of `validate`.
        ignore: As of `validate`.
        jobs: Processes that work at once; None for one on each core, 1 for this process alone.
        limits: As of `validate`.

    Raises:
        ValueError: If there is no such level or rule.
    """
    options = (level, tuple(map(find_rule, ignore)), limits)
    choose(*options[:2])
    places = [Path(path) for path in paths]
    if jobs == 1 or len(places) <= 1:
        return (LOOK(path, options) for path in places)
    return _in_parallel(places, options, min(jobs or cores(), -(-len(places) // _CHUNK)))


Options = tuple[Level, tuple[str, ...], Limits]
Look = Callable[[Path, Options], Report]


def _in_parallel(places: Paths, options: Options, workers: int) -> Iterator[Report]:
    """Yield the reports in order, a few chunks ahead."""
    rest = iter(places)
    chunks = iter(lambda: list(islice(rest, _CHUNK)), [])
    waiting: deque[tuple[Paths, Future[list[Report]]]] = deque()
    pool = _pool(workers)
    try:
        while True:
            for chunk in islice(chunks, _AHEAD * workers - len(waiting)):
                waiting.append((chunk, pool.submit(_reports, LOOK, chunk, options)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            try:
                yield from future.result()
            except BrokenProcessPool:
                pool.shutdown(cancel_futures=True)
                yield from _one_by_one(chunk, options)
                pool = _pool(workers)
                again = [each for each, _ in waiting]
                waiting = deque(
                    (each, pool.submit(_reports, LOOK, each, options)) for each in again
                )
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(chunk: Paths, options: Options) -> Iterator[Report]:
    """Yield the reports of runs one of which may have ended its worker, each from its own."""
    for path in chunk:
        pool = _pool(1)
        try:
            yield pool.submit(LOOK, path, options).result()
        except BrokenProcessPool:
            yield unreadable(path, options[0], "the process that looked at it died")
        finally:
            pool.shutdown()


def _pool(workers: int) -> ProcessPoolExecutor:
    """Return workers that share nothing with this process: no locks, threads or open files."""
    method = "forkserver" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["blackboxml.validation.rules"])
    return ProcessPoolExecutor(workers, context)


def _reports(look: Look, chunk: Paths, options: Options) -> list[Report]:
    """Return the reports of some runs."""
    return [look(path, options) for path in chunk]


def report_of(path: Path, options: Options) -> Report:
    """Return the report of a run, also if there is none."""
    level, ignore, limits = options
    try:
        return validate(path, limits, level=level, ignore=ignore)
    except (BlackboxError, OSError) as error:
        said = getattr(error, "strerror", None)
        return unreadable(path, level, said or str(error))


LOOK: Look = report_of
"""What gives the report of one run."""
