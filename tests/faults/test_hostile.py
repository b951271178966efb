"""Runs that mean harm: they cost an error of our own, never more."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackboxml import open_run
from blackboxml.collection import find_runs, open_runs
from blackboxml.errors import BlackboxError, LimitError, RepairError, SealError
from blackboxml.model import Limits
from blackboxml.repair import repair
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from tests import histories
from tests.histories import RUN_ID, end, event, header, line, point, seal_line, write
from tests.reader.test_reader import rich
from tests.seal.test_seal import content, manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))


def exercise(path: Path) -> None:
    """Ask a reader for everything; nothing but our own errors and KeyError may come."""
    try:
        reader = open_run(path)
    except BlackboxError:
        return
    asks: list[Callable[[], Any]] = [
        lambda: repr(reader),
        lambda: (reader.status, reader.verdict, reader.start, reader.end, reader.duration_seconds),
        lambda: (reader.id, reader.name, list(reader.tags), reader.sealed, reader.packed),
        lambda: (reader.config, reader.groups, reader.metrics, reader.manifest),
        lambda: (list(reader.records()), list(reader.records("all"))),
        lambda: (reader.summary(), reader.summary("all")),
        lambda: list(reader.follow(from_start=True, timeout=0)),
    ]
    for view in ("effective", "all"):
        for group in (None, "train", ""):
            asks += [
                lambda g=group, v=view: reader.arrow(g, v),
                lambda g=group, v=view: reader.arrow(g, v, columns=["step"]),
                lambda g=group, v=view: reader.polars(g, v),
                lambda g=group, v=view: reader.polars(g, v, lazy=True).collect(),
                lambda g=group, v=view: reader.pandas(g, v),
                lambda g=group, v=view: reader.xarray(g, v),
            ]
    for ask in asks:
        try:
            ask()
        except (BlackboxError, KeyError):
            continue


# -- manifests


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Return a sealed run and a packed one."""
    folder = tmp_path_factory.mktemp("hostile")
    packed = write(folder / "packed", rich())
    pack(packed)
    sealed = write(folder / "sealed", rich())
    seal(sealed)
    return {False: sealed, True: packed}


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value of a document."""
    found = [at] if at else []
    if isinstance(document, dict | list):
        inner = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in inner:
            found += places(value, (*at, key))
    return found


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**30, 1e308, 0.5, -1e300]),
    st.sampled_from(["", "x", "../x", "/etc/passwd", "train.parquet", "metrics.jsonl", "run.json"]),
    st.sampled_from(
        ["NaN", "running", "completed", "float64", "2026-11-21", "\ud7ff", "a\0b", "9" * 99]
    ),
    st.sampled_from([[], {}, [[]], [{}], {"": {}}, ["x"], {"x": None}, [None], {"packed": True}]),
)


@settings(SLOW, max_examples=100)
@given(st.data(), st.booleans())
def test_a_manifest_may_say_anything(
    runs: dict[bool, Path], data: st.DataObject, packed: bool
) -> None:
    path = runs[packed]
    original = (path / "run.json").read_bytes()
    manifest = json.loads(original)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(manifest)))
        target = manifest
        for key in place[:-1]:
            target = target[key]
        kind = data.draw(st.sampled_from(["set", "set", "set", "drop", "swap", "add"]))
        if kind == "set":
            target[place[-1]] = data.draw(odd_values)
        elif kind == "drop":
            del target[place[-1]]
        elif kind == "add" and isinstance(target, dict):
            target[data.draw(st.sampled_from(["x", "dataset", "events", "unit", "end", ""]))] = (
                data.draw(odd_values)
            )
        elif kind == "swap":
            other = data.draw(st.sampled_from(places(manifest)))
            value = manifest
            for key in other:
                value = value[key]
            target[place[-1]] = copy.deepcopy(value)
        if not places(manifest):
            break
    try:
        (path / "run.json").write_text(json.dumps(manifest), "utf-8")
        exercise(path)
    finally:
        (path / "run.json").write_bytes(original)


@pytest.mark.parametrize("member", ["sealed", "groups", "journals", "files", "attempts", "start"])
@pytest.mark.parametrize("value", [None, [], {}, 0, "x", [None], {"x": 1}, True])
def test_a_member_of_another_type_is_rebuilt_or_refused(
    runs: dict[bool, Path], tmp_path: Path, member: str, value: Any
) -> None:
    for packed, path in runs.items():
        copied = Path(shutil.copytree(path, tmp_path / str(packed)))
        manifest = manifest_of(copied) | {member: value}
        (copied / "run.json").write_text(json.dumps(manifest), "utf-8")
        exercise(copied)
        for act in (seal, pack):
            before = {
                name: data for name, data in content(copied).items() if name.endswith(".parquet")
            }
            try:
                act(copied)
            except BlackboxError:
                assert before.items() <= content(copied).items()


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "table up": lambda m: m["groups"]["train"].update(table="../../etc/passwd"),
    "table absolute": lambda m: m["groups"]["train"].update(table="/etc/passwd"),
    "table of another group": lambda m: m["groups"]["train"].update(table="val.parquet"),
    "table twice": lambda m: m["groups"].update(other=m["groups"]["train"]),
    "group that is not there": lambda m: m["groups"].update(ghost=dict(m["groups"]["train"])),
    "no groups": lambda m: m["groups"].clear(),
    "rows": lambda m: m["groups"]["train"].update(rows=10**15),
    "superseded": lambda m: m["groups"]["train"].update(superseded=0),
    "columns": lambda m: [
        each.update(column="x") for each in m["groups"]["train"]["metrics"].values()
    ],
    "packed without tables": lambda m: m.update(sealed={"time": m["start"], "packed": True}),
    "journal twice": lambda m: m["journals"].append(m["journals"][0]),
    "journal of another rank": lambda m: m["journals"][0].update(rank=7),
    "journal up": lambda m: m["journals"][0].update(file="../metrics.jsonl"),
    "events": lambda m: m["journals"][0].update(
        events=[{"seq": 0, "time": 0, "rewind": {"step": 0}}]
    ),
    "broken events": lambda m: m["journals"][0].update(events=[{"rewind": {}}, 3, None]),
    "event of a point": lambda m: m["journals"][0].update(
        events=[{"seq": 1, "time": 1, "step": 1, "metrics": {"x": "nan"}}]
    ),
    "sizes": lambda m: [each.update(bytes=1) for each in m["files"].values()],
    "files up": lambda m: m["files"].update({"../../etc/passwd": {"bytes": 1}}),
    "digests": lambda m: [each.update(sha256="0" * 64) for each in m["files"].values()],
    "no digests": lambda m: [each.pop("sha256") for each in m["files"].values()],
    "id": lambda m: m.update(id="../" * 10 + "xx"),
    "times": lambda m: m.update(start="9999-99-99", end="x"),
    "processes": lambda m: [each.update(process={"pid": [], "host": {}}) for each in m["attempts"]],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_may_lie(runs: dict[bool, Path], tmp_path: Path, lie: str) -> None:
    for packed, path in runs.items():
        copied = Path(shutil.copytree(path, tmp_path / str(packed)))
        manifest = manifest_of(copied)
        LIES[lie](manifest)
        (copied / "run.json").write_text(json.dumps(manifest), "utf-8")
        exercise(copied)
        for act in (seal, pack, seal):
            try:
                act(copied)
            except (BlackboxError, OSError):
                continue
        exercise(copied)


# -- links, special files, depth


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "train.parquet", "config.json"])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder", "device", "loop"])
@pytest.mark.rule("BB-SEC-002", "BB-SEC-003")
def test_what_is_no_regular_file_is_neither_followed_nor_waited_for(
    tmp_path: Path, name: str, kind: str
) -> None:
    path = write(tmp_path / "run", rich() | {"config.json": b"{}"})
    seal(path)
    secret = path / name
    secret.rename(tmp_path / "secret")
    if kind == "fifo":
        os.mkfifo(secret)
    elif kind == "folder":
        secret.mkdir()
        (secret / "inside").write_bytes(b"kept")
    else:
        target = {"link": "secret", "dangling": "nothing", "loop": f"run/{name}"}.get(kind)
        secret.symlink_to("/dev/zero" if target is None else tmp_path / target)
    exercise(path)
    if name == "config.json":
        assert open_run(path).config == {}
    for act in (seal, pack):
        try:
            act(path)
        except (BlackboxError, OSError):
            continue
    assert (tmp_path / "secret").exists()
    if kind == "folder" and secret.is_dir():
        assert (secret / "inside").read_bytes() == b"kept"


def test_a_run_that_is_a_link_is_the_callers_wish(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    (tmp_path / "link").symlink_to(path)
    assert open_run(tmp_path / "link").groups
    assert list(find_runs(tmp_path)) == [path]


@pytest.mark.parametrize("depth", [60, 100, 900, 5000, 200_000])
def test_depth_is_refused_and_breaks_nothing(tmp_path: Path, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    data = header() + point(0, {"a": 1}) + seal_line(f'{{"seq":1,"time":1.0,"x":{deep}')
    path = write(tmp_path / "run", {"metrics.jsonl": data + event(2, x=1) + point(3, {"a": 2})})
    exercise(path)
    assert [each.metrics["a"] for each in open_run(path).records()] == [1, 2]
    text = f'{{"format":{{"name":"blackbox-run","version":"1.0"}},"x":{deep}}}'
    (path / "run.json").write_text(text, "ascii")
    (path / "config.json").write_text(text.replace("blackbox-run", "blackbox-config"), "ascii")
    exercise(path)
    assert open_run(path).name == histories.RUN_NAME


@pytest.mark.rule("BB-LIM-003")
def test_a_manifest_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    manifest = manifest_of(path) | {"x": "y" * 3000}
    (path / "run.json").write_text(json.dumps(manifest), "utf-8")
    reader = open_run(path, Limits(manifest_bytes=2000))
    assert [problem.rule for problem in reader.problems] == ["BB-MAN-001"]
    with (path / "run.json").open("r+b") as file:
        file.truncate(2**40)
    exercise(path)


def test_many_damaged_lines_are_reported_within_bounds(tmp_path: Path) -> None:
    data = header() + point(0, {"a": 1}) + b"x\n" * 60_000 + point(1, {"a": 2})
    reader = open_run(write(tmp_path / "run", {"metrics.jsonl": data}))
    assert [each.metrics["a"] for each in reader.records()] == [1, 2]
    assert list(reader.records("all"))
    assert 1000 <= len(reader.problems) < 2000


def test_many_rewinds_do_not_slow_the_reader_down_by_their_square(tmp_path: Path) -> None:
    count = 20_000
    lines = []
    for seq in range(0, count, 2):
        lines += [point(seq, {"a": seq}, seq), event(seq + 1, rewind={"step": count + 1})]
    reader = open_run(write(tmp_path / "run", {"metrics.jsonl": header() + b"".join(lines)}))
    assert reader.arrow().num_rows == sum(1 for _ in reader.records()) == count // 2


def test_folders_within_folders_are_searched_to_any_depth(tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(300):
        place = place / "d"
    write(place / "run", {"metrics.jsonl": header()})
    assert [path.name for path in find_runs(tmp_path)] == ["run"]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_bytes(b"{")
    found = dict(open_runs(tmp_path))
    assert isinstance(found[tmp_path / "broken"], BlackboxError)


@settings(SLOW, max_examples=60)
@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_a_journal_may_hold_any_bytes(parts: list[bytes], sealed: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        lines = [seal_line(part.replace(b"\n", b"")) if len(part) % 2 else part for part in parts]
        data = header() + point(0, {"a": 1}) + b"\n".join(lines)
        path = write(
            Path(folder, "run"), {"metrics.jsonl": data, "metrics.1.jsonl": b"\n".join(lines)}
        )
        exercise(path)
        if sealed:
            try:
                seal(path)
            except BlackboxError:
                return
            exercise(path)


HEADERS: list[dict[str, Any]] = [
    {"rank": None}, {"rank": 2**31}, {"attempt": -1}, {"attempt": 2**31 - 1}, {"attempt": 2**40},
    {"first_seq": 2**63}, {"first_seq": -1}, {"time": "x"}, {"time": 1e300}, {"time": -1e300},
    {"time": True}, {"process": None}, {"process": []}, {"process": {"pid": "x", "host": 3}},
    {"process": {"host": os.uname().nodename, "pid": 2**70}}, {"run": {"id": RUN_ID, "name": 3}},
    {"run": {"id": RUN_ID, "name": "x", "tags": 3}}, {"run": None}, {"run": {"id": "x" * 32, "name": "x"}},  # noqa: E501
    {"writer": 3}, {"format": {"name": "blackbox-journal", "version": 1}},
    {"format": {"name": "blackbox-journal", "version": "1.0", "features": 3}},
    {"format": {"name": "blackbox-journal", "version": "1.0", "features": [[]]}},
    {"seq": 0},
]  # fmt: skip


@pytest.mark.parametrize("wrong", HEADERS, ids=map(str, range(len(HEADERS))))
def test_a_header_may_say_anything(tmp_path: Path, wrong: dict[str, Any]) -> None:
    document = json.loads(header())
    document.pop("crc")
    files = {
        "metrics.jsonl": line(document | wrong) + point(0, {"a": 1}) + end(1),
        "metrics.r1.jsonl": header(1) + point(0, {"b": 1}),
    }
    path = write(tmp_path / "run", files)
    exercise(path)
    try:
        seal(path)
    except BlackboxError:
        return
    exercise(path)
    json.loads((path / "run.json").read_bytes())


# -- what a reader may use


def child(code: str, *arguments: object) -> dict[str, Any]:
    """Run code in a process of its own, and return the object that it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


