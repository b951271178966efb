"""What no file of a run can show: the rules of behaviour that no other test proves."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, RunWriter, open_run, validate
from blackboxml.errors import RunIsLiveError
from blackboxml.journal import encode
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from blackboxml.validation import validate_all
from blackboxml.writer import recorder
from tests.histories import end, header, point, write
from tests.validation import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.validation.report import Level

DOCUMENTS = ("run.json", "config.json")


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Note what is created, renamed, removed and synced, in order."""
    seen: list[tuple[str, str]] = []
    genuine = {name: getattr(os, name) for name in ("open", "rename", "link", "unlink", "fsync")}

    def note(what: str) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            if what == "open":
                if given[1] & os.O_CREAT:
                    seen.append(("create", os.path.basename(given[0])))
            elif what == "fsync":
                folder = stat.S_ISDIR(os.fstat(given[0]).st_mode)
                seen.append(("sync", "directory" if folder else "file"))
            else:
                seen.append((what, os.path.basename(given[what in {"rename", "link"}])))
            return genuine[what](*given, **options)

        return call

    with monkeypatch.context() as patch:
        for name in genuine:
            patch.setattr(os, name, note(name))
        yield seen


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


# -- writing


@pytest.mark.rule("BB-CFG-002", "BB-MAN-003")
def test_another_rank_brings_nothing_but_its_journal(tmp_path: Path) -> None:
    first = RunWriter.create(tmp_path, "r")
    before = names(first.path)
    other = RunWriter.join(first.path, 1, 0)
    other.log({"a": 1})
    other.describe("a", unit="s")
    other.rewind(0)
    other.finish()
    assert names(first.path) - before == {"metrics.r1.jsonl"}
    first.finish()


@pytest.mark.rule("BB-MAN-004", "BB-CFG-003", "BB-MAN-005")
def test_documents_are_replaced_and_never_changed_in_place(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, config={"a": 1}, environment=()) as run:
        kept = {name: (run.path / name).open("rb") for name in DOCUMENTS}
        before = {name: file.read() for name, file in kept.items()}
        generations = [json.loads(before["run.json"])["generation"]]
        run.log({"x": 1})
        run.log_config(a=2)
    for name, file in kept.items():
        with file:
            assert (run.path / name).read_bytes() != before[name]
            assert os.fstat(file.fileno()).st_nlink == 0, "the old one was replaced"
            file.seek(0)
            assert file.read() == before[name]
    generations.append(json.loads((run.path / "run.json").read_bytes())["generation"])
    assert generations[0] == 0 < generations[1]


@pytest.mark.rule("BB-MAN-007")
def test_an_id_has_128_random_bits_and_stays(tmp_path: Path) -> None:
    writers = [RunWriter.create(tmp_path, "r") for _ in range(64)]
    drawn = {writer.run_id for writer in writers}
    for writer in writers:
        writer.finish()
    assert len(drawn) == 64
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in drawn)
    for bit in range(128):  # each is 0 in one and 1 in another, but once in 2⁵⁶ trials
        assert len({int(each, 16) >> bit & 1 for each in drawn}) == 2, bit
    path = writers[0].path
    seal(path)
    resumed = RunWriter.resume(path)
    resumed.finish()
    pack(path)
    assert open_run(path).id == writers[0].run_id


