"""Damage runs at random, and see that no validator is fooled and no reader surprised.

    python -m tests.torture.mutants --seed 1 --count 100000
    python -m tests.torture.mutants --seed 1 --only 4711 --keep /tmp/mutant
    python -m tests.torture.mutants --bits sealed

`judge` says what is claimed. A mutant is told by the seed and its number alone: each failure is
printed with the command that makes it again. With `--log FILE`, a campaign that was stopped goes on
where it was. Processes of their own do the work, so that one that hangs or dies is a finding too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.torture.subjects import BASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.torture.judge import Mutant
    from tests.torture.subjects import Base

ROOT: Final = Path(__file__).resolve().parents[2]
CHUNK: Final = 500
SECONDS: Final = 60.0
"""How long one mutant may take before it counts as a hang."""
MEMORY: Final = 8 * 2**30
VOUCHED: Final = 0.2
"""Share of the mutants of sealed runs whose sizes and digests are made to fit."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which mutants there are.

    Attributes:
        seed: What they are drawn from.
        bits: The base every bit of which is flipped in turn, instead of drawing.
        stride: How many bits further the next one is.
        bases: The folder with the bases.
        variant: A validator that is known to be bad, by its name in `variants`.
    """

    seed: int = 1
    bits: str = ""
    stride: int = 1
    bases: str = str(BASES)
    variant: str = ""


@dataclass(slots=True)
class Outcome:
    """What a campaign found."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)


# -- one mutant