PEAK = """
import json, resource, sys
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
"""


@pytest.mark.rule("BB-CFG-010", "BB-SEC-004", "BB-SEC-005")
def test_nothing_outside_the_run_is_opened_and_nothing_executed(
    runs: dict[bool, Path], tmp_path: Path
) -> None:
    code = """
    import json, os, sys
    path = os.path.realpath(sys.argv[1])
    import polars, pandas, xarray, h5netcdf, pyarrow.parquet, pyarrow.json, pyarrow.compute
    import blackboxml, blackboxml.seal.pack
    def ask():
        reader = blackboxml.open_run(path)
        reader.status, reader.config, reader.summary(), list(reader.records()), reader.problems
        for group in reader.groups:
            reader.arrow(group), reader.polars(group), reader.pandas(group), reader.xarray(group)
            reader.polars(group, lazy=True).collect()
        return list(reader.follow(from_start=True, timeout=0))
    seen = []
    def hook(name, arguments):
        if name in {"open", "os.scandir", "os.listdir"}:
            place = "" if isinstance(arguments[0], int) else os.fspath(arguments[0])
            seen.append([name, place])
        elif name.split(".")[0] in {"subprocess", "socket", "pickle", "marshal", "ctypes"}:
            if name != "marshal.loads":
                seen.append([name, repr(arguments)])
        elif name in {"os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove"}:
            seen.append([name, repr(arguments)])
    sys.addaudithook(hook)
    ask()
    print(json.dumps({"seen": seen, "prefix": sys.prefix, "base": sys.base_prefix}))
    """
    for packed, path in runs.items():
        copied = Path(shutil.copytree(path, tmp_path / str(packed)))
        manifest = manifest_of(copied)
        manifest["files"]["artifacts/evil.py"] = {"bytes": 1}
        manifest["environment"] = {"python": "import os; os.system('x')"}
        (copied / "run.json").write_text(json.dumps(manifest), "utf-8")
        found = child(code, copied)
        source = str(Path(__file__).resolve().parents[2])
        allowed = (
            os.path.realpath(copied),
            found["prefix"],
            found["base"],
            source,
            "/proc/",
            "/dev/fd/",
        )
        names = {"run.json", "config.json", "SHA256SUMS", ""}
        for what, place in found["seen"]:
            assert what in {"open", "os.scandir", "os.listdir"}, (what, place)
            inside = place.startswith(allowed) or place in names
            assert inside or place.endswith((".jsonl", ".parquet", ".h5")), (what, place)
            assert not place.startswith("/etc")


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0, {"a": 1})})
    with (path / "metrics.jsonl").open("ab") as journal:
        for _ in range(300):
            journal.write(b"x" * 2**20)
        journal.write(b"\n" + point(1, {"a": 2}))
    (path / "metrics.r1.jsonl").write_bytes(b"y" * 2**22 + b"\n" + point(2, {"a": 3}))
    code = (
        PEAK
        + """
from blackboxml import open_run
from blackboxml.seal import seal
import blackboxml.seal.sealed, blackboxml.reader.arrays
before = peak()
reader = open_run(sys.argv[1])
values = [record.metrics["a"] for record in reader.records()]
summary = reader.summary()["a"].n
rules = sorted({problem.rule for problem in reader.problems})
seal(sys.argv[1])
print(json.dumps({"values": values, "n": summary, "rules": rules, "grown": peak() - before}))
"""
    )
    found = child(code, path)
    assert found["values"] == [1, 2, 3]
    assert found["n"] == 3
    assert "BB-JNL-002" in found["rules"]
    assert found["grown"] < 120 * 2**20


