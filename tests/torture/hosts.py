"""Write one run from several machines, and read it on another that sees it late.

    python -m tests.torture.hosts --seed 1 --count 1000
    python -m tests.torture.hosts --seed 1 --only 47

Each machine is a mount of its own of one folder (`client`), with attributes that are old, writes
that come later and a clock of its own; processes say that they are of another host. What is
claimed: in the end all that was acknowledged is there, on each of them; who follows sees each
record once and in order; nobody ever calls the run crashed or damaged while it is written. It needs
FUSE (`/dev/fuse`, `fusermount3`) and `mfusepy`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml import open_run, validate
from blackboxml.collection.catalogue import Catalogue
from blackboxml.writer import RunWriter
from tests.torture import cast, workers
from tests.torture.cast import REFUSALS, Part, count_up
from tests.torture.concurrency import share_journals
from tests.torture.plots import NAME, log, rotate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.torture.cast import Note, Stage, Told
    from tests.torture.workers import Tally

MACHINES: Final = ("writers", "others", "readers")

# -- machines


@contextlib.contextmanager
def mounted(server: Path, folder: Path, options: dict[str, float]) -> Iterator[None]:
    """Mount a folder as a client sees it, for the length of a `with` block."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.torture.client", server, folder, json.dumps(options)]
    process = subprocess.Popen(command, cwd=workers.ROOT)
    try:
        until = time.monotonic() + 30
        while not os.path.ismount(folder):
            if process.poll() is not None or time.monotonic() > until:
                raise ChildProcessError(
                    "a client cannot be mounted: it needs /dev/fuse, fusermount3 and mfusepy"
                )
            time.sleep(0.01)
        yield
    finally:
        subprocess.run(["fusermount3", "-u", "-z", "-q", folder], check=False)
        process.terminate()
        process.wait()


def move_to(machine: str) -> None:
    """Let this process be one of another machine, which has never been started anew."""
    from blackboxml.base import process

    genuine = process.identify

    def identify() -> dict[str, Any]:
        identity = {"host": f"node-{machine}", "boot_id": f"boot-of-{machine}"}
        return genuine() | identity

    process.identify = identify


def trust_clock() -> None:
    """Take a process for dead whose journal is old by the clock of this machine."""
    from blackboxml.base import process

    genuine = process.liveness

    def liveness(identity: Any, modified: float | None = None) -> Any:
        found = genuine(identity, modified)
        old = modified is not None and time.time() - modified > 20.0
        return "dead" if found == "unknown" and old else found

    process.liveness = liveness


VARIANTS: Final[dict[str, Callable[[], None]]] = {"clock": trust_clock, "shared": share_journals}
"""Libraries that are known to be bad."""

# -- one trial


@dataclass(frozen=True, slots=True)
class Weather:
    """How a trial goes.

    Attributes:
        ranks: How many write.
        records: How many records each of them logs.
        pause: Seconds between two.
        clients: What each machine is like.
        rotating: Ranks whose syncs fail now and then.
    """

    ranks: int
    records: int
    pause: float
    clients: dict[str, dict[str, float]]
    rotating: tuple[int, ...]

    @property
    def lag(self) -> float:
        """Seconds after which everybody sees everything."""
        return 0.2 + max(each["attributes"] + each["writes"] for each in self.clients.values())

    def __str__(self) -> str:
        """Say it for people."""
        return f"{self.ranks} ranks of {self.records} records, {json.dumps(self.clients)}"


def draw(seed: int, number: int) -> Weather:
    """Return a trial by its number."""
    chance = random.Random(f"{seed}:{number}")
    skew = chance.choice((0.0, -120.0, 3600.0))
    clients = {
        name: {
            "attributes": chance.choice((0.05, 0.3, 1.0)),
            "writes": chance.choice((0.05, 0.5, 2.0)),
            "skew": skew,
        }
        for name in MACHINES
    }
    ranks = chance.randint(2, 5)
    rotating = tuple(rank for rank in range(ranks) if chance.random() < 0.3)
    return Weather(ranks, chance.randint(20, 80), 0.02 * chance.random(), clients, rotating)


def _write(rank: int, weather: Weather, place: Path) -> Callable[[Stage, Note], None]:
    def work(stage: Stage, note: Note) -> None:
        move_to(str(rank))
        if rank in weather.rotating:
            rotate()
        if rank == 0:
            writer = RunWriter.create(place / "runs", NAME)
            (stage.folder / "begun").write_text(writer.path.name)
        else:
            writer = RunWriter.join(_named(stage, place), rank, 0)
        paced = writer.log

        def pace(*given: Any) -> None:
            paced(*given)
            time.sleep(weather.pause)

        writer.log = pace  # type: ignore[method-assign, assignment]
        log(writer, note, weather.records, syncs=7 if rank in weather.rotating else 0)
        if rank == 0:
            stage.over(0, 60)
        writer.finish()

    return work


