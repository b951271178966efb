"""Cut the power between any two writes to a disk, and see that what was synced is there.

    python -m tests.torture.power --system ext4 --seed 1 --count 10000
    python -m tests.torture.power --system xfs --disk /tmp/power-x --only 4711 --keep /tmp/cut

A run is written, sealed, resumed and packed on a real file system, on a disk that remembers every
write (`disk`). Then states are drawn in which the disk may be when power is lost, mounted by the
real kernel, and looked at. The disk of a campaign that failed is kept. It needs root, FUSE, loop
devices, `mfusepy`, and `mkfs.ext4` or `mkfs.xfs`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml import Run, open_run, validate
from blackboxml.errors import NotARunError
from tests.torture.scenarios import NAME, check_readable, check_sealable, point
from tests.torture.writes import MARKED, read_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SYSTEMS: Final = {
    "ext4": (24, ["mkfs.ext4", "-q", "-F", "-E", "nodiscard"]),
    "xfs": (320, ["mkfs.xfs", "-q", "-f", "-K"]),
}
"""File systems: the size of the disk in MiB, and what makes one."""

MODES: Final = ("prefix", "drop", "tear")
STEPS: Final = 30
SEALABLE: Final = 10
"""Each state of so many is sealed, too."""


# -- what is done on the disk


def work(folder: Path, mark: Callable[[str, int], None]) -> None:
    """Write, seal, resume, seal and pack a run; mark what is acknowledged as durable."""
    from blackboxml.seal.pack import pack

    run = Run(NAME, log_dir=folder, environment=(), config={"lr": 0.1}).start()
    for step in range(STEPS):
        run.log(point(step), step=step)
        if step % 3 == 2:
            run.sync()
            mark("running", step + 1)
    run.finish()
    mark("sealed", STEPS)
    mark("resuming", STEPS)
    run = Run(NAME, resume=run.path, environment=()).start()
    for step in range(STEPS, 2 * STEPS):
        run.log(point(step), step=step)
        if step % 3 == 2:
            run.sync()
            mark("running", step + 1)
    run.finish()
    mark("sealed", 2 * STEPS)
    mark("packing", 2 * STEPS)
    pack(run.path)
    mark("sealed", 2 * STEPS)


def never_sync() -> None:
    """Do not ask the disk for anything."""
    from blackboxml.writer import recorder

    os.fsync = os.fdatasync = lambda _: None  # type: ignore[assignment]
    recorder._datasync = os.fdatasync


def rename_before_sync() -> None:
    """Give documents their names before their content is safe."""
    import stat

    genuine = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            genuine(descriptor)

    os.fsync = sync  # type: ignore[assignment]


VARIANTS: Final[dict[str, Callable[[], None]]] = {
    "": lambda: None,
    "never-sync": never_sync,
    "rename-before-sync": rename_before_sync,
}
"""Libraries that are known to be bad."""


def check(folder: Path, stage: str, records: int, *, sealing: bool) -> str | None:
    """Return what is wrong with a disk on which so many records were acknowledged as durable."""
    found = [path for path in folder.iterdir() if path.is_dir() and path.name != "lost+found"]
    if len(found) != 1:
        return f"{len(found)} directories are there" if records or found else None
    try:
        reader = open_run(found[0])
    except NotARunError:
        return "the run is gone" if records else None
    if stage == "sealed" and (reader.status != "completed" or not reader.sealed):
        return f"a run that was sealed is {reader.status}, sealed: {reader.sealed}"
    if (fault := check_readable(found[0], records)) is not None:
        return fault
    report = validate(found[0])
    if report.verdict not in {"valid", "incomplete"}:
        return f"found {report.verdict}: " + "; ".join(str(each) for each in report.problems[:3])
    return check_sealable(found[0]) if sealing else None


# -- the disk


class Machine:
    """A disk, and the file system on it."""

    def __init__(self, system: str, scratch: Path) -> None:
        """Make an empty file system, if there is none in the folder yet."""
        size, make = SYSTEMS[system]
        self.image, self.log = scratch / "image", scratch / "log"
        self._disk, self.mounted = scratch / "fuse", scratch / "mounted"
        self._options = ["-o", "nouuid"] if system == "xfs" else []
        for folder in (self._disk, self.mounted):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.image.exists():
            with self.image.open("wb") as file:
                file.truncate(size * 2**20)
            _run(*make, self.image)

    @property
    def control(self) -> Path:
        """Where commands are written."""
        return self._disk / "control"

    @contextlib.contextmanager
    def plugged_in(self) -> Iterator[None]:
        """Serve the disk for the length of a `with` block."""
        command = [sys.executable, "-m", "tests.torture.disk", self.image, self.log, self._disk]
        root = Path(__file__).resolve().parents[2]
        server = subprocess.Popen(command, cwd=root)
        try:
            until = time.monotonic() + 30
            while not self.control.exists():
                if server.poll() is not None or time.monotonic() > until:
                    raise ChildProcessError("the disk cannot be served; is /dev/fuse there?")
                time.sleep(0.01)
            yield
        finally:
            subprocess.run(["fusermount3", "-u", "-q", self._disk], check=False)
            server.terminate()
            server.wait()

    @contextlib.contextmanager
    def running(self) -> Iterator[bool]:
        """Attach and mount the disk; tell whether the kernel accepts it."""
        device = _run("losetup", "-f", "--show", self._disk / "disk").strip()
        try:
            mount = ["mount", *self._options, device, self.mounted]
            done = subprocess.run(mount, check=False, capture_output=True)
            try:
                yield done.returncode == 0
            finally:
                if done.returncode == 0:
                    _unmount(self.mounted)
        finally:
            _run("losetup", "-d", device)

    def mark(self, text: str) -> None:
        """Remember that something was acknowledged."""
        self.control.write_bytes(json.dumps({"mark": text}).encode())

    def cut(self, number: int, mode: str, seed: str) -> None:
        """Let the disk be as it may be if power is lost before an entry of the log."""
        command = {"cut": number, "mode": mode, "seed": seed}
        self.control.write_bytes(json.dumps(command).encode())


def _unmount(folder: Path) -> None:
    """Unmount; something may still be closing a file."""
    for _ in range(50):
        if subprocess.run(["umount", folder], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.05)
    _run("umount", folder)


def _run(*command: Any) -> str:
    done = subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise ChildProcessError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


# -- the campaign


class Campaign:
    """States of one disk, and what was found in them."""

    def __init__(self, system: str, seed: int, scratch: Path, variant: str = "") -> None:
        """Write the run, if the folder has no disk yet; `look` needs it to be plugged in again."""
        self._seed = seed
        self.machine = Machine(system, scratch)
        if not self.machine.log.exists():
            command = [sys.executable, "-m", "tests.torture.power", "--work", variant]
            places = ["--folder", self.machine.mounted, "--control", self.machine.control]
            with self.machine.plugged_in(), self.machine.running() as accepted:
                assert accepted, "the new file system cannot be mounted"
                self.machine.mark("begun 0")
                _run(*command, *places)
        self.entries = read_log(self.machine.log)
        self._first = next(at for at, entry in enumerate(self.entries) if entry[0] == MARKED) + 1
        self.counts: Counter[str] = Counter()
        self.failures: list[tuple[int, str]] = []

    def look(self, number: int, keep: Path | None = None) -> str | None:
        """Look at a state by its number, and return what is wrong."""
        chance = random.Random(f"{self._seed}:{number}")
        cut, mode = chance.randint(self._first, len(self.entries)), chance.choice(MODES)
        self.machine.cut(cut, mode, f"{self._seed}:{number}")
        marks = [data.decode() for kind, _, data in self.entries[:cut] if kind == MARKED]
        stage, records = marks[-1].split()
        with self.machine.running() as accepted:
            if not accepted:
                self.counts["not mounted"] += 1
                return None
            if keep is not None:
                shutil.copytree(self.machine.mounted, keep)
            try:
                what = check(
                    self.machine.mounted,
                    stage,
                    int(records),
                    sealing=number % SEALABLE == 0,
                )
            except Exception as error:  # noqa: BLE001 - it is the finding
                what = f"looking at it raised {type(error).__name__}: {error}"
            gc.collect()  # what holds files open keeps the disk mounted
        self.counts[mode] += 1
        if what is not None:
            what = f"cut {cut} ({mode}), {stage} {records}: {what}"
            self.failures.append((number, what))
        return what


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign, or look at one state."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--system", choices=SYSTEMS, default="ext4")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--variant", choices=VARIANTS, default="")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this state alone")
    parser.add_argument("--disk", type=Path, metavar="FOLDER", help="the disk of a failure")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to leave a copy")
    parser.add_argument("--work", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--control", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.work is not None:
        VARIANTS[chosen.work]()

        def mark(stage: str, records: int) -> None:
            control = {"mark": f"{stage} {records}"}
            chosen.control.write_bytes(json.dumps(control).encode())

        work(chosen.folder, mark)
        return 0
    scratch = chosen.disk or Path(tempfile.mkdtemp(prefix="power-"))
    campaign = Campaign(chosen.system, chosen.seed, scratch, chosen.variant)
    reported = time.monotonic()
    with campaign.machine.plugged_in():
        for number in range(chosen.count) if chosen.only is None else [chosen.only]:
            what = campaign.look(number, chosen.keep)
            if what is not None:
                print(f"--disk {scratch} --seed {chosen.seed} --only {number}: {what}", flush=True)
            if time.monotonic() - reported > 20:
                reported = time.monotonic()
                print(f"{number + 1:,} states", flush=True)
    told = ", ".join(f"{count:,} {name}" for name, count in sorted(campaign.counts.items()))
    print(f"{chosen.system}: {told}; {len(campaign.failures)} failures")
    if chosen.disk is None and not campaign.failures:
        shutil.rmtree(scratch)
    return bool(campaign.failures)


if __name__ == "__main__":
    sys.exit(main())
