"""Kill processes at random instants of their work, and see that nothing acknowledged is lost.

    python -m tests.torture.kills --seed 1 --count 100000
    python -m tests.torture.kills --seed 1 --only 4711 --keep /tmp/killed

A trial is told by the seed and its number. Half of them die after a random time, the others before,
or in the midst of, a random system call that changes the file system.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.torture.lanes import lanes, reporter, run_all
from tests.torture.scenarios import SCENARIOS, WORK
from tests.torture.trials import KILL, TORN, VARIANTS, Fault, Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.torture.lanes import Lane, Tally

CHANGING: Final = tuple(name for name in WORK if name != "read")
"""What leaves something behind: who only reads can be killed without a trace."""

Spans = dict[str, tuple[int, float]]
"""By scenario, how many system calls and seconds it takes when nothing stops it."""


def measure(lane: Lane, names: Sequence[str]) -> Spans:
    """Let each scenario come to its end once to warm up, and once more to be measured."""
    spans: Spans = {}
    for name in names:
        for _ in range(2):
            outcome = lane.run(Trial(name))
            assert outcome.what is None, f"{name} fails by itself: {outcome.what}"
            spans[name] = sum(outcome.calls.values()), outcome.seconds
    return spans


def trial(seed: int, number: int, spans: Spans, variant: str = "") -> Trial:
    """Return a trial by its number."""
    chance = random.Random(f"{seed}:{number}")
    name = chance.choice(sorted(spans))
    calls, seconds = spans[name]
    share = chance.random()
    if chance.random() < 0.5:
        return Trial(name, kill_after=share * seconds * 1.05, variant=variant)
    mode = chance.choice([KILL, TORN])
    return Trial(name, Fault(mode=mode, first=1 + int(share * calls)), variant=variant)


def campaign(
    seed: int,
    count: int,
    *,
    jobs: int = 1,
    names: Sequence[str] = CHANGING,
    variant: str = "",
    report: bool = False,
) -> Tally:
    """Run trials, and return what they came to."""
    with lanes(jobs) as running:
        spans = measure(running[0], names)
        numbered = ((number, trial(seed, number, spans, variant)) for number in range(count))
        tell = reporter(lambda number, met, what: f"--seed {seed} --only {number}: {met}: {what}")
        return run_all(numbered, running, tell if report else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign, or one trial of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--variant", choices=VARIANTS, default="")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this trial alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to leave what it left")
    chosen = parser.parse_args(arguments)
    names = chosen.scenario or CHANGING
    if chosen.only is not None:
        with lanes(1) as (lane,):
            asked = trial(chosen.seed, chosen.only, measure(lane, names), chosen.variant)
            outcome = lane.run(asked, keep=chosen.keep)
        print(f"{asked}\n{outcome}")
        return outcome.what is not None
    tally = campaign(
        chosen.seed,
        chosen.count,
        jobs=chosen.jobs,
        names=names,
        variant=chosen.variant,
        report=True,
    )
    print(tally)
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