class Bench:
    """Makes mutants in a scratch directory and judges them."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        """Lay out a copy of each base."""
        from tests.torture.subjects import load

        self._plan = plan
        self._bases: dict[str, Base] = {}
        self._places: dict[str, Path] = {}
        folders = sorted(path for path in Path(plan.bases).iterdir() if path.is_dir())
        for folder in folders:
            if plan.bits in {"", folder.name}:
                place = scratch / folder.name
                shutil.copytree(folder, place)
                self._places[folder.name] = place
                self._bases[folder.name] = load(place)
        if not self._bases:
            raise FileNotFoundError(f"{plan.bases} has no base {plan.bits}")

    @property
    def bases(self) -> dict[str, Base]:
        """The runs that are damaged."""
        return self._bases

    def bits(self) -> int:
        """Return how many bits the only base has."""
        (base,) = self._bases.values()
        return 8 * sum(map(len, base.files.values()))

    def make(self, index: int) -> Mutant:
        """Return a mutant by its number."""
        from tests.torture.judge import Mutant
        from tests.torture.mutate import mutate, vouch

        if self._plan.bits:
            return self._flip(index * self._plan.stride)
        rng = random.Random(f"{self._plan.seed}:{index}")
        base = self._bases[rng.choice(sorted(self._bases))]
        done, changed = mutate(rng, base.files)
        vouched = bool(base.sealed and changed and rng.random() < VOUCHED)
        if vouched:
            changed = vouch(base.files, changed)
        return Mutant(index, base, done, changed, vouched)

    def judge(self, mutant: Mutant) -> str | None:
        """Return what is wrong about a mutant, or None."""
        from tests.torture.judge import judge

        if not mutant.changed:
            return None
        with self.laid_out(mutant) as place:
            return judge(mutant, place, reading=not self._plan.bits)

    @contextmanager
    def laid_out(self, mutant: Mutant) -> Iterator[Path]:
        """Put a mutant in the place of its base, and the base back."""
        place, base = self._places[mutant.base.name], mutant.base
        _write(place, mutant.changed)
        try:
            yield place
        finally:
            _write(place, {name: base.files.get(name) for name in mutant.changed})

    def _flip(self, bit: int) -> Mutant:
        from tests.torture.judge import Mutant

        (base,) = self._bases.values()
        at = bit // 8
        for name, data in base.files.items():
            if at < len(data):
                flipped = bytearray(data)
                flipped[at] ^= 1 << bit % 8
                done = [f"flip bit {bit % 8} of byte {at} of {name}"]
                return Mutant(bit // self._plan.stride, base, done, {name: bytes(flipped)}, False)
            at -= len(data)
        raise IndexError(bit)


def _write(place: Path, files: dict[str, bytes | None]) -> None:
    """Make files what they are to be."""
    for name, data in files.items():
        if data is None:
            (place / name).unlink(missing_ok=True)
        else:
            (place / name).write_bytes(data)


# -- many, in processes of their own


class Worker:
    """A process that judges mutants, and what it is at."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        """Start it."""
        self._plan = plan
        self._scratch = scratch
        self._process: subprocess.Popen[str] | None = None

    def run(self, begin: int, end: int) -> Outcome:
        """Judge a range of mutants; one that hangs or kills the process is a failure of its own."""
        outcome = Outcome()
        while begin < end:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.write(f"{begin} {end}\n")
                process.stdin.flush()
            answer = self._answer(process)
            if answer is not None:
                outcome.counts.update(answer["counts"])
                outcome.failures += answer["failures"]
                return outcome
            at = self._at()
            said = "hangs" if process.poll() is None else f"ends with {process.poll()}"
            self.close()
            outcome.failures.append({"index": at, "what": f"the process {said}"})
            # What came before it in this range was not told: once more, without that one.
            if at > begin:
                part = self.run(begin, at)
                outcome.counts.update(part.counts)
                outcome.failures += part.failures
            begin = at + 1
        return outcome

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch.mkdir(parents=True)
            options = json.dumps([getattr(self._plan, name) for name in Plan.__slots__])
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.mutants", "--work", options, self._scratch],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            assert self._process.stdout is not None
            if self._process.stdout.readline() != "ready\n":
                raise RuntimeError("the bases cannot be judged; what is wrong stands above")
        return self._process

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any] | None:
        """Return what the process says, or None if it hangs or has died."""
        assert process.stdout is not None
        at, since = -1, time.monotonic()
        while True:
            if select.select([process.stdout], [], [], 0.5)[0]:
                line = process.stdout.readline()
                if line:
                    return dict(json.loads(line))
                process.wait()
                return None
            if (now := self._at()) != at:
                at, since = now, time.monotonic()
            elif time.monotonic() - since > SECONDS:
                return None

    def _at(self) -> int:
        """Return the number of the mutant that the process is at."""
        data = (self._scratch / "at").read_bytes() if (self._scratch / "at").exists() else b""
        return int(struct.unpack("<q", data)[0]) if data else 0


def work(plan: Plan, scratch: Path) -> None:
    """Judge the ranges that come in, one answer each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if plan.variant:
        from tests.torture.variants import VARIANTS

        VARIANTS[plan.variant]()
    bench = Bench(plan, scratch / "runs")
    note = os.open(scratch / "at", os.O_WRONLY | os.O_CREAT)
    print("ready", flush=True)
    for line in sys.stdin:
        begin, end = map(int, line.split())
        counts: Counter[str] = Counter()
        failures = []
        for index in range(begin, end):
            os.pwrite(note, struct.pack("<q", index), 0)
            mutant = bench.make(index)
            counts[mutant.base.name if mutant.changed else "unchanged"] += 1
            wrong = bench.judge(mutant)
            if wrong is not None:
                failures.append(
                    {
                        "index": index,
                        "what": wrong,
                        "base": mutant.base.name,
                        "done": mutant.done,
                        "vouched": mutant.vouched,
                    }
                )
        print(json.dumps({"counts": counts, "failures": failures}), flush=True)


