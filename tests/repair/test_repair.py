"""Damaged runs are mended: nothing is invented, nothing that is lost is called clean."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blackboxml import open_run, validate
from blackboxml.base import schema
from blackboxml.cli import main
from blackboxml.errors import (
    BlackboxError,
    ManifestError,
    NotARunError,
    RepairError,
    RunIsLiveError,
    SealError,
    UnsupportedVersionError,
)
from blackboxml.journal import decode
from blackboxml.repair import plan, ranges, repair
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from tests.histories import (
    RUN_ID,
    dead_process,
    end,
    event,
    header,
    line,
    live_process,
    point,
    write,
)
from tests.seal.test_seal import check_sums
from tests.validation.runs import flipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blackboxml.repair import RepairReport

Place = tuple[int, int, int]
JOURNAL = "metrics.jsonl"
BIG = 2**53 + 1
BASES = Path(__file__).resolve().parents[2] / "fixtures" / "bases"

OTHER = {**dead_process(), "pid": os.getpid() + 1}
"""The process of rank 1: each rank has its own, by which the journal of rank 0 is missed."""

FILES = {
    JOURNAL: header()
    + event(0, describe={"metric": "a/x", "unit": "m"})
    + point(1, {"a/x": 1, "b/y": 0.5})
    + point(2, {"a/x": 2, "b/y": math.nan}, ranks={"a/x": {"mean": 0.5, "count": 2}})
    + point(3, {"a/x": 3, "b/y": 1.5}, later=[1])
    + point(4, {"a/x": 4})
    + event(5, rewind={"step": 3})
    + point(6, {"a/x": BIG, "b/y": -math.inf}, step=3)
    + end(7),
    "metrics.r1.jsonl": header(1, process=OTHER)
    + point(0, {"b/y": 7.5})
    + point(1, {"b/y": 8.5})
    + end(2),
}
"""One attempt of two ranks; lines of rank 0: header, then `seq` 0 to 7."""

TWO_ATTEMPTS = {
    JOURNAL: header() + point(0, {"x": 0}) + point(1, {"x": 1}) + point(2, {"x": 2}),
    "metrics.1.jsonl": header(first_seq=2) + point(2, {"x": 2}) + point(3, {"x": 3}),
    "metrics.2.jsonl": header(attempt=1) + point(0, {"x": 10}) + point(1, {"x": 11}) + end(2),
}
"""A journal, its continuation, and a second attempt."""


def config(path: Path) -> None:
    document = {
        "format": {"name": "blackbox-config", "version": "1.0", "features": []},
        "config": {"lr": 0.1},
        "replaced": [],
    }
    (path / "config.json").write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def whole(path: Path, files: dict[str, bytes] = FILES, kind: str = "sealed") -> Path:
    """Return a run of a kind, its manifest rebuilt from the journals by a seal."""
    write(path, files)
    config(path)
    (path / "artifacts").mkdir()
    (path / "artifacts" / "model.bin").write_bytes(b"weights")
    seal(path)
    document = json.loads((path / "run.json").read_bytes())
    document["environment"] = {"python": "3.11"}
    document["org.example"] = {"kept": True}
    if kind == "ended":
        for key in ("sealed", "groups", "journals", "files"):
            del document[key]
        for each in (*path.glob("*.parquet"), *path.glob("*.h5"), path / "SHA256SUMS"):
            each.unlink()
        (path / "run.json").write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        return path
    # The members that only a manifest holds; sealing again vouches for them.
    del document["sealed"]["time"]
    (path / "run.json").write_text(json.dumps(document), "utf-8")
    for key in ("sealed", "groups", "journals", "files"):
        del document[key]
    (path / "run.json").write_text(json.dumps(document), "utf-8")
    seal(path)
    if kind == "packed":
        pack(path)
    return path


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    found = {kind: whole(folder / kind, kind=kind) for kind in ("ended", "sealed", "packed")}
    found["attempts"] = whole(folder / "attempts", TWO_ATTEMPTS)
    found["attempts-ended"] = whole(folder / "attempts-ended", TWO_ATTEMPTS, "ended")
    for path in found.values():
        assert validate(path).verdict == "valid", validate(path).problems
    return found


# -- what a run says


def shown(value: Any) -> Any:
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def said(path: Path) -> dict[Place, Any]:
    """Every point of a run by its place, NaN made comparable."""
    return {
        (each.attempt, each.rank, each.seq): (
            each.step,
            each.time,
            {key: shown(value) for key, value in each.metrics.items()},
            {
                key: {name: shown(value) for name, value in values.items()}
                for key, values in each.ranks.items()
            },
        )
        for each in open_run(path).records("all")
    }


def facts(path: Path) -> list[Any]:
    """What a run says beside its points."""
    reader = open_run(path)
    members = {
        key: value
        for key, value in reader.manifest.items()
        if key not in {"generation", "sealed", "groups", "journals", "files"}
    }
    return [members, reader.config, reader.status, reader.summary()]


def content(path: Path) -> dict[str, bytes]:
    """Every file of a run but what a repair has put aside."""
    found = {str(each.relative_to(path)): each for each in path.rglob("*") if each.is_file()}
    return {name: each.read_bytes() for name, each in found.items()}


def assert_part_of(found: dict[Place, Any], original: dict[Place, Any]) -> None:
    """Nothing is there that was not there before, or with another value."""
    for place, (step, time, metrics, ranks) in found.items():
        assert place in original, place
        wanted = original[place]
        assert (step, time) == wanted[:2]
        assert metrics.items() <= wanted[2].items(), place
        for name, values in ranks.items():
            assert values.items() <= wanted[3].get(name, {}).items(), place


def mend(path: Path, how: str) -> tuple[Path, RepairReport]:
    """Repair a run, and check what holds of every repair."""
    before = content(path)
    target = path.with_name("mended")
    if how == "output":
        report = repair(path, target)
        assert content(path) == before
    else:
        report = repair(path, in_place=True)
        target = path
        after = content(path)
        kept = {data for name, data in after.items() if name.startswith("repair/")}
        links = {name for name in before if (path / name).is_symlink()}
        for name, data in before.items():
            if name not in links and not name.startswith(".tmp-"):
                assert after.get(name) == data or data in kept, name
    assert report.output == target
    verdict = validate(target)
    assert verdict.verdict == "valid", verdict.problems
    assert not list(target.rglob(".tmp-*"))
    if (target / "SHA256SUMS").exists():
        check_sums(target)
    schema.validator("repair-plan").validate(report.document())
    mended = content(target)
    again = repair(target, in_place=True)
    assert (again.actions, again.changed) == ([], False)
    assert content(target) == mended
    return target, report


HOWS = pytest.mark.parametrize("how", ["output", "in place"])

# -- damages


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / name, (path / name).stat().st_size - size)


def append(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes((path / name).read_bytes() + data) and None


def fill(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(data) and None


def drop(*names: str) -> Callable[[Path], None]:
    return lambda path: [(path / name).unlink() for name in names] and None


def flip(name: str, at: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = (path / name).read_bytes()
        (path / name).write_bytes(flipped(data, at % len(data)))

    return damage


def spoil(name: str, *numbers: int) -> Callable[[Path], None]:
    """Damage lines of a journal, counted from 0, the header."""

    def damage(path: Path) -> None:
        lines = (path / name).read_bytes().splitlines(keepends=True)
        for number in numbers:
            lines[number] = lines[number][:9] + b"#" + lines[number][10:]
        (path / name).write_bytes(b"".join(lines))

    return damage


def arrange(name: str, *order: int) -> Callable[[Path], None]:
    """Put the lines of a journal in another order, some twice or not at all."""

    def damage(path: Path) -> None:
        lines = (path / name).read_bytes().splitlines(keepends=True)
        (path / name).write_bytes(b"".join(lines[number] for number in order))

    return damage


def add(name: str, data: bytes) -> Callable[[Path], None]:
    return fill(name, data)


def link(path: Path) -> None:
    (path / "plots").symlink_to("/nowhere")


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the manifest, as somebody who does not mind checksums."""

    def damage(path: Path) -> None:
        document = json.loads((path / "run.json").read_bytes())
        change(document)
        (path / "run.json").write_text(json.dumps(document, indent=2) + "\n", "utf-8")

    return damage


