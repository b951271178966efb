"""Measure against the bars: python -m benchmarks [--quick] [--only TABLE] [--output FILE]."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import ROOT, Bench, Row
from blackboxml import __version__

TABLES = (
    "log",
    "frontends",
    "catalogue",
    "history",
    "backends",
    "seal",
    "load",
    "validate",
    "convert",
    "start",
    "disk",
    "scale",
)
PACKAGES = ("orjson", "numpy", "polars", "pyarrow", "h5py", "xarray")
COLUMNS = ("what", "floor", "measured", "middle half", "bar", "cleared")
QUICK_POINTS = 1_000
PREAMBLE = """\
The figures of one table come from one run on a noisy machine; the tables may be of different hours.
A ratio compares the medians of short slices of floor and candidate that took turns in one process,
so it means more than the absolute times beside it. The column *middle half* is the range from the
first to the third quartile of the single ratios or values. A row without a bar shows how a cost
grows."""


def main() -> int:
    """Run the tables, print them and write them down; the exit status is 0 also above a bar."""
    options = _options()
    console = Console()
    found: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="blackboxml-benchmarks-") as scratch:
        bench = Bench(Path(scratch))
        if options.quick:
            bench = Bench(Path(scratch), points=QUICK_POINTS, quick=True)
        for name in options.only or TABLES:
            found[name] = importlib.import_module(f"benchmarks.{name}").rows(bench)
            console.print(_table(name, found[name]))
    output = options.output
    if output is None and not (options.quick or options.only):
        output = ROOT / "benchmarks" / "RESULTS.md"
    if output is not None:
        output.write_text(_markdown(found, quick=options.quick), "utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke run, no figures")
    parser.add_argument("--only", action="append", choices=TABLES, help="one table (repeatable)")
    parser.add_argument("--output", type=Path, help="where to write the results as Markdown")
    return parser.parse_args()


def _cells(row: Row) -> tuple[str, ...]:
    cleared = {True: "yes", False: "NO", None: "-"}[row.cleared]
    return row.what, row.floor, row.measured, row.spread, row.bar, cleared


def _table(title: str, rows: list[Row]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in COLUMNS:
        table.add_column(column)
    for row in rows:
        table.add_row(*_cells(row), style="red" if row.cleared is False else None)
    return table


def _markdown(found: dict[str, list[Row]], *, quick: bool) -> str:
    lines = [
        "# Benchmark results",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d}. {_machine()}",
        "",
        f"blackboxml {__version__}, Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in PACKAGES)
        + ".",
        "",
        PREAMBLE,
    ]
    if quick:
        lines += ["", "**A quick run at tiny sizes: these figures mean nothing.**"]
    for name, rows in found.items():
        lines += ["", f"## {name}", "", _line(COLUMNS), _line(("---",) * len(COLUMNS))]
        lines += [_line(_cells(row)) for row in rows]
    return "\n".join([*lines, ""])


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine() -> str:
    """Cores, memory and kernel; nothing that names the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB of memory, "
        f"{platform.system()} {platform.release()}."
    )


if __name__ == "__main__":
    sys.exit(main())
