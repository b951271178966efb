"""A process that kills itself before its k-th call that changes the file system."""

from __future__ import annotations

import os
import signal
from typing import Any

CALLS = ("open", "write", "rename", "replace", "link", "mkdir", "unlink", "rmdir")


def die_before(step: int) -> list[int]:
    """Let this process be killed before its call of that number; return the count of calls."""
    count = [0]
    opened = os.open

    def wrap(genuine: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            changes = genuine is not opened or arguments[1] & os.O_CREAT
            count[0] += bool(changes)
            if changes and count[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return genuine(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))
    return count