@pytest.mark.rule("BB-LIM-004")
def test_a_manifest_and_a_line_that_do_not_fit_into_memory_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0, {"a": 1})})
    with (path / "metrics.jsonl").open("r+b") as journal:
        journal.truncate(2**36)
    with (path / "run.json").open("wb") as manifest:
        manifest.truncate(2**36)
    data = header(1) + point(0, {"b": 1})
    (path / "metrics.r1.jsonl").write_bytes(data)
    with (path / "metrics.jsonl").open("r+b") as journal:  # a long tail of NULs, a plausible one
        journal.truncate(2**27)
    code = """
    import json, resource, sys
    resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
    from blackboxml import open_run
    reader = open_run(sys.argv[1])
    print(json.dumps({"metrics": [record.metrics for record in reader.records()]}))
    """
    assert child(code, path)["metrics"] == [{"a": 1}, {"b": 1}]


@pytest.mark.rule("BB-LIM-007")
def test_sealing_many_points_takes_little_more_memory_than_sealing_fewer(
    tmp_path: Path,
) -> None:
    code = (
        PEAK
        + """
from blackboxml.seal import seal
seal(sys.argv[1])
print(json.dumps({"peak": peak()}))
"""
    )
    peaks = {}
    for count in (100_000, 600_000):
        path = tmp_path / str(count)
        path.mkdir()
        with (path / "metrics.jsonl").open("wb") as journal:
            journal.write(header())
            for seq in range(count):
                head = b'{"seq":%d,"step":%d,"time":1.5,"metrics":{"a/loss":%d.5}' % (seq, seq, seq)
                journal.write(seal_line(head))
        peaks[count] = child(code, path)["peak"]
        shutil.rmtree(path)
    assert peaks[600_000] - peaks[100_000] < 100 * 2**20


