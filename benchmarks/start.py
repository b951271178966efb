"""What a script pays once: the import, entering a run and leaving it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.harness import METRICS, Row, interleave, limit_row

if TYPE_CHECKING:
    from benchmarks.harness import Bench

IMPORT_BAR_MS = 40.0
EMPTY_BAR_MS = 20.0
LEAVE_BAR_MS = 500.0
LEAVE_POINTS = 1_000


def rows(bench: Bench) -> list[Row]:
    """The import, an empty run, and the first run of a process."""
    found = [_import_row(bench)]
    seconds = bench.in_child("start:enter_and_leave", repeats=bench.slices(100))
    what = "entering and leaving an empty `Run`, without git"
    found.append(limit_row(what, [1e3 * s for s in seconds], EMPTY_BAR_MS, "ms"))
    for points, bar in ((LEAVE_POINTS, LEAVE_BAR_MS), (10 * LEAVE_POINTS, None)):
        steps = points // len(METRICS)
        bench.in_child("start:leave_first", steps=1)  # compiles what it imports
        left = [
            1e3 * bench.in_child("start:leave_first", steps=steps) for _ in range(bench.slices(11))
        ]
        what = f"leaving a run of {points:,} points, the first in its process"
        found.append(limit_row(what, left, bar, "ms"))
    return found


def _import_row(bench: Bench) -> Row:
    environment = bench.child_environment()

    def python(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=bench.scratch)

    pair = interleave(lambda: python("pass"), lambda: python("import blackboxml"), bench.slices(60))
    added = [1e3 * (c - f) for f, c in zip(pair.floor, pair.candidate, strict=True)]
    floor = f"`python -c pass`: {1e3 * median(pair.floor):.3g} ms"
    return limit_row("`import blackboxml` adds", added, IMPORT_BAR_MS, "ms", floor)


def enter_and_leave(repeats: int) -> list[float]:
    """Seconds of each of many empty runs in one process, where no git is found."""
    from blackboxml import Run

    Path("bin").mkdir()
    os.environ["PATH"] = str(Path("bin").resolve())
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        with Run("bench", log_dir="runs"):
            pass
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def leave_first(steps: int) -> float:
    """Seconds from the end of the `with` block to the next statement."""
    from blackboxml import Run

    with Run("bench", log_dir="runs") as run:
        for step in range(steps):
            run.log(dict.fromkeys(METRICS, step * 0.1))
        started = time.perf_counter()
    return time.perf_counter() - started
