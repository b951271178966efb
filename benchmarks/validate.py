"""Validating: many small runs, and one large run against reading what it holds."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Pair, Row, interleave, limit_row, peak_memory_mib

if TYPE_CHECKING:
    from benchmarks.harness import Bench

SMALL_BAR_MS = 1.5
LARGE_BAR = 3.0
MEMORY_BAR_MIB = 600.0
RUNS = 10_000
RECORDED = 8
STEPS = 20


def rows(bench: Bench) -> list[Row]:
    """Small runs on one core, then a large one: its time and its memory."""
    runs = 20 if bench.quick else RUNS
    folder = bench.scratch / f"small_{runs}"
    bench.in_child("validate:write_small", folder=str(folder), runs=runs)
    seconds = bench.in_child("validate:small", folder=str(folder), slices=bench.slices(5))
    each = [1e3 * value / runs for value in seconds["candidate"]]
    least = Pair(**seconds).ratio
    floor = "read, hash, open table and dataset"
    what = f"validate {runs:,} small sealed runs, each, {floor} x {least:.2f}"
    shown = f"{1e3 * min(seconds['floor']) / runs:.3g} ms"
    found = [limit_row(what, each, SMALL_BAR_MS, "ms", f"{floor}: {shown}")]
    points = 10 * bench.points
    path = str(bench.sealed(points))
    measured = bench.in_child("validate:large", path=path, slices=bench.slices(3))
    floor = "scan the journal, read the table and the dataset"
    found.append(
        Pair(**measured).row(f"validate {points:,} points, sealed", floor, LARGE_BAR, 1, "s")
    )
    peaks = [bench.in_child("validate:peak", path=path) for _ in range(bench.slices(3))]
    what = f"peak memory of validating {points:,} points"
    found.append(limit_row(what, peaks, MEMORY_BAR_MIB, "MiB"))
    return found


def write_small(folder: str, runs: int) -> None:
    """Record some runs of one metric and copy them until there are enough."""
    from blackboxml import Run

    if os.path.exists(folder):
        return
    recorded = []
    for number in range(min(RECORDED, runs)):
        with Run("small", log_dir=f"{folder}/0", config={"lr": 0.1, "number": number}) as run:
            for step in range(STEPS):
                run.log({"train/loss": 1 / (step + number + 1)})
        recorded.append(run.path)
    for number in range(len(recorded), runs):
        shutil.copytree(recorded[number % len(recorded)], f"{folder}/{number // 100}/{number}")


def small(folder: str, slices: int) -> dict[str, Any]:
    """Interleave validating a tree of runs in this process with the least that it has to do."""
    import h5py
    import pyarrow.parquet as pq

    from blackboxml.collection import find_runs
    from blackboxml.validation import validate

    paths = list(find_runs(folder))

    def floor() -> None:
        for path in paths:
            for name in os.listdir(path):
                hashlib.sha256((path / name).read_bytes()).digest()
            pq.ParquetFile(path / "train.parquet").close(force=True)
            h5py.File(path / "train.h5", "r").close()

    def candidate() -> None:
        for path in paths:
            report = validate(path)
            if report.verdict != "valid":
                raise ValueError(report.to_json())

    return asdict(interleave(floor, candidate, slices))


def large(path: str, slices: int) -> dict[str, Any]:
    """Interleave validating a run with reading its three encodings in this process."""
    import h5py
    import pyarrow.parquet as pq

    from blackboxml.base.files import Directory
    from blackboxml.journal.merge import find_journals
    from blackboxml.journal.scan import Scan
    from blackboxml.journal.table import Tabulator
    from blackboxml.validation import validate

    run = Path(path)

    def floor() -> int:
        count = 0
        with Directory(run) as directory:
            tabulator = Tabulator()
            for journal in find_journals(directory):
                for part in tabulator.parts(Scan(journal, set(), []), directory):
                    count += part.batch.num_rows
        with pq.ParquetFile(run / "train.parquet", page_checksum_verification=True) as table:
            for place in range(table.num_row_groups):
                count += table.read_row_group(place).num_rows
        with h5py.File(run / "train.h5", "r") as dataset:
            for name in dataset:
                count += len(dataset[name][:])
        return count

    def candidate() -> None:
        report = validate(run)
        if report.verdict != "valid":
            raise ValueError(report.to_json())

    return asdict(interleave(floor, candidate, slices))


def peak(path: str) -> float:
    """Validate a run; the peak resident memory of the whole process, imports included, in MiB."""
    from blackboxml.validation import validate

    validate(path)
    return peak_memory_mib()
