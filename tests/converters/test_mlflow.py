"""MLflow: stores on disk read without it, and runs through the real client and the real server."""

from __future__ import annotations

import json
import math
import sqlite3
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackboxml import RunWriter, open_run
from blackboxml.conversion import convert
from blackboxml.converters import mlflow as converter
from blackboxml.errors import ConversionError
from blackboxml.foreign.interchange import Ledger, Medium, Point, one_by_one
from blackboxml.foreign.mlflow import mend
from blackboxml.seal import seal
from tests.mlflow_server import serving

pytestmark = [
    # MLflow's own dependencies warn of one another.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def store(tmp_path):
    """A file store by hand, after the documented layout: MLflow 3 writes none unless it is told."""
    root = tmp_path / "mlruns"
    run = root / "7" / RUN
    for folder in ("metrics/train", "params", "tags", "artifacts/plots"):
        (run / folder).mkdir(parents=True)
    (root / "7" / "meta.yaml").write_text(
        "artifact_location: file:///gone/mlruns/7\nexperiment_id: '7'\n"
        "lifecycle_stage: active\nname: digits\n"
    )
    (run / "meta.yaml").write_text(
        f"artifact_uri: file:///gone/mlruns/7/{RUN}/artifacts\nend_time: 1600000009000\n"
        f"experiment_id: '7'\nlifecycle_stage: active\nname: ''\nrun_id: {RUN}\nrun_uuid: {RUN}\n"
        "start_time: 1600000000000\nstatus: 3\nuser_id: ada\ntags: []\n"
    )
    (run / "metrics/train/loss").write_text("1600000001000 0.5 0\n1600000002000 0.25 1\n")
    (run / "metrics/accuracy").write_text("1600000001000 nan 0\n1600000002000 -inf 1\n")
    (run / "metrics/old").write_text("1600000003000 7\n")  # before MLflow 1.0 there were no steps
    (run / "params/lr").write_text("0.1")
    (run / "tags/mlflow.runName").write_text("quiet fox")
    (run / "tags/team").write_text("vision")
    (run / "tags/mlflow.parentRunId").write_text("f" * 32)
    (run / "artifacts/plots/a.txt").write_text("a")
    return root


def items(run, ledger=None):
    return list(one_by_one(run.items(ledger if ledger is not None else Ledger())))


def test_a_file_store_is_read_as_it_stands(store):
    assert converter.recognise(store)
    assert converter.members(store) == {"*"}
    (run,) = converter.read(store)
    assert (run.name, run.status, run.start, run.end) == (
        "quiet fox",
        "completed",
        1.6e9,
        1.6e9 + 9,
    )
    assert run.config == {"lr": "0.1"}
    assert run.tags == ["team=vision"]
    assert run.extra["parent_run_id"] == "f" * 32
    assert run.extra["experiment"]["name"] == "digits"
    assert run.extra["user"] == "ada"
    first, second, third, artifact = items(run)
    assert (first.step, first.time, first.metrics["train/loss"]) == (0, 1.6e9 + 1, 0.5)
    assert math.isnan(first.metrics["accuracy"])
    assert second == Point(1, 1.6e9 + 2, {"accuracy": -math.inf, "train/loss": 0.25})
    assert third == Point(0, 1.6e9 + 3, {"old": 7.0})
    assert isinstance(artifact, Medium)
    assert (artifact.name, artifact.path.read_text()) == ("plots/a.txt", "a")


def test_the_fingerprint_follows_the_content(store):
    (before,) = converter.read(store)
    (same,) = converter.read(store)
    assert before.fingerprint == same.fingerprint
    with (store / "7" / RUN / "metrics/old").open("a") as file:
        file.write("1600000004000 8\n")
    (after,) = converter.read(store)
    assert before.fingerprint != after.fingerprint
    assert (before.source, before.key) == (after.source, after.key)


def test_a_damaged_line_does_not_take_the_others_with_it(store):
    path = store / "7" / RUN / "metrics/old"
    path.write_bytes(b"1600000003000 7\nwhat is this\n\xff\xfe 1 2\n1600000005000 9 4")
    (run,) = converter.read(store)
    ledger = Ledger()
    old = [
        (item.step, item.metrics["old"])
        for item in items(run, ledger)
        if isinstance(item, Point) and "old" in item.metrics
    ]
    assert old == [(0, 7.0), (4, 9.0)]
    assert ledger.total("unreadable", "scalar") == 2


def test_a_run_whose_own_word_is_damaged_keeps_its_metrics(store):
    (store / "7" / RUN / "meta.yaml").write_text("{[")
    (run,) = converter.read(store)
    ledger = Ledger()
    assert run.status is None
    assert len(items(run, ledger)) == 4
    assert ledger.total("unreadable", "field") == 1


def test_no_link_is_followed_out_of_a_store(store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("1600000003000 42 1\n")
    run = store / "7" / RUN
    (run / "artifacts/secret").symlink_to(secret)
    (run / "artifacts/folder").symlink_to(tmp_path)
    (run / "metrics/secret").symlink_to(secret)
    (found,) = converter.read(store)
    ledger = Ledger()
    names = [item.name for item in items(found, ledger) if isinstance(item, Medium)]
    assert names == ["plots/a.txt"]
    assert ledger.total("lost", "artifact") == 2
    assert ledger.total("unreadable", "scalar") == 1


def test_runs_in_the_trash_are_runs(store):
    (store / ".trash").mkdir()
    (store / "7").rename(store / ".trash" / "7")
    (store / "0").mkdir()
    (store / "0/meta.yaml").write_text("experiment_id: '0'\nname: Default\n")
    (run,) = converter.read(store)
    assert run.key == RUN


def test_a_file_store_becomes_runs(store, tmp_path):
    report = convert(store.parent / "mlruns", tmp_path / "runs", verify=True)
    assert report.ok, report.to_json()
    run = open_run(report.runs[0].target)
    assert run.summary()["train/loss"].last == 0.25
    assert convert(store, tmp_path / "runs").runs[0].outcome == "unchanged"


@given(
    st.dictionaries(
        st.sampled_from(["a", "b/c", "d"]),
        st.lists(
            st.tuples(
                st.integers(0, 2**40),
                st.integers(-(2**63), 2**63 - 1),
                st.floats(allow_nan=False),
            ),
            min_size=1,
            max_size=20,
        ),
        min_size=1,
    )
)
def test_every_metric_of_a_file_store_keeps_its_values_in_order(metrics):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "1" / RUN
        for name, values in metrics.items():
            path = run / "metrics" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{ms} {value!r} {step}\n" for ms, step, value in values))
        (run / "meta.yaml").write_text(f"run_id: {RUN}\n")
        (found,) = converter.read(run)
        back = {}
        for point in items(found):
            for name, value in point.metrics.items():
                back.setdefault(name, []).append((point.time, point.step, value))
    assert back == {
        name: [(ms / 1000, step, value) for ms, step, value in values]
        for name, values in metrics.items()
    }


@pytest.mark.parametrize("status", ["[1, 2]", "{a: 1}", "99", "!!python/object:os.system ls"])
def test_a_status_that_is_none_is_not_known(store, status):
    path = store / "7" / RUN / "meta.yaml"
    path.write_text(path.read_text().replace("status: 3", f"status: {status}"))
    (run,) = converter.read(store)
    assert run.status is None
    assert len(items(run)) == 4


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "link", "", "a//b", "a\0", 7])
def test_an_index_of_media_names_nothing_outside(store, path):
    run = store / "7" / RUN
    (store.parent / "secret").write_text("s")
    own = run / "artifacts" / "blackbox"
    own.mkdir()
    (run / "artifacts" / "link").symlink_to(store.parent / "secret")
    line = {"name": "x", "kind": "artifact", "step": 0, "time": 1.0, "path": path}
    (own / "media.jsonl").write_text(json.dumps(line) + "\n[]\nnonsense\n")
    (found,) = converter.read(store)
    ledger = Ledger()
    media = [item.name for item in items(found, ledger) if isinstance(item, Medium)]
    assert media == ["plots/a.txt"]
    assert ledger.total("unreadable", "artifact") == 3


