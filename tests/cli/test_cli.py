"""The commands as a user calls them: what they print, what they return, what they leave alone."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, __version__, open_run
from blackboxml.cli import main
from blackboxml.cli.output import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Tell = subprocess.Popen[str]

# Logs a point for each line on its standard input, and says so; ends the run at the end of input.
WRITER = """\
import sys
from blackboxml import Run
with Run(sys.argv[1], log_dir=sys.argv[2]) as run:
    print(run.path, flush=True)
    for line in sys.stdin:
        run.log({"train/loss": float(line)})
        print("logged", flush=True)
"""


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **options
    )


def blackbox(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return python("-m", "blackboxml", *map(str, arguments), **options)


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def record(log_dir: Path, name: str = "resnet", steps: int = 3, **options: Any) -> Path:
    with Run(name, log_dir=log_dir, environment=[], **options) as run:
        run.describe("train/loss", unit="nat")
        for step in range(steps):
            run.log({"train/loss": 1.0 / (step + 1), "train/seen": step * 64, "eval/loss": 0.5})
    return run.path


def seen(log_dir: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    assert main(["list", str(log_dir), "--json", *options]) == 0
    return strict(capsys.readouterr().out)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[[str], Tell]]:
    children: list[Tell] = []

    def start(name: str) -> Tell:
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, name, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        child.stdout.readline()
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


@contextlib.contextmanager
def reading(*arguments: str) -> Iterator[Tell]:
    """A command whose output is read as it comes; killed if nothing does."""
    with subprocess.Popen(
        [sys.executable, "-m", "blackboxml", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        watchdog = threading.Timer(60, child.kill)
        watchdog.start()
        try:
            yield child
        finally:
            watchdog.cancel()


def log(child: Tell, value: float) -> None:
    child.stdin.write(f"{value}\n")
    child.stdin.flush()
    assert child.stdout.readline() == "logged\n"


# -- what every command has


def test_version_and_help_come_without_heavy_libraries() -> None:
    assert blackbox("--version").stdout == f"blackbox {__version__}\n"
    for arguments in ("--help", "plot --help", "validate --help"):
        done = blackbox(*arguments.split())
        assert done.returncode == 0
        assert "example: blackbox" in done.stdout


def test_listing_loads_no_array_library(tmp_path: Path) -> None:
    record(tmp_path)
    record(tmp_path, "live", seal=False)
    code = (
        "import sys\n"
        "from blackboxml.cli import main\nfrom blackboxml.cli.output import Progress\n"
        f"assert main(['list', {str(tmp_path)!r}]) == 0\n"
        "heavy = {'numpy', 'pyarrow', 'polars', 'h5py', 'pandas', 'xarray', 'plotext'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    ["", "nonsense", "show", "tail -n -1 x", "list --status odd", "plot x --width 0", "seal --odd"],
)
def test_wrong_usage_is_two(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    assert "usage: blackbox" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "seal", "pack", "tail", "plot"])
def test_a_run_that_is_not_there_is_one_and_a_hint(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "nowhere", "--log-dir", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("blackbox: error: run not found: 'nowhere'")
    assert "blackbox list" in err


@pytest.mark.parametrize("command", ["show", "tail", "plot", "seal", "validate"])
def test_damage_is_an_error_and_never_a_traceback(command: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("[1,")
    done = blackbox(command, broken)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "run.json" in done.stderr + done.stdout


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    path = record(tmp_path, steps=20_000, seal=False)
    with reading("tail", str(path), "-n", "20000") as child:
        assert child.stdout.readline().startswith("step 0 ")
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 141


def test_warnings_of_the_library_are_shown_and_its_logger_is_left_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("blackboxml")
    before = (list(logger.handlers), logger.propagate)

    def warn(*_: object) -> list[Path]:
        logger.warning("look: %s", "here")
        return []

    monkeypatch.setattr("blackboxml.collection.find_runs", warn)
    assert main(["list", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "blackbox: warning: look: here\n"
    assert (list(logger.handlers), logger.propagate) == before


class Screen(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_is_shown_for_long_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with Progress("sealing a run") as progress:
        progress.update(0.25)
    assert screen.getvalue() == ""
    with Progress("sealing a run") as progress:
        progress.update(0.5)
        progress._start()  # as the timer does after two seconds
    assert "sealing a run" in screen.getvalue()
    assert "50%" in screen.getvalue()
    before = screen.getvalue()
    progress._start()  # a timer that fires at the last moment
    assert screen.getvalue() == before


# -- list


def test_nothing_recorded_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == "no runs found.\n"
    assert seen(tmp_path / "none", capsys) == []


def test_runs_are_listed_newest_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path, "first", tags=["a", "b"])
    record(tmp_path, "second", steps=5, seal=False)
    assert main(["runs", "--log-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "DATE", "DURATION", "STATUS", "STEPS", "TAGS"]
    assert re.fullmatch(r"second +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d+s +completed +5 +-", lines[1])
    assert re.fullmatch(
        r"first +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d+s +completed +3 +a, b", lines[2]
    )


def test_a_list_as_json_has_what_the_manifest_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path, tags=["a"])
    (run,) = seen(tmp_path, capsys)
    assert run == {
        "path": str(path),
        "name": "resnet",
        "id": open_run(path).id,
        "status": "completed",
        "start": open_run(path).start.isoformat(),
        "end": open_run(path).end.isoformat(),
        "duration_seconds": open_run(path).duration_seconds,
        "steps": 3,
        "tags": ["a"],
        "metrics": {"train/loss": 1 / 3, "train/seen": 128, "eval/loss": 0.5},
        "error": None,
    }


def test_filters_go_by_status_and_all_tags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "both", tags=["a", "b"])
    record(tmp_path, "one", tags=["a"])
    with pytest.raises(ValueError, match="bad"), Run("bad", ["a"], tmp_path, environment=[]):
        raise ValueError("bad")
    assert [run["name"] for run in seen(tmp_path, capsys, "--status", "failed")] == ["bad"]
    assert [run["name"] for run in seen(tmp_path, capsys, "--tag", "b")] == ["both"]
    assert [run["name"] for run in seen(tmp_path, capsys, "--tag", "a", "--tag", "b")] == ["both"]


def test_runs_that_cannot_be_read_are_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path)
    broken = {
        "list": [1, 2],
        "foreign": {"some": "thing"},
        "future": {"format": {"name": "blackbox-run", "version": "9.0"}},
        "legacy": {"name": "old", "start": "soon", "steps": []},
        "nothing": "",
    }
    for name, document in broken.items():
        folder = tmp_path / f"broken_{name}"
        folder.mkdir()
        (folder / "run.json").write_text("" if document == "" else json.dumps(document))
    assert main(["list", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(broken)
    for line in lines[2:]:
        assert re.fullmatch(r"broken_\w+ +- +- +unreadable +- +\S.*", line), line
    unreadable = seen(tmp_path, capsys, "--status", "unreadable")
    assert {Path(run["path"]).name for run in unreadable} == {f"broken_{name}" for name in broken}
    assert all(run["error"] for run in unreadable)
    assert main(["show", "resnet", "--log-dir", str(tmp_path)]) == 0  # found among them


def test_a_run_whose_manifest_is_partly_damaged_is_listed_by_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((record(tmp_path / "whole") / "run.json").read_text())
    damaged = {
        "attempts": {"status": "running", "attempts": [1]},
        "name": {"name": None},
        "start": {"start": "yesterday", "attempts": []},
        "tags": {"tags": None},
    }
    for name, members in damaged.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps(manifest | members))
    listed = {Path(run["path"]).name: run for run in seen(tmp_path / "runs", capsys)}
    assert {name: run["name"] for name, run in listed.items()} == {
        "attempts": manifest["name"],
        "name": "name",
        "start": manifest["name"],
        "tags": manifest["name"],
    }
    assert listed["start"]["start"] is None
    assert listed["tags"]["tags"] == []


def test_a_run_of_blackboxml_0_5_is_listed_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {
        "name": "old",
        "tags": ["a"],
        "environment": {},
        "start": "2025-01-01T10:00:00+00:00",
        "end": "2025-01-01T12:05:30+00:00",
        "duration_seconds": 7530.4,
        "steps": [{"loss": 1}, {"loss": math.nan}],
    }
    (tmp_path / "old_20250101_100000").mkdir()
    (tmp_path / "old_20250101_100000" / "run.json").write_text(json.dumps(old))
    assert main(["list", str(tmp_path)]) == 0
    assert re.search(
        r"^old +2025-01-01 .* 2h 5m 30s +- +2 +a$", capsys.readouterr().out, re.MULTILINE
    )
    assert main(["show", "old", "--log-dir", str(tmp_path)]) == 0
    assert strict(capsys.readouterr().out)["steps"] == [{"loss": 1}, {"loss": "NaN"}]


@pytest.mark.rule("BB-SEC-009")
def test_control_characters_in_a_name_never_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path, seal=False)
    manifest = json.loads((path / "run.json").read_text())
    evil = "a\x1b[2J\x9b1m\n\u202eb [bold]"
    (path / "run.json").write_text(json.dumps(manifest | {"name": evil, "tags": [evil]}))
    for command in ("list", "show"):
        for options in ([], ["--json"]):
            assert main([command, str(tmp_path if command == "list" else path), *options]) == 0
            out = capsys.readouterr().out
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)
            assert "[bold]" in out
            if options:
                document = strict(out)
                found = document[0] if command == "list" else document["manifest"]
                assert found["name"] == evil


def test_wide_names_align(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("実験", "résumé", "🚀 run"):
        record(tmp_path, name)
    assert main(["list", str(tmp_path)]) == 0

    def cells(text: str) -> int:
        return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)

    lines = capsys.readouterr().out.splitlines()
    places = {cells(line[: re.search(r"DATE|\d{4}-", line).start()]) for line in lines}
    assert len(places) == 1


# -- show


def test_a_run_is_shown_by_its_newest_name_its_directory_or_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "my run/1")
    newest = record(tmp_path, "my run/1", steps=4)
    record(tmp_path, "my_run_1")
    for text in ("my run/1", newest.name, str(newest), str(newest / "run.json")):
        assert main(["show", text, "--log-dir", str(tmp_path), "--json"]) == 0
        assert strict(capsys.readouterr().out)["path"] == str(newest)


def test_a_folder_of_the_same_name_does_not_hide_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path / "logs")
    (tmp_path / "resnet").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["show", "resnet", "--log-dir", "logs"]) == 0
    assert "completed" in capsys.readouterr().out


def test_show_says_what_a_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"lr": 0.1, "optim": {"name": "adam", "betas": (0.9, 0.999)}, "data": Path("/data")}
    path = record(tmp_path, tags=["a", "b"], config=config)
    assert main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    for expected in (
        r"^name +resnet$",
        r"^status +completed \(.+\)$",
        rf"^path +{re.escape(str(path))}$",
        r"^tags +a, b$",
        r"^config +lr = 0.1$",
        r"^ +optim.name = adam$",
        r"^ +optim.betas = \(0.9, 0.999\)$",
        r"^ +data = /data$",
        r"^METRIC +LAST +MIN +MAX +MEAN +N +STEPS$",
        r"^train/loss \[nat\] +0.33333 +0.33333 +1 +0.61111 +3 +0–2$",
        r"^train/seen +128 +0 +128 +64 +3 +0–2$",
        r"^eval/loss +0.5 +0.5 +0.5 +0.5 +3 +0–2$",
    ):
        assert re.search(expected, out, re.MULTILINE), (expected, out)


def test_show_tells_an_exception_and_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run("r", log_dir=tmp_path, seal=False).start()
    run.log({"a": 1.0})
    run.log({"a": 2.0})
    run.finish("failed", ValueError("bad batch"))
    journal = run.path / "metrics.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"1.0", b"9.0")
    journal.write_bytes(b"".join(lines))
    assert main(["show", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^status +failed", out, re.MULTILINE)
    assert re.search(r"^exception +ValueError: bad batch$", out, re.MULTILINE)
    assert "metrics.jsonl:2: error: BB-JNL-004" in out
    assert "    cure: " in out


def test_show_as_json_is_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = 2**70
    with Run("r", log_dir=tmp_path, config={"big": big, "nan": math.nan, 3: b"\x00"}) as run:
        run.log({"loss": math.nan, "n": 2**62})
    assert main(["show", str(run.path), "--json"]) == 0
    document = strict(capsys.readouterr().out)
    assert document["config"] == {"big": big, "nan": "NaN", "3": "AA=="}
    assert document["manifest"] == json.loads((run.path / "run.json").read_text())
    assert document["summary"]["loss"]["last"] == "NaN"
    assert document["summary"]["n"]["last"] == 2**62
    assert document["status"] == "completed"
    assert document["problems"] == []


def test_a_run_without_metrics_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path, steps=0)
    assert main(["show", str(path)]) == 0
    assert "no metrics were logged." in capsys.readouterr().out
    assert main(["plot", str(path)]) == 0
    assert "no metrics were logged." in capsys.readouterr().out
    assert main(["tail", str(path)]) == 0
    assert not capsys.readouterr().out


# -- seal and pack


def test_seal_pack_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path, seal=False)
    before = open_run(path).arrow("train").to_pylist()
    told = []
    for command in ("seal", "seal", "pack", "pack", "seal"):
        assert main([command, "resnet", "--log-dir", str(tmp_path)]) == 0
        told.append(capsys.readouterr().out)
        assert open_run(path).arrow("train").to_pylist() == before
    assert re.match(rf"{re.escape(str(path))}: sealed \(rows: train 3, eval 3; .+ → .+\)", told[0])
    assert "was sealed already (rows" in told[1]
    assert ": packed (rows: train 3, eval 3; " in told[2]
    assert "was packed already (rows" in told[3]
    assert ": sealed (" in told[4]


def test_one_run_that_cannot_be_sealed_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], writer: Callable[[str], Tell]
) -> None:
    writer("live")
    good = record(tmp_path, seal=False)
    assert main(["seal", "nowhere", "live", str(good), "--log-dir", str(tmp_path), "--json"]) == 1
    out, err = capsys.readouterr()
    missing, live, sealed = strict(out)
    assert "run not found" in missing["error"]
    assert "is being written" in live["error"]
    assert sealed["changed"]
    assert sealed["rows"] == {"train": 3, "eval": 3}
    assert err.count("blackbox: error: ") == 2
    assert open_run(good).sealed


# -- tail


def test_the_last_points_come_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path, steps=30)
    assert main(["tail", str(path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10
    assert main(["tail", str(path), "-n", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "step 28  train/loss=0.034483  train/seen=1792  eval/loss=0.5",
        "step 29  train/loss=0.033333  train/seen=1856  eval/loss=0.5",
    ]
    assert main(["tail", str(path), "-n", "0"]) == 0
    assert not capsys.readouterr().out


def test_the_last_points_as_json_are_one_object_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run("r", log_dir=tmp_path) as run:
        run.log({"loss": math.inf, "ok": True}, step=7)
    assert main(["pack", str(run.path)]) == 0
    capsys.readouterr()
    assert main(["tail", str(run.path), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    point = strict(line)
    assert point["step"] == 7
    assert point["metrics"] == {"loss": "Infinity", "ok": True}
    assert (point["rank"], point["attempt"], point["seq"], point["ranks"]) == (0, 0, 0, {})


def test_following_shows_each_point_once_until_the_run_ends(
    tmp_path: Path, writer: Callable[[str], Tell]
) -> None:
    child = writer("live")
    for value in (1, 2, 3):
        log(child, value)
    where = ("--log-dir", str(tmp_path))
    with reading("tail", "-f", "-n2", "--poll", "0.02", "live", *where) as follower:
        assert follower.stdout.readline() == "step 1  train/loss=2\n"
        assert follower.stdout.readline() == "step 2  train/loss=3\n"
        for value in (4, 5):  # the first of them may come before the following begins
            log(child, value)
        assert follower.stdout.readline() == "step 3  train/loss=4\n"
        assert follower.stdout.readline() == "step 4  train/loss=5\n"
        log(child, 6)
        child.stdin.close()
        assert follower.stdout.readline() == "step 5  train/loss=6\n"
        rest, told = follower.communicate()
    assert rest == ""
    assert "the run is over: completed" in told
    assert follower.returncode == 0


def test_interrupting_the_following_is_no_traceback(
    tmp_path: Path, writer: Callable[[str], Tell]
) -> None:
    child = writer("live")
    log(child, 1)
    with reading("tail", "-f", "live", "--log-dir", str(tmp_path)) as follower:
        assert follower.stdout.readline() == "step 0  train/loss=1\n"
        follower.send_signal(signal.SIGINT)
        assert follower.communicate() == ("", "")
    assert follower.returncode == 130


def test_a_live_run_is_running_and_a_killed_one_crashed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], writer: Callable[[str], Tell]
) -> None:
    child = writer("live")
    log(child, 0.5)
    (run,) = seen(tmp_path, capsys)
    assert (run["status"], run["steps"], run["end"]) == ("running", 1, None)
    child.kill()
    child.wait()
    (run,) = seen(tmp_path, capsys)
    assert (run["status"], run["steps"]) == ("crashed", 1)
    assert main(["show", "live", "--log-dir", str(tmp_path)]) == 0
    assert re.search(r"^status +crashed \(.+is gone", capsys.readouterr().out, re.MULTILINE)
    assert main(["seal", "live", "--log-dir", str(tmp_path)]) == 0
    capsys.readouterr()
    assert [run["status"] for run in seen(tmp_path, capsys)] == ["interrupted"]


# -- plot


def test_train_and_eval_share_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path, steps=50)
    assert main(["plot", str(path)]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].strip() == "loss"
    assert re.fullmatch(r" +⠒⠒ train/loss   ▄▄ eval/loss", lines[1])
    assert lines[-1].strip() == "step"
    assert len([line for line in lines if "┤" in line]) >= 3
    assert re.fullmatch(r" +0 +10 +20 +30 +40", lines[-2])
    assert "seen" not in out  # an integer, where there are floats
    assert "\x1b" not in out
    assert max(map(len, lines)) <= 80


def test_metrics_are_chosen_by_either_name_also_behind_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path)
    assert main(["plot", str(path), "--width", "60", "train/seen", "loss"]) == 0
    out = capsys.readouterr().out
    assert "⠒⠒ train/seen" in out
    assert "⠒⠒ train/loss   ▄▄ eval/loss" in out
    assert max(map(len, out.splitlines())) <= 60
    assert main(["plot", str(path), "train/loss", "--x", "time", "--height", "12"]) == 0
    out = capsys.readouterr().out
    assert "eval/loss" not in out
    assert out.splitlines()[-1].strip() == "time (s)"
    assert len(out.splitlines()) == 12
    assert main(["plot", str(path), "los"]) == 1
    assert "has no metric 'los'; it has train/loss, train/seen" in capsys.readouterr().err
    assert main(["plot", str(path), "--width", "60", "loss", "--odd"]) == 2


def test_a_plot_has_colours_on_a_terminal_only_and_respects_no_color(tmp_path: Path) -> None:
    path = record(tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    forced = environment | {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert "\x1b[36m" in blackbox("plot", path, env=forced).stdout
    assert "\x1b[36m" not in blackbox("plot", path, env=forced | {"NO_COLOR": "1"}).stdout
    assert "\x1b" not in blackbox("plot", path, env=environment).stdout


# -- clean


def answer(monkeypatch: pytest.MonkeyPatch, text: str | None) -> list[str]:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        if text is None:
            raise EOFError
        return text

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    return asked


@pytest.mark.parametrize("text", ["", "n", "no", "yess", None])
def test_clean_deletes_nothing_unless_told_to(
    text: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = record(tmp_path)
    asked = answer(monkeypatch, text)
    assert main(["clean", str(tmp_path)]) == 0
    assert asked == [f"delete 1 run(s) below {tmp_path}? [y/N]: "]
    assert path.exists()
    assert "deleted" not in capsys.readouterr().out.replace("nothing was deleted.", "")


def test_clean_deletes_runs_only(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    writer: Callable[[str], Tell],
) -> None:
    record(tmp_path)
    record(tmp_path / "deeper", "other", seal=False)
    live = writer("live")
    log(live, 1.0)
    (tmp_path / "notes.txt").write_text("mine")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "run.json").write_text('{"some": "thing"}')
    answer(monkeypatch, "y")
    assert main(["clean", "--log-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\S+/live_\S+ stays: it is being written", out, re.MULTILINE)
    assert re.search(r"^\S+/foreign stays: it is not known to be a run", out, re.MULTILINE)
    assert out.endswith("deleted 2 run(s).\n")
    assert {path.name.partition("_")[0] for path in tmp_path.iterdir()} == {
        *("live", "notes.txt", "foreign", "deeper")
    }
    assert not list((tmp_path / "deeper").iterdir())


def test_clean_without_a_person_needs_yes(tmp_path: Path) -> None:
    path = record(tmp_path)
    done = blackbox("clean", tmp_path, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "-y" in done.stderr
    done = blackbox("clean", tmp_path, "--dry-run", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, f"would delete {path}\n")
    assert path.exists()
    done = blackbox("clean", tmp_path, "-y", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, "deleted 1 run(s).\n")
    assert not path.exists()
    done = blackbox("clean", tmp_path, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, "no runs to delete.\n")
