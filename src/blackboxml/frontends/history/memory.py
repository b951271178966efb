"""Memory of an accelerator, as metrics."""

from __future__ import annotations

import sys
from typing import Any, Final

from blackboxml.base.variable import flag

VARIABLE: Final = "EZPZ_TRACK_MEMORY"
_GIB: Final = 2**30
_KINDS: Final = ("cuda", "xpu")


def get_memory_metrics(
    device: Any = None, *, reset_peak: bool = True, prefix: str = ""
) -> dict[str, float]:
    """Return the memory of a CUDA or XPU device in GiB; empty on a CPU or MPS.

    Args:
        device: As for `torch.device`; by default the current accelerator.
        reset_peak: Begin the peaks anew, so that the next ones are those since this call.
        prefix: Put before each name, such as `train/`.

    Returns:
        `mem_alloc`, `mem_peak_alloc`, `mem_reserved` and `mem_peak_reserved`; empty where
        `EZPZ_TRACK_MEMORY` is off, or torch was not imported.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not flag(VARIABLE, default=True):
        return {}
    kind = _kind(torch, device)
    if kind is None:
        return {}
    memory = getattr(torch, kind)
    try:
        found = {
            f"{prefix}mem_alloc": memory.memory_allocated(device) / _GIB,
            f"{prefix}mem_peak_alloc": memory.max_memory_allocated(device) / _GIB,
            f"{prefix}mem_reserved": memory.memory_reserved(device) / _GIB,
            f"{prefix}mem_peak_reserved": memory.max_memory_reserved(device) / _GIB,
        }
        if reset_peak:
            memory.reset_peak_memory_stats(device)
    except (AttributeError, ImportError):  # a build without these functions
        return {}
    return found


def _kind(torch: Any, device: Any) -> str | None:
    """Return `cuda` or `xpu`, None for a device that counts no memory."""
    if device is None or isinstance(device, int):
        there = (each for each in _KINDS if hasattr(torch, each))
        return next((each for each in there if getattr(torch, each).is_available()), None)
    kind = torch.device(device).type
    return kind if kind in _KINDS else None