# ---- databases


@pytest.mark.parametrize("modern", [False, True])
def test_a_database_of_any_version_is_read(tmp_path, modern):
    """The tables of 0.9 had neither steps nor flags; made by hand, as no such version runs here."""
    path = tmp_path / "mlflow.db"
    more = ", step BIGINT, is_nan BOOLEAN" if modern else ""
    with sqlite3.connect(path) as database:
        database.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER, name VARCHAR(256));"
            "CREATE TABLE runs (run_uuid VARCHAR(32), name VARCHAR(250), experiment_id INTEGER,"
            " status VARCHAR(20), start_time BIGINT, end_time BIGINT, artifact_uri VARCHAR(200));"
            f"CREATE TABLE metrics (key VARCHAR(250), value FLOAT, timestamp BIGINT,"
            f" run_uuid VARCHAR(32){more});"
            "CREATE TABLE params (key VARCHAR(250), value VARCHAR(250), run_uuid VARCHAR(32));"
            "INSERT INTO experiments VALUES (1, 'digits');"
            f"INSERT INTO runs VALUES ('{RUN}', 'fox', 1, 'FAILED', 1000, 2000, 's3://b/x');"
            f"INSERT INTO params VALUES ('lr', '0.1', '{RUN}');"
        )
        rows = [("a", 0.5, 1500, RUN, 3, 0), ("b", sys.float_info.max, 1500, RUN, 3, 0)]
        rows += [("a", 0.0, 1600, RUN, 4, 1), ("a", "poison", 1700, RUN, 5, 0)]
        rows = rows if modern else [row[:4] for row in rows]
        database.executemany(f"INSERT INTO metrics VALUES ({','.join('?' * len(rows[0]))})", rows)
    database.close()
    (run,) = converter.read(path)
    assert (run.name, run.status, run.config) == ("fox", "failed", {"lr": "0.1"})
    ledger = Ledger()
    first, second = items(run, ledger)
    assert first == Point(3 if modern else 0, 1.5, {"a": 0.5, "b": math.inf})
    assert second.time == 1.6
    assert math.isnan(second.metrics["a"]) == modern
    assert ledger.total("unreadable", "scalar") == 1
    assert ledger.total("lost", "artifact") == 1


