"""Many runs: listing them with their last values, the first time and after that."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Row, limit_row

if TYPE_CHECKING:
    from benchmarks.harness import Bench

RUNS = (1_000, 10_000)
BARS_S = {"cold": 5.0, "warm": 1.0}
WHAT = {
    "cold": "listing {:,} runs with their last values, without a cache",
    "warm": "the same with a cache, in a new process",
    "again": "the same again, in the same process",
}
FLOORS = {"cold": "`glob` + `orjson.loads`", "warm": "`SELECT` of all rows", "again": "`os.stat`"}
STEPS = 20


def rows(bench: Bench) -> list[Row]:
    """Two sizes, of which the second shows how the cost grows."""
    found = []
    for count in (20, 60) if bench.quick else RUNS:
        holder = bench.scratch / f"catalogue_{count}"
        bench.in_child("catalogue:make", folder=str(holder), count=count)
        measured = [
            bench.in_child("catalogue:measure", folder=str(holder), cold=cold)
            for _ in range(bench.slices(5))
            for cold in (True, False)
        ]
        for which, what in WHAT.items():
            values = [each[which] for each in measured if which in each]
            floor = sorted(each[f"{which} floor"] for each in measured if which in each)
            bar = BARS_S.get(which) if count == RUNS[-1] else None
            least = f"{FLOORS[which]}: {floor[len(floor) // 2]:.3g} s"
            found.append(limit_row(what.format(count), values, bar, "s", least))
    return found


def make(folder: str, count: int) -> None:
    """Make so many sealed runs of six metrics; their files are one file each, linked."""
    from blackboxml import Run

    with Run("bench", log_dir=".", config={"lr": 0.1, "model": {"depth": 3}}) as run:
        for step in range(STEPS):
            metrics = {f"train/metric_{place}": step * 0.1 + place for place in range(5)}
            run.log(metrics | {"eval/accuracy": 0.5})
    files = sorted(os.listdir(run.path))
    for number in range(count):
        place = Path(folder) / f"bench_{number:05d}"
        place.mkdir(parents=True)
        for name in files:
            os.link(run.path / name, place / name)
    time.sleep(2.1)  # what changed a moment ago is read again


def measure(folder: str, *, cold: bool) -> dict[str, Any]:
    """Seconds of one listing and its floor, by kind."""
    import orjson

    from blackboxml.collection.cache import FILE
    from blackboxml.collection.catalogue import Catalogue

    root = Path(folder)
    cache = root / FILE
    if cold:
        cache.unlink(missing_ok=True)
    started = time.perf_counter()
    catalogue = Catalogue(root)
    values = [
        (entry.name, entry.status, {name: said.last for name, said in entry.metrics.items()})
        for entry in catalogue.runs()
    ]
    seconds = time.perf_counter() - started
    if len(values) < 1 or len(values[0][2]) != 6:  # noqa: PLR2004 - as many as were logged
        raise RuntimeError(f"{values[:1]} is not what was recorded")
    if cold:
        started = time.perf_counter()
        for path in root.glob("*/run.json"):
            orjson.loads(path.read_bytes())
        return {"cold": seconds, "cold floor": time.perf_counter() - started}
    found = {"warm": seconds}
    started = time.perf_counter()
    with closing(sqlite3.connect(cache)) as connection:
        connection.execute("SELECT * FROM run").fetchall()
        connection.execute("SELECT * FROM metric").fetchall()
    found["warm floor"] = time.perf_counter() - started
    started = time.perf_counter()
    catalogue.runs()
    found["again"] = time.perf_counter() - started
    started = time.perf_counter()
    for name in sorted(set(os.listdir(root)) - {FILE}):
        for file in ("", "run.json", "config.json", "metrics.jsonl"):
            os.stat(f"{folder}/{name}/{file}")
    found["again floor"] = time.perf_counter() - started
    return found
