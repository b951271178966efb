"""What a training prints, in `console.log` of its run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, open_run, validate
from blackboxml.base.secret import Mask
from blackboxml.companion import console
from blackboxml.companion.console import LONGEST_LINE, MOST_WAITING, Console

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(folder: Path, work: Callable[[Run], Any], **options: Any) -> str:
    with Run("r", log_dir=folder, environment=(), console=True, **options) as run:
        work(run)
    assert validate(run.path).ok
    return (run.path / "console.log").read_text()


def test_what_is_printed_is_kept_and_still_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler(sys.stderr)

    def work(_: Run) -> None:
        print("first")
        print("é", 2, end="")
        print("!", file=sys.stdout, flush=True)
        handler.emit(logging.LogRecord("n", logging.INFO, "p", 1, "from a logger", None, None))
        sys.stdout.writelines(["a\n", "b"])

    before = sys.stdout.write, sys.stderr.write
    assert run(tmp_path, work) == "first\né 2!\nfrom a logger\na\nb\n"
    assert capsys.readouterr() == ("first\né 2!\na\nb", "from a logger\n")
    assert (sys.stdout.write, sys.stderr.write) == before
    assert "write" not in vars(sys.stdout)


def test_it_is_off_by_default(tmp_path: Path) -> None:
    before = vars(sys.stdout).get("write")  # other packages of this process may have put one there
    with Run("r", log_dir=tmp_path, environment=()) as run:
        print("text")
        assert vars(sys.stdout).get("write") is before
    assert not (run.path / "console.log").exists()


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        ("\r 10%\r 50%\r100%\nnext\n", "100%\nnext\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("\r 10%\r 50%", " 50%\n"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07x\x1b[2K\x1b[1A\n", "red x\n"),
        ("tab\tand bell\x07 and nul\0\n", "tab\tand bell and nul\n"),
        ("\n\n", "\n\n"),
        ("lone \udcff surrogate\n", "lone ? surrogate\n"),
        ("wandb login --key=abcdefgh1234 --api-key=abcdefgh1234\n", None),
        ("x" * 5000 + "\n", "x" * LONGEST_LINE + " [blackboxml: 904 characters more]\n"),
    ],
)
def test_lines_are_plain_text(printed: str, kept: str | None) -> None:
    written: list[bytes] = []
    listener = Console(lambda data: written.append(data) or 0, Mask())
    for character in (printed,) if len(printed) > 999 else printed:
        listener.take(0, character)
    listener.stop()
    text = b"".join(written).decode()
    assert text == (kept or "wandb login --key=abcdefgh1234 --api-key=<hidden>\n")


def test_a_line_that_is_drawn_over_again_and_again_takes_no_room() -> None:
    written: list[bytes] = []
    listener = Console(lambda data: written.append(data) or 0, Mask())
    for step in range(3000):
        listener.take(1, f"\r{step}: " + "#" * 50)
        if step % 500 == 0:
            list(listener._lines(last=False))
            assert len(listener._open[1]) < 3 * LONGEST_LINE
    listener.stop()
    assert b"".join(written) == b"2999: " + b"#" * 50 + b"\n"


def test_streams_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    def work(_: Run) -> None:
        for word in ("one ", "two\n"):
            print(word, end="")
            print(word, end="", file=sys.stderr)

    assert run(tmp_path, work) == "one two\none two\n"


def test_what_is_printed_too_fast_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "SECONDS", 60)
    written: list[bytes] = []
    listener = Console(lambda data: written.append(data) or 0, Mask())
    line = "x" * 1023 + "\n"
    for _ in range(2 * MOST_WAITING // len(line)):
        listener.take(0, line)
    listener.stop()
    *lines, last = b"".join(written).decode().splitlines()
    assert len(lines) == MOST_WAITING // len(line)
    assert last == f"[blackboxml: {MOST_WAITING:,} characters printed too fast are left out]"


def test_the_log_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MOST_BYTES", 100)
    written: list[bytes] = []

    def append(data: bytes) -> int:
        written.append(data)
        return len(b"".join(written))

    for _ in range(2):  # the next attempt finds the log as large as it is
        listener = Console(append, Mask())
        for number in range(50):
            listener.take(0, f"line {number}\n")
        listener.stop()
    lines = b"".join(written).decode().splitlines()
    assert lines == [
        *(f"line {number}" for number in range(13)),
        "[blackboxml: more than 100 bytes; it ends]",
    ]


def test_the_next_attempt_appends(tmp_path: Path) -> None:
    run(tmp_path, lambda _: print("first"))
    assert run(tmp_path, lambda _: print("second"), resume=True) == "first\nsecond\n"


def test_two_runs_at_once_both_keep_it(tmp_path: Path) -> None:
    def outer(_: Run) -> None:
        print("outer")
        assert run(tmp_path / "inner", lambda _: print("inner")) == "inner\n"
        print("outer again")

    assert run(tmp_path, outer) == "outer\ninner\nouter again\n"
    assert "write" not in vars(sys.stdout)


def test_an_exception_gives_the_streams_back(tmp_path: Path) -> None:
    def work(_: Run) -> None:
        print("before")
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        run(tmp_path, work)
    (path,) = tmp_path.iterdir()
    assert (path / "console.log").read_text() == "before\n"
    assert "write" not in vars(sys.stdout)


def test_a_stream_that_somebody_else_wrapped_keeps_working(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(_: Run) -> None:
        inner = sys.stdout.write
        sys.stdout.write = lambda text: inner(text.upper())  # type: ignore[method-assign]
        print("a")

    assert run(tmp_path, work) == "A\n"
    print("b")
    assert capsys.readouterr().out == "A\nB\n"


def test_many_threads_may_print(tmp_path: Path) -> None:
    def work(_: Run) -> None:
        def speak(name: int) -> None:
            for number in range(200):
                sys.stdout.write(f"{name} {number}\n")

        threads = [threading.Thread(target=speak, args=(name,)) for name in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    lines = run(tmp_path, work).splitlines()
    assert sorted(lines) == sorted(f"{name} {k}" for name in range(4) for k in range(200))


def test_a_full_disk_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(console, "SECONDS", 0.001)

    def refuse(_: bytes) -> int:
        raise OSError(28, "No space left on device")

    listener = Console(refuse, Mask())
    for _ in range(3):
        listener.take(0, "x\n")
    listener.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


FORKS = """\
import os, sys
from blackboxml import Run
with Run("r", log_dir=sys.argv[1], environment=(), console=True) as run:
    print("parent")
    if (child := os.fork()) == 0:
        print("child")
        sys.stdout.flush()
        os._exit("write" in vars(sys.stdout))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print("parent again")
    os.write(1, b"descriptor\\n")
print(run.path)
"""


def test_a_forked_process_prints_and_is_not_kept(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-u", "-c", FORKS, tmp_path], capture_output=True, text=True, check=True
    )
    *lines, path = done.stdout.splitlines()
    assert lines == ["parent", "child", "parent again", "descriptor"]
    with open(os.path.join(path, "console.log"), encoding="utf-8") as file:
        assert file.read() == "parent\nparent again\n"
    assert open_run(path).status == "completed"
