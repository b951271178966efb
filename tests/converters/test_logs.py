"""The small logs of training libraries: each recognised by content, whole, and safe to read."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blackboxml import open_run, validate
from blackboxml.conversion import convert
from blackboxml.foreign.hyperparameters import read_yaml

if TYPE_CHECKING:
    from blackboxml.conversion import RunReport
    from blackboxml.reader import RunReader

LIGHTNING = """\
epoch,lr,step,train_loss,val_loss
0,0.1,49,0.5,
0,,63,,0.75
1,0.05,99,nan,
1,,127,,inf
"""

HPARAMS = """\
lr: 0.1
layers: [64, 64]
name: null
flag: yes
when: 2024-01-02
model: !!python/object:os.system
  command: touch HACKED
call: !!python/object/apply:os.system ["touch HACKED"]
pair: !!python/tuple [1, 2]
"""

ULTRALYTICS = """\
                  epoch,      train/box_loss,   metrics/mAP50(B),             lr/pg0
                      1,              1.2345,             0.0123,          0.0033333
                      2,              1.1,                0.2,             0.0066
"""

STATE = {
    "best_metric": 0.25,
    "epoch": 2.0,
    "global_step": 20,
    "is_world_process_zero": True,
    "log_history": [
        {"epoch": 1.0, "grad_norm": float("nan"), "loss": 0.5, "step": 10},
        {"epoch": 1.0, "eval_loss": 0.4, "step": 10},
        {"epoch": 2.0, "loss": 0.25, "step": 20, "note": "text"},
    ],
    "total_flos": 2**70,
    "trial_name": None,
    "trial_params": {"lr": 0.1},
}

RAY = [
    {
        "loss": 1.0 / (step + 1),
        "training_iteration": step,
        "timestamp": 1700000000 + step,
        "done": step == 3,
        "hostname": "node7",
        "trial_id": "abc_0",
        "info": {"a": step},
        "config": {"lr": 0.1},
    }
    for step in range(1, 4)
]


def one(source: Path, runs: Path, form: str) -> tuple[RunReport, RunReader]:
    """Convert a source with one run, and verify."""
    (report,) = convert(source, runs, verify=True).runs
    assert (report.source_format, report.outcome) == (form, "converted")
    assert report.ok, report.to_dict()
    run = open_run(report.target)
    assert validate(run.path).problems == []
    return report, run


def write(folder: Path, **texts: str) -> Path:
    """Write files; `_` in a name stands for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
    return folder


def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lightning_logs" / "version_0", metrics_csv=LIGHTNING, hparams_yaml=HPARAMS)
    report, run = one(tmp_path / "lightning_logs", tmp_path / "runs", "lightning")
    assert run.name == "lightning_logs/version_0"
    assert run.config["layers"] == [64, 64]
    assert run.config["pair"] == (1, 2)
    assert run.config["flag"] is True
    assert run.config["when"] == "2024-01-02"
    assert run.config["model"] == {
        "tag": "python/object:os.system",
        "value": {"command": "touch HACKED"},
    }
    assert not (tmp_path / "HACKED").exists()
    records = list(run.records())
    assert [record.step for record in records] == [49, 63, 99, 127]
    assert records[0].metrics == {"epoch": 0, "lr": 0.1, "train_loss": 0.5}
    assert records[1].metrics == {"epoch": 0, "val_loss": 0.75}
    assert math.isnan(records[2].metrics["train_loss"])
    assert records[3].metrics["val_loss"] == math.inf
    assert report.total("made", "status") == 1
    assert report.total("made", "time") > 0


