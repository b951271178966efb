"""Environment variables: switches, and which rank of a job this process is."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

OFF: Final = frozenset({"", "0", "false", "no", "off"})
"""Texts that switch off, in any case and with any space around them."""

RANKS: Final = ("RANK", "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
"""Variables in which launchers say the rank, in the order in which they are asked."""


def is_off(text: str) -> bool:
    """Tell whether a text switches off: `0`, `false`, `no`, `off`, or nothing."""
    return text.strip().lower() in OFF


def flag(name: str, *, default: bool = False) -> bool:
    """Tell whether an environment variable is on: set, and to nothing that switches off.

    Args:
        name: The variable.
        default: What holds where it is not set at all.
    """
    text = os.environ.get(name)
    return default if text is None else not is_off(text)


def rank() -> int:
    """Return the rank of this process among those of its job, 0 where there is no job.

    An initialised `torch.distributed` knows best; otherwise the launcher's variables are asked. No
    framework is imported.
    """
    distributed: Any = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    for name in RANKS:
        text = os.environ.get(name, "")
        if text.isascii() and text.isdigit():
            return int(text)
    return 0