@pytest.mark.rule("BB-JNL-016")
def test_a_journal_has_its_header_before_anything_is_logged(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r")
    (line,) = (writer.path / "metrics.jsonl").read_bytes().splitlines()
    assert json.loads(line)["run"]["id"] == writer.run_id
    other = RunWriter.join(writer.path, 2, 0)
    (line,) = (writer.path / "metrics.r2.jsonl").read_bytes().splitlines()
    assert json.loads(line)["rank"] == 2
    other.finish()
    writer.finish()


@pytest.mark.rule("BB-JNL-018")
def test_a_record_is_one_write_of_a_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter.create(tmp_path, "r")
    journal = os.stat(writer.path / "metrics.jsonl").st_ino
    written: list[bytes] = []
    genuine = os.write

    def note(descriptor: int, data: bytes) -> int:
        if os.fstat(descriptor).st_ino == journal:
            written.append(bytes(data))
        return genuine(descriptor, data)

    monkeypatch.setattr(os, "write", note)
    monkeypatch.setattr(recorder, "_write", note)
    for step in range(3):
        writer.log({f"a/{each}": step / 3 for each in range(2000)})
        assert len(written) == step + 1
        assert written[-1].endswith(b"\n")
        assert written[-1].count(b"\n") == 1
    writer.finish()


@pytest.mark.rule("BB-JNL-022")
def test_a_synced_record_has_a_synced_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as seen:
        writer = RunWriter.create(tmp_path, "r", sync="record")
        writer.log({"a": 1})
        acknowledged = list(seen)
    created = acknowledged.index(("create", "metrics.jsonl"))
    assert ("sync", "directory") in acknowledged[created:]
    writer.finish()


@pytest.mark.rule("BB-SEC-013")
def test_folders_and_files_have_no_more_permissions_than_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        writer = RunWriter.create(tmp_path / "logs", "r")
        writer.log({"a": 1})
        writer.log_media("b", "text", value="x" * 100_000)
        writer.finish()
        seal(writer.path)
    finally:
        os.umask(before)
    found = [tmp_path / "logs", *(tmp_path / "logs").rglob("*")]
    assert len(found) > 8
    assert not [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]


# -- sealing


@pytest.mark.rule("BB-LAY-012", "BB-LAY-015")
def test_what_is_not_yet_complete_is_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(monkeypatch) as seen:
        with Run("r", log_dir=tmp_path, config={"a": 1}, environment=(), seal=False) as run:
            run.log({"train/x": 1})
        seal(run.path)
    created = {name for what, name in seen if what == "create"}
    assert {name for name in created if not name.startswith(".tmp-")} <= {
        "metrics.jsonl",  # grows in place
        "train.parquet",  # within a folder of scratch
        "train.h5",
        "rows",
    }
    brought = {name for what, name in seen if what in {"rename", "link"}}
    assert {"run.json", "config.json", "train.parquet", "train.h5", "SHA256SUMS"} <= brought
    assert not [name for name in names(run.path) if name.startswith(".tmp-")]


@pytest.mark.rule("BB-SEA-003", "BB-SEA-011", "BB-INT-004", "BB-INT-005")
def test_each_step_of_sealing_and_packing_is_durable_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0, {"a/x": 1}) + end(1)})
    with watched(monkeypatch) as seen:
        seal(path)
    table, dataset, manifest, sums = (
        seen.index(("rename", name)) for name in ("a.parquet", "a.h5", "run.json", "SHA256SUMS")
    )
    assert max(table, dataset) < sums < manifest
    for before, after in ((max(table, dataset), sums), (sums, manifest)):
        assert ("sync", "directory") in seen[before:after]
    assert seen[:table].count(("sync", "file")) >= 2
    with watched(monkeypatch) as seen:
        pack(path)
    (unsealed, manifest), (sums,) = (
        [at for at, call in enumerate(seen) if call == ("rename", name)]
        for name in ("run.json", "SHA256SUMS")
    )
    gone = [at for at, (what, name) in enumerate(seen) if what == "unlink" and "." in name[1:]]
    assert {seen[at][1] for at in gone} == {"metrics.jsonl", "a.h5"}
    assert unsealed < sums < manifest < min(gone)
    for before, after in ((unsealed, sums), (sums, manifest), (manifest, min(gone))):
        assert ("sync", "directory") in seen[before:after]


@pytest.mark.rule("BB-LIV-010")
def test_a_journal_is_durable_before_the_manifest_names_its_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(monkeypatch) as seen:
        writer = RunWriter.create(tmp_path, "r")
    created, synced, named = (
        seen.index(call)
        for call in (("create", "metrics.jsonl"), ("sync", "file"), ("rename", "run.json"))
    )
    assert created < synced < named
    assert ("sync", "directory") in seen[synced:named]
    writer.finish()


@pytest.mark.rule("BB-SEA-002")
def test_a_run_of_another_machine_is_not_sealed_by_who_looks_once(tmp_path: Path) -> None:
    process = {"host": "elsewhere", "pid": 7, "boot_id": "none", "pid_namespace": 1}
    line = header(process=process)
    path = write(tmp_path / "run", {"metrics.jsonl": line + point(0, {"a": 1})})
    with pytest.raises(RunIsLiveError):
        seal(path)
    assert names(path) == {"metrics.jsonl"}


# -- reading


