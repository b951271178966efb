"""Numbered trials in processes of their own, so that one that hangs or dies is a finding too.

A worker is a module that is run with `--work PLAN NUMBERS`, and prints a line of JSON for each
number: the number, what was done, and what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
CHUNK: Final = 50
"""How many numbers a process is given: what it leaks does not add up."""


@dataclass(slots=True)
class Tally:
    """What a campaign came to.

    Attributes:
        counts: Trials by kind.
        told: What else was counted on the way, by name.
        failures: By number: what was done, and what is wrong.
    """

    counts: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, answer: dict[str, Any]) -> None:
        """Count a trial."""
        self.counts[answer["kind"]] += 1
        self.told.update(answer.get("told", {}))
        self.failures += [
            (answer["number"], f"{answer['done']}: {what}") for what in answer["found"]
        ]

    def __str__(self) -> str:
        """Say it in a line."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.counts.items()))
        told = "".join(f", {count:,} {name}" for name, count in sorted(self.told.items()))
        total = sum(self.counts.values())
        return f"{total:,} trials ({kinds}){told}, {len(self.failures)} failures"


def run_all(
    module: str,
    plan: Sequence[Any],
    numbers: Sequence[int],
    *,
    jobs: int = 1,
    seconds: float = 120.0,
    progress: Callable[[Tally], None] | None = None,
) -> Tally:
    """Run trials; one over which the process dies or hangs is left out and told.

    Args:
        module: The worker.
        plan: What it is told besides the numbers.
        numbers: Of the trials.
        jobs: How many processes at once.
        seconds: How long a trial may take.
        progress: Called after each trial.
    """
    tally, lock = Tally(), threading.Lock()
    chunks = [list(numbers[at : at + CHUNK]) for at in range(0, len(numbers), CHUNK)]

    def take(answer: dict[str, Any]) -> None:
        with lock:
            tally.add(answer)
            if progress is not None:
                progress(tally)

    def serve() -> None:
        while True:
            with lock:
                if not chunks:
                    return
                left = chunks.pop(0)
            while left:
                done = []
                for answer in _ask(module, plan, left, seconds):
                    done.append(answer["number"])
                    take(answer)
                left = [number for number in left if number not in done]

    threads = [threading.Thread(target=serve) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def _ask(
    module: str, plan: Sequence[Any], numbers: list[int], seconds: float
) -> Iterator[dict[str, Any]]:
    """Yield answers until the process ends; the last one may say that it died."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", module, "--work", json.dumps([*plan, numbers])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    left = list(numbers)
    try:
        while left:
            ready = select.select([process.stdout], [], [], seconds)[0]
            line = process.stdout.readline() if ready else ""
            if not line.startswith("{"):
                if ready and line:
                    continue
                what = f"the process ends with {process.wait()}" if ready else "it hangs"
                _end(process)
                what += f": {process.stderr.read()[-2000:]}"
                yield {"number": left[0], "kind": "lost", "done": "see there", "found": [what]}
                return
            answer = json.loads(line)
            left.remove(answer["number"])
            yield answer
    finally:
        _end(process)
        process.communicate()


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def answer(number: int, kind: str, done: str, found: list[str], told: dict[str, int]) -> None:
    """Say what came of a trial."""
    said = {"number": number, "kind": kind, "done": done, "found": found, "told": told}
    print(json.dumps(said), flush=True)


def reporter(every: float = 20.0) -> Callable[[Tally], None]:
    """Return what prints each failure as it comes, and now and then how far a campaign is."""
    last, told = [time.monotonic()], [0]

    def report(tally: Tally) -> None:
        for number, what in tally.failures[told[0] :]:
            print(f"--only {number}: {what}", flush=True)
        told[0] = len(tally.failures)
        if time.monotonic() - last[0] > every:
            last[0] = time.monotonic()
            print(tally, flush=True)

    return report
