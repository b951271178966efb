"""Lay runs and sources that mean harm before everything that reads them: attack by operation.

    python -m tests.torture.hostile --seed 1 --count 2000
    python -m tests.torture.hostile --seed 1 --only 471

What is claimed of each: nothing outside of the run or the source is opened, read or written;
nothing is executed, unpickled or connected to; what comes out is an answer or one of our errors;
memory and time are bounded; and who only reads changes nothing. A hook of Python sees what Python
does, and the kernel (inotify) tells of files that libraries open beside it.

A trial is told by the seed and its number: numbers count through the attacks, and the seed draws
the kind of run that each is done to.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.converters import FORMATS
from blackboxml.errors import BlackboxError
from tests.torture import sources, workers
from tests.torture.imports import Hang, Watch, state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.torture.workers import Tally

SECONDS: Final = 60
"""How long an operation may take on one run."""
MEMORY: Final = 4 * 2**30
"""What it may take of memory, besides what was taken before."""
STATES: Final = ("open", "sealed", "packed")

# -- operations: each is given the hostile run, and a folder of its own


def _read(path: Path, _: Path) -> list[Any]:
    """Ask a reader for everything; each answer is given for itself."""
    from blackboxml import open_run

    reader, said = open_run(path), []
    asks: list[Callable[[], Any]] = [
        lambda: (reader.status, reader.name, reader.tags, reader.groups, reader.metrics),
        lambda: (reader.config, reader.summary(), reader.descriptions, reader.manifest),
        lambda: list(reader.records("all")),
        lambda: list(reader.follow(from_start=True, timeout=0)),
        lambda: [reader.load(each) for each in reader.media() if each.value is None],
    ]
    for group in ("train", "", "eval"):
        ways = (reader.arrow, reader.pandas, reader.xarray, reader.polars)
        asks += [lambda way=way, group=group: way(group) for way in ways]
        asks.append(lambda group=group: reader.polars(group, lazy=True).collect())
    for ask in asks:
        try:
            said.append(ask())
        except (BlackboxError, KeyError, ValueError, OSError) as error:
            said.append(error)
    return said


def _validate(path: Path, _: Path) -> Any:
    from blackboxml import validate

    return validate(path).to_json()


def _repair(path: Path, place: Path) -> Any:
    from blackboxml.repair import repair

    return repair(path, place / "mended", force=True)


def _repair_in_place(path: Path, _: Path) -> Any:
    from blackboxml.repair import repair

    return repair(path, in_place=True, force=True)


def _seal(path: Path, _: Path) -> Any:
    from blackboxml.seal import seal

    return seal(path, force=True)


def _pack(path: Path, _: Path) -> Any:
    from blackboxml.seal.pack import pack

    return pack(path, force=True)


def _resume(path: Path, _: Path) -> Any:
    from blackboxml import Run

    with Run("victim", resume=path, environment=()) as run:
        run.log({"train/loss": 1.0})
        run.log_text("train/text", "more")


def _catalogue(path: Path, _: Path) -> Any:
    from blackboxml.collection.catalogue import Catalogue

    catalogue = Catalogue(path.parent)
    catalogue.refresh(extremes=True)
    return [(each.status, each.problem, each.metrics, each.config) for each in catalogue.runs()]


def _command(*words: str) -> Callable[[Path, Path], Any]:
    def command(path: Path, place: Path) -> Any:
        from blackboxml.cli import main

        given = [word.format(run=path, root=path.parent, place=place) for word in words]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main(given)
        return said.getvalue()

    return command


def _convert(form: str) -> Callable[[Path, Path], Any]:
    def convert(path: Path, place: Path) -> Any:
        from blackboxml.conversion import convert

        return convert(path, place / f"out.{form}", target_format=form).to_json()

    return convert


def _import(form: str | None) -> Callable[[Path, Path], Any]:
    def load(path: Path, place: Path) -> Any:
        from blackboxml.conversion import convert

        return convert(path, place / "runs", source_format=form).to_json()

    return load


OPERATIONS: Final[dict[str, Callable[[Path, Path], Any]]] = {
    "read": _read,
    "validate": _validate,
    "catalogue": _catalogue,
    "show": _command("show", "{run}"),
    "list": _command("list", "{root}"),
    "repair": _repair,
    "repair in place": _repair_in_place,
    "seal": _seal,
    "pack": _pack,
    "resume": _resume,
    **{f"convert to {form}": _convert(form) for form in ("csv", "parquet", "netcdf", "jsonl")},
}
LOOKERS: Final = frozenset(["read", "validate", "catalogue", "show", "list", "repair"])
"""Operations that leave the run as it is; so do those that convert it."""

IMPORTS: Final[dict[str, Callable[[Path, Path], Any]]] = {
    "import": _import(None),
    **{f"import as {form}": _import(form) for form in FORMATS},
}

# -- libraries that are known to be bad


def follow_links() -> None:
    """Open whatever a name leads to."""
    from blackboxml.base import files

    files._OPEN &= ~os.O_NOFOLLOW


def unpickle() -> None:
    """Unpickle the files of media."""
    import pickle

    from blackboxml import reader

    genuine = reader.RunReader.load

    def load(self: Any, record: Any) -> Any:
        data = genuine(self, record)
        with contextlib.suppress(pickle.UnpicklingError, EOFError, ValueError, KeyError):
            return pickle.loads(data)
        return data

    reader.RunReader.load = load  # type: ignore[method-assign]


def allocate() -> None:
    """Take what a file declares for its size."""
    from blackboxml import model, reader

    genuine = reader.open_run

    def open_run(path: Any, limits: Any = model.LIMITS) -> Any:
        bytearray(sum(os.stat(each).st_size for each in Path(path).glob("*.jsonl")))
        return genuine(path, limits)

    reader.open_run = open_run
    sys.modules["blackboxml"].open_run = open_run  # type: ignore[attr-defined]


VARIANTS: Final = {"following": follow_links, "unpickling": unpickle, "allocating": allocate}

# -- one trial


class Guard:
    """Tells which files below a folder are opened, by Python or by any library."""

    _OPENED: Final = 0x20 | 0x01 | 0x02 | 0x100 | 0x200
    _NONBLOCK: Final = 0x800

    def __init__(self, folder: Path) -> None:
        """Begin to listen."""
        library = ctypes.CDLL(None, use_errno=True)
        self._fd = library.inotify_init1(self._NONBLOCK)
        watch = library.inotify_add_watch(self._fd, os.fsencode(folder), self._OPENED)
        if self._fd < 0 or watch < 0:
            raise OSError(ctypes.get_errno(), "inotify cannot watch a folder")

    def heard(self) -> list[str]:
        """Return the names that were touched since the last call."""
        try:
            data = os.read(self._fd, 2**16)
        except BlockingIOError:
            return []
        names = []
        while data:
            size = int.from_bytes(data[12:16], sys.byteorder)
            names.append(os.fsdecode(data[16 : 16 + size].rstrip(b"\0")))
            data = data[16 + size :]
        return sorted(set(names))


class Range:
    """Where trials are held: a folder with a secret beside the folder of the runs."""

    def __init__(self, top: Path) -> None:
        """Lay out all but the runs."""
        self.top = top
        self.outside, self.runs = top / "outside", top / "runs"
        self.outside.mkdir()
        (top / "home").mkdir()
        (self.outside / "secret").write_bytes(sources.SECRET * 3)
        os.environ["HOME"], os.environ["XDG_CACHE_HOME"] = str(top / "home"), str(top / "home")
        tempfile.tempdir = str(top / "temporary")
        os.chdir(top / "home")
        self._bases: dict[str, Path] = {}
        self.watch = Watch()
        self.guard = Guard(self.outside)

    def warm_up(self, only: Sequence[str], *, imports: bool) -> None:
        """Do each operation on a good run: what is imported on the way is imported now."""
        from tests.torture.attacks import write_run

        (self.top / "temporary").mkdir()
        for kind in STATES:
            self._bases[kind] = self.top / "bases" / kind
            write_run(self._bases[kind], state=kind)
        for name, operation in OPERATIONS.items():
            if name in (only or OPERATIONS):
                self.lay_out("sealed")
                operation(self.runs / "run", self.top / "place")
        form = random.Random(0)
        for name in FORMATS if imports else ():
            place = self.lay_out(None)
            sources.make(name, place, form)
            with contextlib.suppress(BlackboxError):
                _import(None)(place, self.top / "place")
            self.clear()

    def lay_out(self, kind: str | None) -> Path:
        """Lay out a good run of a kind, or an empty folder for a source; return its place."""
        self.clear()
        for folder in (self.runs, self.top / "place", self.top / "temporary"):
            folder.mkdir()
        place = self.runs / "run"
        if kind is None:
            place.mkdir()
        else:
            shutil.copytree(self._bases[kind], place)
        return place

    def clear(self) -> None:
        """Take away what a trial left."""
        for name in ("runs", "place", "temporary"):
            shutil.rmtree(self.top / name, ignore_errors=True)

    def attempt(self, name: str, operation: Callable[[Path, Path], Any]) -> tuple[list[str], str]:
        """Do an operation to what lies there; return what is wrong, and how it came out."""
        run, place = self.runs / "run", self.top / "place"
        before, was = state(self.outside), state(run)
        self.guard.heard()
        allowed = [self.runs, place, self.top / "temporary", self.top / "home"]
        found, said, outcome = [], "", "answered"
        signal.signal(signal.SIGALRM, _hang)
        signal.alarm(SECONDS)
        try:
            with self.watch.armed(*allowed):
                said = repr(operation(run, place))
        except Hang:
            outcome, found = "hung", [f"it takes more than {SECONDS} s: {traceback.format_exc(-4)}"]
        except (BlackboxError, OSError) as error:
            outcome, said = "refused", repr(error)
        except BaseException:  # noqa: BLE001 - it is the finding
            outcome, found = "raised", [f"it raised {traceback.format_exc(-6)}"]
        finally:
            signal.alarm(0)
        touched = self.guard.heard()
        gc.collect()
        found += [f"it does {each}" for each in self.watch.seen]
        found += [f"it opens {each} outside" for each in touched]
        if state(self.outside) != before:
            found.append("what lies outside has changed")
        if (name in LOOKERS or name.startswith(("convert", "import"))) and state(run) != was:
            found.append("it changes what it looks at")
        if sources.SECRET.decode() in said:
            found.append("it says what lies outside")
        found += self._spread(place)
        return [f"{name}: {each}" for each in found], outcome

    def _spread(self, place: Path) -> list[str]:
        """Tell where the secret has got to, and whether the trap was sprung."""
        found = []
        for folder in (place, self.runs, self.top / "home", self.top / "temporary"):
            for path in folder.rglob("*"):
                if path.name == sources.TRAP:
                    found.append("it springs a trap")
                elif folder == place and path.is_symlink():
                    found.append(f"it makes the link {path.name}")
                elif path.is_file() and not path.is_symlink() and path.stat().st_size < 2**22:
                    same = path.stat().st_ino == (self.outside / "secret").stat().st_ino
                    if not same and sources.SECRET in path.read_bytes():
                        found.append(f"{path.name} holds what lies outside")
        return found


def _hang(*_: Any) -> None:
    raise Hang


def _spoil(field: Range, attack: Callable[[Path, Path], None], kind: str | None) -> bool:
    """Lay out a run and do something to it; tell whether it has what that needs."""
    for each in (kind, "sealed"):
        with contextlib.suppress(FileNotFoundError, KeyError):
            attack(field.lay_out(each), field.outside)
            return True
        if kind is None:
            break
    return False


def work(seed: int, variant: str, only: Sequence[str], numbers: Sequence[int]) -> None:
    """Perform trials, and say what came of each."""
    from tests.torture.attacks import run_attacks, source_attacks

    logging.getLogger("blackboxml").setLevel(logging.CRITICAL)
    runs, imports = run_attacks(), source_attacks()
    names = [*runs, *imports]
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        field = Range(Path(scratch).resolve())
        sourced = any(names[number % len(names)] in imports for number in numbers)
        field.warm_up(only, imports=sourced)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        if variant:
            VARIANTS[variant]()
        for number in numbers:
            name = names[number % len(names)]
            kind = random.Random(f"{seed}:{number}").choice(STATES) if name in runs else None
            found, told = [], Counter[str]()
            attack = runs.get(name) or imports[name]
            operations = OPERATIONS if name in runs else IMPORTS
            for each in only or operations:
                if each not in operations:
                    continue
                if not _spoil(field, attack, kind):
                    told["without such a file"] += 1
                    break
                wrong, outcome = field.attempt(each, operations[each])
                found += wrong
                told[outcome] += 1
            done = f"{name}, to {kind or 'a source'}"
            workers.answer(number, "sources" if kind is None else kind, done, found, told)
        os.chdir("/")


# -- many


def count_attacks() -> int:
    """Return how many attacks there are."""
    from tests.torture.attacks import run_attacks, source_attacks

    return len(run_attacks()) + len(source_attacks())


def campaign(
    seed: int,
    numbers: Sequence[int],
    *,
    jobs: int = 1,
    variant: str = "",
    only: Sequence[str] = (),
    report: bool = False,
) -> Tally:
    """Perform trials in processes of their own."""
    return workers.run_all(
        "tests.torture.hostile",
        [seed, variant, [*only]],
        numbers,
        jobs=jobs,
        seconds=len(OPERATIONS) * SECONDS,
        progress=workers.reporter() if report else None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign, or one trial of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.hostile")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, help="all attacks once, by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--variant", choices=VARIANTS, default="")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this trial alone")
    parser.add_argument("--operation", choices=[*OPERATIONS, *IMPORTS], action="append")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        work(*json.loads(given.work))
        return 0
    count = count_attacks() if given.count is None else given.count
    tally = campaign(
        given.seed,
        range(count) if given.only is None else [given.only],
        jobs=given.jobs,
        variant=given.variant,
        only=given.operation or (),
        report=True,
    )
    print(tally)
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