@pytest.mark.rule("BB-MRG-012")
def test_a_reader_gives_what_counts_and_all_on_request(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r")
    for step in range(3):
        writer.log({"a": step})
    writer.rewind(1)
    writer.log({"a": 10})
    writer.finish()
    run = open_run(writer.path)
    assert [record.step for record in run.records()] == [0, 1]
    assert [record.step for record in run.records("effective")] == [0, 1]
    assert [record.step for record in run.records("all")] == [0, 1, 2, 1]
    assert run.arrow().column("a").to_pylist() == [0, 10]
    assert run.arrow(view="all").column("a").to_pylist() == [0, 1, 2, 10]


@pytest.mark.rule("BB-MAN-016", "BB-VER-004")
@pytest.mark.parametrize("damage", [None, b"", b"{", b"\0" * 50])
def test_a_manifest_that_was_rebuilt_is_not_written(tmp_path: Path, damage: bytes | None) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0, {"a": 1}) + end(1)})
    if damage is not None:
        (path / "run.json").write_bytes(damage)
    before = {name: (path / name).read_bytes() for name in names(path)}
    run = open_run(path)
    assert run.status == "completed"
    assert [record.metrics for record in run.records()] == [{"a": 1}]
    assert {name: (path / name).read_bytes() for name in names(path)} == before


