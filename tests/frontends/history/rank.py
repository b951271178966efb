"""One rank of a job over gloo: python rank.py SCENARIOS FOLDER; answers by a file of JSON.

The launcher's variables say which rank this is. All ranks take the same scenarios, in turn.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist

from blackboxml.frontends.history import History

RANK = int(os.environ.get("RANK", "0"))
FOLDER = Path(sys.argv[-1])
WARNED: list[str] = []


class Heard(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        WARNED.append(record.getMessage())


def open_history(**options: Any) -> History:
    return History(**({"report_dir": FOLDER, "wait": 20.0} | options))


def told(history: History) -> dict[str, Any]:
    return {
        "path": str(history.path),
        "id": history.run_id,
        "together": history.distributed_history,
        "history": {key: list(map(repr, each)) for key, each in history.history.items()},
    }


def names() -> dict[str, Any]:
    """Other orders, other metrics, and NaN on one rank."""
    history = open_history(name="names")
    metrics = {"train/a": 1.0, "train/b": 100.0}
    if RANK == 1:
        metrics = dict(reversed(metrics.items()))
    if RANK == 2:
        metrics["train/more"] = 7.0
    if RANK == 3:
        metrics = {"train/a": math.nan}
    line = history.update(metrics)
    big = [123880.0, 123920.0, 123870.0, 123890.0][RANK]
    history.update({"tps": big, "n": RANK, "eval/x": 1.0})
    history.finalize(FOLDER / "final", plot=False)
    return told(history) | {"line": line}


def unequal() -> dict[str, Any]:
    """Rank 3 misses every third step, and rank 0 alone evaluates."""
    history = open_history(name="unequal", wait=1.0)
    started = time.monotonic()
    for step in range(30):
        if RANK != 3 or step % 3:
            history.update({"train/loss": float(RANK)}, step=step)
        if RANK == 0 and step % 10 == 9:
            history.update({"eval/loss": 1.0}, step=step)
    seconds = time.monotonic() - started
    dist.barrier()
    history.close()
    return told(history) | {"seconds": seconds}


def batched() -> dict[str, Any]:
    """Statistics of several updates at once, and of the rest at the end."""
    history = open_history(name="batched", every=4)
    for step in range(10):
        history.update({"train/loss": float(step + RANK)}, step=step)
    history.finalize(FOLDER / "batched", plot=False)
    return told(history)


def journals() -> dict[str, Any]:
    """A journal of each rank, and the lines that say what differs between ranks."""
    history = open_history(name="journals", rank_journals=True)
    history.update({"loss": float(RANK)})
    differing = history.summarize_distributed_min_max_std({"loss": RANK, "same": 1})
    history.close()
    return told(history) | {"differing": differing}


def off() -> dict[str, Any]:
    """Switched off by the option, and by the environment; a switch that says `0` is none."""
    found = {}
    os.environ["EZPZ_LOCAL_HISTORY"] = "0"
    for what, options in (("auto", {}), ("option", {"distributed_history": False})):
        history = open_history(name=what, **options)
        history.update({"loss": float(RANK)})
        found[what] = told(history)
        history.close()
    os.environ["EZPZ_NO_DISTRIBUTED_HISTORY"] = "1"
    history = open_history(name="environment")
    history.update({"loss": float(RANK)})
    found["environment"] = told(history)
    history.close()
    del os.environ["EZPZ_NO_DISTRIBUTED_HISTORY"]
    return found


def absent() -> dict[str, Any]:
    """Rank 3 never takes part."""
    if RANK == 3:
        dist.barrier()
        return {}
    started = time.monotonic()
    history = open_history(name="absent", wait=1.0)
    for step in range(20):
        history.update({"loss": float(RANK)}, step=step)
    seconds = time.monotonic() - started
    dist.barrier()
    history.close()
    return told(history) | {"seconds": seconds}


def killed() -> dict[str, Any]:
    """Rank 2 is killed, and rank 1 stopped, while they train."""
    history = open_history(name="killed", wait=1.0)
    started = time.monotonic()
    for step in range(30):
        if step == 10 and RANK == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 20 and RANK == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        history.update({"loss": float(RANK)}, step=step)
    seconds = time.monotonic() - started
    history.close()
    return told(history) | {"seconds": seconds}


def headless() -> dict[str, Any]:
    """Rank 0 is killed; the others go on."""
    history = open_history(name="headless", wait=1.0)
    started = time.monotonic()
    for step in range(200):
        if step == 10 and RANK == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        history.update({"loss": float(RANK)}, step=step)
        time.sleep(0.005)
    seconds = time.monotonic() - started
    history.close()
    return told(history) | {"seconds": seconds}


if __name__ == "__main__":
    logging.getLogger("blackboxml").addHandler(Heard(logging.WARNING))
    dist.init_process_group("gloo")
    for scenario in sys.argv[1].split(","):
        dist.barrier()
        WARNED.clear()
        answer = globals()[scenario]() | {"warned": list(WARNED)}
        file = FOLDER / f"{scenario}.{RANK}.json"
        file.with_suffix(".tmp").write_text(json.dumps(answer))
        file.with_suffix(".tmp").rename(file)
    os._exit(0)  # gloo waits for those that were killed
