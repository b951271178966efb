"""`blackbox validate` and `blackbox rules`: what they print, and what they say to a gate."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blackboxml import Run, RunWriter
from blackboxml.cli import main
from blackboxml.cli.commands.validate import exit_status
from blackboxml.errors import Problem
from blackboxml.validation import Report, catalogue
from blackboxml.validation.renderers import RENDERERS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(name: str = "demo", folder: str = "runs") -> Path:
    with Run(name, log_dir=folder) as run:
        for step in range(3):
            run.log({"train/loss": 1 / (step + 1)})
    return run.path.relative_to(Path.cwd())


def spoil(path: Path) -> Path:
    """Change a digit of a value in the journal of a run."""
    journal = path / "metrics.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"train/loss":0.5', b'"train/loss":0.6'))
    return path


def alive(folder: str = "runs") -> RunWriter:
    """A run that this process goes on with."""
    writer = RunWriter.create(folder, "alive")
    writer.log({"train/loss": 1.0})
    return writer


# -- the exit status


def test_valid_runs_are_named_and_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = record("a"), record("b", "runs/deeper")
    assert main(["validate", "runs"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[:2] == [f"✓ {path}: valid" for path in sorted([first, second])]
    assert re.fullmatch(r"2 runs: 2 valid; no findings \(\d+\.\d s\)", lines[2])
    assert main(["validate", str(first / "run.json")]) == 0
    assert capsys.readouterr().out == f"✓ {first}: valid\n"


def test_one_invalid_run_fails_a_tree(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record("good")
    bad = spoil(record("bad"))
    with_writer = alive()
    assert main(["validate", "runs", "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert f"✗ {bad}: invalid: " in out
    assert f"… {with_writer.path.relative_to(here)}: incomplete: running: " in out
    assert re.search(r"^3 runs: 1 valid, 1 invalid, 1 incomplete; ", out, re.MULTILINE)
    with_writer.finish()


def test_a_finding_says_where_what_is_wanted_and_what_mends_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spoil(record())
    assert main(["validate", str(path)]) == 1
    out = capsys.readouterr().out
    start = out.index("  metrics.jsonl line 3, byte ")
    finding = out[start:].split("\n\n")[0].splitlines()
    assert finding[1] == "  error BB-JNL-004 crc-matches"
    assert finding[2].startswith("    found   the checksum is ")
    assert finding[3] == f"    wanted  {catalogue.rule('BB-JNL-004').text.replace('`', '')}"
    assert finding[4] == f"    mend    blackbox repair {path} -o {path}.repaired"


@pytest.mark.rule("BB-VAL-012")
def test_an_incomplete_run_is_undecided_unless_it_is_accepted(here: Path) -> None:
    writer = alive()
    path = str(writer.path)
    assert main(["validate", path]) == 3
    assert main(["validate", path, "--accept-incomplete"]) == 0
    writer.finish()
    assert main(["validate", path]) == 0


@pytest.mark.rule("BB-VAL-012")
def test_a_run_of_a_newer_version_is_undecided(here: Path) -> None:
    path = record()
    manifest = path / "run.json"
    manifest.write_text(manifest.read_text().replace('"version": "1.0"', '"version": "2.0"', 1))
    assert main(["validate", str(path)]) == 3
    assert main(["validate", str(path), "--accept-incomplete"]) == 3


@pytest.mark.rule("BB-VAL-012")
def test_a_folder_without_a_run_is_undecided(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    assert main(["validate", "empty"]) == 3
    assert "unreadable" in capsys.readouterr().out


def test_a_path_that_is_not_there_is_wrong_usage(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = record()
    assert main(["validate", str(good), "none"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err == "blackbox: error: none: no such file or directory\n"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BB-JNL-04", "BB-JNL-004 (crc-matches)"),
        ("jnl-004", "BB-JNL-004 (crc-matches)"),
        ("crc-match", "BB-JNL-004 (crc-matches)"),
    ],
)
def test_an_unknown_rule_is_wrong_usage_and_the_nearest_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, meant: str
) -> None:
    assert main(["validate", str(record()), "--ignore", name]) == 2
    assert capsys.readouterr().err.endswith(f"did you mean {meant}?\n")
    assert main(["rules", name]) == 2
    assert capsys.readouterr().err.endswith(f"did you mean {meant}?\n")


@pytest.mark.parametrize("arguments", ["--level all", "--format html", "--jobs 0", "--fail-on no"])
def test_a_wrong_option_is_wrong_usage(here: Path, arguments: str) -> None:
    assert main(["validate", str(record()), *arguments.split()]) == 2


def test_warnings_fail_on_request(here: Path) -> None:
    path = record()
    (path / "console.log").write_text("x")
    assert main(["validate", str(path)]) == 0
    assert main(["validate", str(path), "--fail-on", "warning"]) == 1
    assert main(["validate", str(path), "--fail-on", "warning", "--ignore", "BB-INT-010"]) == 0


WARNING = Problem("BB-INT-010", "warning", "x")


@pytest.mark.rule("BB-VAL-012")
@pytest.mark.parametrize(
    ("verdicts", "options", "status"),
    [
        ([], {}, 0),
        (["valid", "valid"], {}, 0),
        (["valid", "invalid", "unreadable"], {}, 1),
        (["valid", "unreadable"], {}, 3),
        (["unsupported", "incomplete"], {"accept_incomplete": True}, 3),
        (["valid", "incomplete"], {"accept_incomplete": True}, 0),
        (["valid", "incomplete"], {"accept_incomplete": False}, 3),
    ],
)
def test_the_worst_run_decides(
    here: Path, verdicts: list[Any], options: dict[str, bool], status: int
) -> None:
    reports = [Report(here, verdict=verdict) for verdict in verdicts]
    assert exit_status(reports, **options) == status


def test_a_warning_decides_only_on_request(here: Path) -> None:
    report = Report(here, verdict="incomplete", problems=[WARNING])
    assert exit_status([report]) == 3
    assert exit_status([report], accept_incomplete=True) == 0
    assert exit_status([report], accept_incomplete=True, fail_on_warning=True) == 1


def test_a_fault_of_values_is_not_found_at_a_lower_level(here: Path) -> None:
    path = spoil(record())
    assert main(["validate", str(path), "--level", "schema"]) == 0
    assert main(["validate", str(path), "--level", "structure"]) == 1


# -- forms


@pytest.mark.parametrize("form", ["text", *RENDERERS])
def test_a_report_is_printed_or_written(
    here: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    path = spoil(record())
    assert main(["validate", str(path), "--format", form]) == 1
    printed = capsys.readouterr().out
    assert "BB-JNL-004" in printed
    assert main(["validate", str(path), "--format", form, "--output", "report"]) == 1
    out = capsys.readouterr().out
    assert (here / "report").read_text() == printed
    assert re.search(r"^1 run: 1 invalid; 4 errors \(", out, re.MULTILINE)


def test_json_is_a_form_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record()
    assert main(["validate", str(path), "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["path"], report["verdict"], report["ok"]) == (str(path), "valid", True)
    assert report["outcomes"]["BB-JNL-004"] == {"state": "passed"}
    assert "BB-JNL-004" in report["checked"]


def test_of_many_runs_only_those_with_findings_are_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record()
    for number in range(21):
        shutil.copytree(path, f"{path}_{number}")
    bad = spoil(path.with_name(f"{path.name}_3"))
    assert main(["validate", "runs", "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith(("✓", "✗"))] == [
        f"✗ {bad}: invalid: 4 errors"
    ]
    assert "BB-JNL-004  crc-matches" in out
    assert "22 runs: 21 valid, 1 invalid; 4 errors" in out


def test_names_cannot_send_codes_to_the_terminal(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record()
    os.rename(path, "runs/a\x1b[31mb")
    (here / "runs/a\x1b[31mb" / "x\x1b[2Jy").touch()
    main(["validate", "runs"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "a\\x1b[31mb" in out
    assert "x\\x1b[2Jy" in out


# -- on a terminal


def on_a_terminal(*arguments: str, columns: int) -> str:
    """Return what a command sends to a terminal of so many columns."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "blackboxml", *arguments],
        stdout=child,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    os.close(child)
    parts = []
    while True:
        try:
            part = os.read(parent, 2**16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(parent)
    process.wait()
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_is_never_overrun(here: Path, columns: int) -> None:
    path = spoil(record())
    out = on_a_terminal("validate", str(path), "--level", "structure", columns=columns)
    assert "\x1b[" in out
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    assert lines[0].startswith(f"✗ {path}")
    assert max(map(len, lines)) <= columns
    whole = " ".join(" ".join(lines).split())
    assert f"mend blackbox repair {path} -o {path}.repaired" in whole.replace(
        "repaire d", "repaired"
    )


# -- rules


def test_a_rule_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "BB-JNL-004"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("BB-JNL-004 crc-matches\n")
    assert catalogue.rule("BB-JNL-004").text.replace("`", "") in out
    assert "looked at by --level structure, integrity, full" in out
    assert "by `blackbox repair`" in out
    assert main(["rules", "crc-matches"]) == 0
    assert capsys.readouterr().out == out


def test_all_rules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert listed == [rule.id for rule in catalogue.rules()]
    assert main(["rules", "--json", "BB-LAY-001"]) == 0
    (known,) = json.loads(capsys.readouterr().out)
    assert known["slug"] == "directory-name"


def test_help_tells_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "0 valid, 1 invalid (or a warning, with --fail-on warning), 2 wrong usage" in out