@pytest.mark.rule("BB-GRP-009")
def test_a_reader_takes_names_from_the_manifest_and_the_files(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r")
    writer.log({"train/step": 1, "train/loss": 0.5})
    writer.finish()
    seal(writer.path)
    pack(writer.path)
    expected = open_run(writer.path).arrow("train").to_pylist()
    # As another sealer might have called it.
    (writer.path / "train.parquet").rename(writer.path / "other.parquet")
    text = (writer.path / "run.json").read_text()
    (writer.path / "run.json").write_text(text.replace("train.parquet", "other.parquet"))
    run = open_run(writer.path)
    assert run.groups == ["train"]
    assert run.arrow("train").to_pylist() == expected
    assert expected[0]["step_"] == 1


@pytest.mark.rule("BB-INT-008")
def test_a_digest_that_differs_refuses_nothing(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r")
    writer.log({"a": 1})
    writer.finish()
    seal(writer.path)
    document = json.loads((writer.path / "run.json").read_bytes())
    for entry in document["files"].values():
        entry["sha256"] = "0" * 64
    (writer.path / "run.json").write_text(json.dumps(document))
    (writer.path / "SHA256SUMS").write_text(f"{'0' * 64}  run.json\n")
    run = open_run(writer.path)
    assert [record.metrics for record in run.records()] == [{"a": 1}]
    assert run.arrow().column("a").to_pylist() == [1]
    assert "BB-INT-009" in {problem.rule for problem in validate(writer.path).problems}


@pytest.mark.rule("BB-CFG-013", "BB-CFG-014")
@pytest.mark.parametrize("damage", [None, b"{", b"[]", b'{"config": 5}', b"\xff"])
def test_a_run_is_read_without_its_configuration(tmp_path: Path, damage: bytes | None) -> None:
    files = {"metrics.jsonl": header() + point(0, {"a": 1}) + end(1)}
    path = write(tmp_path / "run", files)
    if damage is not None:
        (path / "config.json").write_bytes(damage)
    run = open_run(path)
    assert run.config == {}
    assert [record.metrics for record in run.records()] == [{"a": 1}]
    about = {(problem.rule, problem.file) for problem in run.problems} - {
        ("BB-MAN-014", "run.json")
    }
    assert about == (set() if damage is None else {("BB-CFG-001", "config.json")})


@pytest.mark.rule("BB-VER-012", "BB-VER-008", "BB-VER-010")
def test_an_extension_changes_nothing(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r")
    writer.log({"a": 1})
    writer.finish()

    def answers() -> list[Any]:
        run = open_run(writer.path)
        return [run.status, run.groups, run.config, [each.metrics for each in run.records()]]

    before = answers()
    document = json.loads((writer.path / "run.json").read_bytes())
    document["extensions"] = {"org.example.status": {"status": "failed", "groups": {}}}
    (writer.path / "run.json").write_text(json.dumps(document, indent=2) + "\n")
    assert answers() == before
    assert validate(writer.path).problems == []


@pytest.mark.rule("BB-LAY-010")
def test_files_without_a_rule_are_ignored(tmp_path: Path) -> None:
    line = encode({"format": {"name": "other"}, "seq": 0})
    files = {"metrics.jsonl": header() + point(0, {"a": 1}) + end(1)}
    plain = write(tmp_path / "plain", files)
    more = {"metrics.txt": b"x", "events.jsonl": line, "b.parquet": b"x", "b.h5": b"x"}
    full = write(tmp_path / "full", files | more)
    found = [
        (run.groups, run.status, [each.metrics for each in run.records()], len(run.problems))
        for run in (open_run(plain), open_run(full))
    ]
    assert found[0] == found[1]


# -- validating


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    return runs.record(tmp_path)


def outcomes(path: Path, level: Level = "full") -> dict[str, tuple[str, str | None]]:
    found = validate(path, level=level).outcomes
    return {rule: (outcome.state, outcome.why) for rule, outcome in found.items()}


@pytest.mark.rule("BB-VAL-001")
def test_values_are_compared_unless_the_caller_asks_for_less(sealed: Path) -> None:
    runs.edit_table(sealed, lambda table: runs.with_value(table, "loss", 2, 9.5))
    assert runs.rules(validate(sealed)) == {"BB-SEA-004"}
    for level in ("schema", "structure", "integrity"):
        assert validate(sealed, level=level).problems == []


@pytest.mark.rule("BB-VAL-002")
def test_one_value_among_many_is_found_wherever_it_is(tmp_path: Path) -> None:
    lines = [header(), *(point(seq, {"train/loss": seq / 7}) for seq in range(70_000)), end(70_000)]
    path = write(tmp_path / "run", {"metrics.jsonl": b"".join(lines)})
    seal(path)
    assert validate(path).problems == []
    for row in (0, 40_001, 69_999):
        spoiled = Path(shutil.copytree(path, tmp_path / str(row)))
        runs.edit_table(spoiled, lambda table, row=row: runs.with_value(table, "loss", row, -1.0))
        (problem,) = validate(spoiled).problems
        assert (problem.rule, problem.file) == ("BB-SEA-004", "train.parquet")
        assert f"row {row}:" in problem.message


@pytest.mark.rule("BB-VAL-008", "BB-VAL-009")
def test_what_was_not_looked_at_has_not_passed_and_says_why(sealed: Path) -> None:
    whole = outcomes(sealed)
    assert {state for state, _ in whole.values()} == {"passed", "not_applicable"}
    passed = {rule for rule, (state, _) in whole.items() if state == "passed"}
    assert {"BB-TAB-004", "BB-DAT-010", "BB-SEA-004", "BB-INT-009"} <= passed

    low = outcomes(sealed, "schema")
    assert low["BB-SEA-004"] == ("skipped", "looked at from level full on")
    assert {rule for rule, (state, _) in low.items() if state == "passed"} < passed

    runs.edit_bytes(sealed, "train.parquet", lambda data: runs.flipped(data, len(data) // 2))
    damaged = outcomes(sealed)
    assert damaged["BB-INT-009"][0] == "failed"
    for rule in ("BB-TAB-003", "BB-TAB-004", "BB-TAB-011", "BB-TAB-017", "BB-SEA-004"):
        state, why = damaged[rule]
        assert state == "skipped"
        assert "train.parquet" in str(why)

    (sealed / "run.json").write_bytes(b"{")
    lost = outcomes(sealed)
    assert lost["BB-MAN-009"][0] == lost["BB-SEA-006"][0] == "skipped"
    for found in (low, damaged, lost):
        assert all(why for state, why in found.values() if state == "skipped")


@pytest.mark.rule("BB-VAL-010", "BB-VAL-011")
def test_each_run_of_many_has_its_verdict(tmp_path: Path, sealed: Path) -> None:
    live = RunWriter.create(tmp_path, "live")
    files = {"metrics.jsonl": header() + point(0, {"a": 1}) + end(1)}
    damaged = {"metrics.jsonl": files["metrics.jsonl"].replace(b'"a":1', b'"a":2')}
    newer = header(format={"name": "blackbox-journal", "version": "2.0", "features": []})
    for name, content in (("damaged", damaged), ("newer", files | {"metrics.1.jsonl": newer})):
        write(tmp_path / name, content)
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    os.mkfifo(hostile / "run.json")
    (hostile / "metrics.jsonl").symlink_to("/dev/zero")
    both = {"metrics.jsonl": damaged["metrics.jsonl"], "metrics.1.jsonl": newer}
    write(tmp_path / "both", both)
    (tmp_path / "empty").mkdir()
    expected = {
        sealed: "valid",
        tmp_path / "damaged": "invalid",
        tmp_path / "newer": "unsupported",
        tmp_path / "both": "invalid",
        tmp_path / "empty": "unreadable",
        tmp_path / "nowhere": "unreadable",
        hostile: "invalid",
        live.path: "incomplete",
    }
    for jobs in (1, 2):
        reports = list(validate_all(expected, jobs=jobs))
        assert [(each.path, each.verdict) for each in reports] == list(expected.items())
        assert all(each.reason for each in reports if each.verdict not in {"valid", "invalid"})
    live.finish()
    assert validate(live.path).verdict == "valid"
