"""Catalogues that are killed while they look at runs, several at once, and those runs change.

Whatever the file of a catalogue is like then: the next one says what one without a file says, and
what the reader of each run says.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import select
import shutil
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from blackboxml import Run, delete_runs, open_run
from blackboxml.collection import find_runs
from blackboxml.collection.catalogue import Catalogue
from blackboxml.errors import BlackboxError
from blackboxml.seal.pack import pack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.collection.entry import Entry
    from tests.torture.scenarios import Said, Say

OTHERS: Final = 2
"""How many other processes look at the same runs meanwhile."""

_HOUR: Final = 3600 * 10**9
_FACTS: Final = ("id", "name", "status", "start", "end", "tags", "config", "lineage", "extensions")


def prepare(folder: Path) -> None:
    """Leave runs of each kind: sealed, not sealed, packed, damaged."""
    for name in ("sealed", "packed", "grows", "goes"):
        path = write(folder, name, range(20), seal=name not in {"grows", "goes"})
        if name == "packed":
            pack(path)
    broken = folder / "runs" / "deeper" / "broken"
    broken.mkdir(parents=True)
    (broken / "run.json").write_bytes(b"{")
    settle(folder / "runs")


def write(folder: Path, name: str, steps: range, **options: Any) -> Path:
    """Write a run that has an end, and return its place."""
    chosen = {"log_dir": folder / "runs"} if "resume" not in options else {}
    with Run(name, environment=(), config={"lr": 0.1}, **chosen, **options) as run:
        for step in steps:
            run.log({"train/loss": step / 3, "odd/nan": float("nan"), "seen": step}, step)
    return run.path


def settle(root: Path) -> None:
    """Let all files be an hour old, so that a catalogue need not look at them twice."""
    for folder, _, files in os.walk(root):
        for path in [*(os.path.join(folder, name) for name in files), folder]:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_mtime_ns > time.time_ns() - _HOUR // 2:
                    then = time.time_ns() - _HOUR
                    os.utime(path, ns=(then, then))


def act(folder: Path, say: Say) -> None:
    """Look at the runs while they change, and while others do that too."""
    root = folder / "runs"
    with _kept_in(folder), _others(root, folder):
        catalogue = Catalogue(root)
        catalogue.refresh()
        for change in (
            lambda: write(folder, "grows", range(20, 30), resume=_run(root, "grows"), seal=False),
            lambda: delete_runs(_run(root, "goes")),
            lambda: write(folder, "comes", range(5)),
            lambda: pack(_run(root, "sealed")),
        ):
            change()
            settle(root)
            catalogue.refresh(extremes=True)
    say(b"D")


def _run(root: Path, name: str) -> Path:
    """Return the run whose directory begins with a name."""
    return next(path for path in find_runs(root) if path.name.startswith(name))


@contextlib.contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Let catalogues that cannot write beside their runs write here."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        yield
    finally:
        del os.environ["XDG_CACHE_HOME"]
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


@contextlib.contextmanager
def _others(root: Path, folder: Path) -> Iterator[None]:
    """Let other processes look at the runs until this one is done, or gone."""
    gone, here = os.pipe()
    children = []
    for number in range(OTHERS):
        if (child := os.fork()) == 0:
            os.close(here)
            _keep_looking(root, gone, folder / f"other-{number}")
        children.append(child)
    os.close(gone)
    try:
        yield
    finally:
        os.close(here)
        for child in children:
            os.waitpid(child, 0)


def _keep_looking(root: Path, gone: int, note: Path) -> None:
    """Look again and again, with one catalogue and with new ones; note what is raised."""
    try:
        kept = Catalogue(root)
        for extremes in itertools.cycle([False, True]):
            with contextlib.suppress(OSError):  # where the root itself is refused
                kept.refresh(extremes=extremes)
                Catalogue(root).refresh(extremes=not extremes)
            if select.select([gone], [], [], 0.03)[0]:
                break
    except BaseException:  # noqa: BLE001 - it is the finding
        ctypes.CDLL(None).shim_disarm()
        note.write_text(traceback.format_exc(), "utf-8")
    finally:
        os._exit(0)


def check(folder: Path, said: Said) -> str | None:
    """Compare what a catalogue says with what one without a file says."""
    root, plain = folder / "runs", folder / "plain"
    for note in sorted(folder.glob("other-*")):
        return f"another process: {note.read_text('utf-8')}"
    for path in find_runs(root):
        shutil.copytree(path, plain / path.relative_to(root), symlinks=True)
    with _kept_in(folder):
        wanted = view(plain)
        if said.done and len(wanted) != len(list(find_runs(root))):
            return f"{len(wanted)} runs are in the catalogue of those that are there"
        for turn in ("first", "second"):
            found = view(root)
            for place in sorted(found.keys() | wanted.keys()):
                if found.get(place) != wanted.get(place):
                    return (
                        f"at the {turn} look the catalogue says of {place}\n{found.get(place)}\n"
                        f"and without what was kept\n{wanted.get(place)}"
                    )
        return _as_read(Catalogue(root).runs())


def view(root: Path) -> dict[str, str]:
    """Return all that a new catalogue says, run by run."""
    catalogue = Catalogue(root)
    catalogue.refresh(extremes=True)
    found = {}
    for entry in catalogue.runs(refresh=False):
        facts = {name: getattr(entry, name) for name in _FACTS}
        problem = (entry.problem or "").replace(str(root), "")
        found[str(entry.path.relative_to(root))] = f"{facts} {problem} {sorted(_metrics(entry))}"
    return found


def _metrics(entry: Entry) -> list[tuple[str, str]]:
    """Return what is said of each metric, as text: NaN is not equal to itself."""
    return [(name, repr(said)) for name, said in entry.metrics.items()]


def _as_read(entries: list[Entry]) -> str | None:
    """Compare a catalogue with the readers of its runs."""
    for entry in entries:
        try:
            reader = open_run(entry.path)
            read = {name: (said.n, repr(said.last)) for name, said in reader.summary().items()}
        except (BlackboxError, OSError):
            if entry.problem is None:
                return f"{entry} cannot be read, and the catalogue does not say so"
            continue
        listed = {name: (said.n, repr(said.last)) for name, said in entry.metrics.items()}
        if (entry.status, listed) != (reader.status, read):
            return f"of {entry} the catalogue says {listed}, the reader {reader.status}, {read}"
    return None


def trust_what_is_kept() -> None:
    """Take a run that has changed for read before it is: the old row gets the new state."""
    from blackboxml.collection import catalogue

    genuine = catalogue.glance
    kept: dict[str, Any] = {}

    def glance(path: str, *given: Any) -> Any:
        if path not in kept:
            kept[path] = genuine(path, *given)
        return kept[path]

    catalogue.glance = glance
