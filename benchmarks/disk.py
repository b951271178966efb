"""Bytes on disk for a point of a packed run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Row, copy_run

if TYPE_CHECKING:
    from benchmarks.harness import Bench

BAR = 1.15
FLOAT64_BYTES = 8


def rows(bench: Bench) -> list[Row]:
    """A packed run of random float64, at the plain size and at ten times as many points."""
    found = []
    for points in (bench.points, 10 * bench.points):
        path = copy_run(bench.sealed(points), bench.scratch / f"packed_{points}")
        bench.in_child("disk:pack_run", path=str(path))
        size = sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
        ratio = size / (FLOAT64_BYTES * points)
        found.append(
            Row(
                what=f"disk of a packed run, random float64, {points:,} points",
                floor=f"{FLOAT64_BYTES} bytes a point",
                measured=f"{ratio:.3f}x ({size / points:.2f} bytes)",
                spread="-",
                bar=f"{BAR:g}x",
                cleared=ratio <= BAR,
            )
        )
    return found


def pack_run(path: str) -> None:
    """Pack a sealed run."""
    from blackboxml.seal.pack import pack

    pack(Path(path))