def both(*damages: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda path: [damage(path) for damage in damages] and None


@dataclass(frozen=True)
class Damage:
    """A damage, and what comes of it.

    Attributes:
        kind: The run that is damaged.
        spoil: What is done to it.
        actions: What the repair does.
        lost: What the report counts as lost.
        lossy: Whether something of the run is lost.
        gone: Points that are gone.
        thin: Points that lack values.
        same: Whether all that the manifest and the configuration say is as it was.
    """

    kind: str
    spoil: Callable[[Path], object]
    actions: list[str]
    lost: dict[str, int] = field(default_factory=dict)
    lossy: bool = False
    gone: tuple[Place, ...] = ()
    thin: tuple[Place, ...] = ()
    same: bool = True


def line_bytes(number: int) -> int:
    return len(FILES[JOURNAL].splitlines(keepends=True)[number])


DAMAGES = {
    "garbage behind the end": Damage(
        "ended", append(JOURNAL, b"\0" * 99), ["cut-tail"], {"bytes": 99}
    ),
    "garbage behind a sealed end": Damage(
        "sealed", append(JOURNAL, b"\0" * 99), ["cut-tail", "seal"], {"bytes": 99}
    ),
    "a torn end": Damage(
        "ended",
        cut(JOURNAL, 5),
        ["cut-tail", "state-losses"],
        {"bytes": line_bytes(8) - 5},
        lossy=True,
    ),
    "a torn end of a sealed run": Damage(
        "sealed",
        cut(JOURNAL, 5),
        ["cut-tail", "restore-records", "seal"],
        {"bytes": line_bytes(8) - 5},
    ),
    "an end that is gone": Damage(
        "ended", arrange(JOURNAL, *range(8)), ["state-losses"], lossy=True
    ),
    "an end of a sealed run that is gone": Damage(
        "sealed", arrange(JOURNAL, *range(6)), ["restore-records", "seal"]
    ),
    "a damaged line": Damage(
        "ended",
        spoil(JOURNAL, 3),
        ["drop-lines", "state-losses"],
        {"records": 1, "lines": 1, "bytes": line_bytes(3)},
        lossy=True,
        gone=((0, 0, 2),),
    ),
    "damaged lines of a sealed run": Damage(
        "sealed",
        spoil(JOURNAL, 1, 3, 4, 6, 7, 8),
        ["drop-lines", "restore-records", "seal"],
        {"lines": 6, "bytes": sum(map(line_bytes, (1, 3, 4, 6, 7, 8)))},
    ),
    "a missing line": Damage(
        "ended",
        arrange(JOURNAL, 0, 1, 2, 4, 5, 6, 7, 8),
        ["state-losses"],
        {"records": 1},
        lossy=True,
        gone=((0, 0, 2),),
    ),
    "lines in another order": Damage(
        "ended", arrange(JOURNAL, 0, 1, 4, 3, 2, 5, 6, 7, 8), ["drop-lines", "restore-records"]
    ),
    "a line that comes twice": Damage(
        "ended",
        arrange(JOURNAL, 0, 1, 2, 3, 3, 4, 5, 6, 7, 8),
        ["drop-lines"],
        {"lines": 1, "bytes": line_bytes(3)},
    ),
    "a damaged header": Damage(
        "ended", spoil("metrics.r1.jsonl", 0), ["mend-header"], {"members": 3}, lossy=True
    ),
    "a damaged header of a sealed run": Damage(
        "sealed", spoil("metrics.r1.jsonl", 0), ["mend-header", "seal"]
    ),
    "a journal of a sealed run that is gone": Damage(
        "sealed", drop(JOURNAL), ["restore-journal", "restore-records", "seal"]
    ),
    "an empty journal of a sealed run": Damage(
        "sealed", fill("metrics.r1.jsonl", b""), ["restore-journal", "restore-records", "seal"]
    ),
    "a continuation whose copy serves": Damage(
        "attempts-ended",
        spoil(JOURNAL, 3),
        ["drop-lines"],
        {"lines": 1, "bytes": len(point(2, {"x": 2}))},
    ),
    "a continuation that is gone": Damage(
        "attempts-ended",
        drop("metrics.1.jsonl"),
        ["restore-journal", "state-losses"],
        lossy=True,
        gone=((0, 0, 3),),
    ),
    "an attempt that is gone": Damage(
        "attempts-ended",
        drop("metrics.2.jsonl"),
        ["restore-journal", "state-losses", "mend-manifest"],
        lossy=True,
        gone=((1, 0, 0), (1, 0, 1)),
    ),
    "a sealed continuation that is gone": Damage(
        "attempts", drop("metrics.1.jsonl"), ["restore-journal", "restore-records", "seal"]
    ),
    "a journal of another run": Damage(
        "ended",
        add("metrics.1.jsonl", header(run_id="f" * 32) + point(0, {"x": 1})),
        ["set-aside"],
    ),
    "a manifest that is gone": Damage(
        "ended", drop("run.json"), ["mend-manifest"], {"members": 4}, lossy=True, same=False
    ),
    "a manifest of NUL": Damage(
        "sealed",
        fill("run.json", b"\0" * 500),
        ["mend-manifest", "seal"],
        {"members": 4},
        lossy=True,
        same=False,
    ),
    "a manifest that was not told": Damage(
        "ended",
        edit(
            lambda manifest: (
                [manifest.pop(key) for key in ("end", "duration_seconds")],
                manifest["attempts"][0].pop("end"),
                manifest["attempts"][0].update(status="running"),
                manifest.update(status="running"),
            )
        ),
        ["mend-manifest"],
    ),
    "numbers of the manifest that are wrong": Damage(
        "sealed",
        edit(lambda manifest: manifest["groups"]["a"].update(rows=99)),
        ["note", "seal"],
        lossy=True,
    ),
    "a configuration that is no JSON": Damage(
        "ended", fill("config.json", b"{"), ["set-aside"], {"files": 1}, lossy=True, same=False
    ),
    "a configuration that was changed": Damage(
        "sealed",
        append("config.json", b" "),
        ["set-aside", "sums"],
        {"files": 1},
        lossy=True,
        same=False,
    ),
    "a configuration that is gone": Damage(
        "sealed", drop("config.json"), ["note", "sums"], {"files": 1}, lossy=True, same=False
    ),
    "an artifact that has rotted": Damage(
        "sealed", flip("artifacts/model.bin", 3), ["note", "sums"], {"files": 1}, lossy=True
    ),
    "checksums that are gone": Damage("sealed", drop("SHA256SUMS"), ["sums"]),
    "checksums that have rotted": Damage("sealed", flip("SHA256SUMS", 200), ["sums"]),
    "a table that has rotted": Damage("sealed", flip("a.parquet", 300), ["seal"]),
    "a table that is gone": Damage("sealed", drop("a.parquet"), ["seal"]),
    "a dataset that has rotted": Damage("sealed", flip("b.h5", 900), ["seal"]),
    "a dataset that is gone": Damage("sealed", drop("b.h5"), ["seal"]),
    "a table and a line of its rows": Damage(
        "sealed",
        both(drop("a.parquet"), spoil(JOURNAL, 2, 5)),
        ["drop-lines", "state-losses", "restore-records", "seal"],
        {"records": 1, "lines": 2, "bytes": line_bytes(2) + line_bytes(5)},
        lossy=True,
        gone=((0, 0, 4),),
        thin=((0, 0, 1),),
    ),
    "a link": Damage("ended", link, ["remove-entry"], {"files": 1}, lossy=True),
    "scratch of a seal": Damage("sealed", add(".tmp-seal", b"x"), ["remove-scratch"]),
    "the checksums of a packed run": Damage("packed", flip("SHA256SUMS", 70), ["sums"]),
    "a table of a packed run": Damage(
        "packed",
        drop("a.parquet"),
        [
            *("restore-journal", "state-losses", "restore-journal", "state-losses"),
            *("restore-records", "restore-records", "unpack", "seal"),
        ],
        {"records": 1},
        lossy=True,
        gone=((0, 0, 4),),
        thin=((0, 0, 1), (0, 0, 2), (0, 0, 6)),
    ),
}


@HOWS
@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.rule("BB-INT-012", "BB-REP-001", "BB-REP-002", "BB-REP-003")
@pytest.mark.rule("BB-REP-009", "BB-REP-010")
def test_a_damage_is_mended(
    name: str, how: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    damage = DAMAGES[name]
    path = shutil.copytree(templates[damage.kind], tmp_path / "run")
    original, members = said(path), facts(path)
    damage.spoil(path)
    before = content(path)
    planned = plan(path)
    assert content(path) == before
    schema.validator("repair-plan").validate(planned.document())
    target, report = mend(path, how)
    assert [each.kind for each in report.actions] == damage.actions
    assert [each.document() for each in report.actions] == planned.document()["actions"]
    assert (report.lost, report.lossy) == (damage.lost, damage.lossy)
    found = said(target)
    assert_part_of(found, original)
    wanted = {place: value for place, value in original.items() if place not in damage.gone}
    assert found.keys() == wanted.keys()
    different = {place for place, value in wanted.items() if found[place] != value}
    assert different == set(damage.thin)
    assert report.kept["records"] == len(wanted)
    assert report.kept["values"] == sum(
        len(value[2]) + sum(map(len, value[3].values())) for value in found.values()
    )
    if damage.same and not damage.gone and not damage.thin:
        assert facts(target) == members


@HOWS
@pytest.mark.parametrize("kind", ["ended", "sealed", "packed", "attempts"])
def test_a_good_run_is_copied_byte_for_byte(
    kind: str, how: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    path = shutil.copytree(templates[kind], tmp_path / "run")
    (path / "plots").mkdir()
    before = content(path)
    stamps = {each: each.stat().st_mtime_ns for each in path.rglob("*")}
    target, report = mend(path, how)
    assert (report.actions, report.changed, report.lossy) == ([], False, False)
    assert content(target) == before
    assert (target / "plots").is_dir()
    assert {each: each.stat().st_mtime_ns for each in path.rglob("*")} == stamps


@pytest.mark.rule("BB-REP-004", "BB-REP-006")
def test_losses_are_stated_and_stay_stated(templates: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(templates["ended"], tmp_path / "run")
    spoil(JOURNAL, 3)(path)
    repair(path, in_place=True)
    spoil(JOURNAL, 3, 7)(path)  # seq 3 and the end: the line of seq 2 is gone
    report = repair(path, in_place=True)
    assert report.lossy
    with (path / JOURNAL).open("rb") as file:
        stated = decode(file.readline()[:-1])["repaired"]
    assert stated == {"lost": [[2, 3]], "lost_from": 7}
    verdict = validate(path)
    assert {each.rule for each in verdict.problems} == {"BB-REP-007"}
    assert {each.severity for each in verdict.problems} == {"warning"}
    assert open_run(path).status == "completed"
    assert "records 2 to 3 are missing" in str(list_problems(path))


def list_problems(path: Path) -> list[str]:
    reader = open_run(path)
    list(reader.records("all"))
    return [str(each) for each in reader.problems]


def test_a_run_with_stated_losses_is_sealed_and_not_packed(
    templates: dict[str, Path], tmp_path: Path
) -> None:
    path = shutil.copytree(templates["ended"], tmp_path / "run")
    spoil(JOURNAL, 3)(path)
    repair(path, in_place=True)
    seal(path)
    assert validate(path).verdict == "valid"
    with pytest.raises(SealError, match="damage"):
        pack(path)
    assumed = shutil.copytree(templates["ended"], tmp_path / "assumed")
    spoil("metrics.r1.jsonl", 0)(assumed)
    repair(assumed, in_place=True)
    with pytest.raises(SealError, match=r"metrics\.r1\.jsonl states"):
        pack(assumed)
    assert (assumed / JOURNAL).exists()


def test_unknown_members_and_files_survive(templates: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(templates["sealed"], tmp_path / "run")
    edit(lambda manifest: manifest.update(tags=5))(path)
    spoil(JOURNAL, 3)(path)
    target, report = mend(path, "output")
    assert report.lossy
    manifest = json.loads((target / "run.json").read_bytes())
    assert manifest["org.example"] == {"kept": True}
    assert manifest["environment"] == {"python": "3.11"}
    assert manifest["tags"] == []
    assert (target / "artifacts" / "model.bin").read_bytes() == b"weights"
    assert b'"later":[1]' in (target / JOURNAL).read_bytes()


def media_run(path: Path) -> Path:
    files = dict(FILES)
    pixel = b"\x89PNG pixel"
    named = {"name": "a/i", "kind": "image", "file": "media/i.png", "bytes": len(pixel)}
    head = header(format={"name": "blackbox-media", "version": "1.0", "features": []})
    files["media.jsonl"] = (
        head
        + event(0, step=0, media=named)
        + event(1, step=1, media={"name": "a/t", "kind": "text", "value": "one"})
        + event(2, step=2, media={"name": "a/t", "kind": "text", "value": "two"})
    )
    write(path, files)
    (path / "media").mkdir()
    (path / "media" / "i.png").write_bytes(pixel)
    seal(path)
    assert validate(path).verdict == "valid"
    return path


@HOWS
def test_media_are_mended_and_missing_files_are_told(how: str, tmp_path: Path) -> None:
    path = media_run(tmp_path / "run")
    (path / "media" / "i.png").unlink()
    spoil("media.jsonl", 2)(path)
    append("media.jsonl", b"torn")(path)
    target, report = mend(path, how)
    assert report.lossy
    assert report.lost["files"] == 1
    assert report.lost["records"] == 1
    with (target / "media.jsonl").open("rb") as file:
        stated = decode(file.readline()[:-1])["repaired"]
    assert stated == {"damaged": ["media/i.png"], "lost": [[1, 1]]}
    assert [each.value for each in open_run(target).media()] == [None, "two"]
    assert said(target) == said(path)


@HOWS
@pytest.mark.parametrize(
    "name",
    ["run.json", "SHA256SUMS", "metrics.jsonl", "media.jsonl", "a.parquet", "b.parquet", "i.png"],
)
@pytest.mark.rule("BB-REP-013")
def test_what_the_system_refuses_is_not_lost(
    how: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media_run(tmp_path / "run")
    spoil(JOURNAL, 2, 4)(path)
    append("media.jsonl", b"torn")(path)
    before, original, real = content(path), said(media_run(tmp_path / "as-it-was")), os.open

    def refuse(place: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if Path(place).name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), place)
        return real(place, flags, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(OSError, match=name):
            mend(path, how)
    assert content(path) == before
    target, report = mend(path, how)
    assert not report.lossy
    assert said(target) == original


@HOWS
@pytest.mark.parametrize(
    "bad",
    [
        point(1, {"a/x": 2**63}),
        point(1, {"a/x": 1}, step=1.0),  # type: ignore[arg-type]
        point(1, {"a/": 1}),
        point(1, {"a/x": 1}, later=json.loads("[" * 65 + "]" * 65)),
        line({"seq": 1, "time": 1.0, "step": 1}),
    ],
    ids=["beyond int64", "step with a point", "name", "depth", "no kind"],
)
def test_a_line_that_is_no_record_is_dropped_though_its_checksum_is_right(
    how: str, bad: bytes, tmp_path: Path
) -> None:
    files = {JOURNAL: header() + point(0, {"a/x": 1}) + bad + point(2, {"a/x": 3}) + end(3)}
    target, report = mend(write(tmp_path / "run", files), how)
    assert [place[2] for place in said(target)] == [0, 2]
    assert report.lossy
    assert report.lost["records"] == 1


@HOWS
def test_a_size_that_the_manifest_has_wrong_is_put_right(
    how: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(templates["sealed"], path)

    def enlarge(manifest: dict[str, Any]) -> None:
        manifest["files"]["config.json"]["bytes"] += 1

    was = hashlib.sha256((path / "run.json").read_bytes()).hexdigest()
    edit(enlarge)(path)
    digest = hashlib.sha256((path / "run.json").read_bytes()).hexdigest()
    sums = (path / "SHA256SUMS").read_text("ascii")
    (path / "SHA256SUMS").write_text(sums.replace(was, digest), "ascii")
    target, report = mend(path, how)
    assert not report.lossy
    assert said(target) == said(path)
    assert open_run(target).config == open_run(templates["sealed"]).config


@HOWS
def test_a_member_of_the_manifest_that_is_nested_too_deep_is_given_up(
    how: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(templates["sealed"], path)
    deep = json.loads("[" * 64 + "]" * 64)
    edit(lambda manifest: manifest.update({"org.a": {"x": 1}, "org.b": deep}))(path)
    target, report = mend(path, how)
    manifest = json.loads((target / "run.json").read_bytes())
    assert manifest["org.a"] == {"x": 1}
    assert "org.b" not in manifest
    assert report.lossy
    assert any("lost: org.b" in each.text for each in report.actions)


# -- what is refused


@pytest.mark.rule("BB-LIV-009")
def test_a_run_that_is_written_is_refused(tmp_path: Path) -> None:
    files = {JOURNAL: header(process=live_process()) + point(0, {"x": 1}) + b"torn"}
    path = write(tmp_path / "run", files)
    for force in (False, True):
        with pytest.raises(RunIsLiveError, match=str(os.getpid())):
            repair(path, in_place=True, force=force)
    assert content(path) == files


@pytest.mark.rule("BB-LIV-009")
def test_a_run_of_which_nobody_knows_needs_a_person(tmp_path: Path) -> None:
    elsewhere = {"host": "elsewhere", "pid": 1, "started": 1}
    path = write(tmp_path / "run", {JOURNAL: header(process=elsewhere) + point(0, {"x": 1}) + b"t"})
    with pytest.raises(RunIsLiveError, match="--force"):
        plan(path)
    assert plan(path, force=True).actions
    repair(path, in_place=True, force=True)
    assert open_run(path).status == "interrupted"


@pytest.mark.rule("BB-LIV-005", "BB-LIV-009")
def test_a_rank_that_has_ended_is_not_called_live_for_what_follows_its_end(tmp_path: Path) -> None:
    second = header(1, process=live_process())
    files = {
        JOURNAL: header() + point(0, {"x": 1}) + end(1) + b"torn",
        "metrics.r1.jsonl": second + point(0, {"x": 2}) + end(1) + point(2, {"x": 3}),
    }
    path = write(tmp_path / "run", files)
    assert plan(path).actions
    (path / "metrics.r1.jsonl").write_bytes(second + point(0, {"x": 2}) + point(1, {"x": 3}))
    with pytest.raises(RunIsLiveError, match=str(os.getpid())):
        plan(path, force=True)


def test_what_a_crash_left_is_settled(tmp_path: Path) -> None:
    path = write(tmp_path / "run", {JOURNAL: header() + point(0, {"x": 1}) + b'{"seq":1'})
    seal(path)
    manifest = json.loads((path / "run.json").read_bytes())
    for name in ("x.parquet", "metrics.parquet", "metrics.h5", "SHA256SUMS"):
        (path / name).unlink(missing_ok=True)
    for key in ("sealed", "groups", "journals", "files", "end", "duration_seconds"):
        del manifest[key]
    manifest["attempts"][0].pop("end")
    manifest["status"] = manifest["attempts"][0]["status"] = "running"
    (path / "run.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    assert validate(path).verdict == "incomplete"
    target, report = mend(path, "output")
    assert [each.kind for each in report.actions] == ["cut-tail", "mend-manifest"]
    assert not report.lossy
    assert open_run(target).status == "interrupted"


@pytest.mark.rule("BB-REP-008")
def test_what_cannot_be_mended_is_said(templates: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        plan(tmp_path)
    nothing = write(tmp_path / "nothing", {"run.json": b"{}", JOURNAL: b"x"})
    with pytest.raises((ManifestError, NotARunError)):
        plan(nothing)
    newer = shutil.copytree(templates["ended"], tmp_path / "newer")
    form = {"name": "blackbox-journal", "version": "2.0", "features": []}
    (newer / "metrics.2.jsonl").write_bytes(header(format=form))
    with pytest.raises(UnsupportedVersionError, match=r"2\.0"):
        plan(newer)
    after = shutil.copytree(templates["ended"], tmp_path / "after")
    append(JOURNAL, point(8, {"x": 1}))(after)
    before = content(after)
    with pytest.raises(RepairError, match="BB-JNL-010"):
        repair(after, tmp_path / "new")
    assert content(after) == before
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_an_output_is_never_overwritten(templates: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError):
        repair(templates["ended"], tmp_path / "there")
    with pytest.raises(ValueError, match="in_place"):
        repair(templates["ended"])
    with pytest.raises(RepairError, match="inside"):
        repair(templates["ended"], templates["ended"] / "new")


def test_a_repair_goes_on_where_the_folder_is_taken(
    templates: dict[str, Path], tmp_path: Path
) -> None:
    path = shutil.copytree(templates["ended"], tmp_path / "run")
    (path / "repair").write_text("mine")
    spoil(JOURNAL, 3)(path)
    before = content(path)
    with pytest.raises(RepairError, match="in the way"):
        repair(path, in_place=True)
    assert content(path) == before


# -- the command


@pytest.mark.rule("BB-REP-012")
def test_the_command_says_what_it_does(
    templates: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(shutil.copytree(templates["ended"], tmp_path / "run"))
    assert main(["repair", path, "-o", str(tmp_path / "copy")]) == 0
    assert "nothing to mend; copied byte for byte" in capsys.readouterr().out
    append(JOURNAL, b"torn")(Path(path))
    assert main(["repair", path, "-o", str(tmp_path / "clean")]) == 0
    out = capsys.readouterr().out
    assert "cut 4 bytes that are no committed line" in out
    assert ": mended as " in out
    assert "clean" in out
    spoil(JOURNAL, 3)(Path(path))
    assert main(["repair", path, "--plan"]) == 3
    document = json.loads(capsys.readouterr().out)
    schema.validator("repair-plan").validate(document)
    assert document["outcome"] == "lossy"
    assert document["lost"]["records"] == 1
    assert main(["repair", path, "-o", str(tmp_path / "clean")]) == 2
    assert "give another folder" in capsys.readouterr().err
    assert main(["repair", path, "--in-place", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["changed"]
    assert document["aside"]
    assert main(["repair", path, "--in-place"]) == 0
    assert capsys.readouterr().out.strip().endswith("nothing to mend")
    assert main(["repair", str(tmp_path / "nowhere"), "--plan"]) == 2
    assert main(["repair", str(tmp_path), "--plan"]) == 1
    assert main(["repair", path]) == 2


# -- ranges


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_ranges_are_sets_of_numbers(left: set[int], right: set[int]) -> None:
    one, other = (ranges.union([(each, each) for each in each_set]) for each_set in (left, right))

    def numbers(found: list[ranges.Range]) -> set[int]:
        return {number for low, high in found for number in range(low, high + 1)}

    assert numbers(one) == left
    assert numbers(ranges.union(one, other)) == left | right
    assert numbers(ranges.subtract(one, other)) == left - right
    assert numbers(ranges.intersect(one, other)) == left & right
    assert ranges.count(one) == len(left)
    assert {number for number in range(42) if ranges.holds(one, number)} == left
    covered = ranges.cover(one, 3)
    assert len(covered) <= 3
    assert numbers(covered) >= left


# -- random damage


MUTATIONS = st.tuples(
    st.sampled_from(["flip", "flip", "cut", "drop", "zero", "swap", "twice", "without", "append"]),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)


def mutate(path: Path, kind: str, which: int, where: int) -> str:
    """Damage one file of a run in one way; return which."""
    files = sorted(each for each in path.rglob("*") if each.is_file())
    file = files[which % len(files)]
    data = file.read_bytes()
    if kind == "drop" or not data:
        file.unlink()
        return file.name
    at = where % len(data)
    lines = data.splitlines(keepends=True)
    here, there = where % len(lines), (where // 7) % len(lines)
    changed = {
        "flip": flipped(data, at, where % 8),
        "cut": data[:at],
        "zero": data[:at] + bytes(min(31, len(data) - at)) + data[at + 31 :],
        "append": data + data[:at],
        "without": b"".join([*lines[:here], *lines[here + 1 :]]),
        "twice": b"".join([*lines[:there], lines[here], *lines[there:]]),
    }
    lines[here], lines[there] = lines[there], lines[here]
    changed["swap"] = b"".join(lines)
    file.write_bytes(changed[kind])
    return file.name


def bases() -> Iterator[str]:
    return (each.name for each in sorted(BASES.iterdir()) if each.is_dir())


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    base=st.sampled_from([*bases(), "ended", "sealed", "packed", "attempts", "attempts-ended"]),
    mutations=st.lists(MUTATIONS, min_size=1, max_size=3),
    in_place=st.booleans(),
)
@example(base="ended", mutations=[("cut", 2, 0)], in_place=False)
@example(base="ended", mutations=[("cut", 3, 0)], in_place=False)
@pytest.mark.rule("BB-INT-013", "BB-REP-001")
def test_random_damage_is_mended_or_refused(
    base: str,
    mutations: list[tuple[str, int, int]],
    in_place: bool,
    templates: dict[str, Path],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(templates.get(base, BASES / base), f"{folder}/run"))
        original = said(path)
        touched = {mutate(path, *each) for each in mutations}
        target = path if in_place else Path(folder, "new")
        try:
            report = repair(path, None if in_place else target, in_place=in_place, force=True)
        except BlackboxError:
            return
        assert validate(target).ok
        found = said(target)
        assert_part_of(found, original)
        if not report.lossy and base not in {"live", "crashed"}:
            # Where no end was ever written, nothing tells that the last lines are gone.
            # Nor does anything tell of a rank but the first, where no journal of it is left.
            left = {place[1] for place in found}
            known = [at for at in original if at[1] in left or at[1] == 0 or base != "ended"]
            assert found == {at: original[at] for at in known}, touched
        assert repair(target, in_place=True, force=True).actions == []


def test_a_run_is_named_by_its_tables_alone(templates: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(templates["packed"], tmp_path / "run")
    original = said(path)
    drop("run.json")(path)
    target, report = mend(path, "output")
    assert report.lossy
    reader = open_run(target)
    assert reader.id == RUN_ID
    found = said(target)
    assert found.keys() == original.keys()
    assert_part_of(found, original)
    # Nobody can tell any more whether this was an integer that its column rounds.
    assert "a/x" in found[0, 0, 6][2]


def test_a_line_of_the_future_is_kept(templates: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(templates["ended"], tmp_path / "run")
    lines = (path / "metrics.r1.jsonl").read_bytes().splitlines(keepends=True)
    lines.insert(3, line({"seq": 2, "time": 1.0, "teleport": {"to": 5}}))
    lines[4] = end(3)
    (path / "metrics.r1.jsonl").write_bytes(b"".join(lines) + b"torn")
    target, _ = mend(path, "output")
    assert (target / "metrics.r1.jsonl").read_bytes() == b"".join(lines)
