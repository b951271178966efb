"""What experiments and training logs add to a run: calls beside `run.log`, images, processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Pair, Row, interleave, limit_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Bench

CALLS = 1_000
BAR = 2.0
VALUE_BAR_US = 100.0
IMAGES = 1_000
IMAGES_BAR_S = 3.0
PROCESSES, RECORDS = 8, 300
WRITES = {
    "Tracker.record": "a number by `Tracker.record`",
    "TrainingLog": "a number set in a row of a `TrainingLog`",
}


def rows(bench: Bench) -> list[Row]:
    """Calls as multiples of `run.log`, and the rest in seconds."""
    calls = 10 if bench.quick else CALLS
    found = []
    for which, what in WRITES.items():
        measured = bench.in_child(
            "frontends:measure", which=which, slices=bench.slices(60), calls=calls
        )
        floor = "`run.log` of one number"
        found.append(Pair(**measured).row(what, floor, BAR, calls * 1e-6, "µs"))
    values = bench.in_child("frontends:text", slices=bench.slices(20), calls=calls)
    what = "a text set in a row of a `TrainingLog`"
    found.append(limit_row(what, [1e6 * s for s in values], VALUE_BAR_US, "µs"))
    count = 10 if bench.quick else IMAGES
    seconds = [bench.in_child("frontends:images", count=count) for _ in range(bench.slices(5))]
    what = f"{count:,} images of 64×64×3 by `log_image`, which `Tracker.image` is, durable"
    found.append(limit_row(what, seconds, IMAGES_BAR_S, "s"))
    processes, records = (2, 10) if bench.quick else (PROCESSES, RECORDS)
    seconds = [_at_once(bench, processes, records) for _ in range(bench.slices(3))]
    what = f"{processes} processes × {records} records, from start to end, none lost"
    found.append(limit_row(what, seconds, None, "s"))
    return found


def measure(which: str, slices: int, calls: int) -> dict[str, Any]:
    """Interleave slices of `run.log` of one number and of a frontend's call."""
    from blackboxml import Run
    from blackboxml.frontends.experiments import Tracker
    from blackboxml.frontends.training_log import TrainingLog

    tracker, log = Tracker("experiments"), TrainingLog("logs", seal=False)
    tracker.set_experiment("bench")
    tracker.start_run()
    place = 0

    def record() -> None:
        for step in range(calls):
            tracker.record("cost", step * 0.1, step)

    def write() -> None:
        nonlocal place
        for step in range(place, place + calls):
            log[step]["cost"] = step * 0.1
        place += calls

    candidate: Callable[[], None] = record if which == "Tracker.record" else write
    with Run("bench", log_dir=".", seal=False) as run:

        def floor() -> None:
            for step in range(calls):
                run.log({"cost": step * 0.1}, step)

        pair = interleave(floor, candidate, slices)
    log.close()
    return asdict(pair)


def text(slices: int, calls: int) -> list[float]:
    """Seconds of one text, by slices."""
    from blackboxml.frontends.training_log import TrainingLog

    seconds = []
    with TrainingLog("logs", seal=False) as log:
        for place in range(slices):
            started = time.perf_counter()
            for step in range(place * calls, (place + 1) * calls):
                log[step]["note"] = "learning rate halved"
            seconds.append((time.perf_counter() - started) / calls)
    return seconds


def images(count: int) -> float:
    """Seconds until so many images of noise are recorded and durable."""
    import numpy as np

    from blackboxml.frontends.experiments import ExperimentDBManager

    generator = np.random.default_rng(0)
    given = generator.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    manager = ExperimentDBManager("experiments/bench")
    number = manager.create_run()
    run = manager.run(number)
    run.log_image("first", given[0], 0)  # loads Pillow
    started = time.perf_counter()
    for step, image in enumerate(given):
        run.log_image("noise", image, step)
    run.sync()
    return time.perf_counter() - started


def record_many(folder: str, records: int) -> None:
    """Record into a run of an experiment that other processes record into, too."""
    from blackboxml.frontends.experiments import Tracker

    tracker = Tracker(folder)
    tracker.set_experiment("shared")
    with tracker.run():
        for step in range(records):
            tracker.record("cost", step * 0.1, step)


def _at_once(bench: Bench, processes: int, records: int) -> float:
    """Seconds that processes take, the start of Python included; they must lose nothing."""
    with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
        code = f"from benchmarks.frontends import record_many; record_many({folder!r}, {records})"
        started = time.perf_counter()
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code], env=bench.child_environment(), cwd=folder
            )
            for _ in range(processes)
        ]
        codes = [child.wait() for child in children]
        seconds = time.perf_counter() - started
        kept = sum(
            path.read_bytes().count(b'"metrics":{') for path in Path(folder).rglob("metrics.jsonl")
        )
    if any(codes) or kept != processes * records:
        message = f"{kept} of {processes * records} records are there; exit statuses {codes}"
        raise RuntimeError(message)
    return seconds
