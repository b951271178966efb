"""Levels, outcomes and verdicts of one run, and the reports of many."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blackboxml import RunWriter, validate
from blackboxml.errors import NotARunError
from blackboxml.model import Limits
from blackboxml.seal import seal
from blackboxml.validation import LEVELS, Outcome, Report, batch, catalogue, single, validate_all
from blackboxml.validation import rules as all_checks
from tests.validation import runs

CHECKED = {rule.id: rule.checked for rule in catalogue.rules() if rule.checked != "behaviour"}
OF_LEVEL = {
    "schema": {"schema"},
    "structure": {"schema", "structure"},
    "integrity": {"schema", "structure", "integrity"},
    "full": {"schema", "structure", "integrity", "data"},
}
KINDS = ("ended", "sealed", "packed", "ranks")


def states(report: Report) -> dict[str, str]:
    return {rule: outcome.state for rule, outcome in report.outcomes.items()}


def value_of_another(path: Path) -> None:
    """Change a value in the table, with all digests made to fit."""
    runs.edit_table(path, lambda table: runs.with_value(table, "loss", 1, 0.125))


# -- levels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", LEVELS)
def test_every_rule_has_one_outcome_at_every_level(
    recorded: dict[str, Path], kind: str, level: Any
) -> None:
    report = validate(recorded[kind], level=level)
    assert report.level == level
    assert report.verdict == "valid"
    assert list(report.outcomes) == list(CHECKED)
    for rule, outcome in report.outcomes.items():
        if CHECKED[rule] not in OF_LEVEL[level]:
            at = "full" if CHECKED[rule] == "data" else CHECKED[rule]
            assert outcome == Outcome("skipped", f"looked at from level {at} on")
        else:
            assert outcome.state in {"passed", "not_applicable"}, (rule, outcome)
    assert sum(report.counts[state] for state in set(states(report).values())) == len(CHECKED)


@pytest.mark.rule("BB-VAL-001", "BB-VAL-002")
def test_a_value_that_differs_is_found_at_the_full_level_alone(sealed: Path) -> None:
    value_of_another(sealed)
    for level in ("schema", "structure", "integrity"):
        report = validate(sealed, level=level)
        assert (report.verdict, report.problems) == ("valid", [])
        assert report.outcomes["BB-SEA-004"].state == "skipped"
    report = validate(sealed)
    assert report.level == "full"
    assert report.verdict == "invalid"
    assert {problem.rule for problem in report.problems} == {"BB-SEA-004"}
    assert report.outcomes["BB-SEA-004"].state == "failed"


def test_a_digest_that_differs_is_found_from_the_level_integrity_on(sealed: Path) -> None:
    runs.edit_bytes(sealed, "train.parquet", lambda data: runs.flipped(data, len(data) // 2))
    for level in ("schema", "structure"):
        report = validate(sealed, level=level)
        assert not report.problems
    assert "is not the file that was sealed" in str(report.outcomes["BB-TAB-005"].why)
    for level in ("integrity", "full"):
        report = validate(sealed, level=level)
        assert [problem.rule for problem in report.problems] == ["BB-INT-009"]
        assert report.outcomes["BB-TAB-005"].state == "skipped"


def test_a_gap_is_found_from_the_level_structure_on(ended: Path) -> None:
    documents = runs.lines(ended)
    del documents[3]
    runs.write_lines(ended, documents)
    assert not validate(ended, level="schema").problems
    assert validate(ended, level="structure").outcomes["BB-JNL-009"].state == "failed"


@pytest.mark.parametrize("options", [{"level": "deep"}, {"ignore": ["BB-JNL-999"]}])
def test_a_level_or_a_rule_that_there_is_not_is_refused(
    sealed: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"there is no (level|rule) "):
        validate(sealed, **options)
    with pytest.raises(ValueError, match=r"there is no (level|rule) "):
        validate_all([sealed], **options)


# -- outcomes


def test_what_is_ignored_is_skipped_and_decides_nothing(sealed: Path) -> None:
    value_of_another(sealed)
    report = validate(sealed, ignore=["BB-SEA-004"])
    assert (report.verdict, report.problems) == ("valid", [])
    assert report.outcomes["BB-SEA-004"] == Outcome("skipped", "ignored on request")


@pytest.mark.rule("BB-VAL-008")
def test_what_is_not_there_is_not_applicable(recorded: dict[str, Path], tmp_path: Path) -> None:
    found = {kind: states(validate(path)) for kind, path in recorded.items()}
    for rule, kinds in (
        ("BB-DAT-003", {"sealed", "ranks"}),
        ("BB-SEA-009", {"packed"}),
        ("BB-INT-009", {"sealed", "packed", "ranks"}),
        ("BB-CFG-001", {"ended", "sealed", "packed"}),
        ("BB-GRP-006", {"ranks"}),
        ("BB-MED-003", set()),
        ("BB-JNL-004", {"ended", "sealed", "ranks"}),
        ("BB-MRG-005", set()),
        ("BB-MAN-011", set()),
    ):
        assert {kind for kind in KINDS if found[kind][rule] == "passed"} == kinds, rule
        others = {found[kind][rule] for kind in KINDS if kind not in kinds}
        assert others <= {"not_applicable"}, rule
    writer = RunWriter.create(tmp_path, "empty")
    report = validate(writer.path)
    assert report.outcomes["BB-GRP-002"].state == "not_applicable"
    writer.finish()


@pytest.mark.rule("BB-VAL-009")
def test_a_rule_that_cannot_be_decided_is_skipped_with_the_reason(sealed: Path) -> None:
    (sealed / "run.json").write_text("{")
    report = validate(sealed)
    for rule in ("BB-MAN-008", "BB-SEA-004", "BB-TAB-005", "BB-DAT-003", "BB-INT-003"):
        assert report.outcomes[rule] == Outcome("skipped", "run.json is not valid"), rule
    for level in LEVELS:
        outcomes = validate(sealed, level=level).outcomes.values()
        assert all(bool(each.why) == (each.state == "skipped") for each in outcomes)


def test_values_are_not_compared_with_a_journal_that_changed(sealed: Path) -> None:
    runs.edit_line(sealed, 3, lambda line: line.update(time=1.0))
    report = validate(sealed)
    assert report.verdict == "invalid"
    why = "metrics.jsonl is not what it was when the run was sealed"
    assert report.outcomes["BB-SEA-004"] == Outcome("skipped", why)


@pytest.mark.rule("BB-VAL-004", "BB-VAL-006")
def test_findings_are_of_rules_that_can_be_checked(sealed: Path) -> None:
    (sealed / "extra").write_text("x")
    runs.edit_bytes(sealed, "metrics.jsonl", lambda data: runs.flipped(data, 700))
    problems = validate(sealed).problems
    assert {problem.rule for problem in problems} <= CHECKED.keys()
    for problem in problems:
        assert catalogue.rule(problem.rule).absolute or problem.severity == "warning"


# -- verdicts


@pytest.mark.rule("BB-VAL-010")
@pytest.mark.parametrize("version", ["2.0", "17.3"])
def test_a_manifest_of_a_newer_major_version_is_unsupported(sealed: Path, version: str) -> None:
    runs.change(sealed, lambda manifest: manifest["format"].update(version=version))
    report = validate(sealed)
    assert report.verdict == "unsupported"
    assert not report.ok
    assert version in str(report.reason)
    assert report.outcomes["BB-VER-001"].state == "failed"
    why = "run.json needs a newer version of this library"
    assert report.outcomes["BB-JNL-004"] == Outcome("skipped", why)
    assert report.outcomes["BB-LAY-009"].state == "skipped"
    ignored = validate(sealed, ignore=["BB-VER-001"])
    assert (ignored.verdict, ignored.problems) == ("unsupported", [])


def test_a_journal_with_an_unknown_feature_is_unsupported(ended: Path) -> None:
    header = runs.lines(ended)[0]
    header["format"]["features"] = ["zstd"]
    header |= {"rank": 1}
    runs.write_lines(ended, [header], "metrics.r1.jsonl")
    report = validate(ended)
    assert [problem.rule for problem in report.problems] == ["BB-VER-006"]
    assert report.verdict == "unsupported"
    assert "metrics.r1.jsonl needs a newer version" in str(report.outcomes["BB-JNL-004"].why)
    runs.edit_bytes(ended, "metrics.jsonl", lambda data: runs.flipped(data, 700))
    assert validate(ended).verdict == "invalid"


def killed(folder: Path) -> Path:
    """The run of a process that was killed."""
    code = (
        "import os, signal, sys\n"
        "from blackboxml import RunWriter\n"
        f"writer = RunWriter.create({str(folder)!r}, 'killed')\n"
        "writer.log({'a': 1.5})\n"
        "print(writer.path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    return Path(done.stdout.decode().strip())


def test_a_run_is_incomplete_until_it_has_ended(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "live")
    report = validate(writer.path)
    assert (report.verdict, report.ok) == ("incomplete", True)
    assert str(report.reason).startswith("running: process ")
    writer.finish()
    assert validate(writer.path).verdict == "valid"


def test_a_run_that_crashed_is_incomplete_until_it_is_sealed(tmp_path: Path) -> None:
    path = killed(tmp_path)
    for level in LEVELS:
        report = validate(path, level=level)
        assert report.verdict == "incomplete"
        assert str(report.reason).startswith("crashed: process ")
    seal(path)
    report = validate(path)
    assert (report.verdict, report.problems) == ("valid", [])
    assert report.outcomes["BB-SEA-005"].state == "passed"


def test_a_run_whose_journals_are_gone_and_whose_process_is_elsewhere_is_undecided(
    ended: Path,
) -> None:
    (ended / "metrics.jsonl").unlink()

    def elsewhere(manifest: dict[str, Any]) -> None:
        for holder in (manifest, *manifest["attempts"]):
            holder["status"] = "running"
            for key in ("end", "duration_seconds"):
                holder.pop(key, None)
        manifest["attempts"][0]["process"] = {"host": "elsewhere", "pid": 1}

    runs.change(ended, elsewhere)
    report = validate(ended, ignore=["BB-MAN-013"])
    assert report.verdict == "incomplete"
    assert str(report.reason).startswith(("stale: ", "running: "))


# -- what the system refuses


@pytest.fixture(params=[errno.EACCES, errno.EMFILE, errno.EIO], ids=errno.errorcode.get)
def refusal(request: pytest.FixtureRequest) -> int:
    """Return why the system refuses."""
    return int(request.param)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, refusal: int) -> set[str]:
    """Names of files that the system does not let anybody read.

    Root may read everything, so permissions alone would test nothing where the tests run as root.
    """
    names: set[str] = set()
    real = os.open

    def guarded(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if path in names:
            raise OSError(refusal, os.strerror(refusal), path)
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", guarded)
    return names


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.jsonl", "train.parquet"])
def test_a_file_that_the_system_refuses_is_no_broken_rule(
    sealed: Path, refused: set[str], refusal: int, name: str, level: Any
) -> None:
    refused.add(name)
    report = validate(sealed, level=level)
    if name == "train.parquet" and level == "schema":
        assert report.verdict == "valid"  # nobody has asked for it
        return
    assert not [problem for problem in report.problems if problem.severity == "error"]
    assert report.verdict == "unreadable"
    assert not report.ok
    assert report.reason == f"{name}: {os.strerror(refusal)}"
    rule = {"run.json": "BB-MAN-001", "config.json": "BB-CFG-001"}.get(name)
    rule = rule or {"metrics.jsonl": "BB-JNL-001", "train.parquet": "BB-TAB-005"}[name]
    assert report.outcomes[rule].state == "skipped"


def test_a_directory_that_the_system_refuses_is_unreadable(
    sealed: Path, refused: set[str], refusal: int
) -> None:
    refused.add(sealed)  # type: ignore[arg-type]
    report = validate(sealed)
    assert (report.verdict, report.reason) == ("unreadable", os.strerror(refusal))
    assert {outcome.state for outcome in report.outcomes.values()} == {"skipped"}
    assert list(report.outcomes) == list(CHECKED)


# -- progress


@pytest.mark.parametrize("kind", ["sealed", "ended"])
def test_progress_goes_from_nothing_to_all(recorded: dict[str, Path], kind: str) -> None:
    told: list[float] = []
    validate(recorded[kind], progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert all(0 <= share <= 1 for share in told)


# -- many runs


@pytest.fixture
def tree(recorded: dict[str, Path], tmp_path: Path) -> list[Path]:
    """Runs of every verdict, and paths without one."""
    paths = [shutil.copytree(path, tmp_path / kind) for kind, path in recorded.items()]
    value_of_another(shutil.copytree(recorded["sealed"], tmp_path / "wrong"))
    newer = shutil.copytree(recorded["ended"], tmp_path / "newer")
    runs.change(newer, lambda manifest: manifest["format"].update(version="2.0"))
    (tmp_path / "empty").mkdir()
    paths += [tmp_path / name for name in ("wrong", "newer", "empty", "nowhere")]
    paths += [shutil.copytree(recorded["ended"], tmp_path / f"more_{at}") for at in range(10)]
    return paths


VERDICTS = ["valid"] * 4 + ["invalid", "unsupported", "unreadable", "unreadable"] + ["valid"] * 10


@pytest.mark.rule("BB-VAL-011")
@pytest.mark.parametrize("jobs", [1, 2, None])
def test_many_runs_have_their_reports_in_order(tree: list[Path], jobs: int | None) -> None:
    reports = list(validate_all(tree, jobs=jobs))
    assert [report.path for report in reports] == tree
    assert [report.verdict for report in reports] == VERDICTS
    assert all(list(report.outcomes) == list(CHECKED) for report in reports)
    alone = [validate(path) for path, said in zip(tree, VERDICTS, strict=True) if said == "valid"]
    assert alone == [report for report in reports if report.verdict == "valid"]


def test_one_run_raises_what_many_report(tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        validate(tmp_path)
    (report,) = validate_all([tmp_path])
    assert report.verdict == "unreadable"
    assert report.reason == f"{tmp_path} holds neither the manifest nor a journal of a run"


def test_options_reach_every_worker(tree: list[Path]) -> None:
    options: dict[str, Any] = {"level": "structure", "ignore": ["crc-matches"]}
    limits = Limits(line_bytes=100)
    for report in validate_all(tree[:2], jobs=2, limits=limits, **options):
        assert report.level == "structure"
        assert report.outcomes["BB-JNL-004"].why == "ignored on request"
        assert report.outcomes["BB-JNL-002"].state == "failed"


def test_no_paths_have_no_reports() -> None:
    assert list(validate_all([])) == []


def dies(path: Path, options: batch.Options) -> Report:
    """In place of a library that ends the process over a damaged file."""
    if path.name.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    return batch.report_of(path, options)


@pytest.mark.parametrize("deadly", [{0}, {9}, {3, 4}, {0, 8, 17}])
def test_a_worker_that_dies_costs_the_report_of_its_run_alone(
    recorded: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deadly: set[int],
) -> None:
    paths = []
    for at in range(18):
        paths.append(tmp_path / f"{'deadly' if at in deadly else 'good'}_{at}")
        shutil.copytree(recorded["ended"], paths[-1])
    monkeypatch.setattr(batch, "LOOK", dies)
    reports = list(validate_all(paths, jobs=2))
    assert [report.path for report in reports] == paths
    for at, report in enumerate(reports):
        assert report.verdict == ("unreadable" if at in deadly else "valid")
        if at in deadly:
            assert report.reason == "the process that looked at it died"


# -- nothing raises


def test_the_checks_that_always_run_come_first() -> None:
    assert set(all_checks.BASE) <= set(all_checks.CHECKS)


def test_what_no_rule_speaks_of_may_fail_too(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no idea")

    monkeypatch.setattr("blackboxml.validation.life.determine", fails)
    report = validate(ended)
    assert report.verdict == "incomplete"
    assert "RuntimeError: no idea" in str(report.reason)


def test_a_run_that_changes_meanwhile_is_looked_at_again(
    ended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = single._validate

    def busy(directory: Any, *arguments: Any) -> Report:
        report = real(directory, *arguments)
        seen.append(len(report.problems))
        (ended / "run.json").write_bytes(whole)
        return report

    whole = (ended / "run.json").read_bytes()
    (ended / "run.json").write_text("{")
    monkeypatch.setattr(single, "_validate", busy)
    assert validate(ended).verdict == "valid"
    assert [bool(count) for count in seen] == [True, False]
