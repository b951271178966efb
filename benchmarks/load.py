"""Loading one group of a run into polars, sealed and not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Pair, Row, interleave

if TYPE_CHECKING:
    from benchmarks.harness import Bench

SEALED_BAR = 1.2
UNSEALED_BAR = 2.0


def rows(bench: Bench) -> list[Row]:
    """Both, at the plain size and at ten times as many points."""
    found = []
    for points, slices in ((bench.points, 100), (10 * bench.points, 15)):
        for sealed in (True, False):
            path = bench.sealed(points) if sealed else bench.unsealed(points)
            taken = slices if sealed else max(slices // 3, 5)
            measured = bench.in_child(
                "load:measure", path=str(path), sealed=sealed, slices=bench.slices(taken)
            )
            state = "sealed" if sealed else "unsealed"
            what = f'`open_run(p).polars("train")`, {state}, {points:,} points'
            floor = "`polars.read_parquet`" if sealed else "`polars.read_ndjson`"
            bar = SEALED_BAR if sealed else UNSEALED_BAR
            found.append(Pair(**measured).row(what, floor, bar, 1e-3, "ms"))
    return found


def measure(path: str, slices: int, *, sealed: bool) -> dict[str, Any]:
    """Interleave loads of the same file with and without the library."""
    import polars as pl

    from blackboxml import open_run

    run = Path(path)

    def floor() -> pl.DataFrame:
        if sealed:
            return pl.read_parquet(run / "train.parquet")
        return pl.read_ndjson(run / "metrics.jsonl")

    return asdict(interleave(floor, lambda: open_run(run).polars("train"), slices))
