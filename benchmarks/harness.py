"""Measuring on a noisy machine.

A ratio is taken between a floor and a candidate that run in short slices, in turn, in one process:
whatever slows the machine slows both. The ratio of a row is that of the two medians; its spread is
the range of the middle half of the ratios of neighbouring slices. What must not be disturbed by
earlier work (peak memory, first use) runs in a fresh process, through `in_child`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
METRICS = [f"train/metric_{i}" for i in range(10)]
MIB = 2**20


@dataclass(frozen=True)
class Row:
    """One line of the results; the figures are ready to be shown."""

    what: str
    floor: str
    measured: str
    spread: str
    bar: str
    cleared: bool | None  # None: a cost that is watched, without a bar


@dataclass(frozen=True)
class Pair:
    """Seconds per slice of a floor and of the candidate beside it, in order of time."""

    floor: list[float]
    candidate: list[float]

    @property
    def ratio(self) -> float:
        """How many times the floor the candidate takes, by the medians."""
        return median(self.candidate) / median(self.floor)

    @property
    def spread(self) -> str:
        """The middle half of the ratios, slice by slice."""
        low, high = middle_half([c / f for f, c in zip(self.floor, self.candidate, strict=True)])
        return f"{low:.2f}-{high:.2f}"

    def row(self, what: str, floor: str, bar: float, unit: float, unit_name: str) -> Row:
        """A row for a bar given as a multiple of the floor.

        Args:
            what: What the candidate does.
            floor: What the floor does.
            bar: The greatest ratio that clears it.
            unit: Seconds of a slice are divided by this for showing.
            unit_name: The name of the result of that division.
        """
        shown = f"{median(self.candidate) / unit:.3g} {unit_name}"
        least = f"{floor}: {median(self.floor) / unit:.3g} {unit_name}"
        return Row(
            what, least, f"{self.ratio:.2f}x ({shown})", self.spread, f"{bar:g}x", self.ratio <= bar
        )


def middle_half(values: list[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def limit_row(
    what: str, values: list[float], bar: float | None, unit: str, floor: str = "-"
) -> Row:
    """A row for a bar given as a quantity, judged by the median."""
    low, high = middle_half(values)
    middle = median(values)
    return Row(
        what,
        floor,
        f"{middle:.3g} {unit}",
        f"{low:.3g}-{high:.3g}",
        "-" if bar is None else f"{bar:g} {unit}",
        None if bar is None else middle <= bar,
    )


def interleave(
    floor: Callable[[], object],
    candidate: Callable[[], object],
    slices: int,
    before_each: Callable[[], object] = lambda: None,
) -> Pair:
    """Time both in turn, changing which goes first, after one untimed slice of each.

    Args:
        floor: Runs one slice of the floor.
        candidate: Runs one slice of the candidate.
        slices: How many of each.
        before_each: Runs before every slice, untimed.
    """
    pair = Pair([], [])
    turns = [(floor, pair.floor), (candidate, pair.candidate)]
    for run, _ in turns:
        before_each()
        run()
    for _ in range(slices):
        for run, seconds in turns:
            before_each()
            gc.collect()
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        turns.reverse()
    return pair


def peak_memory_mib() -> float:
    """The greatest resident memory of this process so far."""
    # Linux counts the parent's pages in ru_maxrss of a child that was started from it; VmHWM starts
    # anew with the program.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


@dataclass
class Bench:
    """Where the benchmarks work and how much they do.

    Args:
        scratch: An empty folder.
        points: The size of the runs in points (one value of one metric); growth is shown at ten
            times as many.
        quick: Take few slices: for seeing that everything runs, not for figures.
    """

    scratch: Path
    points: int = 1_000_000
    quick: bool = False

    def slices(self, full: int) -> int:
        """The number of slices for a row that takes `full` in earnest."""
        return 2 if self.quick else full

    def child_environment(self) -> dict[str, str]:
        """The environment for fresh processes: compiled modules are kept, as in any installation.

        In a place of their own, for that of the packages may be closed; a quick run tries that one.
        """
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
        if not self.quick:
            kept["PYTHONPYCACHEPREFIX"] = str(self.scratch / "pycache")
        return kept

    def in_child(self, target: str, **arguments: Any) -> Any:
        """Call `module:function` of this folder in a fresh process, by way of JSON."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.harness", target, json.dumps(arguments)],
                stdout=subprocess.PIPE,
                check=True,
                cwd=folder,
                env=self.child_environment(),
            )
        return json.loads(done.stdout.splitlines()[-1])

    def unsealed(self, points: int) -> Path:
        """A finished run of random float64 that was not sealed, made at the first request."""
        holder = self.scratch / f"unsealed_{points}"
        if not holder.exists():
            self.in_child("harness:write_run", folder=str(holder), steps=points // len(METRICS))
        (path,) = holder.iterdir()
        return path

    def sealed(self, points: int) -> Path:
        """The same run, sealed."""
        holder = self.scratch / f"sealed_{points}"
        if not holder.exists():
            path = copy_run(self.unsealed(points), holder)
            self.in_child("harness:seal_run", path=str(path))
        (path,) = holder.iterdir()
        return path


def write_run(folder: str, steps: int) -> str:
    """Record ten metrics, normally distributed, at each step; not sealed."""
    from random import Random

    from blackboxml import Run

    random = Random(0)
    with Run("bench", log_dir=folder, seal=False) as run:
        for step in range(steps):
            run.log({name: random.gauss(0, 1) for name in METRICS}, step=step)
    return str(run.path)


def seal_run(path: str) -> None:
    """Seal a finished run."""
    from blackboxml.seal import seal

    seal(Path(path))


def copy_run(path: Path, holder: Path) -> Path:
    """Copy a run into a new folder."""
    holder.mkdir(parents=True)
    return Path(shutil.copytree(path, holder / path.name))


def _answer() -> None:
    target, arguments = sys.argv[1:]
    module, _, function = target.partition(":")
    result = getattr(importlib.import_module(f"benchmarks.{module}"), function)(
        **json.loads(arguments)
    )
    print(json.dumps(result))


if __name__ == "__main__":
    _answer()
