"""Spoil sources of every format, convert them beside a good one, and see that nothing is fooled.

    python -m tests.torture.imports --seed 1 --count 1000
    python -m tests.torture.imports --seed 1 --form mlflow --only 471

What is claimed of each conversion is in `_judge`. A case is told by seed, format and number alone.
Each format has a process of its own, in which a hook sees every file that Python opens and
everything that it starts or calls; one that hangs or dies is a finding too.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blackboxml.conversion import ConversionReport

ROOT: Final = Path(__file__).resolve().parents[2]
SECONDS: Final = 60
"""How long one conversion may take before it counts as a hang."""
MEMORY: Final = 4 * 2**30
_LARGEST: Final = 2**28
"""Larger files are compared by what the file system says of them."""
_FLAGS: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES: Final = frozenset(
    f"os.{name}"
    for name in (
        *("chmod", "chown", "link", "mkdir", "remove", "rename", "rmdir", "setxattr", "symlink"),
        *("truncate", "utime"),
    )
)
_STARTS: Final = (
    *("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty."),
    *("socket.", "urllib.", "ftplib.", "http.", "webbrowser.", "ctypes.dlopen", "os.startfile"),
)
_CALLABLE: Final = frozenset(["os", "posix", "nt", "subprocess", "sys", "shutil", "runpy"])


class Hang(BaseException):
    """A conversion takes too long; no `except Exception` stops it."""


class Watch:
    """Sees what Python does while it is armed.

    Attributes:
        seen: What must not happen and did.
        allowed: Where files may be written.
    """

    def __init__(self) -> None:
        """Take place; a hook stays for good."""
        self.seen: list[str] = []
        self.allowed: tuple[str, ...] = ()
        self._armed = False
        sys.addaudithook(self._hook)

    @contextmanager
    def armed(self, *allowed: Path) -> Iterator[None]:
        """See to it that nothing is written but in some places."""
        self.seen, self.allowed = [], tuple(map(str, allowed))
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        if event == "open":
            path, mode, flags = arguments
            if (isinstance(flags, int) and flags & _FLAGS) or set(mode or "") & set("wax+"):
                self._check(event, path)
        elif event in _CHANGES:
            self._check(event, arguments[0])
            if event in {"os.rename", "os.link"}:
                self._check(event, arguments[1])
        else:
            evil = event == "pickle.find_class" and arguments[0] in _CALLABLE
            if evil or event.startswith(_STARTS):
                self.seen.append(f"{event}{arguments!r:.200}")

    def _check(self, event: str, path: Any) -> None:
        """Note a path that leads elsewhere; a relative one is below the directory it is opened in,
        unless it climbs out, and what it does to that is seen by comparing.
        """
        if isinstance(path, int):
            return
        text = os.fsdecode(path)
        parts = Path(text).parts
        inside = text == os.devnull or any(
            text == place or text.startswith(f"{place}/") for place in self.allowed
        )
        if ".." in parts or (text.startswith("/") and not inside):
            self.seen.append(f"{event} {text}")


def state(place: Path) -> dict[str, Any]:
    """What lies below a place: kind, size, time and digest of everything, links not followed."""
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            said = os.lstat(path)
            found[path] = (said.st_mode, said.st_size if name in files else 0, said.st_mtime_ns)
            if stat.S_ISREG(said.st_mode) and said.st_size < _LARGEST:
                found[path] += (hashlib.sha256(Path(path).read_bytes()).hexdigest(),)
            elif name in folders:
                found[path] = found[path][:1]
    return found


def work(form: str, seed: int, numbers: Sequence[int], variant: str) -> None:
    """Convert spoiled sources one after the other; print a line of JSON for each."""
    from blackboxml.conversion import convert
    from tests.torture import sources, weaknesses

    with tempfile.TemporaryDirectory(prefix="imports-") as scratch:
        top = Path(scratch).resolve()
        outside, home = top / "outside", top / "outside" / "home"
        home.mkdir(parents=True)
        (outside / "secret").write_bytes(sources.SECRET)
        os.environ["HOME"], tempfile.tempdir = str(home), str(top / "temporary")
        os.chdir(home)
        warm = random.Random(0)
        taken: set[str] = set()
        for _ in range(3):  # what is imported on the way is imported now
            case = _lay_out(top, form, warm)
            taken |= {run.source_format for run in convert(case, top / "target").runs}
            _clear(top)
        if form not in taken:
            message = f"no source was taken for one of {form}"
            raise RuntimeError(message)
        if variant:
            weaknesses.WEAKNESSES[variant]()
        watch = Watch()
        for number in numbers:
            drawn = random.Random(f"{seed}-{form}-{number}")
            tree = _lay_out(top, form, drawn)
            done = sources.spoil(tree / "bad", outside, drawn)
            found = _attempt(top, watch, convert)
            gc.collect()
            print(json.dumps({"number": number, "done": done, "found": found}), flush=True)
            _clear(top)


def _lay_out(top: Path, form: str, drawn: random.Random) -> Path:
    """Make a tree of a good source and one to be spoiled."""
    from tests.torture import sources

    tree = top / "tree"
    for folder in (tree / "bad", tree / "good", top / "temporary"):
        folder.mkdir(parents=True)
    (tree / "good" / "log.csv").write_text("step,time,loss\n0,1600000000,1\n1,1600000001,0.5\n")
    sources.make(form, tree / "bad", drawn)
    shutil.rmtree(top / "runs", ignore_errors=True)
    return tree


def _clear(top: Path) -> None:
    """Take away what a case has left."""
    for name in ("tree", "target", "temporary"):
        shutil.rmtree(top / name, ignore_errors=True)


def _attempt(top: Path, watch: Watch, convert: Callable[..., Any]) -> list[str]:
    """Convert the tree; return what is wrong with what came of it."""

    def hang(*_: Any) -> None:
        raise Hang

    before = state(top / "outside"), state(top / "tree")
    modules = set(sys.modules)
    signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        with watch.armed(top / "target", top / "temporary"):
            report = convert(top / "tree", top / "target")
    except Hang:
        return [f"it takes more than {SECONDS} seconds: {traceback.format_exc(-4)}"]
    except BaseException:  # noqa: BLE001 - whatever it is, it must not come out
        return [f"convert raised: {traceback.format_exc(-6)}"]
    finally:
        signal.alarm(0)
    found = [f"it does {each}" for each in watch.seen]
    if (state(top / "outside"), state(top / "tree")) != before:
        found.append("what lies outside of the target has changed")
    strange = [
        name
        for name in set(sys.modules) - modules
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(top))
    ]
    if strange:
        found.append(f"it imports {strange}")
    gc.collect()
    return found + list(_judge(top, report))


def _judge(top: Path, report: ConversionReport) -> Iterator[str]:
    """Yield what is wrong: the good run must come over whole, and every other be whole or missed.

    A run that failed and a source that is unreadable say why, and where; what was made is valid;
    nothing unfinished is left; and nothing of what lies outside has got into the target.
    """
    from blackboxml.collection import find_runs

    good = [run for run in report.runs if run.source.startswith(str(top / "tree" / "good"))]
    if [(run.outcome, run.ok, run.went_out["scalar"]) for run in good] != [("converted", True, 2)]:
        yield f"the good run: {report.to_json():.2000}"
    yield from _judge_report(top, report)
    made = {str(path) for path in find_runs(top / "target")}
    if made != {run.target for run in report.runs if run.outcome == "converted"}:
        yield f"the target holds {sorted(made)}, the report says {report.to_json():.2000}"
    known = {Path(path).name for path in made}
    left = [name for name in os.listdir(top / "target") if name not in known]
    left += os.listdir(top / "temporary")
    if left:
        yield f"it leaves {left}"
    yield from _judge_runs(top / "target", made)


def _judge_report(top: Path, report: ConversionReport) -> Iterator[str]:
    """Yield what a report says wrong, or does not say."""
    tree = str(top / "tree")
    for run in report.runs:
        if not run.source.startswith(tree):
            yield f"the place of a run is {run.source!r}"
        if run.outcome == "failed" and (not run.error or run.target):
            yield f"a run failed: {run.error!r}, at {run.target!r}"
        if run.undeclared:
            yield f"a loss that was not declared: {json.dumps(run.to_dict()):.2000}"
    reasons = [(run.source, run.error) for run in report.runs if run.outcome == "failed"]
    for place, why in [*reasons, *report.unreadable.items()]:
        if not place.startswith(tree + "/bad") or not why or "MemoryError" in why:
            yield f"{place} cannot be read: {why!r}"


def _judge_runs(target: Path, made: set[str]) -> Iterator[str]:
    """Yield what is wrong with the runs in a target."""
    from blackboxml import validate
    from tests.torture import sources

    for path in made:
        problems = [each for each in validate(path).problems if each.severity == "error"]
        if problems:
            yield f"{path} is not valid: {problems[:3]}"
    for place in target.rglob("*"):
        if place.is_symlink() or not (place.is_file() or place.is_dir()):
            yield f"{place} is no plain file"
        elif place.is_file() and sources.SECRET in place.read_bytes():
            yield f"{place} holds what lies outside"


def campaign(form: str, seed: int, numbers: Sequence[int], variant: str = "") -> list[str]:
    """Run cases of one format in a process of its own; return the failures, for people."""
    command = [sys.executable, "-m", "tests.torture.imports", "--work", form, str(seed), variant]
    lines: list[dict[str, Any]] = []
    left = list(numbers)
    failures = []
    while left:
        done = subprocess.run(
            [*command, ",".join(map(str, left))],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=_bound,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for each in lines:
            failures += [_describe(form, seed, each, what) for what in each["found"]]
        if done.returncode:
            at = left[min(len(lines), len(left) - 1)]
            what = f"the process ends with {done.returncode}: {done.stderr[-2000:]}"
            failures.append(_describe(form, seed, {"number": at, "done": []}, what))
        left = left[len(lines) + 1 :] if done.returncode else []
    return failures


def _bound() -> None:
    """Bound the memory of a child, so that a bomb is its own end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _describe(form: str, seed: int, case: dict[str, Any], what: str) -> str:
    """Return a failure with the command that makes it again."""
    again = f"python -m tests.torture.imports --seed {seed} --form {form} --only {case['number']}"
    return f"{form}: {', '.join(case['done'])}\n    {what}\n    again: {again}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a campaign over all formats, or one case."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.imports")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000, help="cases of each format")
    parser.add_argument("--form", action="append", help="a format (repeatable); all by default")
    parser.add_argument("--only", type=int, help="this case alone")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.work:
        form, seed, variant, numbers = given.work
        work(form, int(seed), [int(each) for each in numbers.split(",")], variant)
        return 0
    from blackboxml import converters

    counts: Counter[str] = Counter()
    for form in given.form or converters.FORMATS:
        numbers = range(given.count) if given.only is None else [given.only]
        failures = campaign(form, given.seed, numbers)
        counts[form] = len(failures)
        print(
            "\n".join([*failures, f"{form:<20}{len(numbers):>8,} cases, {len(failures)} failures"])
        )
    return 1 if counts.total() else 0


if __name__ == "__main__":
    sys.exit(main())