def test_ultralytics(tmp_path: Path) -> None:
    source = write(tmp_path / "train3", results_csv=ULTRALYTICS, args_yaml="epochs: 2\nlr0: 0.01\n")
    _, run = one(source, tmp_path / "runs", "ultralytics")
    assert run.name == "train3"
    assert run.config == {"epochs": 2, "lr0": 0.01}
    assert [(record.step, record.metrics) for record in run.records()] == [
        (1, {"train/box_loss": 1.2345, "metrics/mAP50(B)": 0.0123, "lr/pg0": 0.0033333}),
        (2, {"train/box_loss": 1.1, "metrics/mAP50(B)": 0.2, "lr/pg0": 0.0066}),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_keras(tmp_path: Path, separator: str) -> None:
    text = "epoch,accuracy,loss,val_loss\n0,0.5,1.25,NA\n1,0.75,1.0,0.5\n"
    (tmp_path / "training.log").write_text(text.replace(",", separator))
    _, run = one(tmp_path / "training.log", tmp_path / "runs", "keras")
    assert [(record.step, record.metrics) for record in run.records()] == [
        (0, {"accuracy": 0.5, "loss": 1.25}),
        (1, {"accuracy": 0.75, "loss": 1.0, "val_loss": 0.5}),
    ]


def test_a_second_training_appended_by_keras_supersedes_the_first(tmp_path: Path) -> None:
    text = "epoch,loss\n0,4\n1,3\n2,2\nepoch,loss\n0,1.5\n1,0.5\n"
    (tmp_path / "log.csv").write_text(text)
    _, run = one(tmp_path / "log.csv", tmp_path / "runs", "keras")
    assert [record.metrics["loss"] for record in run.records()] == [1.5, 0.5]
    assert len(list(run.records("all"))) == 5


def test_transformers(tmp_path: Path) -> None:
    early = STATE | {"global_step": 10, "log_history": STATE["log_history"][:2]}
    source = write(tmp_path / "out", trainer_state_json=json.dumps(STATE))
    write(source / "checkpoint-10", trainer_state_json=json.dumps(early))
    report, run = one(source, tmp_path / "runs", "transformers")
    assert run.name == "out"
    assert run.config == {"lr": 0.1}
    extra = run.manifest["extensions"]["org.blackboxml.source"]["extra"]
    assert extra["best_metric"] == 0.25
    assert [(record.step, sorted(record.metrics)) for record in run.records()] == [
        (10, ["epoch", "grad_norm", "loss"]),
        (10, ["epoch", "eval_loss"]),
        (20, ["epoch", "loss"]),
    ]
    assert [(each.name, each.value, each.step) for each in run.media()] == [("note", "text", 20)]
    assert report.came_in["scalar"] == 7


def test_checkpoints_of_another_training_are_runs_of_their_own(tmp_path: Path) -> None:
    other = STATE | {"log_history": [{"step": 10, "loss": 9.0}]}
    source = write(tmp_path / "out", trainer_state_json=json.dumps(STATE))
    write(source / "checkpoint-10", trainer_state_json=json.dumps(other))
    write(source / "checkpoint-5", trainer_state_json="{")
    report = convert(source, tmp_path / "runs")
    assert sorted(each.key for each in report.runs) == ["", "checkpoint-10", "trainer_state.json"]
    assert report.lossy
    assert report.ok


@pytest.mark.parametrize("form", ["json", "csv"])
def test_ray(tmp_path: Path, form: str) -> None:
    source = tmp_path / "train_abc"
    if form == "json":
        lines = "".join(json.dumps(each) + "\n" for each in RAY)
        write(source, result_json=lines, params_json='{"lr": 0.1, "f": "<function>"}')
    else:
        head = "loss,training_iteration,timestamp,done,hostname,trial_id,info/a,config/lr\n"
        rows = [
            f"{each['loss']!r},{each['training_iteration']},{each['timestamp']},{each['done']},"
            f"node7,abc_0,{each['info']['a']},0.1\n"
            for each in RAY
        ]
        write(source, progress_csv=head + "".join(rows), params_json='{"lr": 0.1}')
    (source / "params.pkl").write_bytes(b"cos\nsystem\n(S'touch HACKED'\ntR.")
    report, run = one(source, tmp_path / "runs", "ray")
    assert run.status == "completed"
    assert run.config["lr"] == 0.1
    assert run.start.timestamp() == 1700000001
    records = list(run.records())
    assert [(record.step, record.time) for record in records] == [
        (step, 1700000000 + step) for step in (1, 2, 3)
    ]
    assert records[2].metrics == {"loss": 0.25, "done": True, "info/a": 3}
    assert {each.name: each.value for each in run.media()} == {
        "hostname": "node7",
        "trial_id": "abc_0",
    }
    assert report.came_in["time"] >= 3


def test_a_trial_of_ray_that_failed_and_was_restored(tmp_path: Path) -> None:
    lines = [json.dumps(each) for each in [*RAY[:2], RAY[1], RAY[2]]]
    source = write(
        tmp_path / "trial",
        result_json="\n".join([*lines[:3], "{torn", lines[3], ""]),
        error_txt="Traceback (most recent call last):\n  boom\nValueError: bad batch\n",
    )
    report = convert(source, tmp_path / "runs")
    (each,) = report.runs
    assert report.lossy
    assert each.total("unreadable", "step") == 1
    assert "result.json:4" in next(
        remark.where for remark in each.remarks if remark.effect == "unreadable"
    )
    run = open_run(each.target)
    assert run.status == "failed"
    assert run.manifest["exception"]["type"] == "ValueError"
    assert run.manifest["exception"]["message"] == "bad batch"
    assert [record.step for record in run.records()] == [1, 2, 3]
    assert len(list(run.records("all"))) == 4


def test_damaged_rows_are_counted_with_their_lines(tmp_path: Path) -> None:
    text = LIGHTNING + "2,0.1\n2,,x,1,1\n2,0.1,191,0.125,\n2,0.1,192,\0\0\n"
    source = write(tmp_path / "version_1", metrics_csv=text, hparams_yaml="a: [")
    report = convert(source, tmp_path / "runs")
    (each,) = report.runs
    assert report.ok
    assert each.total("unreadable", "step") == 3
    assert each.total("unreadable", "config") == 1
    assert any("metrics.csv:6" in remark.where for remark in each.remarks)
    assert [record.step for record in open_run(each.target).records()] == [49, 63, 99, 127, 191]


def test_text_and_integers_beyond_64_bits_are_kept_as_text(tmp_path: Path) -> None:
    big = "9" * 5000
    text = f"epoch,step,big,word\n0,1,{big},résumé\n"
    source = write(tmp_path / "version_2", metrics_csv=text)
    _, run = one(source, tmp_path / "runs", "lightning")
    assert {each.name: each.value for each in run.media()} == {"big": big, "word": "résumé"}


def test_yaml_cannot_grow_without_bounds(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="too large"):
        read_yaml(tmp_path / "bomb.yaml", "lightning")
    (tmp_path / "self.yaml").write_text("a: &a [*a]")
    with pytest.raises(ValueError, match=r"self\.yaml"):
        read_yaml(tmp_path / "self.yaml", "lightning")


def test_a_tree_of_all_of_them(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree / "l" / "version_0", metrics_csv=LIGHTNING, hparams_yaml="lr: 1\n")
    write(tree / "u", results_csv=ULTRALYTICS)
    write(tree / "k", history_csv="epoch,loss\n0,1\n")
    write(tree / "t", trainer_state_json=json.dumps(STATE))
    write(tree / "r", result_json=json.dumps(RAY[0]) + "\n")
    (tree / "loop").symlink_to(tree)
    report = convert(tree, tmp_path / "runs", jobs=2)
    assert [each.source_format for each in report.runs] == [
        *("keras", "lightning", "ray", "transformers", "ultralytics"),
    ]
    again = convert(tree, tmp_path / "runs")
    assert {each.outcome for each in again.runs} == {"unchanged"}


# -- as the libraries themselves wrote them: Lightning 2.6.6, Keras 3.15.1, Transformers 5.23.0,
#    Ray 2.60.0


DATA = Path(__file__).parent / "data"


def test_a_log_of_lightning_itself(tmp_path: Path) -> None:
    report, run = one(DATA / "lightning", tmp_path / "runs", "lightning")
    assert run.config == {"layers": (4, 2), "lr": 0.1, "name": "tiny"}
    assert run.polars("train")["step"].to_list() == list(range(12))
    assert run.polars("val")["step"].to_list() == [3, 7, 11]
    assert run.summary()["nan"].nonfinite == 6
    assert report.came_in["scalar"] == 36


def test_a_log_of_keras_itself(tmp_path: Path) -> None:
    report, run = one(DATA / "keras" / "history.csv", tmp_path / "runs", "keras")
    assert report.came_in["scalar"] == 16
    assert run.summary()["loss"].last == 1.866431713104248
    assert len(list(run.records())) == 2
    assert len(list(run.records("all"))) == 5


def test_a_state_of_transformers_itself(tmp_path: Path) -> None:
    report, run = one(DATA / "transformers", tmp_path / "runs", "transformers")
    state = json.loads((DATA / "transformers/output/checkpoint-12/trainer_state.json").read_text())
    logged = [(entry.pop("step"), entry) for entry in state["log_history"]]
    assert [(record.step, record.metrics) for record in run.records()] == logged
    assert report.came_in["scalar"] == sum(len(entry) for _, entry in logged)
    extra = run.manifest["extensions"]["org.blackboxml.source"]["extra"]
    assert extra["max_steps"] == 12


@pytest.mark.parametrize("form", ["json", "csv"])
def test_trials_of_ray_itself(tmp_path: Path, form: str) -> None:
    tree = shutil.copytree(DATA / "ray", tmp_path / "tree")
    if form == "csv":
        for file in tree.rglob("result.json"):
            file.unlink()
    report = convert(tree, tmp_path / "runs", verify=True)
    assert report.ok, report.to_json()
    good, bad = (open_run(each.target) for each in report.runs)
    assert (good.status, bad.status) == ("interrupted", "failed")
    assert bad.manifest["exception"]["message"] == "bad batch"
    assert [record.metrics["loss"] for record in good.records()] == [0.1, 0.05, 0.1 / 3, 0.025]
    assert good.config == {"lr": 0.1, "layers": [1, 2]}
    assert good.polars("info")["deep"].to_list() == [0, 1, 2, 3]
