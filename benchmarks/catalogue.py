"""Many runs: listing them, and tables of them, the first time and after that; imports apart."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Pair, Row, interleave, limit_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Bench

RUNS = (1_000, 10_000, 100_000)
BARS = {
    ("cold", 10_000): 5.0,
    ("warm", 10_000): 1.0,
    ("kept", 100_000): 1.0,
    ("changed", 100_000): 2.0,
}
"""Seconds by what is done and to how many runs."""

COLD_RATIO = 3.0
COLD_RUNS = 10_000
WHAT = {
    "cold": "listing {:,} runs with their last values, without a catalogue",
    "warm": "the same with a catalogue, in a new process",
    "again": "the same again, in the same process",
    "kept": "`scan_runs` of {:,} runs from the catalogue, all columns",
    "changed": "the same, refreshed after 100 runs changed",
}
FLOORS = {
    "cold": "`glob` + `orjson.loads`",
    "warm": "three `lstat` a run",
    "again": "three `lstat` a run",
    "kept": "`polars.read_parquet` of the result",
    "changed": "three `lstat` a run",
}
CHANGED = 100
STEPS = 20
MOST_LINKS = 60_000
"""ext4 gives a file some more names than this."""


def rows(bench: Bench) -> list[Row]:
    """Three sizes, which show how the cost grows."""
    found = []
    for count in (10, 20, 40) if bench.quick else RUNS:
        holder = str(bench.scratch / f"catalogue_{count}")
        bench.in_child("catalogue:make", folder=holder, count=count)
        measured: list[dict[str, float]] = []
        for _ in range(bench.slices(5 if count <= COLD_RUNS else 3)):
            measured += [
                bench.in_child(f"catalogue:{function}", folder=holder)
                for function in ("first_look", "second_look", "scan", "scan_changed")
            ]
        for which, what in WHAT.items():
            values = [each[which] for each in measured if which in each]
            floor = sorted(each[f"{which} floor"] for each in measured if which in each)
            least = f"{FLOORS[which]}: {floor[len(floor) // 2]:.3g} s"
            bar = BARS.get((which, count))
            found.append(limit_row(what.format(count), values, bar, "s", least))
        if count <= COLD_RUNS:
            found += _ratios(bench, holder, count)
    return found


def _ratios(bench: Bench, holder: str, count: int) -> list[Row]:
    """What takes long at a hundred thousand runs."""
    slices = bench.slices(5)
    cold = Pair(**bench.in_child("catalogue:scan_cold", folder=holder, slices=slices))
    what, floor = f"`scan_runs` of {count:,} runs without a catalogue", "`glob` + `orjson.loads`"
    if count == COLD_RUNS:
        found = [cold.row(what, floor, COLD_RATIO, 1, "s")]
    else:
        least = f"{floor}: {median(cold.floor):.3g} s"
        found = [limit_row(f"{what}: {cold.ratio:.2f}x", cold.candidate, None, "s", least)]
        points = Pair(**bench.in_child("catalogue:scan_points", folder=holder, slices=slices))
        what = f"`scan_metrics` of {count:,} runs, one metric, streamed: {points.ratio:.1f}x"
        least = f"`polars.scan_parquet` of the tables: {median(points.floor):.3g} s"
        found.append(limit_row(what, points.candidate, None, "s", least))
    return found


def make(folder: str, count: int) -> None:
    """Make so many sealed runs of six metrics; their files are one file each, linked."""
    from blackboxml import Run

    with Run("bench", log_dir=".", config={"lr": 0.1, "model": {"depth": 3}}) as run:
        for step in range(STEPS):
            metrics = {f"train/metric_{place}": step * 0.1 + place for place in range(5)}
            run.log(metrics | {"eval/accuracy": 0.5})
    files = sorted(os.listdir(run.path))
    source = run.path
    for number in range(count):
        if number and number % MOST_LINKS == 0:
            source = Path(shutil.copytree(run.path, f"copy_{number}"))
        place = f"{folder}/bench_{number:06d}"
        os.makedirs(place)
        for name in files:
            os.link(source / name, f"{place}/{name}")
    time.sleep(2.1)  # what changed a moment ago is read again


def first_look(folder: str) -> dict[str, float]:
    """List all runs without a catalogue."""
    _forget(folder)
    return {"cold": _list(folder), "cold floor": _seconds(lambda: _parse(folder))}


def second_look(folder: str) -> dict[str, float]:
    """List all runs twice with a catalogue."""
    from blackboxml.collection.catalogue import Catalogue

    catalogue = Catalogue(folder)
    found = {"warm": _list(folder, catalogue), "again": _seconds(catalogue.runs)}
    floor = _seconds(lambda: _stat(folder))
    return found | {"warm floor": floor, "again floor": floor}


def scan(folder: str) -> dict[str, float]:
    """Make a table of all runs from the catalogue."""
    import polars as pl

    from blackboxml.collection import runs, scan_runs

    del runs  # it is imported, which takes its time
    found = _seconds(lambda: _check(scan_runs(folder, refresh=False).collect()))
    scan_runs(folder, refresh=False).collect().write_parquet("runs.parquet")
    return {"kept": found, "kept floor": _seconds(lambda: pl.read_parquet("runs.parquet"))}


def scan_changed(folder: str) -> dict[str, float]:
    """Make a table of all runs after some have changed."""
    from blackboxml.collection import runs, scan_runs

    del runs  # it is imported, which takes its time
    names = sorted(os.listdir(folder))
    for name in [name for name in names if name[0] != "."][:: max(1, len(names) // CHANGED)]:
        shutil.copyfile(f"{folder}/{name}/run.json", "run.json")
        os.utime("run.json", (1, 1))
        os.replace("run.json", f"{folder}/{name}/run.json")
    found = _seconds(lambda: _check(scan_runs(folder).collect()))
    return {"changed": found, "changed floor": _seconds(lambda: _stat(folder))}


def scan_cold(folder: str, slices: int) -> dict[str, list[float]]:
    """Make a table of all runs without a catalogue, and parse their manifests, in turn."""
    from blackboxml.collection import scan_runs

    pair = interleave(
        lambda: _parse(folder),
        lambda: _check(scan_runs(folder).collect()),
        slices,
        lambda: _forget(folder),
    )
    return {"floor": pair.floor, "candidate": pair.candidate}


def scan_points(folder: str, slices: int) -> dict[str, list[float]]:
    """Average a metric over all runs, as they are and as Parquet files, in turn."""
    import polars as pl

    from blackboxml.collection import scan_metrics

    def average(frame: pl.LazyFrame) -> None:
        mean = frame.group_by("step").agg(pl.col("metric_1").mean())
        if mean.collect(engine="streaming").height != STEPS:
            raise RuntimeError("there are other steps than were recorded")

    pair = interleave(
        lambda: average(pl.scan_parquet(f"{folder}/*/train.parquet")),
        lambda: average(scan_metrics(folder, "train", ["metric_1"], refresh=False)),
        slices,
    )
    return {"floor": pair.floor, "candidate": pair.candidate}


def _list(folder: str, catalogue: Any = None) -> float:
    """Seconds to list all runs with their last values."""
    from blackboxml.collection.catalogue import Catalogue

    def values() -> None:
        found = [
            (entry.name, entry.status, {name: said.last for name, said in entry.metrics.items()})
            for entry in (catalogue or Catalogue(folder)).runs()
        ]
        if len(found) < 1 or len(found[0][2]) != 6:  # noqa: PLR2004 - as many as were logged
            raise RuntimeError(f"{found[:1]} is not what was recorded")

    return _seconds(values)


def _check(frame: Any) -> None:
    """Refuse a table that is not of what was recorded."""
    if frame["last.eval/accuracy"].unique().to_list() != [0.5]:
        raise RuntimeError(f"{frame} is not what was recorded")


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _forget(folder: str) -> None:
    from blackboxml.collection.cache import FILE

    Path(folder, FILE).unlink(missing_ok=True)


def _parse(folder: str) -> None:
    """What anybody would do who knows nothing of catalogues."""
    import orjson

    for path in Path(folder).glob("*/run.json"):
        orjson.loads(path.read_bytes())


def _stat(folder: str) -> None:
    """Look at what a catalogue looks at."""
    for name in sorted(name for name in os.listdir(folder) if name[0] != "."):
        for file in ("", "run.json", "config.json"):
            os.lstat(f"{folder}/{name}/{file}")
