"""Metrics of a training on one or many ranks: recorded, shown, plotted and reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackboxml.frontends.history.console import (
    format_compact_summary,
    format_memory_summary,
    is_memory_metric_key,
    log_metrics,
)
from blackboxml.frontends.history.history import History
from blackboxml.frontends.history.memory import get_memory_metrics
from blackboxml.frontends.history.stopwatch import StopWatch

if TYPE_CHECKING:
    from blackboxml.frontends.history.text_plots import tplot, tplot_dict

__all__ = [
    "History",
    "StopWatch",
    "format_compact_summary",
    "format_memory_summary",
    "get_memory_metrics",
    "is_memory_metric_key",
    "log_metrics",
    "tplot",
    "tplot_dict",
]


def __getattr__(name: str) -> Any:
    """Load what draws when it is first used: NumPy and plotext are heavy."""
    if name in {"tplot", "tplot_dict"}:
        from blackboxml.frontends.history import text_plots

        return getattr(text_plots, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