# ---- the real client and server


@pytest.fixture
def server(tmp_path):
    """The address of a real MLflow server that nobody else writes to."""
    with serving(tmp_path / "server") as started:
        yield started.uri


@pytest.fixture
def made(tmp_path):
    """A run with all that MLflow finds hard."""
    writer = RunWriter.create(tmp_path / "runs", "every thing", tags=["a", "b c"], start=1.6e9)
    writer.write_config(
        b'{"format": {"name": "blackbox-config", "version": "1.0", "features": []},'
        b' "config": {"model": {"depth": 3, "wide": true}, "long": "' + b"x" * 7000 + b'"}}'
    )
    for step in range(1200):
        values = {"train/loss": 1 / (step + 1), "count": step, "good": step % 2 == 0}
        if step == 5:
            values["train/loss"] = math.nan
        if step == 6:
            values["train/loss"] = math.inf
        ranks = {"train/loss": {"min": 0.0, "max": 1.0}}
        writer.log(values, step, ranks, 1.6e9 + step * 0.0625)
    writer.log({"odd (name)": 1.0}, 3, None, 1.6e9 + 80)
    writer.log_media("picture", "artifact", 4, data=b"\x89PNG", time=1.6e9 + 80.5)
    writer.log_media("words/here", "text", 5, value="hello", time=1.6e9 + 81)
    writer.log_media("h", "histogram", 6, value={"edges": [0, 1], "counts": [3]}, time=1.6e9 + 82)
    writer.finish("interrupted", None, 1.6e9 + 90)
    seal(writer.path)
    return writer.path


@pytest.mark.parametrize("how", ["folder", "sqlite"])
def test_a_run_goes_to_a_database_and_back(made, tmp_path, how):
    target = tmp_path / "ml"
    place = target if how == "folder" else f"sqlite:///{target}/mlflow.db"
    for _ in range(2):  # the second time, it is there
        report = convert(made, place, target_format="mlflow", verify=True)
        assert report.ok, report.to_json()
        assert report.runs[0].verified
    (back,) = converter.read(target)
    run = open_run(made)
    assert back.extra["blackbox_id"] == run.id
    assert (back.name, back.tags, back.status) == (run.name, run.tags, "interrupted")
    assert back.config == run.config
    assert (back.start, back.end) == (1.6e9, 1.6e9 + 90)
    found = items(back)
    first = next(item for item in found if isinstance(item, Point) and "train/loss" in item.metrics)
    assert first.ranks == {"train/loss": {"min": 0.0, "max": 1.0}}
    assert sum(isinstance(item, Medium) for item in found) == 3


def test_ranks_great_numbers_and_repeated_steps_come_back_or_are_counted(tmp_path):
    writer = RunWriter.create(tmp_path / "runs", "hard", start=1.6e9)
    other = RunWriter.join(writer.path, 1, 0)
    for step in range(3):
        writer.log({"a": step, "b": 2**60 + step}, step, None, 1.6e9 + step)
        other.log({"a": step + 100}, step, None, 1.6e9 + step)
    writer.log({"c": 2.0, "d(": 0.5, "d)": 1.5}, 7, None, 1.6e9 + 7)
    writer.log({"c": 1.0}, 7, None, 1.6e9 + 7)
    writer.log({"c": 1.0}, 7, None, 1.6e9 + 7)
    writer.log({"e": sys.float_info.max}, 8, None, 1.6e9 + 8)
    other.finish()
    writer.finish("completed", None, 1.6e9 + 9)
    seal(writer.path)
    report = convert(writer.path, tmp_path / "ml", target_format="mlflow", verify=True)
    assert report.ok, report.to_json()
    effects = {remark.what: count for remark, count in report.runs[0].remarks.items()}
    assert effects["MLflow keeps equal values of one step and millisecond once"] == 1
    assert effects["the greatest float stands for infinity in MLflow"] == 1
    assert effects["MLflow's values are floats"] == 3
    (back,) = converter.read(tmp_path / "ml" / "mlflow.db")
    found = [(item.rank, item.step, item.metrics) for item in items(back)]
    assert (1, 2, {"a": 102}) in found
    assert sum("d(" in metrics and metrics["d)"] == 1.5 for _, _, metrics in found) == 1


