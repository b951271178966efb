"""What is said of the process as parameters `ezpz.*`, the names that dashboards know."""

from __future__ import annotations

import os
import shlex
import sys
from datetime import datetime
from typing import Any, Final

from blackboxml.base import environment, variable
from blackboxml.version import __version__

_SCHEDULERS: Final = {"PBS_JOBID": "PBS", "SLURM_JOB_ID": "SLURM"}
_DEVICES: Final = ("cuda", "xpu", "mps")


def describe() -> dict[str, Any]:
    """Return what is known of the process, by name.

    No framework is imported; what only PyTorch knows is told once a script has imported it.
    """
    captured = environment.capture(["hostname", "python", "torch"])
    now = datetime.now().astimezone()
    torch: Any = sys.modules.get("torch")
    return {
        "version": f"blackboxml {__version__}",
        "hostname": captured["hostname"],
        "machine": captured["hostname"].partition(".")[0],
        "scheduler": next((_SCHEDULERS[key] for key in _SCHEDULERS if key in os.environ), "none"),
        "device": _device(torch),
        "backend": _backend(torch),
        "world_size": variable.world_size(),
        "rank": variable.rank(),
        "local_rank": variable.local_rank(),
        "working_directory": os.getcwd(),
        "timestamp": now.isoformat(timespec="seconds"),
        "date": f"{now:%Y-%m-%d}",
        "year": now.year,
        "month": now.month,
        "day": now.day,
        "python_version": captured["python"],
        "torch_version": captured["torch"],
        "command": shlex.join(sys.argv),
        "git_branch": environment.git_branch(),
    }


def _device(torch: Any) -> str | None:
    if torch is None:
        return None
    for name in _DEVICES:
        module = getattr(torch, name, None) or getattr(torch.backends, name, None)
        if module is not None and module.is_available():
            return name
    return "cpu"


def _backend(torch: Any) -> str | None:
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return str(distributed.get_backend())
