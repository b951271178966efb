"""Text and tables for a terminal."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from blackboxml.cli.overview import Overview
from blackboxml.cli.terminal import (
    dumps,
    duration,
    metrics_table,
    number,
    record_line,
    runs_table,
    safe,
)
from blackboxml.model import Record, Summary

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def lines(table: object, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, markup=False).print(table)
    return file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.0, "0s"),
        (45.9, "45s"),
        (60, "1m 0s"),
        (826, "13m 46s"),
        (7530, "2h 5m 30s"),
        (100 * 3600, "100h 0m 0s"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "true"),
        (2**63 - 1, "9223372036854775807"),
        (0.1 + 0.2, "0.3"),
        (1e-12, "1e-12"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_json_escapes_what_a_terminal_would_obey_and_surrogates_are_for_the_caller() -> None:
    document = {"a": "\x1b\x9b\u2028\u202e\n\u00e9", "b": [float("nan"), (1, 2)], "c": Path("/x")}
    text = dumps(document)
    assert not {*text} & {"\x1b", "\x9b", "\u2028", "\u202e"}
    assert "\u00e9" in text
    assert json.loads(text) == {"a": document["a"], "b": ["NaN", [1, 2]], "c": "/x"}
    assert dumps(document, ascii_only=True).isascii()
    assert "\n" not in dumps(document, indent=None)
    assert safe("a\tb\u2066") == r"a\tb\u2066"


@pytest.mark.parametrize("width", [80, 100, 300])
def test_a_list_of_runs_fits_the_terminal_one_line_each(width: int) -> None:
    rows = [
        Overview(Path("x"), name="n" * 90, status="completed", start=NOW, steps=10**7),
        Overview(Path("x"), name="実験" * 30, status="running", start=NOW, tags=["tag"] * 30),
        Overview(Path("directory"), status="unreadable", error="why " * 100),
        Overview(Path("x"), name="short", status="interrupted", duration_seconds=360_000.0),
    ]
    shown = lines(runs_table(rows, NOW, width), width)
    assert len(shown) == 5
    assert all(
        word in line
        for word, line in zip(
            ("STEPS", "completed", "running", "unreadable", "interrupted"), shown, strict=True
        )
    )
    assert "10000000" in shown[1]
    assert "100h 0m 0s" in shown[4]
    assert width == 300 or "…" in shown[1]


def test_values_that_are_not_finite_have_a_column_where_there_are_any() -> None:
    facts = Summary(0.5, 2.0, 1.0, 0.1, 0.5, 10, 0, 9, 0)
    shown = lines(metrics_table({"train/loss": facts, "eval/loss": facts}, {}), 80)
    assert "NAN/INF" not in shown[0]
    assert shown[2].strip() == ""  # between groups
    damaged = Summary(None, None, None, None, float("nan"), 3, 0, 9, 3)
    shown = lines(metrics_table({"loss": damaged}, {"loss": "nat"}), 80)
    assert shown[0].split()[-1] == "NAN/INF"
    assert shown[1].split() == ["loss", "[nat]", "NaN", "-", "-", "-", "3", "0–9", "3"]


def test_a_point_is_one_line() -> None:
    ranks = {"loss": {"mean": 0.5, "count": 4}}
    point = Record(0, 12, 0.0, 1, 0, {"lo\nss": 0.25, "n": 3}, ranks)
    assert record_line(point) == r"step 12  lo\nss=0.25  n=3  loss/mean=0.5  loss/count=4"
    assert record_line(point, rank=True).startswith("rank 1  step 12  ")
