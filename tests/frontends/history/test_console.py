"""The line for the console, to the character."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blackboxml.frontends.history import (
    History,
    format_compact_summary,
    format_memory_summary,
    is_memory_metric_key,
)
from blackboxml.frontends.history.console import summary_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("metrics", "precision", "expected"),
    [
        ({"loss": 0.5, "loss/std": 0.02}, 2, "loss=0.50(± 0.020)"),
        (
            {"loss": 0.5, "loss/std": 0.02, "loss/mean": 1.0, "loss/min": 0.0, "loss/max": 2.0},
            2,
            "loss=0.50(± 0.020)",
        ),
        ({"loss": 0.5, "loss/std": 0.02, "loss/avg": 1.0}, 2, "loss=0.50(± 0.020)"),
        ({"loss": 0.289993, "loss/std": 0.157124}, 6, "loss=0.289993(±  0.16)"),
        ({"lr": 0.000234, "lr/std": 0.0}, 6, "lr=0.000234"),
        ({"dtb": 0.027595, "dtb/std": 0.000302}, 6, "dtb=0.027595(±3.0e-4)"),
        ({"dtb": 0.027595, "dtb/std": 0.000279}, 6, "dtb=0.027595(±2.8e-4)"),
        ({"tflops": 16.778491, "tflops/std": 1.297581}, 6, "tflops=16.778491(±   1.3)"),
        ({"loss": 0.5, "loss/std": 0.0, "acc": 1.0}, 1, "loss=0.5          acc=1.0"),
        ({"loss": 0.5, "loss/std": math.nan}, 1, "loss=0.5(±   nan)"),
        ({"loss": 0.5}, 2, "loss=0.50"),
        ({"loss/mean": 0.5}, 2, "loss/mean=0.50"),
        ({"iter": 3, "iter/std": 1.5, "loss": 1.0}, 1, "iter=3    loss=1.0"),
        ({"loss": math.inf, "acc": math.nan}, 2, "loss=inf acc=nan"),
        ({"done": True, "n": 7}, 2, "done=True n=7"),
        ({}, 6, ""),
    ],
)
def test_hi17_a_deviation_stands_in_a_column_of_its_own(
    metrics: dict[str, Any], precision: int, expected: str
) -> None:
    assert format_compact_summary(metrics, precision) == expected


def test_hi18_the_value_after_a_counter_is_in_one_column() -> None:
    lines = [format_compact_summary({"iter": each, "loss": 0.5}) for each in (0, 1234)]
    assert len({line.index("loss=") for line in lines}) == 1
    assert format_compact_summary({"epoch": 3, "bidx": 1, "x": 1}) == "epoch=3 bidx=1    x=1"
    widths = {"iter": 0}
    line = format_compact_summary({"iter": 5, "loss": 0.5}, min_widths=widths)
    assert line == "iter=5 loss=0.500000"
    assert "  " not in format_compact_summary({"loss": 0.5, "acc": 0.25, "lr": 1e-3})


def test_hi18_constants_have_no_deviation() -> None:
    metrics = {"lr": 0.1, "lr/std": 0.5, "gain": 2.0, "gain/std": 0.5}
    assert format_compact_summary(metrics, 1) == "lr=0.1 gain=2.0(±  0.50)"
    assert format_compact_summary(metrics, 1, constant_keys=["gain"]) == "lr=0.1 gain=2.0"
    assert format_compact_summary(metrics, 1, keys_to_skip=["gain"]).startswith("lr=0.1 gain/std=")


def test_hi18_memory_is_one_part_at_the_end() -> None:
    memory = {"mem_alloc": 1.5, "mem_peak_alloc": 2.25, "mem_reserved": 3.0, "mem_alloc/std": 1.0}
    assert format_compact_summary(memory) == ""
    assert format_memory_summary(memory) == "1.50/2.25GiB"
    prefixed = {"loss": 1.0} | {f"train/{key}": each for key, each in memory.items()}
    assert summary_line(prefixed, 1) == "loss=1.0 memory=1.50/2.25GiB"
    assert format_memory_summary({"mem_peak_alloc": 2.5}) == "2.50GiB"
    assert format_memory_summary({"mem_loss": 2.5, "memo_alloc": 1.0}) == ""
    both = {"a/mem_alloc": 1.0, "b/mem_alloc": 7.0, "b/mem_peak_alloc": 8.0}
    assert format_memory_summary(both, prefix="b/") == "7.00/8.00GiB"
    assert is_memory_metric_key("train/mem_alloc/max")
    assert not is_memory_metric_key("mem_loss")


def test_hi18_the_share_is_of_the_whole_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Properties:
        total_memory = 16 * 2**30

    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda at: asked.append(at) or Properties()
    )
    memory = {"mem_alloc": 8.0, "mem_peak_alloc": 10.0}
    assert format_memory_summary(memory) == "8.00/10.00GiB (50%)"
    assert format_memory_summary(memory, device=1) == "8.00/10.00GiB (50%)"
    assert asked == [3, 1]

    def fail(_: Any) -> None:
        raise RuntimeError("no driver")

    monkeypatch.setattr(torch.cuda, "get_device_properties", fail)
    assert format_memory_summary(memory) == "8.00/10.00GiB"


def test_hi18_what_holds_several_values_stays_on_one_line() -> None:
    metrics = {"v": [1.0, 2.0], "d": {"x": 1, "y": [2.5]}, "a": np.ones(2), "t": "two\nlines"}
    line = format_compact_summary(metrics, 1)
    assert line == "v[0]=1.0 v[1]=2.0 d.x=1 d.y[0]=2.5 a[0]=1.0 a[1]=1.0 t=two lines"


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_hi19_log_metrics_says_one_line_at_info_and_the_rest_at_debug(tmp_path: Path) -> None:
    history = History(report_dir=tmp_path)
    heard = Heard()
    logger = logging.getLogger("blackboxml-test-hi19")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(heard)
    metrics = {"train/iter": 1, "train/loss": 10.0, "mem_alloc": 0.18, "mem_peak_alloc": 0.68}
    history.log_metrics({**metrics, "hist/weights": 3.0}, logger=logger)
    shown = [(each.levelno, each.getMessage()) for each in heard.records]
    assert shown == [
        (logging.INFO, "iter=1 loss=10.000000 memory=0.18/0.68GiB"),
        (logging.DEBUG, "hist/weights=3.000000"),
    ]
    history.close()


def test_hi34_the_summaries_of_one_rank(tmp_path: Path) -> None:
    history = History(report_dir=tmp_path)
    assert history.summarize_min_max_std({"a": 2, "b": "x"}) == {
        "a/mean": 2.0,
        "a/min": 2.0,
        "a/max": 2.0,
        "a/std": 0.0,
    }
    assert history.summarize_distributed_min_max_std({"a": 2}) == {}
    split = history.split_metrics_for_logging({"a": 1, "hist/b": 2, "dbg/c": 3}, ("hist/", "dbg/"))
    assert split == ({"a": 1}, {"hist/b": 2, "dbg/c": 3})
    history.close()
