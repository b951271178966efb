"""Live fan-out: the time that the caller waits for another tracker."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from benchmarks.harness import METRICS, Pair, Row, interleave

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Bench

CALLS = 1_000
SLICES = 100
BAR = 3.0


def rows(bench: Bench) -> list[Row]:
    """The CSV backend in a young file and in one of ten times the rows; then all of them."""
    slices, calls = bench.slices(SLICES), 10 if bench.quick else CALLS
    floor = "`csv.writer` into an open file"
    found = []
    for before in (0, 9 * slices * calls):
        measured = bench.in_child(
            "backends:measure", way="backend", slices=slices, calls=calls, before=before
        )
        after = f", after {before:,} rows" if before else ""
        what = f"CSV backend, {slices * calls:,} rows of 10 floats, each{after}"
        found.append(Pair(**measured).row(what, floor, BAR, calls * 1e-6, "µs"))
    for way in ("csv", "tensorboard", "a queue"):
        measured = bench.in_child(
            "backends:measure", way=way, slices=bench.slices(20), calls=calls, before=0
        )
        pair = Pair(**measured)
        row = pair.row(f"`Tracker.log` of 10 floats to {way}", floor, BAR, calls * 1e-6, "µs")
        found.append(Row(row.what, row.floor, row.measured, row.spread, "-", None))
    return found


def measure(way: str, slices: int, calls: int, before: int) -> dict[str, Any]:
    """Interleave slices of rows; floor and candidate write the same numbers."""
    random = Random(0)
    points = [{name: random.gauss(0, 1) for name in METRICS} for _ in range(calls)]
    log, finish = _open(way)
    with Path("floor.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*METRICS, "step"])

        def floor() -> None:
            for step, metrics in enumerate(points):
                writer.writerow([*metrics.values(), step])

        def candidate() -> None:
            for step, metrics in enumerate(points):
                log(metrics, step)

        for _ in range(before // calls):
            candidate()
        pair = interleave(floor, candidate, slices)
    finish()
    return asdict(pair)


def _open(way: str) -> tuple[Callable[..., object], Callable[[], object]]:
    """Return what logs a point, and what ends it."""
    from blackboxml.backends import TrackerBackend
    from blackboxml.backends.csv import CSVBackend
    from blackboxml.tracker import Tracker, setup_tracker

    class Taken(TrackerBackend):
        """Takes all that has piled up at once, as a backend for a network does."""

        slow = True
        batch = 100

        def log(self, *_: Any, **__: Any) -> None:
            pass

        def log_many(self, _: Any) -> None:
            pass

        def log_config(self, _: Any) -> None:
            pass

        def finish(self) -> None:
            pass

    if way == "backend":
        backend = CSVBackend("out")
        return backend.log, backend.finish
    tracker = Tracker([Taken()]) if way == "a queue" else setup_tracker(backends=way, outdir="out")
    return tracker.log, tracker.finish
