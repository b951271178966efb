"""Let the first, second, third … system call of some work fail, once and from then on.

    python -m tests.torture.calls
    python -m tests.torture.calls --scenario seal --count 1000 --seed 1
    python -m tests.torture.calls --only seal/enospc/once/17 --keep /tmp/failed

Each kind of fault meets each system call that it can meet, in each scenario. What comes out of a
training is nothing; what comes out of a tool is an error of the library or of the file system; and
what is left behind is what `scenarios` says.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.torture.lanes import lanes, reporter, run_all
from tests.torture.scenarios import SCENARIOS
from tests.torture.trials import (
    CLOSE,
    CREATE,
    FAIL,
    KINDS,
    LOOK,
    MAKE,
    OPEN,
    READ,
    REMOVE,
    RENAME,
    SHORT,
    SYNC,
    VARIANTS,
    WRITE,
    Fault,
    Trial,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.torture.lanes import Lane, Tally

FAULTS: Final = {
    "enospc": Fault(CREATE | WRITE | SYNC | RENAME | MAKE, FAIL, errno.ENOSPC),
    "edquot": Fault(CREATE | WRITE | MAKE, FAIL, errno.EDQUOT),
    "eio": Fault(CREATE | WRITE | SYNC | RENAME | MAKE | REMOVE, FAIL, errno.EIO),
    "eio-reading": Fault(OPEN | READ, FAIL, errno.EIO),
    "eio-looking": Fault(LOOK, FAIL, errno.EIO),
    "emfile": Fault(OPEN | CREATE, FAIL, errno.EMFILE),
    "erofs": Fault(CREATE | WRITE | RENAME | MAKE | REMOVE, FAIL, errno.EROFS),
    "short": Fault(WRITE, SHORT),
    "sync": Fault(SYNC, FAIL, errno.EIO),
    "close": Fault(CLOSE, FAIL, errno.EIO),
}


def point(label: str, variant: str = "") -> Trial:
    """Return a trial by its label: scenario, fault, `once` or `on`, and the number of the call.

    Raises:
        KeyError: If there is no such fault.
        ValueError: If the label has other parts.
    """
    scenario, fault, times, first = label.split("/")
    kind = FAULTS[fault]
    met = Fault(kind.kinds, kind.mode, kind.error, int(first), times == "on")
    return Trial(scenario, met, variant=variant)


def points(lane: Lane, names: Sequence[str], faults: Sequence[str]) -> Iterator[str]:
    """Yield the label of each point; the calls of each scenario are counted in a run of it."""
    for scenario in names:
        calls = lane.run(Trial(scenario, Fault(sum(KINDS)))).calls
        for fault in faults:
            met = sum(count for kind, count in calls.items() if kind & FAULTS[fault].kinds)
            for first in range(1, met + 1):
                yield f"{scenario}/{fault}/once/{first}"
                yield f"{scenario}/{fault}/on/{first}"


def campaign(
    *,
    limit: int | None = None,
    seed: int = 1,
    jobs: int = 1,
    names: Sequence[str] = tuple(SCENARIOS),
    faults: Sequence[str] = tuple(FAULTS),
    variant: str = "",
    report: bool = False,
) -> tuple[Tally, list[str]]:
    """Run all points, or so many drawn from them; return what they came to, and all labels."""
    with lanes(jobs) as running:
        labels = list(points(running[0], names, faults))
        chosen: Sequence[int] = range(len(labels))
        if limit is not None:
            chosen = random.Random(seed).sample(chosen, min(limit, len(labels)))
        numbered = ((number, point(labels[number], variant)) for number in chosen)
        tell = reporter(lambda number, _, what: f"--only {labels[number]}: {what}")
        return run_all(numbered, running, tell if report else None), labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign, or one trial of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, help="so many points, drawn from all")
    parser.add_argument("--seed", type=int, default=1, help="what they are drawn with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--fault", choices=FAULTS, action="append")
    parser.add_argument("--variant", choices=VARIANTS, default="")
    parser.add_argument("--only", metavar="LABEL", help="this point alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to leave what it left")
    chosen = parser.parse_args(arguments)
    if chosen.only is not None:
        with lanes(1) as (lane,):
            outcome = lane.run(point(chosen.only, chosen.variant), keep=chosen.keep)
        print(outcome)
        return outcome.what is not None
    tally, labels = campaign(
        limit=chosen.count,
        seed=chosen.seed,
        jobs=chosen.jobs,
        names=chosen.scenario or tuple(SCENARIOS),
        faults=chosen.fault or tuple(FAULTS),
        variant=chosen.variant,
        report=True,
    )
    print(f"{tally}; there are {len(labels):,} points")
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
