"""A trial: a process does the work of a scenario, and is killed or failed by the file system.

This is the program of two processes. The *actor* imports everything once and forks a child for each
trial, so that one costs milliseconds; it runs with `shim.c` preloaded, and each child arms that for
itself. The *checker* looks at what a trial left. `lanes` starts and asks them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import logging
import os
import pkgutil
import select
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.torture import catalogues, scenarios
from tests.torture.scenarios import DONE, MEDIUM, RECORD, Said

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.torture.scenarios import Say

SECONDS: Final = 60.0
"""How long a trial may take before it counts as a hang."""

KINDS: Final = tuple(1 << bit for bit in range(10))
OPEN, CREATE, WRITE, SYNC, CLOSE, RENAME, MAKE, REMOVE, READ, LOOK = KINDS
CHANGES: Final = CREATE | WRITE | SYNC | CLOSE | RENAME | MAKE | REMOVE
"""Kinds of system calls that change the file system, or say how it stands."""

FAIL, SHORT, KILL, TORN = range(4)

PACKAGES: Final = (
    *("base", "collection", "conversion", "converters", "journal", "media", "reader", "repair"),
    *("seal", "validation", "writer"),
)
"""What the work of scenarios is made of."""

WARNING: Final = b"W"
COUNT: Final = b"C"
RAISED: Final = b"E"


@dataclass(frozen=True, slots=True)
class Fault:
    """What the file system does.

    Attributes:
        kinds: The system calls that it concerns.
        mode: `FAIL`, `SHORT`, `KILL` or `TORN`.
        error: What `errno` says.
        first: The number of the call that meets it, from 1; 0 if none does.
        many: Whether all later ones do, too.
    """

    kinds: int = CHANGES
    mode: int = FAIL
    error: int = 0
    first: int = 0
    many: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Attributes:
        scenario: What is done.
        fault: What the file system does meanwhile.
        kill_after: Seconds after which the process is killed, if it is.
        variant: A library that is known to be bad, by its name in `VARIANTS`.
    """

    scenario: str
    fault: Fault = Fault()
    kill_after: float | None = None
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        said: What was acknowledged.
        calls: System calls of each kind that the fault is about, if it came to its end.
        seconds: How long it took.
        killed: Whether it was killed.
        what: What is wrong, or None.
    """

    said: Said
    calls: dict[int, int]
    seconds: float
    killed: bool
    what: str | None


# -- the actor, and its children


def buffer_writes() -> None:
    """Keep lines in memory until there are many, as a buffered file does."""
    from blackboxml.writer import recorder

    waiting: dict[int, bytes] = {}

    def write(descriptor: int, data: bytes) -> int:
        waiting[descriptor] = waiting.get(descriptor, b"") + data
        if len(waiting[descriptor]) > 2_000:
            os.write(descriptor, waiting.pop(descriptor))
        return len(data)

    recorder._write = write  # type: ignore[assignment]


def forgive_errors() -> None:
    """Take each record for written, whatever the file system says."""
    from blackboxml.writer import recorder

    genuine = recorder._write

    def write(descriptor: int, data: bytes) -> int:
        with contextlib.suppress(OSError):
            genuine(descriptor, data)
        return len(data)

    recorder._write = write  # type: ignore[assignment]


def replace_in_place() -> None:
    """Rewrite documents where they stand, a little at a time."""
    from blackboxml.base import files

    files.Directory.replace = _replace_in_place  # type: ignore[method-assign]


def _replace_in_place(self: Any, name: str, data: bytes) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666, dir_fd=self.fd)
    for place in range(0, len(data), 100):
        os.write(descriptor, data[place : place + 100])
    os.close(descriptor)


def blame_damage() -> None:
    """Take what the file system refuses for damaged or absent."""
    from blackboxml.base import files

    files._ABSENT = frozenset(errno.errorcode)  # type: ignore[misc]


VARIANTS: Final[dict[str, Callable[[], None]]] = {
    "blaming": blame_damage,
    "buffered": buffer_writes,
    "forgiving": forgive_errors,
    "in-place": replace_in_place,
    "trusting": catalogues.trust_what_is_kept,
}
"""Libraries that are known to be bad; a campaign that does not find them out proves nothing."""


class Warner(logging.Handler):
    """Says that the library warned."""

    def __init__(self, say: Say) -> None:
        """Say it through a pipe."""
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        del record
        self._say(WARNING)


def live(trial: Trial, folder: Path, sink: int) -> None:
    """Do the work of a trial, in the child."""

    def say(what: bytes) -> None:
        os.write(sink, what)

    logger = logging.getLogger("blackboxml")
    logger.addHandler(Warner(say))
    logger.propagate = False
    if trial.variant:
        VARIANTS[trial.variant]()
    library = ctypes.CDLL(None)
    fault = trial.fault
    library.shim_arm(
        str(folder).encode(),
        fault.kinds,
        fault.mode,
        fault.error,
        ctypes.c_long(fault.first or 2**62),
        int(fault.many),
    )
    raised = b""
    try:
        scenarios.SCENARIOS[trial.scenario].act(folder, say)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        kind = "documented " if scenarios.documented(error) else ""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        raised = RAISED + f"{kind}{type(error).__name__} at {place}: {error}".encode()
    library.shim_disarm()
    calls = [library.shim_counted(bit) for bit in range(len(KINDS))]
    say(COUNT + json.dumps(calls).encode() + b";" + raised)


def act(trial: Trial, folder: Path) -> tuple[Said, list[int], float, bool]:
    """Fork a child that does the work, kill it if that is asked for, and gather what it said."""
    source, sink = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(source)
        live(trial, folder, sink)
        os._exit(0)
    os.close(sink)
    heard = _listen(source, child, started, trial.kill_after)
    _, status = os.waitpid(child, 0)
    killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    while part := os.read(source, 65_536):
        heard += part
    os.close(source)
    seconds = time.monotonic() - started
    talk, _, rest = heard.partition(COUNT)
    calls, _, raised = rest.partition(b";")
    fails = trial.fault.first > 0 and trial.fault.mode in {FAIL, SHORT}
    said = Said(
        records=talk.count(RECORD),
        media=talk.count(MEDIUM),
        done=DONE in talk,
        warned=WARNING in talk,
        raised=raised[1:].decode(errors="replace"),
        failing=fails,
        lasting=fails and trial.fault.many,
    )
    if seconds > SECONDS:
        said = replace(said, raised=f"a hang of {seconds:.0f} s")
    return said, json.loads(calls or b"[]"), seconds, killed


def _listen(source: int, child: int, started: float, kill_after: float | None) -> bytes:
    """Hear a child to its end, or kill it when it is time."""
    heard = b""
    until = started + (SECONDS if kill_after is None else kill_after)
    while True:
        left = until - time.monotonic()
        ready = select.select([source], [], [], max(left, 0))[0]
        if not ready:
            os.kill(child, signal.SIGKILL)
            return heard
        part = os.read(source, 65_536)
        if not part:
            return heard
        heard += part


def warm_up() -> None:
    """Import what the work needs, so that no trial spends its time on that; start no thread."""
    import h5py  # noqa: F401
    import numpy as np  # noqa: F401
    import polars as pl  # noqa: F401
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401

    import blackboxml
    from blackboxml.base import schema

    for package in PACKAGES:
        places = [str(Path(blackboxml.__path__[0], package))]
        for found in pkgutil.walk_packages(places, f"blackboxml.{package}."):
            import_module(found.name)
    for name in schema.names():
        schema.validator(name)
        schema.is_valid(name, None)


def serve_actor() -> None:
    """Run the trials that are asked for on standard input."""
    warm_up()
    gc.freeze()  # so that no child copies what it never uses, to look for garbage
    for line in sys.stdin:
        asked = json.loads(line)
        fault = Fault(**asked.pop("fault"))
        folder = Path(asked.pop("folder"))
        said, calls, seconds, killed = act(Trial(**asked, fault=fault), folder)
        _answer({"said": asdict(said), "calls": calls, "seconds": seconds, "killed": killed})


def serve_checker() -> None:
    """Check the folders that are asked for on standard input."""
    logging.getLogger("blackboxml").setLevel(logging.CRITICAL)
    for line in sys.stdin:
        asked = json.loads(line)
        said = Said(**asked["said"])
        _answer(scenarios.check(asked["scenario"], Path(asked["folder"]), said))


def _answer(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Be one of the two processes."""
    {"actor": serve_actor, "checker": serve_checker}[arguments[0]]()


if __name__ == "__main__":
    main(sys.argv[1:])
