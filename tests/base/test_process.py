"""A writer's identity proves that it lives or died, or nothing is claimed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from blackboxml.base import process
from blackboxml.base.process import identify, liveness

if TYPE_CHECKING:
    from collections.abc import Iterator

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells this on Linux alone")

SAY_AND_WAIT = """\
import json, sys
from blackboxml.base.process import identify
print(json.dumps(identify()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer() -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", SAY_AND_WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def identity_of(child: subprocess.Popen[str]) -> dict[str, Any]:
    return json.loads(child.stdout.readline())


@linux
def test_an_identity_has_every_member_of_the_format() -> None:
    identity = identify()
    assert list(identity) == ["host", "pid", "started", "boot_id", "pid_namespace"]
    assert identity["pid"] == os.getpid()
    assert identity == identify()
    ticks = os.sysconf("SC_CLK_TCK")
    assert identity["started"] / ticks + psutil.boot_time() == pytest.approx(
        psutil.Process().create_time(), abs=1.5
    )


@linux
def test_a_process_lives_until_it_is_killed(writer: subprocess.Popen[str]) -> None:
    identity = identity_of(writer)
    assert liveness(identity) == "alive"
    writer.send_signal(signal.SIGSTOP)
    assert liveness(identity) == "alive"
    writer.kill()
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet waited for
    assert psutil.Process(writer.pid).status() == psutil.STATUS_ZOMBIE
    assert liveness(identity) == "dead"
    writer.wait()
    assert liveness(identity) == "dead"


@linux
def test_a_process_id_used_again_is_another_process() -> None:
    assert liveness(identify()) == "alive"
    assert liveness(identify() | {"started": identify()["started"] - 1}) == "dead"


@linux
def test_another_boot_of_this_host_ended_the_process() -> None:
    """If its journal was last touched before this boot: two machines may share a name."""
    other = identify() | {"boot_id": "another"}
    assert liveness(other, modified=1.0) == "dead"
    assert liveness(other | {"pid_namespace": 1}, modified=1.0) == "dead"
    assert liveness(other, modified=time.time()) == "unknown"
    assert liveness(other) == "unknown"
    assert liveness(other | {"host": "elsewhere"}, modified=1.0) == "unknown"


@linux
@pytest.mark.parametrize("host", ["elsewhere", None])
def test_the_same_boot_is_the_same_machine_whatever_it_is_called(host: str | None) -> None:
    assert liveness(identify() | {"host": host}) == "alive"
    assert liveness(identify() | {"host": host, "started": 1}) == "dead"


@pytest.mark.parametrize(
    "change",
    [
        {"host": "elsewhere", "boot_id": "another"},
        {"boot_id": None},
        {"boot_id": 5},
        {"pid_namespace": 1},
        {"pid_namespace": None},
        {"pid": None},
        {"pid": "1"},
        {"pid": True},
        {"pid": 0},
        {"pid": -1},
        {"pid": 2**31},
        {"pid": 2**80},
        {"started": None},
        {"started": "5"},
    ],
)
@linux
@pytest.mark.rule("BB-LIV-006")
def test_nothing_is_claimed_where_something_is_not_known(change: dict[str, Any]) -> None:
    assert liveness(identify() | change) == "unknown"
    known = {name: value for name, value in (identify() | change).items() if value is not None}
    assert liveness(known) == "unknown"


def test_an_empty_identity_is_unknown() -> None:
    assert liveness({}) == "unknown"


@linux
def test_a_dead_process_is_dead_even_if_its_start_was_not_known(
    writer: subprocess.Popen[str],
) -> None:
    identity = identity_of(writer)
    del identity["started"]
    assert liveness(identity) == "unknown"
    writer.kill()
    writer.wait()
    assert liveness(identity) == "dead"


@linux
def test_a_command_with_spaces_and_parentheses_in_its_name_is_read_right() -> None:
    # prctl(PR_SET_NAME) is what a program uses to call itself so.
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b') Z (1 2)', 0, 0, 0)\n" + SAY_AND_WAIT
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        identity = identity_of(child)
        assert psutil.Process(child.pid).name() == ") Z (1 2)"
        assert liveness(identity) == "alive"


def test_a_system_without_proc_proves_death_alone(
    writer: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.stdout.readline()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(process, "_read", lambda _path: None)
    monkeypatch.setattr(process, "_pid_namespace", lambda: None)
    assert identify() == {"host": identify()["host"], "pid": os.getpid()}
    identity = identify() | {"pid": writer.pid}
    assert liveness(identity) == "unknown"
    writer.kill()
    writer.wait()
    assert liveness(identity) == "dead"
    monkeypatch.setattr(sys, "platform", "linux")
    assert liveness(identity) == "unknown"


@linux
def test_a_proc_that_counts_otherwise_or_hides_processes_is_not_believed(
    writer: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = identity_of(writer)
    monkeypatch.setattr(process, "_shows_our_namespace", lambda: False)
    assert liveness(identity) == "unknown"
    monkeypatch.undo()
    monkeypatch.setattr(process, "_read_stat", lambda _pid: None)
    assert liveness(identity) == "unknown"
    writer.kill()
    writer.wait()
    assert liveness(identity) == "dead"


@linux
def test_the_process_of_another_user_exists() -> None:
    assert process._exists(1)


@linux
def test_a_damaged_stat_is_no_stat(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (None, "", "1 (a) R", "1 (a) " + "x " * 30):
        monkeypatch.setattr(process, "_read", lambda _path, text=text: text)
        assert process._read_stat(1) is None
