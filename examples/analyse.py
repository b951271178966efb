"""Load a run with polars and with xarray: python examples/analyse.py blackboxml_logs/digits_…"""

from __future__ import annotations

import sys

import polars as pl

from blackboxml import open_run

run = open_run(sys.argv[1])
print(f"{run.name}: {run.status} after {run.duration_seconds:.1f} s, config {run.config}")

train = run.polars("train")
print(train.select("step", "loss", "accuracy").tail(3))
print("best epoch:", train.filter(pl.col("loss") == pl.col("loss").min()).select("step", "loss"))

evaluation = run.xarray("eval")
print(evaluation["accuracy"])
print("eval accuracy, last three:", evaluation["accuracy"][-3:].mean().item())
