"""Environment variables: switches, and which rank of a job this process is."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

OFF: Final = frozenset({"", "0", "false", "no", "off"})
"""Texts that switch off, in any case and with any space around them."""

RANKS: Final = ("RANK", "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
"""Variables in which launchers say the rank, in the order in which they are asked."""

WORLD_SIZES: Final = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS")
"""Variables in which they say how many processes there are."""

LOCAL_RANKS: Final = (
    *("LOCAL_RANK", "PMI_LOCAL_RANK", "MPI_LOCALRANKID"),
    *("OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"),
)
"""Variables in which they say the rank among the processes of this host."""


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
    distributed = _distributed()
    return _number(RANKS, 0) if distributed is None else int(distributed.get_rank())


def world_size() -> int:
    """Return how many processes the job has, 1 where there is no job; found like `rank`."""
    distributed = _distributed()
    return _number(WORLD_SIZES, 1) if distributed is None else int(distributed.get_world_size())


def local_rank() -> int:
    """Return the rank among the processes of this host, as the launcher says it, or 0."""
    return _number(LOCAL_RANKS, 0)


def _distributed() -> Any:
    """Return `torch.distributed` where a script has initialised it, else None."""
    module: Any = getattr(sys.modules.get("torch"), "distributed", None)
    return module if module and module.is_available() and module.is_initialized() else None


def _number(names: tuple[str, ...], default: int) -> int:
    """Return what the first of some variables says that holds a number."""
    texts = (os.environ.get(name, "") for name in names)
    return next((int(text) for text in texts if text.isascii() and text.isdigit()), default)
