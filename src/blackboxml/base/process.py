"""Who writes a run, and whether that process still lives: proof on one machine, no guesses.

A process id alone proves nothing, because ids are reused, and mean something else after a reboot,
in another container, or on another host. Together with the boot, the pid namespace and the moment
the kernel started the process it proves life or death. Where one of these is not known on both
sides, the answer is `unknown`, and the reader falls back on the heartbeat.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Liveness = Literal["alive", "dead", "unknown"]

_STATE, _STARTED = 0, 19
"""Fields 3 and 22 of /proc/<pid>/stat, counted from the end of the command's name."""

_MAX_PID: Final = 2**31 - 1


def identify() -> dict[str, Any]:
    """Return the identity of this process, as the header of a journal has it.

    Returns:
        `host` and `pid`; on Linux also `started` (clock ticks from boot to the start of the
        process), `boot_id` and `pid_namespace`, each where the kernel tells.
    """
    identity: dict[str, Any] = {"host": _host(), "pid": os.getpid()}
    stat = _read_stat("self")
    if stat is not None:
        identity["started"] = stat.started
    machine = {"boot_id": _boot_id(), "pid_namespace": _pid_namespace()}
    identity.update({name: value for name, value in machine.items() if value is not None})
    return identity


def liveness(process: Mapping[str, Any], modified: float | None = None) -> Liveness:
    """Return whether the process of that identity lives, as far as it can be proven from here.

    A zombie is dead: it will write no more. Damaged identities are `unknown`.

    Args:
        process: What `identify` returned, perhaps on another host or before a reboot.
        modified: When its journal was last modified, in Unix seconds. Another boot of a host of the
            same name is proof of death only if this was before the present boot: two machines may
            share a name.
    """
    pid = process.get("pid")
    if type(pid) is not int or not 0 < pid <= _MAX_PID:
        return "unknown"
    boot_id, namespace = process.get("boot_id"), process.get("pid_namespace")
    here = _boot_id()
    same_host = process.get("host") == _host()
    if isinstance(boot_id, str) and here is not None and boot_id != here:
        booted = _boot_time()
        before = modified is not None and booted is not None and modified < booted
        return "dead" if same_host and before else "unknown"
    if (boot_id, namespace) != (here, _pid_namespace()) or (here is None and not same_host):
        return "unknown"
    if namespace is None and sys.platform == "linux":
        return "unknown"  # other systems have one namespace, here it could not be read
    return _liveness_here(pid, process.get("started"))


def cores() -> int:
    """Return on how many cores this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Stat(NamedTuple):
    state: str
    started: int  # clock ticks since boot


def _liveness_here(pid: int, started: object) -> Liveness:
    stat = _read_stat(pid) if _shows_our_namespace() else None
    if stat is None:
        # The file is missing too where /proc hides the processes of other users.
        return "unknown" if _exists(pid) else "dead"
    if stat.state in ("Z", "X", "x"):
        return "dead"
    if type(started) is not int:
        return "unknown"
    return "alive" if stat.started == started else "dead"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it exists, and belongs to somebody else
        return True
    return True


def _read_stat(pid: int | Literal["self"]) -> _Stat | None:
    text = _read(f"/proc/{pid}/stat")
    # The command's name stands in parentheses and may hold spaces and parentheses itself.
    fields = (text or "").rpartition(")")[2].split()
    try:
        return _Stat(fields[_STATE], int(fields[_STARTED]))
    except (IndexError, ValueError):
        return None


def _shows_our_namespace() -> bool:
    """Whether /proc counts processes as this one does; not so in a namespace without its own."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _host() -> str:
    return os.uname().nodename.encode("utf-8", "replace").decode()


def _boot_id() -> str | None:
    return (_read("/proc/sys/kernel/random/boot_id") or "").strip() or None


def _boot_time() -> float | None:
    """Return when this machine was started, in Unix seconds."""
    for line in (_read("/proc/stat") or "").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return None


def _pid_namespace() -> int | None:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None
