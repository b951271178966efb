"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from blackboxml import validate
from tests.validation import runs

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project in whose environment the package stands, as its metadata say."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    place = pytester.path / "site" / "blackboxml-0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: blackboxml\nVersion: 0\n")
    points = project["entry-points"]["pytest11"].items()
    entries = "".join(f"{name} = {module}\n" for name, module in points)
    (place / "entry_points.txt").write_text(f"[pytest11]\n{entries}")
    monkeypatch.setenv("PYTHONPATH", f"{place.parent}{os.pathsep}{ROOT / 'src'}")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --import-mode=importlib\n")
    return pytester


TEST = """
def test_run(assert_valid_run):
    assert assert_valid_run({}).level
"""


def call(pytester: pytest.Pytester, arguments: str) -> pytest.RunResult:
    """Run a test that asserts something of a run, in this process."""
    pytester.makepyfile(TEST.format(arguments))
    # By its module, whether or not the environment has it under its name too.
    chosen = ["-p", "no:blackboxml", "-p", "blackboxml.pytest_plugin"]
    return pytester.runpytest_inprocess(*chosen, "-p", "no:xdist", "-p", "no:cacheprovider")


@pytest.fixture(scope="module", autouse=True)
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid run; what the plugin loads is there before a pytest within this one forgets it."""
    path = runs.record(tmp_path_factory.mktemp("sealed"))
    assert validate(path).verdict == "valid"
    return path


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a line that is damaged, and so an error with line, offset and cure."""
    path = runs.record(tmp_path_factory.mktemp("broken"), sealed=False)
    runs.edit_bytes(path, "metrics.jsonl", lambda data: data.replace(b'"seq":1,', b'"seq":7,', 1))
    return path


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    code = (
        "import os, sys; from blackboxml import Run; run = Run('crash', log_dir=sys.argv[1])\n"
        "run.__enter__(); run.log({'a': 1}); print(run.path, flush=True); os._exit(9)"
    )
    command = [sys.executable, "-c", code, tmp_path_factory.mktemp("crashed")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def advised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid run that leaves a piece of advice."""
    path = runs.record(tmp_path_factory.mktemp("advised"), sealed=False)
    runs.edit_bytes(path, "run.json", lambda data: data.rstrip(b"\n"))
    return path


def test_a_valid_run_passes_where_the_package_is_installed(
    installed: pytest.Pytester, sealed: Path
) -> None:
    installed.makepyfile(TEST.format(f"{str(sealed)!r}"))
    result = installed.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_a_failure_shows_place_rule_what_was_wanted_and_cure(
    pytester: pytest.Pytester, broken: Path
) -> None:
    result = call(pytester, f"{str(broken)!r}")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            rf"E +AssertionError: .*{re.escape(broken.name)} is invalid at level full: .* errors",
            r"E +error BB-JNL-004 crc-matches: metrics\.jsonl, line \d+, byte \d+",
            r"E +found:  the checksum is .*",
            r"E +wanted: The `crc` of a line MUST be the CRC-32 .*",
            r"E +cure:   .*",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")  # the test's own line is shown, not ours


def test_rules_can_be_left_out_and_levels_chosen(pytester: pytest.Pytester, broken: Path) -> None:
    ignore = "ignore=['BB-JNL-004', 'BB-JNL-009', 'BB-MRG-001']"
    call(pytester, f"{str(broken)!r}, {ignore}").assert_outcomes(passed=1)
    call(pytester, f"{str(broken)!r}, level='schema'").assert_outcomes(passed=1)
    result = call(pytester, f"{str(broken)!r}, level='ful'")
    result.stdout.fnmatch_lines(["*ValueError: there is no level 'ful'*"])


def test_warnings_fail_only_on_request(pytester: pytest.Pytester, advised: Path) -> None:
    call(pytester, f"{str(advised)!r}").assert_outcomes(passed=1)
    result = call(pytester, f"{str(advised)!r}, allow_warnings=False")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*warning BB-MAN-002 manifest-format-first: run.json"])


def test_a_run_that_was_killed_fails_unless_that_is_accepted(
    pytester: pytest.Pytester, crashed: Path
) -> None:
    result = call(pytester, f"{str(crashed)!r}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*is incomplete at level full: crashed*"])
    call(pytester, f"{str(crashed)!r}, accept_incomplete=True").assert_outcomes(passed=1)


def test_what_is_no_run_fails(pytester: pytest.Pytester, tmp_path: Path) -> None:
    result = call(pytester, f"{str(tmp_path / 'nothing')!r}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*AssertionError: not a run: *nothing*"])


def test_the_fixture_is_listed_with_a_sentence(installed: pytest.Pytester) -> None:
    result = installed.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(
        ["assert_valid_run*", "*Check a run against the specification: `assert_valid_run(path)`."]
    )


def test_whoever_does_not_use_it_pays_nothing() -> None:
    code = (
        "import sys, pytest, importlib\n"
        "before = set(sys.modules)\n"
        "import blackboxml.pytest_plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-X", "importtime", "-c", code]
    spent = []
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        expected = ["blackboxml", "blackboxml.pytest_plugin", "blackboxml.version"]
        assert done.stdout.split() == expected
        # Microseconds of each module by itself; what is inside another is not counted twice.
        own = re.findall(r"(?m)^import time: +(\d+) \| +\d+ \| +blackboxml\S*$", done.stderr)
        assert len(own) == len(expected)
        spent.append(sum(map(int, own)))
    assert min(spent) < 5000