def campaign(
    plan: Plan,
    count: int,
    workers: int = 1,
    log: Path | None = None,
    *,
    chunk: int = CHUNK,
    tell: bool = False,
) -> Outcome:
    """Judge many mutants.

    Args:
        plan: Which ones.
        count: How many, from number 0.
        workers: How many processes.
        log: Where what was done is kept, to go on later.
        chunk: How many are given to a process at once.
        tell: Print failures as they come, and how far it is.
    """
    outcome = Outcome()
    todo = [(begin, min(begin + chunk, count)) for begin in range(0, count, chunk)]
    done = _resumed(log, plan, outcome)
    todo = [each for each in reversed(todo) if each not in done]
    lock = threading.Lock()
    began, total = time.monotonic(), sum(end - begin for begin, end in todo)
    past = 0

    def keep(begin: int, end: int, part: Outcome) -> None:
        nonlocal past
        outcome.counts.update(part.counts)
        outcome.failures += part.failures
        past += end - begin
        if log is not None:
            entry = {"plan": _key(plan), "range": [begin, end], "counts": part.counts}
            with log.open("a") as file:
                file.write(json.dumps(entry | {"failures": part.failures}) + "\n")
        if tell:
            for failure in part.failures:
                print(describe(plan, failure), flush=True)
            rate = past / (time.monotonic() - began)
            print(f"{past:,} of {total:,}, {60 * rate:,.0f} a minute", flush=True)

    def serve(number: int) -> None:
        worker = Worker(plan, Path(scratch, str(number)))
        try:
            while True:
                with lock:
                    if not todo:
                        return
                    begin, end = todo.pop()
                part = worker.run(begin, end)
                with lock:
                    keep(begin, end, part)
        finally:
            worker.close()

    with tempfile.TemporaryDirectory(prefix="mutants-", dir=_memory()) as scratch:
        threads = [threading.Thread(target=serve, args=(each,)) for each in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return outcome


def describe(plan: Plan, failure: dict[str, Any]) -> str:
    """Return a failure as text, with the command that makes it again."""
    which = f"--bits {plan.bits} --stride {plan.stride}" if plan.bits else f"--seed {plan.seed}"
    done = "; ".join(failure.get("done", ["see there"])) + " (vouched)" * failure.get("vouched", 0)
    return (
        f"{failure.get('base', 'a base')}: {done}: {failure['what']}\n"
        f"    python -m tests.torture.mutants {which} --only {failure['index']}"
    )


def _key(plan: Plan) -> list[Any]:
    return [plan.seed, plan.bits, plan.stride]


def _resumed(log: Path | None, plan: Plan, outcome: Outcome) -> set[tuple[int, int]]:
    """Return the ranges that were done before."""
    done: set[tuple[int, int]] = set()
    if log is None or not log.exists():
        return done
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry["plan"] == _key(plan):
            done.add((entry["range"][0], entry["range"][1]))
            outcome.counts.update(entry["counts"])
            outcome.failures += entry["failures"]
    return done


def _memory() -> str | None:
    """Return a folder in memory, if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# -- the command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a campaign, or one mutant."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--only", type=int, help="judge this one, in this process")
    parser.add_argument("--keep", type=Path, help="with --only: copy it to this new directory")
    parser.add_argument("--bits", default="", metavar="BASE", help="flip every bit of a base")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--bases", default=str(BASES), help="folder with the bases")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--log", type=Path, help="file to keep what was done in, to go on later")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.work:
        work(Plan(*json.loads(given.work[0])), Path(given.work[1]))
        return 0
    plan = Plan(given.seed, given.bits, given.stride, given.bases)
    if given.only is not None:
        return _one(plan, given.only, given.keep)
    count = given.count
    if plan.bits:
        count = -(-bits_of(Path(plan.bases, plan.bits)) // plan.stride)
    outcome = campaign(plan, count, given.workers, given.log, tell=True)
    for name, number in sorted(outcome.counts.items()):
        print(f"{name:<24}{number:>10,}")
    print(f"{sum(outcome.counts.values()):,} mutants, {len(outcome.failures)} failures")
    return 1 if outcome.failures else 0


def bits_of(base: Path) -> int:
    """Return how many bits a run has."""
    return 8 * sum(file.stat().st_size for file in base.rglob("*") if file.is_file())


def _one(plan: Plan, index: int, keep: Path | None) -> int:
    """Judge one mutant in this process, and tell all about it."""
    with tempfile.TemporaryDirectory(prefix="mutant-", dir=_memory()) as scratch:
        bench = Bench(plan, Path(scratch, "runs"))
        mutant = bench.make(index)
        print(f"{mutant.base.name}: {'; '.join(mutant.done)}{' (vouched)' * mutant.vouched}")
        if keep is not None:
            with bench.laid_out(mutant) as place:
                shutil.copytree(place, keep)
        wrong = bench.judge(mutant)
        print(wrong or "as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