@pytest.mark.parametrize(
    ("target", "form"),
    [("http://h/x", "blackbox"), ("ftp://h/x", "mlflow"), ("http://h/x", "tensorboard")],
)
def test_a_uri_is_refused_for_a_format_that_takes_none(made, target, form):
    with pytest.raises(ConversionError, match="cannot be written to"):
        convert(made, target, target_format=form)


def test_a_source_of_an_unknown_scheme_is_refused_without_its_credentials(tmp_path):
    with pytest.raises(ConversionError, match="ftp://host/x") as caught:
        convert("ftp://me:secret@host/x", tmp_path)
    assert "secret" not in str(caught.value)


def test_without_the_client_the_command_to_install_it_is_named(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    report = convert(made, tmp_path / "ml", target_format="mlflow")
    assert "blackboxml[mlflow]" in report.runs[0].error


def test_a_run_that_has_grown_replaces_itself(tmp_path):
    writer = RunWriter.create(tmp_path / "runs", "growing", start=1.6e9)
    writer.log({"a": 1.0}, 0, None, 1.6e9)
    assert convert(writer.path, tmp_path / "ml", target_format="mlflow").ok
    writer.log({"a": 2.0}, 1, None, 1.6e9 + 1)
    writer.finish("completed", None, 1.6e9 + 2)
    report = convert(writer.path, tmp_path / "ml", target_format="mlflow", verify=True)
    assert report.ok, report.to_json()
    alive = [
        run
        for run in converter.read(tmp_path / "ml")
        if run.extra["run"]["lifecycle_stage"] == "active"
    ]
    assert [len(items(run)) for run in alive] == [2]


def test_what_the_client_writes_is_read_without_it(tmp_path):
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("own", artifact_location=(tmp_path / "mlruns").as_uri())
    made = client.create_run(experiment, start_time=1000, run_name="fox", tags={"team": "vision"})
    run = made.info.run_id
    client.log_param(run, "lr", 0.1)
    client.log_metric(run, "loss", 0.5, timestamp=1500, step=-2)
    client.log_metric(run, "loss", math.nan, timestamp=1600, step=3)
    client.log_metric(run, "loss", -math.inf, timestamp=1700, step=4)
    client.log_text(run, "hello", "notes/a.txt")
    client.set_terminated(run, "KILLED", 2000)
    (found,) = converter.read(tmp_path / "mlflow.db")
    assert (found.name, found.status, found.tags) == ("fox", "interrupted", ["team=vision"])
    assert (found.start, found.end, found.config) == (1.0, 2.0, {"lr": "0.1"})
    one, two, three, text = items(found)
    assert one == Point(-2, 1.5, {"loss": 0.5})
    assert math.isnan(two.metrics["loss"])
    assert three == Point(4, 1.7, {"loss": -math.inf})
    assert (text.name, text.path.read_text()) == ("notes/a.txt", "hello")


def test_a_run_goes_to_a_server_and_back(server, made, tmp_path):
    for _ in range(2):
        report = convert(made, server, verify=True)
        assert report.ok, report.to_json()
        assert report.runs[0].verified
    (back,) = converter.read(server)
    assert back.config == open_run(made).config
    report = convert(server, tmp_path / "back", verify=True)
    assert report.ok, report.to_json()
    again = open_run(report.runs[0].target)
    assert again.summary()["count"].last == 1199
    assert sorted(each.name for each in again.media()) == ["h", "picture", "words/here"]
    assert convert(server, tmp_path / "back").runs[0].outcome == "unchanged"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("train/loss", "train/loss"),
        ("a (b)", "a _b_"),
        ("/a//b/", "a/b"),
        ("../x", "__/x"),
        ("é:1", "é:1"),
        ("", "unnamed"),
    ],
)
def test_names_are_mended_as_mlflow_takes_them(name, wanted):
    assert mend(name) == wanted
