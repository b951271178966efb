"""Functions that run in a process of their own, and disks that are full or read-only there."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STRICT = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
"""Warnings are errors, but for that of forking beside threads, which is what is tested."""

NAMESPACE = ["unshare", "--map-root-user", "--mount", "--propagation", "private"]


@cache
def can_mount() -> bool:
    """Whether this user may mount a file system that nobody else sees."""
    if shutil.which("unshare") is None:
        return False
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def call(prefix: list[str], helpers: str, function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a process of its own.

    It must import what it needs. Parameters called `said` and `disk`, the first ones, are given the
    warnings of the library and the disk.
    """
    given = [name for name in inspect.signature(function).parameters if name in {"said", "disk"}]
    code = [
        "from __future__ import annotations",
        "import json, sys",
        WARNINGS,
        helpers,
        textwrap.dedent(inspect.getsource(function)),
        f"result = {function.__name__}({', '.join([*given, '*json.loads(sys.argv[1])'])})",
        "print(json.dumps(result))",
    ]
    ended = subprocess.run(
        [
            *prefix,
            sys.executable,
            *STRICT,
            "-c",
            "\n".join(code),
            json.dumps(arguments, default=os.fspath),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, f"exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture
def in_process() -> Callable[..., Any]:
    """Run a function in a process of its own; see `call`."""

    def run(function: Callable[..., Any], *arguments: object) -> Any:
        return call([], "", function, *arguments)

    return run


WARNINGS = """
import logging

said = []  # what the library warned of

class Listener(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

logging.getLogger("blackboxml").propagate = False
logging.getLogger("blackboxml").addHandler(Listener())
"""

TMPFS = '''
import os, subprocess

class Disk:
    """A disk of 256 KiB that can be filled to the last byte, freed, and made read-only."""

    def __init__(self, path):
        self.path = path
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", path], check=True)

    def fill(self):
        """Leave no free page."""
        descriptor = os.open(os.path.join(self.path, "ballast"), os.O_CREAT | os.O_WRONLY, 0o600)
        while True:
            try:
                os.write(descriptor, bytes(4096))
            except OSError:
                break
        os.close(descriptor)

    def free(self):
        os.unlink(os.path.join(self.path, "ballast"))

    def read_only(self, on):
        option = "remount,ro" if on else "remount,rw"
        subprocess.run(["mount", "-o", option, self.path], check=True)
'''

LIMITED = '''
import os, resource

class Disk:
    """A disk that takes no byte more while a limit of this process says so."""

    def __init__(self, path):
        self.path = path
        self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def fill(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._hard))

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._hard, self._hard))
'''


@pytest.fixture(params=["a full tmpfs", "a file size limit"])
def with_full_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Run a function of a `Disk` in a process of its own.

    The tmpfs gives short writes and ENOSPC as a real disk does. The limit stands in where mounting
    is forbidden, and comes at any rate.
    """
    tmpfs = request.param == "a full tmpfs"
    if tmpfs and not can_mount():
        pytest.skip("mounting is forbidden here; the file size limit stands in")

    def run(function: Callable[..., Any], *arguments: object) -> Any:
        place = tmp_path / "disk"
        place.mkdir()
        prefix, kind = (NAMESPACE, TMPFS) if tmpfs else ([], LIMITED)
        helpers = f"{kind}\ndisk = Disk({os.fspath(place)!r})"
        return call(prefix, helpers, function, *arguments)

    return run


@pytest.fixture
def with_tmpfs(tmp_path: Path) -> Callable[..., Any]:
    """Run a function of a `Disk` that is a tmpfs, in a process of its own."""
    if not can_mount():
        pytest.skip("mounting is forbidden here, and nothing else gives a short write")

    def run(function: Callable[..., Any], *arguments: object) -> Any:
        place = tmp_path / "disk"
        place.mkdir()
        helpers = f"{TMPFS}\ndisk = Disk({os.fspath(place)!r})"
        return call(NAMESPACE, helpers, function, *arguments)

    return run


@pytest.fixture
def with_read_only_disk(tmp_path: Path) -> Callable[..., Any]:
    """Run a function of a `Disk` that can become read-only, in a process of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if can_mount():
        prefix, kind = NAMESPACE, TMPFS
    elif os.getuid() != 0:
        prefix, kind = [], PERMISSIONS
    else:
        pytest.skip("mounting is forbidden here, and permissions do not bind root")

    def run(function: Callable[..., Any], *arguments: object) -> Any:
        helpers = f"{kind}\ndisk = Disk({os.fspath(place)!r})"
        return call(prefix, helpers, function, *arguments)

    return run


PERMISSIONS = '''
import os

class Disk:
    """Directories without permission to write; files that are open stay writable."""

    def __init__(self, path):
        self.path = path

    def read_only(self, on):
        for folder, _, _ in os.walk(self.path):
            os.chmod(folder, 0o500 if on else 0o700)
'''