def test_many_names_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Each record names one metric: as a table that would be 10**9 cells."""
    count = 30_300
    path = tmp_path / "run"
    path.mkdir()
    with (path / "metrics.jsonl").open("wb") as journal:
        journal.write(header())
        for seq in range(count):
            head = b'{"seq":%d,"step":%d,"time":1.5,"metrics":{"a/m%d":1}' % (seq, seq, seq)
            journal.write(seal_line(head))
    code = (
        PEAK
        + """
from blackboxml import open_run
from blackboxml.errors import LimitError
from blackboxml.model import Limits
reader = open_run(sys.argv[1], Limits(metric_names=30_000))
count = len(reader.metrics)
try:
    reader.arrow("a")
except LimitError as error:
    refused = str(error)
rules = [problem.rule for problem in reader.problems]
print(json.dumps({"names": count, "refused": refused, "rules": rules, "peak": peak()}))
"""
    )
    found = child(code, path)
    assert found["names"] == 30_000
    assert "table_bytes" in found["refused"]
    assert "BB-LIM-001" in found["rules"]
    assert found["peak"] < 2**30
    assert LimitError


@pytest.mark.rule("BB-SEC-002")
@pytest.mark.parametrize("leads", ["secret.json", "."])
def test_a_link_is_no_run_of_an_earlier_version(tmp_path: Path, leads: str) -> None:
    from blackboxml.converters import blackboxml_legacy
    from blackboxml.foreign.legacy import load_legacy

    old = {"name": "old", "tags": [], "start": "2020-01-01T00:00:00", "steps": []}
    (tmp_path / "secret.json").write_text(json.dumps(old, indent=4), "utf-8")
    path = tmp_path / "run"
    path.mkdir()
    (path / "run.json").symlink_to(tmp_path / leads)
    assert load_legacy(path) is None
    assert not blackboxml_legacy.recognise(path)


def hostile(name: str, place: Path) -> Path:
    """Lay out a hostile case of the corpus."""
    from blackboxml.conformance import case

    (found,) = case.choose(Path(__file__).resolve().parents[2] / "fixtures", f"hostile/{name}")
    found.build(place)
    return place


def test_a_table_that_is_none_is_no_error_but_ours_where_a_run_is_packed(tmp_path: Path) -> None:
    path = hostile("table-is-no-parquet", tmp_path / "run")
    with pytest.raises(SealError, match="is damaged"):
        pack(path)


@pytest.mark.rule("BB-SEC-002")
def test_a_repair_in_place_does_not_write_through_a_link(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    data = (path / "metrics.jsonl").read_bytes()
    (path / "metrics.jsonl").write_bytes(data.replace(b'"seq":1,', b'"seq":7,', 1))
    (tmp_path / "outside").mkdir()
    (path / "repair").symlink_to(tmp_path / "outside")
    with pytest.raises(RepairError, match="is to be a folder"):
        repair(path, in_place=True, force=True)
    assert not list((tmp_path / "outside").iterdir())
    assert (path / "repair").is_symlink()


def test_tables_of_another_group_do_not_unpack(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    pack(path)
    manifest = manifest_of(path)
    manifest["groups"] = {"other": manifest["groups"]["train"]}
    (path / "run.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BlackboxError):
        seal(path)


def test_a_name_that_no_run_may_have_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    (path / "run.json").write_text(json.dumps(manifest_of(path) | {"name": "a\0b"}), "utf-8")
    repair(path, tmp_path / "mended", force=True)
    assert open_run(tmp_path / "mended").name == histories.RUN_NAME