def _named(stage: Stage, place: Path) -> Path:
    """Return the run directory on a machine, as soon as it is seen there."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError, *REFUSALS):
            path = place / "runs" / (stage.folder / "begun").read_text()
            open_run(path)
            return path
        time.sleep(0.05)
    raise cast.HangError(f"no run comes to {place}")


def _look(place: Path, bad: Callable[[], None] | None) -> Callable[[Stage, Note], None]:
    """Read, list, validate and judge the run until it has ended, with old and new readers."""

    def work(stage: Stage, note: Note) -> None:
        if bad is not None:
            bad()
        path = _named(stage, place)
        kept, catalogue, looks = open_run(path), Catalogue(place / "runs"), 0
        while not stage.over(1, 0.05):
            for reader in (kept, open_run(path)):
                statuses = {reader.status, *(each.status for each in catalogue.runs())}
                if not stage.over(1) and not statuses <= {"running", "completed"}:
                    note.say(damaged=f"a run that is written is {sorted(statuses)}")
                count_up(reader.records("all"))
                reader.summary()
            report = validate(path)
            if report.verdict not in {"valid", "incomplete", "unreadable"}:
                said = "; ".join(map(str, report.problems[:3]))
                note.say(damaged=f"{report.verdict}: {said or report.reason}")
            looks += 1
        note.say(answers=looks)

    return work


def _follow(place: Path) -> Callable[[Stage, Note], None]:
    def work(stage: Stage, note: Note) -> None:
        found = count_up(open_run(_named(stage, place)).follow(from_start=True, poll=0.02))
        note.say(followed=[[*session, value] for session, value in found.items()])

    return work


def play(weather: Weather, top: Path, variant: str) -> tuple[list[str], Counter[str]]:
    """Write and read a run; return what is wrong, and what was counted."""
    server = top / "server"
    (server / "runs").mkdir(parents=True)
    places = {name: top / name for name in MACHINES}
    with contextlib.ExitStack() as stack:
        for name, place in places.items():
            stack.enter_context(mounted(server, place, weather.clients[name]))
        (top / "trial").mkdir()
        stage = cast.Stage(top / "trial", 3)
        here = [places["writers"] if rank % 2 == 0 else places["others"] for rank in range(9)]
        bad = VARIANTS["clock"] if variant == "clock" else None
        parts = [
            Part(f"rank{rank}", _write(rank, weather, here[rank]), act=int(rank == 0))
            for rank in range(weather.ranks)
        ]
        parts += [Part("reader", _look(places["readers"], bad), 2)]
        parts += [Part("follower", _follow(places["readers"]), 2)]
        if variant == "shared":
            share_journals()
        try:
            told = cast.play(stage, parts, 3)
        except cast.HangError as error:
            return [f"it hangs: {error}"], Counter()
        time.sleep(weather.lag)
        found = judge(places, told)
    counts = {"records": sum(told.acknowledged.values()), "looks": sum(told.all("answers"))}
    return found, Counter(counts)


def judge(places: dict[str, Path], told: Told) -> list[str]:
    """Return what is wrong with what was said, and with what is left on each machine."""
    found = [*told.faults, *told.all("damaged")]
    for name, place in places.items():
        there = [path for path in (place / "runs").iterdir() if path.is_dir()]
        if len(there) != 1:
            found.append(f"on {name} there are {len(there)} runs")
            continue
        path = there[0]
        if (fault := cast.lost(path, told)) is not None:
            found.append(f"on {name}: {fault}")
        if (status := open_run(path).status) != "completed":
            found.append(f"on {name} the run is {status}")
        report = validate(path)
        if report.verdict != "valid":
            said = "; ".join(map(str, report.problems[:3]))
            found.append(f"on {name} it is {report.verdict}: {said or report.reason}")
    return found


def work(seed: int, variant: str, numbers: Sequence[int]) -> None:
    """Perform trials, and say what came of each."""
    from tests.torture.trials import warm_up

    logging.getLogger("blackboxml").setLevel(logging.CRITICAL)
    warm_up()
    for number in numbers:
        weather = draw(seed, number)
        if variant == "clock":
            for client in weather.clients.values():
                client["skew"] = -120.0
        with tempfile.TemporaryDirectory(prefix="hosts-", ignore_cleanup_errors=True) as scratch:
            found, counts = cast.aside(partial(play, weather, Path(scratch), variant))
        workers.answer(number, f"of {weather.ranks} ranks", str(weather), found, counts)


# -- many


def campaign(
    seed: int, numbers: Sequence[int], *, jobs: int = 1, variant: str = "", report: bool = False
) -> Tally:
    """Perform trials in processes of their own."""
    return workers.run_all(
        "tests.torture.hosts",
        [seed, variant],
        numbers,
        jobs=jobs,
        seconds=240,
        progress=workers.reporter() if report else None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign, or one trial of it; before that, see that bad libraries are found out."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.hosts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--variant", choices=VARIANTS, default="")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this trial alone")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        work(*json.loads(given.work))
        return 0
    if given.only is None and not given.variant:
        for variant in VARIANTS:
            if not campaign(1, range(4), jobs=given.jobs, variant=variant).failures:
                print(f"the bad library {variant!r} was not found out: this proves nothing")
                return 1
    numbers = range(given.count) if given.only is None else [given.only]
    chosen = {"jobs": given.jobs, "variant": given.variant, "report": True}
    tally = campaign(given.seed, numbers, **chosen)
    print(tally)
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
