"""The end: datasets, pictures, texts, the report, and what lies in the folder."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import xarray as xr

from blackboxml import open_run, validate
from blackboxml.frontends.history import History, StopWatch, get_memory_metrics, tplot, tplot_dict
from blackboxml.frontends.history.curves import curves
from blackboxml.frontends.history.text_plots import resolve_marker, resolve_plot_type
from blackboxml.tracker import Tracker, TrackerBackend


class Told(TrackerBackend):
    """Keeps what it is told."""

    name = "told"

    def __init__(self) -> None:
        self.tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self.artifacts: dict[str, str] = {}
        self.images: list[str] = []
        self.finished = 0

    def log(self, metrics: dict[str, Any], step: int | None = None, *, commit: bool = True) -> None:
        pass

    def log_config(self, config: dict[str, Any]) -> None:
        pass

    def log_table(self, key: str, columns: Any, data: Any) -> None:
        self.tables[key] = (columns, data)

    def log_image(self, key: str, image_path: str, caption: str | None = None) -> None:
        self.images.append(key)

    def log_artifacts(self, artifacts: dict[str, str]) -> None:
        self.artifacts |= artifacts

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("EZPZ_TRACKER_BACKENDS", "EZPZ_TRACKERS", "RANK"):
        monkeypatch.delenv(name, raising=False)
    return lambda **options: History(**({"report_dir": tmp_path / "runs"} | options))


def names(folder: Path) -> list[str]:
    found = (each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
    return sorted(found)


def links(report: Path) -> list[str]:
    return [unquote(each) for each in re.findall(r"\]\(([^)]+)\)", report.read_text())]


def test_hi23_one_group_is_a_dataset_and_several_are_a_dict(make: Any, tmp_path: Path) -> None:
    history = make()
    for step in range(5):
        history.update({"train/loss": float(step)})
    one = history.finalize(tmp_path / "one", plot=False)
    assert isinstance(one, xr.Dataset)
    assert one["train_loss"].to_numpy().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    for step in range(20):
        history.update({"eval/loss": step})
    several = history.finalize(tmp_path / "several", plot=False)
    assert {group: each.sizes["draw"] for group, each in several.items()} == {
        "train": 5,
        "eval": 20,
    }
    assert history.get_dataset()["train_loss"].shape == (20,)


def test_hi24_a_file_for_each_group_opens_as_it_is(make: Any, tmp_path: Path) -> None:
    history = make()
    history.describe("train/loss", unit="nat", description="cross entropy")
    for step in range(4):
        metrics = {"train/n": 2**53 + step, "train/vec": [float(step)] * 3}
        metrics |= {"train/mat": np.full((2, 3), step), "train/done": step > 2}
        metrics |= {"train/loss": 1.0 / (step + 1)} if step % 2 == 0 else {}
        history.update(metrics, step=10 * step)
    for _ in range(2):
        history.finalize(tmp_path, plot=False)
    with xr.open_dataset(tmp_path / "train.h5") as found:
        assert found["step"].to_numpy().tolist() == [0, 10, 20, 30]
        np.testing.assert_array_equal(found["loss"], [1.0, np.nan, 1 / 3, np.nan])
        assert found["n"].dtype == np.int64
        assert found["n"].to_numpy().tolist() == [2**53 + step for step in range(4)]
        assert found["done"].dtype == bool
        assert (found["vec"].dims, found["vec"].shape) == (("chain", "draw"), (3, 4))
        assert found["mat"].dims == ("chain", "leapfrog", "draw")
        assert found["loss"].attrs == {
            "metric": "train/loss",
            "units": "nat",
            "long_name": "cross entropy",
        }


@pytest.mark.parametrize(
    ("warmup", "left"), [(0.05, 19), (5, 15), (1.0, 0), (1, 19), (1.5, 0), (0, 20), (-1, 20)]
)
def test_hi25_the_first_steps_can_be_left_out(make: Any, warmup: float, left: int) -> None:
    history = make()
    for step in range(20):
        history.update({"loss": step}, step=step)
    assert history.get_dataset(warmup=warmup)["loss"].shape == (left,)
    assert history.to_DataArray(list(range(20)), warmup).shape == (left,)
    history.close()


def test_hi26_every_wish_has_its_effect(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "blackboxml")
    history = make()
    for step in range(4):
        history.update({"epoch": step * 2, "loss": [float(step), step + 1.0]})
    history.finalize(
        tmp_path / "out",
        run_name="my run",
        dataset_fname="probe",
        num_chains=1,
        title="A title",
        xkey="epoch",
        plot_kwargs={"color": "black"},
        subplots_kwargs={"figsize": (4, 3)},
        tplot_type="scatter",
        env_info={"Paths": {"Home": "/x"}, "Machine": {"Name": "big"}},
        timings={"train": 1.234},
        verbose=True,
    )
    report = (tmp_path / "out/probe/report-probe.md").read_text()
    assert all(text in report for text in ("(my run)", "**Home**: /x", "**Name**: big", "1.23s"))
    found = names(tmp_path / "out")
    assert {"probe.h5", "plots/probe/mplot/loss.png", "plots/probe/tplot/loss.txt"} <= set(found)
    assert "epoch" in (tmp_path / "out/plots/probe/tplot/loss.txt").read_text()
    assert any("probe.h5" in each.message for each in caplog.records)
    history.finalize(tmp_path / "none", save=False, plot=False)
    assert not [each for each in names(tmp_path / "none") if each.endswith((".h5", ".png", ".txt"))]


def test_hi26_other_values_can_be_shown(make: Any, tmp_path: Path) -> None:
    history = make()
    history.update({"loss": 1.0})
    found = history.finalize(tmp_path / "a", data={"x": [1.0, 2.0], "y": [3, 4]}, plot=False)
    assert found["y"].to_numpy().tolist() == [3, 4]
    given = xr.Dataset({"z": ("draw", [5.0])})
    assert history.finalize(tmp_path / "b", dataset=given, plot=False) is given


def test_hi27_pictures_and_texts_of_each_metric(make: Any, tmp_path: Path) -> None:
    history = make()
    for step in range(8):
        history.update({"train/iter": step, "train/loss": 1 / (step + 1), "train/head/dt": 0.1})
        history.update({"eval/loss": math.nan})
    history.finalize(tmp_path)
    plots = tmp_path / "plots"
    assert names(plots) == [
        "mplot/eval/loss.png",
        "mplot/eval/loss.svg",
        "mplot/eval/summary.png",
        "mplot/eval/summary.svg",
        "mplot/train/head_dt.png",
        "mplot/train/head_dt.svg",
        "mplot/train/loss.png",
        "mplot/train/loss.svg",
        "mplot/train/summary.png",
        "mplot/train/summary.svg",
        "tplot/eval/loss.txt",
        "tplot/train/head_dt-hist.txt",
        "tplot/train/head_dt.txt",
        "tplot/train/loss.txt",
    ]
    assert all((plots / each).stat().st_size > 40 for each in names(plots))
    text = (plots / "tplot/train/loss.txt").read_text()
    assert "\x1b" not in text
    assert "train/loss" in text
    assert "┤" in text


def test_hi28_the_report_tells_the_latest_of_each_metric(make: Any, tmp_path: Path) -> None:
    history = make()
    for step in range(3):
        history.update({"train/loss": float(step), "train/bad": math.nan})
        history.update({"eval/acc": step / 4}) if step == 0 else None
    history.finalize(tmp_path / "out")
    report = tmp_path / "out/report.md"
    text = report.read_text()
    assert text.index("# History Report") < text.index("## Environment")
    assert text.index("## Environment") < text.index("## Metric Overview")
    blocks = dict(re.findall(r"### (\S+)\n\n(.*?)\n\n", text, re.DOTALL))
    assert re.search(r"Latest +\| +2\.000000", blocks["train/loss"])
    assert re.search(r"Latest +\| +nan", blocks["train/bad"])
    assert re.search(r"Latest +\| +0\.000000", blocks["eval/acc"])
    assert "![train/loss](plots/mplot/train/loss.png)" in text
    found = links(report)
    assert found
    assert not [each for each in found if Path(each).is_absolute()]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for each in ("out", "runs"):
        shutil.move(tmp_path / each, moved / each)
    assert all((moved / "out" / each).exists() for each in found)


def test_hi29_what_the_csv_backend_wrote_comes_along(make: Any, tmp_path: Path) -> None:
    history = make(backends="csv", outdir=tmp_path / "init", config={"lr": 0.1})
    history.update({"loss": 0.9})
    history.update({"loss": 0.5})
    history.finalize(tmp_path / "out", plot=False)
    found = names(tmp_path / "out")
    assert {"metrics.csv", "config.json", "training_history.csv", "metrics.jsonl"} <= set(found)
    assert json.loads((tmp_path / "out/config.json").read_text()) == {"lr": 0.1}
    assert (tmp_path / "out/metrics.csv").read_text().splitlines()[0].startswith("loss")
    assert (tmp_path / "init/metrics.csv").is_file()


def test_hi29_in_one_folder_for_everything(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        history = History(backends="csv", outdir="./outputs", config={"lr": 0.1})
        history.update({"train/loss": 0.9}, step=1)
        history.finalize(outdir="./outputs", plot=False)
    assert history.path.parent == tmp_path / "outputs/history"
    assert validate(history.path).ok
    found = names(tmp_path / "outputs")
    assert {"train.h5", "train~1.h5", "report.md", "report~1.md", "metrics.csv"} <= set(found)
    assert len((tmp_path / "outputs/metrics.csv").read_text().splitlines()) == 3


def test_hi30_what_is_known_of_the_process_is_in_run_info(make: Any, tmp_path: Path) -> None:
    history = make()
    history.update({"loss": 1.0})
    history.finalize(tmp_path / "out", plot=False)
    found = json.loads((tmp_path / "out/run_info.json").read_text())
    assert {"Paths", "Python", "Torch", "Distributed"} <= set(found)
    assert (tmp_path / "out" / found["Paths"]["Run"]).resolve() == history.path.resolve()
    assert not [each for each in (tmp_path / "out").rglob("*") if each.is_symlink()]


@pytest.mark.parametrize(
    "updates",
    [
        [],
        [{}],
        [{"a": None}, {"a": None}],
        [{"a": 1.0}, {"a": None}, {"a": 2.0}],
        [{"a": 1.0}, {"a": "text"}],
        [{"a": [1.0]}, {"a": [1.0, 2.0]}],
        [{"a": 1.0}, {"b": [1.0, 2.0], "a": 2.0}, {"b": [3.0, 4.0]}],
        [{"a": [[1], [2, 3]]}],
        [{"a": np.zeros((2, 2, 2))}],
        [{"a": float("nan")}],
        [{"a/b": 1.0, "a_b": 2.0, "a": object(), "": 3.0}],
        [{"summary": 1.0, "step": 2, "draw": 3, "SUMMARY": 4.0}],
    ],
)
def test_hi31_nothing_that_was_logged_makes_the_end_fail(
    make: Any, tmp_path: Path, updates: list[dict[str, Any]]
) -> None:
    history = make(backends="csv", outdir=tmp_path / "csv")
    for metrics in updates:
        history.update(metrics)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.md").write_text("mine")
    before = {}
    for _ in range(2):
        history.finalize(tmp_path / "out", subplots_kwargs={"figsize": (2, 2), "dpi": 30})
        assert set(before) <= set(names(tmp_path / "out"))
        before = dict.fromkeys(names(tmp_path / "out"))
    assert (tmp_path / "out/report~1.md").read_text() == "mine"
    assert " failed: " not in (tmp_path / "out/report.md").read_text()
    assert open_run(history.path).status == "completed"


def test_hi31_the_report_says_what_is_left_out(make: Any, tmp_path: Path) -> None:
    history = make()
    history.update({"good": 1.0, "ragged": [1.0], "text": "a", "none": None})
    history.update({"good": 2.0, "ragged": [1.0, 2.0], "/bad": 1.0})
    history.finalize(tmp_path / "out", plot=False)
    notes = (tmp_path / "out/report.md").read_text().partition("## Notes")[2]
    assert "ragged is in no dataset and no plot: its values have 2 shapes" in notes
    assert "text is in no dataset" in notes
    assert "/bad is not recorded" in notes
    assert "none is not recorded: None is no value" in notes


def test_hi31_a_folder_that_cannot_be_made_costs_only_the_files(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    history = make()
    history.update({"loss": 1.0})
    found = history.finalize(tmp_path / "file" / "below")
    assert found["loss"].to_numpy().tolist() == [1.0]
    assert [each for each in caplog.records if "below" in each.message]
    assert open_run(history.path).status == "completed"


def test_hi32_the_backends_get_the_table_the_files_and_one_end(make: Any, tmp_path: Path) -> None:
    told = Told()
    history = make(tracker=Tracker([told]))
    history.update({"loss": 0.9, "eval/a": 1})
    history.update({"loss": 0.5})
    for _ in range(2):
        history.finalize(tmp_path / "out", subplots_kwargs={"dpi": 30})
    assert told.tables["training_history"] == (["loss", "eval/a"], [[0.9, 1], [0.5, None]])
    assert {"metrics.h5", "eval.h5", "report.md", "metrics.jsonl"} <= set(told.artifacts)
    assert told.images == ["plots/loss", "plots/eval/a"]
    assert told.finished == 1


def test_hi33_the_folder_by_default(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    history = make()
    history.update({"loss": 1.0})
    history.finalize(run_name="mine", plot=False)
    (found,) = (tmp_path / "outputs/mine").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}", found.name)
    assert (found / "report.md").is_file()


def test_hi34_arrays_of_the_shapes_that_the_predecessor_made(make: Any) -> None:
    history = make()
    found = history.to_DataArray([(1,), (2,), (3,)])
    assert (found.shape, found.to_numpy().tolist()) == ((1, 3), [[1, 2, 3]])
    assert history.to_DataArray([]).shape == (0,)
    assert history.to_DataArray(np.zeros((5, 2, 3))).dims == ("chain", "leapfrog", "draw")
    with pytest.raises(ValueError, match="unequal"):
        history.to_DataArray([[1], [2, 3]])
    history.close()


def test_hi34_single_pictures_go_into_the_report_of_the_run(make: Any, tmp_path: Path) -> None:
    history = make()
    history.plot(np.linspace(0, 1, 8), key="loss", outdir=tmp_path / "figures")
    history.plot_2d_xarr(history.to_DataArray(np.zeros((5, 2))), "chains", outdir=tmp_path / "f")
    history.update({"a": 1.0, "b/c": 2.0})
    history.plot_dataset(outdir=tmp_path / "page")
    history.plot_all(outdir=tmp_path / "all")
    assert history.tplot_all(outdir=tmp_path / "text")
    saved = history.save_dataset(tmp_path / "saved", "mine")
    with xr.open_dataset(saved) as found:
        assert set(found.data_vars) == {"a", "b_c"}
    report = (history.path / "report.md").read_text()
    assert "![loss](" in report
    assert all((history.path / each).exists() for each in links(history.path / "report.md"))
    assert {"a.png", "b_c.png", "summary.png"} <= set(names(tmp_path / "all"))
    history.close()
    assert validate(history.path).ok


def test_hi36_the_environment_says_how_to_draw(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert (resolve_marker(None), resolve_plot_type(None)) == ("hd", "line")
    monkeypatch.setenv("EZPZ_TPLOT_MARKER", "braille")
    monkeypatch.setenv("EZPZ_TPLOT_TYPE", "hist")
    monkeypatch.setenv("EZPZ_TPLOT_MAX_WIDTH", "40")
    monkeypatch.setenv("EZPZ_TPLOT_MAX_HEIGHT", "12")
    monkeypatch.setenv("EZPZ_TPLOT_STDOUT", "1")
    assert (resolve_marker(None), resolve_plot_type(None)) == ("braille", "hist")
    assert (resolve_marker("x"), resolve_plot_type("line")) == ("x", "line")
    caplog.set_level("INFO", "blackboxml")
    text = tplot([1.0, 2.0, 4.0], plot_type="line", figsize=(500, 500))
    assert max(map(len, text.splitlines())) <= 40
    assert len(text.splitlines()) <= 13
    assert any(0x2800 <= ord(each) < 0x2900 for each in text)
    assert text in caplog.text


@pytest.mark.parametrize("kind", ["line", "hist", "scatter"])
def test_hi37_a_text_is_never_empty(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "below" / f"{kind}.txt"
    x = np.linspace(0, 6, 50)
    tplot(np.sin(x), x, "sin", title="Test", xlabel="X", outfile=path, plot_type=kind)
    first = path.read_text()
    assert "Test" in first
    assert len(first.splitlines()) > 10
    tplot(xr.DataArray(np.sin(x), coords=[x], dims=["x"]), outfile=path, plot_type=kind)
    assert path.read_text().startswith(first)
    tplot_dict({"sin": np.sin(x), "cos": np.cos(x)}, outfile=path, append=False)
    assert "sin" in path.read_text()
    assert "no finite values" in tplot([math.nan], plot_type=kind)
    with pytest.raises(ValueError, match="no real numbers"):
        tplot(["a"])


def test_hi20_memory_is_told_of_accelerators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert get_memory_metrics("cpu") == get_memory_metrics(torch.device("mps")) == {}
    reset: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gib = {"memory_allocated": 1, "max_memory_allocated": 2, "memory_reserved": 3}
    for name, value in (gib | {"max_memory_reserved": 4}).items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value * 2**30)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    assert get_memory_metrics("cuda:0", prefix="train/") == {
        "train/mem_alloc": 1.0,
        "train/mem_peak_alloc": 2.0,
        "train/mem_reserved": 3.0,
        "train/mem_peak_reserved": 4.0,
    }
    assert len(get_memory_metrics(0, reset_peak=False)) == len(get_memory_metrics()) == 4
    assert len(reset) == 2
    for off in ("0", "false", "no", ""):
        monkeypatch.setenv("EZPZ_TRACK_MEMORY", off)
        assert get_memory_metrics("cuda:0") == {}


def test_hi35_a_watch_says_and_keeps_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "blackboxml")
    with StopWatch("forward pass", wbtag="timing/forward", iter=3) as watch:
        pass
    assert re.fullmatch(r"forward pass took \d+\.\d{3} seconds", caplog.records[-1].message)
    assert watch.data["timing/forward/dt"] >= 0
    assert watch.data["timing/forward/iter"] == 3
    assert StopWatch("x").data == {}

    @StopWatch("call", wbtag="call", log_output=False)
    def twice(depth: int) -> int:
        return twice(depth - 1) if depth else 7

    assert twice(2) == 7
    assert len(caplog.records) == 1


def test_curves_put_statistics_to_their_metric() -> None:
    draws = {"loss": [1.0, 2.0], "loss_mean": [1.5, 2.5], "loss_std": [0.1, 0.2], "other": [3, 4]}
    dataset = xr.Dataset({key: ("draw", each) for key, each in draws.items()})
    loss, other = curves(dataset)
    assert (loss.name, sorted(loss.statistics)) == ("loss", ["mean", "std"])
    assert loss.middle.tolist() == [1.5, 2.5]
    assert (other.name, other.statistics, other.label) == ("other", {}, "draw")
