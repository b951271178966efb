"""What processes and threads do to one run at once, and what must hold then."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from blackboxml import Run, open_run, validate
from blackboxml.errors import BlackboxError, RunIsLiveError
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from blackboxml.writer import RunWriter
from tests.torture.cast import Part, check, count_up, follow, read

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.torture.cast import Note, Stage, Told

NAME: Final = "crowded"


@dataclass(frozen=True, slots=True)
class Plot:
    """One trial.

    Attributes:
        done: What it is, for people.
        parts: Who takes part.
        acts: How many acts there are.
        prepare: Makes what is there before, in a process of its own.
        verdicts: What a validator may say of the run when all are through.
        whole: Whether who follows sees all of it.
    """

    done: str
    parts: list[Part]
    acts: int = 1
    prepare: Callable[[Path], None] | None = None
    verdicts: tuple[str, ...] = ("valid",)
    whole: bool = False
    extra: Callable[[Path, Told], str | None] | None = field(default=None)


def point(own: int, metric: str = "own") -> dict[str, Any]:
    """Return the metrics of a record: how many its session had before, and others."""
    metrics: dict[str, Any] = {metric: own, "train/loss": own / 3}
    if own % 5 == 0:
        metrics["eval/nan"] = float("nan")
    return metrics


def rotate() -> None:
    """Let every third sync of this process fail, so that journals follow one another."""
    from blackboxml.writer import recorder

    genuine, calls = recorder._sync_data, [0]

    def fail(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise OSError(5, "the disk fails")
        genuine(descriptor)

    recorder._sync_data = fail


def log(
    writer: RunWriter, note: Note, count: int, *, syncs: int = 0, killed_at: int | None = None
) -> None:
    """Log records that count up; sync after every so many, die at one of them."""
    told = note.counter(writer.attempt, writer.rank, "own")
    for own in range(count):
        if own == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        writer.log(point(own))
        told()
        if syncs and own % syncs == 0:
            writer.sync()


# -- threads and forks


def threads(chance: random.Random) -> Plot:
    """Threads log into one run, while one of them syncs and configures."""
    count, records = chance.randint(2, 12), chance.randint(20, 150)
    rotating = chance.random() < 0.5

    def work(stage: Stage, note: Note) -> None:
        if rotating:
            rotate()
        run = Run(NAME, log_dir=stage.folder / "runs", environment=(), seal=False).start()
        gate = threading.Barrier(count + 1)

        def one(number: int) -> None:
            name = f"t{number}/own"
            told = note.counter(0, 0, name)
            gate.wait()
            for own in range(records):
                run.log(point(own, name))
                told()

        workers = [threading.Thread(target=one, args=(number,)) for number in range(count)]
        for worker in workers:
            worker.start()
        gate.wait()
        for number in range(8):
            run.sync()
            run.log_config({f"p{number}": number})
        for worker in workers:
            worker.join()
        run.finish()

    parts = [Part("writer", work), Part("follower", follow, 1), Part("reader", read, 1)]
    done = f"{count} threads log {records} records each" + ", and journals rotate" * rotating
    return Plot(done, parts, 2, whole=True)


def forks(chance: random.Random) -> Plot:
    """Processes are forked from one that logs; what they do to its run is nothing."""
    children, records = chance.randint(1, 6), chance.randint(40, 200)
    at = sorted(chance.sample(range(records), children))
    ways = [chance.choice(["log", "finish", "own", "leave", "die"]) for _ in at]

    def work(stage: Stage, note: Note) -> None:
        run = Run(NAME, log_dir=stage.folder / "runs", environment=(), seal=False).start()
        told, pids = note.counter(0, 0, "own"), []
        for own in range(records):
            if own in at:
                pids.append(_fork(run, ways[at.index(own)], stage))
            run.log(point(own))
            told()
        for pid in pids:
            os.waitpid(pid, 0)
        run.finish()

    parts = [Part("writer", work), Part("follower", follow, 1), Part("checker", check, 1)]
    return Plot(f"{records} records, and forks that {', '.join(ways)}", parts, 2, whole=True)


def _fork(run: Run, way: str, stage: Stage) -> int:
    """Fork a child that does something to a run that it inherits."""
    if pid := os.fork():
        return pid
    if way == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if way != "leave":
        for _ in range(5):
            run.log({"own": -1})
        run.sync()
    if way == "finish":
        run.finish("failed")
    if way == "own":
        with Run("own", log_dir=stage.folder / "others", environment=(), seal=False) as other:
            other.log({"own": 0})
    os._exit(0)


# -- ranks


def ranks(chance: random.Random) -> Plot:
    """Many ranks write one run; some rotate, some are killed, rank 0 stays to the end."""
    count = chance.choice([2, 3, 5, 8, 16, 32, 64])
    records = chance.randint(5, max(10, 600 // count))
    rotating = {rank for rank in range(count) if chance.random() < 0.3}
    dying = {rank for rank in range(1, count) if chance.random() < 0.15}
    ends = {rank: chance.randrange(records) for rank in dying}

    def lead(stage: Stage, note: Note) -> None:
        if 0 in rotating:
            rotate()
        writer = RunWriter.create(stage.folder / "runs", NAME)
        log(writer, note, records, syncs=3 * (0 in rotating))
        stage.over(0, 60)
        writer.finish()

    def join(rank: int) -> Callable[[Stage, Note], None]:
        def work(stage: Stage, note: Note) -> None:
            if rank in rotating:
                rotate()
            writer = RunWriter.join(stage.run(), rank, 0)
            syncs = 3 * (rank in rotating)
            log(writer, note, records, syncs=syncs, killed_at=ends.get(rank))
            writer.finish()

        return work

    parts = [Part(f"rank{rank}", join(rank)) for rank in range(1, count)]
    parts += [Part("rank0", lead, 1), Part("follower", follow, 2), Part("reader", read, 2)]
    parts += [Part("checker", check, 2)] * (count < 16)
    done = f"{count} ranks log {records} each, {sorted(rotating)} rotate, {sorted(dying)} die"
    return Plot(done, parts, 3, verdicts=("valid", "incomplete"), whole=True)


# -- two at once that each think they are alone


def resume(chance: random.Random) -> Plot:
    """Several processes go on with one run; none knows that the others live."""
    count, sealed = chance.randint(2, 4), chance.random() < 0.5
    records = [chance.randint(1, 60) for _ in range(count)]
    waits = [chance.choice((0.0, 0.0, chance.random() * 0.03)) for _ in range(count)]
    sealing = [chance.random() < 0.4 for _ in range(count)]

    def go_on(number: int) -> Callable[[Stage, Note], None]:
        def work(stage: Stage, note: Note) -> None:
            from blackboxml.base import process

            process.liveness = lambda *_: "unknown"
            time.sleep(waits[number])
            run = Run(NAME, resume=stage.run(), environment=(), seal=sealing[number])
            try:
                run.start()
            except RunIsLiveError as error:
                note.say(refused=str(error))
                return
            told = note.counter(run.attempt, 0, "own")
            for own in range(records[number]):
                run.log(point(own))
                told()
            run.finish()

        return work

    parts = [Part(f"writer{number}", go_on(number)) for number in range(count)]
    parts += [Part("reader", read, 1)]
    done = f"{count} go on with a run that is {'' if sealed else 'not '}sealed, {sealing} seal it"
    prepare = lambda folder: _write(folder, sealed=sealed)  # noqa: E731 - of this plot
    return Plot(done, parts, 2, prepare)


def _write(folder: Path, *, sealed: bool = False, packed: bool = False, count: int = 50) -> None:
    """Leave a run that has ended."""
    with Run(NAME, log_dir=folder / "runs", environment=(), seal=sealed) as run:
        for own in range(count):
            run.log(point(own))
    if packed:
        pack(run.path)


def finish_off(chance: random.Random) -> Plot:
    """Several processes seal, pack and unpack one run, while others read it."""
    kind = chance.choice(["ended", "sealed", "packed"])
    ways = [chance.choice(["seal", "seal", "pack"]) for _ in range(chance.randint(2, 4))]
    waits = [chance.choice((0.0, chance.random() * 0.04)) for _ in ways]

    def work(number: int) -> Callable[[Stage, Note], None]:
        def act(stage: Stage, note: Note) -> None:
            path = stage.run() if kind != "packed" else _only(stage)
            time.sleep(waits[number])
            try:
                (seal if ways[number] == "seal" else pack)(path)
            except (BlackboxError, OSError) as error:
                note.say(refused=f"{type(error).__name__}: {error}")

        return act

    parts = [Part(f"{way}{number}", work(number)) for number, way in enumerate(ways)]
    parts += [Part(f"reader{number}", _read_fixed, 1) for number in range(2)]

    def prepare(folder: Path) -> None:
        _write(folder, sealed=kind != "ended", packed=kind == "packed")

    return Plot(f"{', '.join(ways)} of a run that is {kind}", parts, 2, prepare, extra=_sealable)


def _only(stage: Stage) -> Path:
    return next((stage.folder / "runs").iterdir())


def _read_fixed(stage: Stage, note: Note) -> None:
    """Read a run that has ended: each answer is all of it, whatever is done to it meanwhile."""
    path, ending, answers = _only(stage), False, 0
    kept = open_run(path)
    while True:
        for reader in (kept, open_run(path)):
            found = count_up(reader.records())
            assert found == {(0, 0, "own"): 50}, f"records() gives {found}"
            assert reader.arrow("train").num_rows == 50
            assert reader.summary()["own"].n == 50
            assert reader.status == "completed"
            answers += 1
        report = validate(path)
        if report.verdict != "valid":
            said = "; ".join(map(str, report.problems[:3]))
            note.say(damaged=f"{report.verdict}: {said or report.reason}")
        if ending:
            break
        ending = stage.over(0, 0.001)
    note.say(answers=answers)


def _sealable(path: Path, told: Told) -> str | None:
    """Seal what is left, and say what is wrong with it then."""
    seal(path)
    found = count_up(open_run(path).records())
    if found != {(0, 0, "own"): 50}:
        return f"sealed at last, it holds {found}"
    return None if validate(path).verdict == "valid" else str(validate(path).problems[:3])


def life(chance: random.Random) -> Plot:
    """A run is written, sealed, packed, unpacked and gone on with, while others look on."""
    records, turns = chance.randint(10, 80), chance.randint(1, 2)
    rotating, packing = chance.random() < 0.5, chance.random() < 0.5

    def work(stage: Stage, note: Note) -> None:
        if rotating:
            rotate()
        path = None
        for _ in range(turns + 1):
            given: dict[str, Any] = {"log_dir": stage.folder / "runs"}
            run = Run(NAME, environment=(), **({"resume": path} if path else given)).start()
            path, told = run.path, note.counter(run.attempt, 0, "own")
            for own in range(records):
                run.log(point(own))
                told()
                if own % 4 == 0:
                    run.sync()
            run.finish()
            if packing:
                pack(path)
                seal(path)

    parts = [Part("writer", work), Part("reader", read, 1), Part("checker", check, 1)]
    done = f"{turns + 1} attempts of {records} records, sealed" + " and packed" * packing
    return Plot(done + ", rotating" * rotating, parts, 2)


PLOTS: Final[dict[str, Callable[[random.Random], Plot]]] = {
    "threads": threads,
    "forks": forks,
    "ranks": ranks,
    "resume": resume,
    "seal": finish_off,
    "life": life,
}
