"""Let threads and processes at one run at once, and see that none harms another.

    python -m tests.torture.concurrency --seed 1 --count 10000
    python -m tests.torture.concurrency --seed 1 --only 4711 --keep /tmp/crowd

A trial is told by the seed and its number: who takes part, how much each writes and who dies. When
they meet is up to the machine. What is claimed: nothing that was acknowledged is lost; who follows
sees each record once and in order; who reads gets an answer or one of our errors; a validator never
finds damage; and in the end the run is valid.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml import validate
from tests.torture import cast, workers
from tests.torture.plots import PLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.torture.cast import Told
    from tests.torture.plots import Plot
    from tests.torture.workers import Tally

# -- libraries that are known to be bad


class _NoLock:
    """Lets everybody in."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def acquire(self, *_: Any, **__: Any) -> bool:
        """Do nothing."""
        return True

    def release(self) -> None:
        """Do nothing."""


def unlock() -> None:
    """Let threads log without waiting for each other."""
    from blackboxml.writer import recorder

    genuine = recorder.Recorder._renew_locks

    def renew(self: Any) -> None:
        genuine(self)
        self._lock = _NoLock()

    recorder.Recorder._renew_locks = renew  # type: ignore[method-assign]
    sys.setswitchinterval(1e-5)


def share_journals() -> None:
    """Let everybody write the first journal of rank 0, and open it if it is there."""
    from blackboxml.base import files, naming

    files._CREATE &= ~os.O_EXCL
    genuine = naming.journal_name

    def journal_name(_: int, __: int, *rest: Any) -> str:
        return genuine(0, 0, *rest)

    naming.journal_name = journal_name


def forget_copies() -> None:
    """Follow a run without telling copies of a record."""
    from blackboxml.reader import following

    class Never(dict):  # type: ignore[type-arg]
        def get(self, *_: Any) -> int:
            return -1

    genuine = following.Follower.__init__

    def begin(self: Any, *given: Any) -> None:
        genuine(self, *given)
        self._seen = Never()

    following.Follower.__init__ = begin  # type: ignore[method-assign]


VARIANTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "unlocked": ("threads", unlock),
    "shared": ("resume", share_journals),
    "repeating": ("ranks", forget_copies),
}
"""By name: the plot that shows it, and what makes it so."""


# -- one trial


def draw(seed: int, number: int, names: Sequence[str]) -> tuple[str, Plot]:
    """Return a trial by its number."""
    chance = random.Random(f"{seed}:{number}")
    name = chance.choice(list(names))
    return name, PLOTS[name](chance)


def perform(plot: Plot, folder: Path) -> tuple[list[str], Counter[str]]:
    """Let a plot be played; return what is wrong, and what was counted."""
    if plot.prepare is not None:  # aside, so that this process has no threads to fork with
        begun = plot.prepare
        faults, _ = cast.aside(lambda: (begun(folder) or [], Counter()))
        assert not faults, faults
    try:
        told = cast.play(cast.Stage(folder, plot.acts), plot.parts, plot.acts)
    except cast.HangError as error:
        return [f"it hangs: {error}"], Counter()
    counts = Counter(
        {
            "records": sum(told.acknowledged.values()),
            "killed": len(told.killed),
            "answers": sum(told.all("answers")),
            "refusals": len(told.all("refused")),
        }
    )
    return judge(plot, folder, told), counts


def judge(plot: Plot, folder: Path, told: Told) -> list[str]:
    """Return what is wrong with what was said, and with what is left."""
    found = [*told.faults, *told.all("damaged")]
    (path,) = (folder / "runs").iterdir()
    if (fault := cast.lost(path, told)) is not None:
        found.append(fault)
    for seen in told.all("followed"):
        far = {(attempt, rank, name): count for attempt, rank, name, count in seen}
        for session, count in told.acknowledged.items():
            if plot.whole and far.get(session, 0) < count:
                found.append(f"who followed saw {far.get(session, 0)} of {count} of {session}")
    report = validate(path)
    if report.verdict not in plot.verdicts:
        said = "; ".join(map(str, report.problems[:3]))
        found.append(f"in the end it is {report.verdict}: {said or report.reason}")
    if plot.extra is not None and (fault := plot.extra(path, told)) is not None:
        found.append(fault)
    return found


def work(seed: int, names: Sequence[str], variant: str, numbers: Sequence[int]) -> None:
    """Perform trials, and say what came of each."""
    from tests.torture.trials import warm_up

    logging.getLogger("blackboxml").setLevel(logging.CRITICAL)
    warm_up()
    if variant:
        VARIANTS[variant][1]()
    for number in numbers:
        name, plot = draw(seed, number, names)
        with tempfile.TemporaryDirectory(prefix="crowd-") as scratch:
            place = Path(scratch) / "trial"
            found, counts = cast.aside(partial(perform, plot, place))
        workers.answer(number, name, f"{name}: {plot.done}", found, counts)


# -- many


def campaign(
    seed: int,
    numbers: Sequence[int],
    *,
    jobs: int = 1,
    names: Sequence[str] = tuple(PLOTS),
    variant: str = "",
    report: bool = False,
) -> Tally:
    """Perform trials in processes of their own."""
    return workers.run_all(
        "tests.torture.concurrency",
        [seed, [*names], variant],
        numbers,
        jobs=jobs,
        progress=workers.reporter() if report else None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign, or one trial of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.concurrency")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--plot", choices=PLOTS, action="append")
    parser.add_argument("--variant", choices=VARIANTS, default="")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this trial alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to leave what it left")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        work(*json.loads(given.work))
        return 0
    names = given.plot or tuple(PLOTS)
    if given.only is not None:
        with tempfile.TemporaryDirectory(prefix="crowd-") as scratch:
            name, plot = draw(given.seed, given.only, names)
            found, counts = cast.aside(partial(perform, plot, Path(scratch) / "trial"))
            if given.keep is not None:
                shutil.copytree(Path(scratch) / "trial", given.keep)
        print(f"{name}: {plot.done}", counts, *found, sep="\n")
        return bool(found)
    tally = campaign(
        given.seed,
        range(given.count),
        jobs=given.jobs,
        names=names,
        variant=given.variant,
        report=True,
    )
    print(tally)
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
