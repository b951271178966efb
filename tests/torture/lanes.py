"""Lanes: each runs one trial after another in two processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.torture import scenarios
from tests.torture.scenarios import Said
from tests.torture.trials import KINDS, SECONDS, Outcome, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SHIM: Final = Path(__file__).with_name("shim.c")


def build_shim(folder: Path) -> Path:
    """Compile `shim.c` with the compiler of this machine, or the one that pip installs."""
    target = folder / "shim.so"
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    command = [compiler] if compiler else [sys.executable, "-m", "ziglang", "cc"]
    subprocess.run(
        [*command, "-O1", "-shared", "-fPIC", "-o", target, SHIM, "-ldl"],
        check=True,
        env=os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)},
    )
    return target


class Server:
    """One of the two processes; it is started again when it died or hung."""

    def __init__(self, role: str, environment: dict[str, str]) -> None:
        """Prepare; `ask` starts it."""
        self._role = role
        self._environment = os.environ | environment
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: dict[str, Any]) -> Any:
        """Return what it answers.

        Raises:
            ChildProcessError: If it ends or hangs over the question.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.torture.trials", self._role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).resolve().parents[2],
                env=self._environment,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        ready = select.select([process.stdout], [], [], 2 * SECONDS)[0]
        answer = process.stdout.readline() if ready else ""
        if not answer:
            said = f"ended with {process.wait()}" if ready else "hangs"
            self.close()
            raise ChildProcessError(f"the {self._role} {said}")
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()


class Lane:
    """Runs one trial after another in a folder of its own."""

    def __init__(self, shim: Path, folder: Path) -> None:
        """Start nothing yet."""
        self._folder = folder
        self._templates = folder / "templates"
        self._actor = Server("actor", {"LD_PRELOAD": str(shim)})
        self._checker = Server("checker", {})

    def run(self, trial: Trial, *, keep: Path | None = None) -> Outcome:
        """Run a trial and look at what it left; the folder can be kept."""
        place = Path(tempfile.mkdtemp(dir=self._folder))
        folder = place / "trial"
        try:
            template = scenarios.prepared(trial.scenario, self._templates)
            scenarios.copy(template, folder)
            try:
                answer = self._actor.ask(asdict(trial) | {"folder": str(folder)})
            except ChildProcessError as error:
                return Outcome(Said(), {}, 0.0, False, str(error))
            said = Said(**answer["said"])
            if keep is not None:
                shutil.copytree(folder, keep, symlinks=True)
            question = {
                "scenario": trial.scenario,
                "folder": str(folder),
                "said": answer["said"],
            }
            try:
                what = self._checker.ask(question)
            except ChildProcessError as error:
                what = str(error)
            calls = dict(zip(KINDS, answer["calls"], strict=False))
            return Outcome(said, calls, answer["seconds"], answer["killed"], what)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def close(self) -> None:
        """End the processes."""
        self._actor.close()
        self._checker.close()


@dataclass(slots=True)
class Tally:
    """What a campaign came to.

    Attributes:
        counts: Trials by scenario.
        ends: Trials by what stopped them: killed, raised, warned or nothing.
        records: Records that were acknowledged in all.
        failures: The number of each trial that failed, the trial, and what is wrong.
    """

    counts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    records: int = 0
    failures: list[tuple[int, Trial, str]] = field(default_factory=list)

    def add(self, number: int, trial: Trial, outcome: Outcome) -> None:
        """Count a trial."""
        said = outcome.said
        self.counts[trial.scenario] += 1
        ends = {"killed": outcome.killed, "raised": said.raised, "warned": said.warned}
        self.ends[next((name for name, true in ends.items() if true), "came to its end")] += 1
        self.records += said.records
        if outcome.what is not None:
            self.failures.append((number, trial, outcome.what))

    def __str__(self) -> str:
        """Say it in a line."""
        ends = ", ".join(f"{count:,} {name}" for name, count in sorted(self.ends.items()))
        return (
            f"{sum(self.counts.values()):,} trials ({ends}), "
            f"{self.records:,} records acknowledged, {len(self.failures)} failures"
        )


@contextlib.contextmanager
def lanes(count: int) -> Iterator[list[Lane]]:
    """Yield lanes, in a scratch folder that goes with them."""
    with tempfile.TemporaryDirectory(prefix="torture-") as scratch:
        shim = build_shim(Path(scratch))
        made = []
        for number in range(count):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            made.append(Lane(shim, folder))
        try:
            yield made
        finally:
            for lane in made:
                lane.close()


def run_all(
    numbered: Iterable[tuple[int, Trial]],
    running: list[Lane],
    progress: Callable[[Tally], None] | None = None,
) -> Tally:
    """Run trials on some lanes, each as soon as one is free.

    Args:
        numbered: Trials with their numbers.
        running: The lanes.
        progress: Called after each trial.
    """
    tally, lock = Tally(), threading.Lock()
    source = iter(numbered)

    def work(lane: Lane) -> None:
        while True:
            with lock:
                item = next(source, None)
            if item is None:
                return
            outcome = lane.run(item[1])
            with lock:
                tally.add(*item, outcome)
                if progress is not None:
                    progress(tally)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def reporter(
    describe: Callable[[int, Trial, str], str], every: float = 20.0
) -> Callable[[Tally], None]:
    """Return what prints each failure as it comes, and now and then how far a campaign is."""
    last, told = [time.monotonic()], [0]

    def report(tally: Tally) -> None:
        for failure in tally.failures[told[0] :]:
            print(describe(*failure), flush=True)
        told[0] = len(tally.failures)
        if time.monotonic() - last[0] > every:
            last[0] = time.monotonic()
            print(tally, flush=True)

    return report
