"""What a run says about where it was made: cheap to find out, and nothing that is secret.

Versions are read from the names of the directories that installers leave on `sys.path`, such as
`torch-2.13.0.dist-info`. Importing a framework takes seconds, and importing `importlib.metadata`,
with the e-mail parser behind it, some 40 ms: most of what entering a run may take in all.
Environment variables and the user's name are never read; arguments of the command only on request.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection

GIT_FIELDS: Final = ("git_commit", "git_dirty")
"""Fields that `capture_git` finds."""

FIELDS: Final = (
    *GIT_FIELDS,
    *("python", "torch", "tensorflow", "packages"),
    *("hostname", "platform", "cpu_count", "argv"),
)
"""Every field of a run's environment, all of them captured unless told otherwise."""

_PACKAGES: Final = ("jax", "keras", "lightning", "numpy", "scikit-learn", "transformers")
_TENSORFLOW: Final = ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tensorflow-rocm")
_INSTALLED: Final = re.compile(r"([A-Za-z0-9._]+)-([0-9][^-]*)(?:-py[0-9.]+)?\.(?:dist|egg)-info")
_COMMIT: Final = re.compile(r"[0-9a-f]{4,64}")


def capture(fields: Collection[str] | None = None, *, command_line: bool = False) -> dict[str, Any]:
    """Return the environment of this process, without what git knows.

    Starts no process and imports nothing.

    Args:
        fields: Names out of `FIELDS`; None stands for all, an empty collection for nothing.
        command_line: Whether `argv` holds the whole command, which may carry secrets, rather than
            the file name of the program alone.

    Returns:
        The fields asked for: `python`, `torch` and `tensorflow` (versions, None where a package is
        not installed), `packages` (versions of other packages that are), `hostname`, `platform`,
        `cpu_count`, `argv`.

    Raises:
        ValueError: A field is not one of `FIELDS`.
    """
    wanted = FIELDS if fields is None else fields
    unknown = sorted(set(wanted) - set(FIELDS))
    if unknown:
        raise ValueError(f"no environment field {unknown[0]!r}; there are {', '.join(FIELDS)}")
    system = os.uname()
    found: dict[str, Any] = {"python": sys.version.split()[0]}
    if not {"torch", "tensorflow", "packages"}.isdisjoint(wanted):
        versions = _installed_versions()
        found["torch"] = versions.get("torch")
        found["tensorflow"] = next((versions[n] for n in _TENSORFLOW if n in versions), None)
        found["packages"] = {name: versions[name] for name in _PACKAGES if name in versions}
    found["hostname"] = _text(system.nodename)
    found["platform"] = _text(f"{system.sysname}-{system.release}-{system.machine}")
    found["cpu_count"] = os.cpu_count()
    found["argv"] = _argv(command_line=command_line)
    return {name: value for name, value in found.items() if name in wanted}


def capture_git(
    cwd: str | os.PathLike[str] | None = None, timeout: float = 5.0
) -> dict[str, str | bool | None]:
    """Return `git_commit` (abbreviated) and `git_dirty` of the work tree around `cwd`.

    Untracked files count as dirty, ignored ones do not. What git does not tell is None: there is
    no git, no repository, no commit yet, or no answer in time. Takes no lock of the repository
    and leaves no process behind.

    Args:
        cwd: A directory of the work tree; None stands for the current one.
        timeout: Seconds that both questions may take together.
    """
    deadline = monotonic() + timeout
    commit = ask_git(["rev-parse", "--short", "HEAD"], cwd, timeout)
    arguments = ["status", "--porcelain", "--untracked-files=normal"]
    status = ask_git(arguments, cwd, deadline - monotonic())
    known = commit is not None and _COMMIT.fullmatch(commit) is not None
    return {
        "git_commit": commit if known else None,
        "git_dirty": None if status is None else bool(status),
    }


def git_branch(cwd: str | os.PathLike[str] | None = None, timeout: float = 5.0) -> str | None:
    """Return the branch of the work tree around `cwd`, or None where git does not tell.

    Args:
        cwd: A directory of the work tree; None stands for the current one.
        timeout: Seconds that the question may take.
    """
    branch = ask_git(["rev-parse", "--abbrev-ref", "HEAD"], cwd, timeout)
    return None if branch is None else _text(branch)


def ask_git(arguments: list[str], cwd: str | os.PathLike[str] | None, seconds: float) -> str | None:
    """Return what git says in a directory, stripped of space; None as `read_git`."""
    answer = read_git(arguments, cwd, seconds)
    return None if answer is None else answer.decode("utf-8", "replace").strip()


def read_git(
    arguments: list[str], cwd: str | os.PathLike[str] | None, seconds: float, most: int = 2**24
) -> bytes | None:
    """Return what git says in a directory.

    Takes no lock of the repository and leaves no process behind.

    Args:
        arguments: Of git.
        cwd: The directory; None stands for the current one.
        seconds: Most time it may take.
        most: Most bytes it may say.

    Returns:
        The bytes; None where there is no git or no repository, or time or size exceed their bounds.
    """
    if seconds <= 0:
        return None
    import subprocess  # its import alone takes milliseconds

    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        process = subprocess.Popen(  # noqa: S603 - fixed arguments, no shell
            ["git", "-c", "core.fsmonitor=false", *arguments],  # noqa: S607 - the git that the user has
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError):
        return None
    answer = b""
    with process:
        out_of_time = threading.Timer(seconds, process.kill)
        out_of_time.start()
        try:
            answer = process.stdout.read(most + 1) if process.stdout else b""
        finally:
            if len(answer) > most:
                process.kill()
            process.wait()
            out_of_time.cancel()
    return answer if process.returncode == 0 and len(answer) <= most else None


def _installed_versions() -> dict[str, str]:
    """Return the version of each installed package of interest, by normalised name."""
    names = {"torch", *_TENSORFLOW, *_PACKAGES}
    versions: dict[str, str] = {}
    for directory in sys.path:
        try:
            entries = sorted(os.listdir(directory or "."), reverse=True)
        except (OSError, TypeError, ValueError):  # a zip file, or no longer there
            continue
        for entry in entries:
            found = _INSTALLED.fullmatch(entry)
            if found is not None:
                name = re.sub(r"[._]+", "-", found[1]).lower()
                if name in names:
                    versions.setdefault(name, _text(found[2]))
    return versions


def _argv(*, command_line: bool) -> list[str]:
    arguments = [_text(argument) for argument in getattr(sys, "argv", [])]  # absent when embedded
    if command_line:
        return arguments
    return [os.path.basename(program) for program in arguments[:1] if program]


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # names of files need not be Unicode
