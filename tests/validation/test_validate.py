"""Runs of every kind are valid; damage anywhere is noticed; nothing raises or is changed."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackboxml import Run, RunWriter, validate
from blackboxml.errors import MOST_OF_A_KIND, Findings, NotARunError, Problem
from blackboxml.model import Limits
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from blackboxml.validation import catalogue
from blackboxml.validation import rules as all_checks
from blackboxml.validation.subject import RULES
from tests.validation import runs
from tests.validation.runs import rules

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def snapshot(path: Path) -> dict[str, tuple[Any, ...]]:
    """Return what is in a directory, its times included."""
    found = {}
    for file in sorted(path.rglob("*")):
        status = file.lstat()
        data = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
        found[str(file.relative_to(path))] = (data, status.st_mtime_ns, status.st_mode)
    return found


# -- valid runs


def test_a_live_run_is_valid_from_its_first_moment(tmp_path: Path) -> None:
    with Run("live", log_dir=tmp_path) as run:
        assert not validate(run.path).problems
        run.log({"train/loss": 0.5})
        assert not validate(run.path).problems
        run.rewind(0)
        run.describe("train/loss", unit="nat")
        assert not validate(run.path).problems
    report = validate(run.path)
    assert not report.problems
    assert "BB-SEA-004" in report.checked


def test_a_run_is_valid_while_it_is_written_and_sealed(tmp_path: Path) -> None:
    run = Run("busy", log_dir=tmp_path).start()
    stop = threading.Event()

    def work() -> None:
        for _ in range(300):
            run.log({"train/loss": 0.5, "lr": 0.1})
            run.log_config(lr=0.1)
        run.finish()
        stop.set()

    thread = threading.Thread(target=work)
    thread.start()
    found = []
    while not stop.is_set():
        found += [each for each in validate(run.path).problems if each.severity == "error"]
    thread.join()
    assert not found
    assert not validate(run.path).problems


def killed(folder: Path, code: str) -> Path:
    """Return the run of a process that was killed while it recorded."""
    script = (
        "import os, signal, sys\n"
        "from blackboxml import Run, RunWriter\n"
        f"run = Run('killed', log_dir={str(folder)!r}).start()\n"
        f"{code}\n"
        "print(run.path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return Path(done.stdout.strip())


LOG = "for step in range(50): run.log({'train/loss': 1 / (step + 1), 'lr': 0.1})"


def test_a_run_that_was_killed_is_valid(tmp_path: Path) -> None:
    path = killed(tmp_path, LOG)
    assert validate(path).ok
    with (path / "metrics.jsonl").open("ab") as journal:
        journal.write(b'{"seq":50,"step":50,"tim')
    assert validate(path).ok
    seal(path)
    assert not validate(path).problems


def test_a_run_that_was_killed_before_its_first_line_is_valid(tmp_path: Path) -> None:
    path = killed(tmp_path, LOG)
    (path / "metrics.1.jsonl").touch()
    (path / "metrics.r1.jsonl").write_bytes(b'{"format":{"na')
    assert validate(path).ok
    with Run("killed", resume=path) as run:
        run.log({"train/loss": 0.5})
    assert run.attempt == 2  # what died at the start was an attempt too
    assert not validate(path).problems


def test_a_run_that_was_killed_and_resumed_with_a_rewind_is_valid(tmp_path: Path) -> None:
    path = killed(tmp_path, LOG)
    with Run("killed", log_dir=tmp_path, resume=path) as run:
        run.rewind(20)
        for step in range(20, 30):
            run.log({"train/loss": 0.1, "train/new": step})
        assert validate(path).ok
    report = validate(path)
    assert not report.problems
    document = runs.manifest(path)
    assert document["groups"]["train"]["superseded"] == 30
    pack(path)
    assert not validate(path).problems
    seal(path)
    assert not validate(path).problems


def test_a_sealed_run_that_goes_on_is_valid(sealed: Path, packed: Path) -> None:
    for path in (sealed, packed):
        with Run("spoiled", resume=path) as run:
            run.log({"train/loss": 3, "other/a": True})
            assert validate(path).ok
        assert not validate(path).problems


def test_a_run_that_went_on_in_another_journal_is_valid(tmp_path: Path) -> None:
    with Run("full", log_dir=tmp_path) as run:
        for step in range(10):
            run.log({"train/loss": step})
        size = (run.path / "metrics.jsonl").stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, limits[1]))
        try:
            run.log({"train/loss": 0.25})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        for step in range(10):
            run.log({"train/loss": step / 2})
        assert (run.path / "metrics.1.jsonl").exists()
        assert validate(run.path).ok
    assert not validate(run.path).problems


def test_runs_of_several_ranks_are_valid(tmp_path: Path, ranks: Path) -> None:
    assert not validate(ranks).problems
    pack(ranks)
    assert not validate(ranks).problems
    first = RunWriter.create(tmp_path, "ranks")
    others = [RunWriter.join(first.path, rank, 0) for rank in (1, 2, 3)]
    for writer in (*others, first):
        writer.log({"train/loss": 1, f"rank{writer.rank}/x": True})
    assert not validate(first.path).problems
    others[0].finish()
    first.finish()  # the others are killed, for all that anyone can tell
    assert validate(first.path).ok
    for writer in others[1:]:
        writer.finish()
    seal(first.path)
    assert not validate(first.path).problems


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
def test_a_run_is_valid_however_it_ends(tmp_path: Path, status: str) -> None:
    error = {
        "completed": None,
        "failed": ValueError("bad \x1b[31m batch"),
        "interrupted": KeyboardInterrupt(),
    }[status]
    try:
        with Run("ending", log_dir=tmp_path) as run:
            run.log({"a": 1})
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert run.status == status
    assert not validate(run.path).problems


def test_runs_without_anything_are_valid(tmp_path: Path) -> None:
    for what in ((), ({},), ({}, {"a": 1})):
        with Run("little", log_dir=tmp_path) as run:
            for metrics in what:
                run.log(metrics)
        assert not validate(run.path).problems
        pack(run.path)
        assert not validate(run.path).problems


def test_a_run_with_odd_names_is_valid(tmp_path: Path) -> None:
    with Run("été ✓", log_dir=tmp_path, tags=["ü", " "]) as run:
        for name in (
            "a/b",
            "a.b",
            ".x",
            "50%",
            "é/ü",
            "É/ü",
            "con/x",
            "train/step",
            "a/a/mean",
            "x ",
        ):
            run.log({name: 1.5, f"{name}_": 2})
        run.log({"Val/x": 1, "val/x": 2, "metrics/x": 3, "y": 4})
    assert not validate(run.path).problems
    pack(run.path)
    assert not validate(run.path).problems


def test_a_long_run_is_valid(tmp_path: Path) -> None:
    with Run("long", log_dir=tmp_path) as run:
        for step in range(20_000):
            run.log({"train/loss": 1 / (step + 1), "train/seen": step})
            if step % 7000 == 6999:
                run.rewind(step - 10)
                run.log({"eval/accuracy": float("nan")})
    assert not validate(run.path).problems


METRICS = st.dictionaries(
    st.sampled_from(["a", "b", "train/a", "train/step", "train/a/mean", "eval/x.y", "eval/x/y"]),
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(),
    max_size=4,
)


@given(st.lists(METRICS | st.integers(-2, 5), max_size=12), st.booleans())
@settings(max_examples=30, **SMALL)
def test_whatever_is_logged_makes_a_valid_run(
    tmp_path: Path, actions: list[Any], packs: bool
) -> None:
    with Run("any", log_dir=tmp_path, environment=[]) as run:
        for action in actions:
            if isinstance(action, int):
                run.rewind(action)
            else:
                run.log(action)
        assert not validate(run.path).problems
    assert not validate(run.path).problems
    if packs:
        pack(run.path)
        assert not validate(run.path).problems
    shutil.rmtree(run.path)


# -- damage


def listed(path: Path) -> list[str]:
    return [*runs.manifest(path)["files"], "run.json", "SHA256SUMS"]


@pytest.mark.parametrize("kind", ["sealed", "packed", "ranks"])
@given(data=st.data())
@settings(max_examples=60, **SMALL)
def test_a_bit_that_flips_in_a_sealed_run_is_noticed(
    recorded: dict[str, Path], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    path = runs.copy(recorded[kind], tmp_path)
    try:
        name = data.draw(st.sampled_from(listed(path)))
        whole = (path / name).read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        (path / name).write_bytes(runs.flipped(whole, at, data.draw(st.integers(0, 7))))
        assert not validate(path).ok
    finally:
        shutil.rmtree(path)


@pytest.mark.parametrize("kind", ["sealed", "packed"])
@given(data=st.data())
@settings(max_examples=40, **SMALL)
def test_a_file_that_is_cut_or_swapped_is_noticed(
    recorded: dict[str, Path], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    path = runs.copy(recorded[kind], tmp_path)
    try:
        name, other = data.draw(st.lists(st.sampled_from(listed(path)), min_size=2, max_size=2))
        whole = (path / name).read_bytes()
        parts = [(path / other).read_bytes(), whole[: data.draw(st.integers(0, len(whole) - 1))]]
        changed = data.draw(st.sampled_from([*parts, b"", whole + b"\0", whole * 2]))
        (path / name).write_bytes(changed)
        assert validate(path).ok == (changed == whole)
    finally:
        shutil.rmtree(path)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path]
    if isinstance(value, dict | list):
        for key, each in inner if not isinstance(value, str) else ():
            found += places(each, (*path, key)) if isinstance(each, dict | list) else [(*path, key)]
    return found


@pytest.mark.parametrize("kind", ["ended", "sealed", "packed", "ranks"])
@given(data=st.data())
@settings(max_examples=60, **SMALL)
def test_a_hostile_document_never_raises(
    recorded: dict[str, Path], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    path = runs.copy(recorded[kind], tmp_path)
    try:
        document = runs.manifest(path)
        *keys, last = data.draw(st.sampled_from([each for each in places(document) if each]))
        holder = document
        for key in keys:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[last] = data.draw(ANY)
        else:
            del holder[last]
        runs.write_manifest(path, document)
        try:
            validate(path).to_json()
        except NotARunError:  # it has no journal that says what it is
            assert kind == "packed"
            assert keys[:1] == ["format"] or last == "format"
    finally:
        shutil.rmtree(path)


@given(data=st.data())
@settings(max_examples=60, **SMALL)
def test_a_hostile_journal_never_raises(
    recorded: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    path = runs.copy(recorded["ended"], tmp_path)
    try:
        documents = runs.lines(path)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(documents) - 1))
            *keys, last = data.draw(
                st.sampled_from([each for each in places(documents[at]) if each])
            )
            holder = documents[at]
            for key in keys:
                holder = holder[key]
            holder[last] = data.draw(ANY)
        text = [json.dumps(document).encode()[:-1] for document in documents]
        runs.write_lines(path, [b'%b,"crc":"%08x"}\n' % (head, crc(head)) for head in text])
        if data.draw(st.booleans()):
            (path / "run.json").unlink()
        try:
            validate(path).to_json()
        except NotARunError:
            assert not (path / "run.json").exists()
    finally:
        shutil.rmtree(path)


def crc(data: bytes) -> int:
    from zlib import crc32

    return crc32(data)


# -- the report


@pytest.mark.rule("BB-VAL-003")
@pytest.mark.rule("BB-VAL-003")
def test_nothing_in_the_run_is_changed(
    ended: Path, sealed: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (ended, sealed, packed):
        before = snapshot(path)
        validate(path)
        assert snapshot(path) == before


def test_a_check_that_fails_is_a_finding(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: object) -> bool:
        raise MemoryError("too much")

    monkeypatch.setattr(all_checks, "CHECKS", (*all_checks.CHECKS, broken))
    monkeypatch.setitem(RULES, broken, {"BB-LIM-005": "structure", "BB-JNL-010": "structure"})
    report = validate(sealed)
    assert not report.ok
    assert rules(report) == {"BB-LIM-005"}
    assert "MemoryError: too much" in report.problems[0].message
    assert report.outcomes["BB-LIM-005"].state == "failed"
    assert report.outcomes["BB-JNL-010"].state == "skipped"
    assert "MemoryError: too much" in str(report.outcomes["BB-JNL-010"].why)


def test_a_report_is_written_as_json(sealed: Path) -> None:
    (sealed / "config.json").write_text("{")
    document = json.loads(validate(sealed).to_json())
    assert document["path"] == str(sealed)
    assert document["ok"] is False
    assert "BB-CFG-001" in document["checked"]
    found = {problem["rule"]: problem for problem in document["problems"]}
    assert set(found) == {"BB-CFG-001", "BB-INT-009"}
    assert found["BB-INT-009"] == {
        "rule": "BB-INT-009",
        "slug": "validator-checks-digests",
        "severity": "error",
        "file": "config.json",
        "message": found["BB-INT-009"]["message"],
        "wanted": catalogue.rule("BB-INT-009").text,
        "cure": f"blackbox repair {sealed} -o {sealed}.repaired",
    }


@pytest.mark.rule("BB-VAL-007")
@pytest.mark.rule("BB-VAL-007")
def test_findings_are_bounded_and_counted(ended: Path) -> None:
    header = runs.lines(ended)[0]
    runs.write_lines(ended, [header, *[b"damage\n"] * (MOST_OF_A_KIND + 5)])
    report = validate(ended)
    found = [problem for problem in report.problems if problem.rule == "BB-JNL-003"]
    assert len(found) == MOST_OF_A_KIND + 1
    assert "5 times more" in found[-1].message


def test_a_finding_is_kept_once() -> None:
    findings = Findings()
    problem = Problem("BB-JNL-004", "error", "x")
    findings.append(problem)
    findings.append(problem)
    assert findings.whole() == [problem]


def test_a_run_of_hostile_damage_takes_time_in_proportion(ended: Path) -> None:
    header = runs.lines(ended)[0]
    runs.write_lines(ended, [header, *[b"damage\n"] * 200_000])
    assert not validate(ended).ok


def test_the_limits_are_the_callers(ended: Path) -> None:
    assert not validate(ended, Limits(line_bytes=100)).ok


# -- the rules


def specified() -> set[str]:
    text = "".join(path.read_text("utf-8") for path in (ROOT / "spec" / "1.0").glob("*.md"))
    return set(re.findall(r"^\*\*(BB-[A-Z]{3}-[0-9]{3})\*\*", text, re.MULTILINE))


def advisory() -> set[str]:
    """The rules that say SHOULD."""
    text = "".join(path.read_text("utf-8") for path in (ROOT / "spec" / "1.0").glob("*.md"))
    paragraphs = re.findall(
        r"^\*\*(BB-[A-Z]{3}-[0-9]{3})\*\*(.*?)\n\n", text, re.MULTILINE | re.DOTALL
    )
    return {rule for rule, words in paragraphs if re.search(r"\bSHOULD\b", words)}


def used(pattern: str = r"BB-[A-Z]{3}-[0-9]{3}") -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for rule in re.findall(pattern, path.read_text("utf-8")):
            found.setdefault(rule, set()).add(path.name)
    return found


def test_every_rule_that_the_source_speaks_of_is_specified() -> None:
    assert not {rule: files for rule, files in used().items() if rule not in specified()}


def test_every_rule_that_is_reported_is_among_those_checked(recorded: dict[str, Path]) -> None:
    folder = ROOT / "src" / "blackboxml"
    sources = [
        *(folder / "validation").glob("*.py"),
        *(folder / "journal" / name for name in ("scan.py", "merge.py")),
    ]
    reported = set()
    for path in sources:
        reported |= set(re.findall(r'"(BB-[A-Z]{3}-[0-9]{3})"', path.read_text("utf-8")))
    assert reported <= {rule for each in RULES.values() for rule in each}


def test_each_check_says_how_it_checks_its_rules_as_the_specification_does() -> None:
    known = {each.id: each.checked for each in catalogue.rules()}
    found = {(name, checked) for each in RULES.values() for name, checked in each.items()}
    assert found <= {(name, checked) for name, checked in known.items() if checked != "behaviour"}


def test_a_report_says_which_rules_were_checked(recorded: dict[str, Path]) -> None:
    checked = {kind: set(validate(path).checked) for kind, path in recorded.items()}
    assert checked["ended"] - checked["sealed"] == {"BB-SEA-014"}
    assert "BB-SEA-004" in checked["sealed"] - checked["ended"]
    assert "BB-SEA-009" in checked["packed"] - checked["sealed"]
    assert all(found <= specified() for found in checked.values())


@pytest.mark.rule("BB-VAL-006")
def test_what_only_should_be_is_never_an_error() -> None:
    text = "".join(
        path.read_text("utf-8")
        for path in (ROOT / "src" / "blackboxml" / "validation").glob("*.py")
    )
    calls = re.findall(r"report\(\s*\"(BB-[A-Z]{3}-[0-9]{3})\"(.*?)\n *\)?\n", text, re.DOTALL)
    assert calls
    wrong = [
        (rule, rest[:60])
        for rule, rest in calls
        if rule in advisory() and 'severity="warning"' not in rest
    ]
    assert not wrong
