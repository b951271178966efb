"""Sealing: from the journal to Parquet, HDF5 and SHA256SUMS, in bounded memory."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import (
    Pair,
    Row,
    copy_run,
    interleave,
    limit_row,
    peak_memory_mib,
)

if TYPE_CHECKING:
    from benchmarks.harness import Bench

TIME_BAR = 5.0
MEMORY_BAR_MIB = 400.0


def rows(bench: Bench) -> list[Row]:
    """Time and peak memory, at the plain size and at ten times as many points."""
    found = []
    for points, slices in ((bench.points, 9), (10 * bench.points, 3)):
        path = str(bench.unsealed(points))
        measured = bench.in_child("seal:measure", path=path, slices=bench.slices(slices))
        floor = "`polars.read_ndjson` + `write_parquet`"
        found.append(Pair(**measured).row(f"seal {points:,} points", floor, TIME_BAR, 1, "s"))
        peaks = [bench.in_child("seal:peak", path=path) for _ in range(bench.slices(3))]
        what = f"peak memory of sealing {points:,} points"
        found.append(limit_row(what, peaks, MEMORY_BAR_MIB, "MiB"))
    return found


def measure(path: str, slices: int) -> dict[str, Any]:
    """Interleave sealing of fresh copies with the floor; imports come before."""
    import polars as pl

    from blackboxml.seal import seal

    work, target = Path("work"), Path("floor.parquet")
    copy = work / Path(path).name

    def prepare() -> None:
        shutil.rmtree(work, ignore_errors=True)
        target.unlink(missing_ok=True)
        copy_run(Path(path), work)

    def floor() -> None:
        pl.read_ndjson(copy / "metrics.jsonl").write_parquet(target)

    return asdict(interleave(floor, lambda: seal(copy), slices, prepare))


def peak(path: str) -> float:
    """Seal a copy; the peak resident memory of the whole process, imports included, in MiB."""
    from blackboxml.seal import seal

    seal(copy_run(Path(path), Path("work")))
    return peak_memory_mib()
