"""Plots in a terminal, looked at as text."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console

from blackboxml import Run, open_run
from blackboxml.base.canvas import pieces, thin, ticks
from blackboxml.cli.chart import choose, draw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MARKS = range(0x2800, 0x2900)


def shown(path: Path, wanted: Sequence[str] = (), width: int = 80, **options: object) -> str:
    reader = open_run(path)
    file = io.StringIO()
    Console(file=file, width=width).print(
        draw(reader, choose(reader, wanted), width=width, **options)
    )
    return file.getvalue()


def marked(text: str) -> list[tuple[int, int]]:
    """Row and column of every braille character on the canvases."""
    return [
        (row, column)
        for row, line in enumerate(text.splitlines())
        if "⠒⠒" not in line
        for column, character in enumerate(line)
        if ord(character) in MARKS
    ]


def record(log_dir: Path, values: Sequence[float], name: str = "loss", **options: object) -> Path:
    with Run("r", log_dir=log_dir, environment=[], **options) as run:
        for value in values:
            run.log({name: value})
    return run.path


@pytest.mark.parametrize("seal", [True, False])
@pytest.mark.parametrize(
    "values",
    [
        [0.5],
        [0.0],
        [0.25, 0.25, 0.25],
        [-1e-300, 1e-300],
        [1e300, -1e300],
        [1e15, 1e15 + 1],
        [math.nan, 1.0, math.inf, 2.0, -math.inf],
        [1.0, math.nan],
        [1e308, 1.0, 2.0],
    ],
)
def test_any_finite_values_are_drawn(values: list[float], seal: bool, tmp_path: Path) -> None:
    text = shown(record(tmp_path, values, seal=seal))
    assert marked(text)
    assert "step" in text.splitlines()[-2]
    assert max(map(len, text.splitlines())) <= 80


def test_nothing_finite_is_said(tmp_path: Path) -> None:
    assert "no finite values to plot" in shown(record(tmp_path, [math.nan, math.inf]))


def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    values = [1.0] * 40 + [math.nan] * 20 + [1.0] * 40
    columns = {column for _, column in marked(shown(record(tmp_path, values)))}
    missing = set(range(min(columns), max(columns))) - columns
    assert 12 <= len(missing) <= 18


def test_a_spike_among_a_million_points_is_seen() -> None:
    x = np.arange(1_000_000, dtype=np.float64)
    y = np.zeros(1_000_000)
    y[123_456], y[777_777], y[500_000:600_000] = 9.0, -9.0, np.nan
    thin_x, thin_y = thin(x, y, 160)
    assert len(thin_x) <= 2 * 161
    assert np.nanmax(thin_y) == 9.0
    assert np.nanmin(thin_y) == -9.0
    assert (np.diff(thin_x) >= 0).all()
    assert len(pieces(thin_x, thin_y)) == 2


def test_steps_out_of_order_are_drawn_in_order(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, environment=[]) as run:
        for step in (2, 0, 1, 3):
            run.log({"loss": float(step)}, step=step)
    marks = marked(shown(run.path))
    assert all(
        b[1] <= a[1] for a, b in zip(sorted(marks), sorted(marks)[1:], strict=False) if a[0] < b[0]
    )


def test_the_first_four_are_chosen_with_all_their_groups(tmp_path: Path) -> None:
    names = [f"{group}/{short}" for short in "abcde" for group in ("train", "eval")]
    with Run("r", log_dir=tmp_path, environment=[]) as run:
        run.log(dict.fromkeys(names, 0.5) | {"train/n": 1})
    reader = open_run(run.path)
    assert choose(reader, []) == {s: [f"train/{s}", f"eval/{s}"] for s in "abcd"}
    assert choose(reader, ["n", "eval/e"]) == {"n": ["train/n"], "e": ["eval/e"]}
    wide = shown(run.path, width=130)
    assert len(wide.splitlines()) < len(shown(run.path).splitlines())
    assert max(map(len, wide.splitlines())) <= 130


def test_integers_are_drawn_where_there_are_no_floats(tmp_path: Path) -> None:
    text = shown(record(tmp_path, [1, 2, 3], "train/count"))
    assert "⠒⠒ train/count" in text


@pytest.mark.parametrize(
    ("low", "high", "count", "whole", "expected"),
    [
        (0.0, 1.0, 5, False, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 3.0, 7, True, [0.0, 1.0, 2.0, 3.0]),
        (-0.3, 0.3, 4, False, [-0.2, 0.0, 0.2]),
        (1e-9, 3e-9, 3, False, [1e-9, 2e-9, 3e-9]),
    ],
)
def test_ticks_are_round(
    low: float, high: float, count: int, whole: bool, expected: list[float]
) -> None:
    assert ticks(low, high, count, whole=whole) == pytest.approx(expected)
