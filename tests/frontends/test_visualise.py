"""The metrics of a run as pictures."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt
from matplotlib.image import imread

from blackboxml import Run, RunWriter, visualise_run
from blackboxml.base.extras import require
from blackboxml.errors import MissingDependencyError
from blackboxml.frontends import visualise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def _no_display() -> Iterator[None]:
    with mpl.rc_context():
        plt.switch_backend("agg")
        yield
    assert not plt.get_fignums()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that were drawn, by metric."""
    figures: dict[str, Figure] = {}
    draw = visualise._draw

    def keep(figure: Figure, name: str, metric: str, steps: Any) -> None:
        draw(figure, name, metric, steps)
        figures[metric] = figure

    monkeypatch.setattr(visualise, "_draw", keep)
    return figures


def record(folder: Path, steps: list[dict[str, Any]], name: str = "demo") -> Path:
    with Run(name, log_dir=folder, seal=False) as run:
        for step in steps:
            run.log(step)
    return run.path


def legacy(folder: Path, steps: list[Any], **other: Any) -> Path:
    document = {
        "name": "old",
        "tags": [],
        "environment": {},
        "start": "2025-01-01T00:00:00.000001+00:00",
        "end": "2025-01-01T00:01:00.000001+00:00",
        "duration_seconds": 60.0,
        "steps": steps,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(document | other))
    return folder


def lines(figure: Figure) -> dict[str, list[tuple[float, float | None]]]:
    """Return the points of each line by its label; None for a gap."""
    found = {}
    for line in figure.axes[0].get_lines():
        pairs = zip(line.get_xdata(), line.get_ydata(), strict=True)
        found[str(line.get_label())] = [(x, None if math.isnan(y) else y) for x, y in pairs]
    return found


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


# -- files


def test_each_metric_gets_a_picture_and_its_validation_is_on_it(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    path = record(
        tmp_path, [{"loss": 1.0, "val_loss": 2.0, "lr": 0.1}, {"loss": 0.5, "val_loss": 1.5}]
    )
    files = visualise_run(path, tmp_path / "a" / "b", show=False)
    assert files == [tmp_path / "a" / "b" / f"{name}_vs_epochs.png" for name in ("loss", "lr")]
    assert names(tmp_path / "a" / "b") == {"loss_vs_epochs.png", "lr_vs_epochs.png"}
    assert lines(drawn["loss"]) == {
        "loss": [(0, 1.0), (1, 0.5)],
        "val_loss": [(0, 2.0), (1, 1.5)],
    }
    assert lines(drawn["lr"]) == {"lr": [(0, 0.1)]}


def test_a_picture_is_a_picture(tmp_path: Path) -> None:
    path = record(tmp_path, [{"loss": 1 / (step + 1)} for step in range(10)])
    visualise_run(path, tmp_path, show=False)
    pixels = imread(tmp_path / "loss_vs_epochs.png")
    assert pixels.shape == (720, 1200, 4)
    assert pixels.std() > 0.01


def test_metrics_of_validation_alone_get_a_picture(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    visualise_run(record(tmp_path, [{"val_f1": 0.5}]), tmp_path / "out", show=False)
    assert names(tmp_path / "out") == {"val_f1_vs_epochs.png"}
    assert lines(drawn["val_f1"]) == {"val_f1": [(0, 0.5)]}


def test_a_slash_becomes_an_underscore_and_no_file_replaces_another(tmp_path: Path) -> None:
    steps = [{"a/b": 1, "a_b": 2, "A_B": 3, "a/b/c": 4, "a_b_2": 5, "a/b_2": 6}]
    files = visualise_run(record(tmp_path, steps), tmp_path / "out", show=False)
    stems = [file.name.removesuffix("_vs_epochs.png") for file in files or []]
    by_metric = dict(zip(sorted(steps[0]), stems, strict=True))
    assert by_metric["a/b/c"] == "a_b_c"
    assert by_metric["a_b_2"] == "a_b_2"
    assert len({stem.casefold() for stem in stems}) == len(steps[0]) == len(names(tmp_path / "out"))
    assert "a_b" in {by_metric["a_b"], by_metric["A_B"].casefold()}


@pytest.mark.parametrize(
    "metric", ["é" * 400, "x" * 1024, "../../up", ".hidden", "-x", "a b", "$\\frac$"]
)
def test_any_name_has_a_file(tmp_path: Path, metric: str) -> None:
    (file,) = visualise_run(record(tmp_path, [{metric: 1}]), tmp_path / "out", show=False) or []
    assert file.parent == tmp_path / "out"
    assert file.exists()


def test_names_that_are_shortened_do_not_meet(tmp_path: Path) -> None:
    steps = [{"x" * 300 + "a": 1, "x" * 300 + "b": 2}]
    assert len(visualise_run(record(tmp_path, steps), tmp_path / "out", show=False) or []) == 2


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    path = record(tmp_path, [{"loss": 1}])
    assert visualise_run(path, show=False) is None
    assert not list(tmp_path.rglob("*.png"))


# -- axes


def test_the_axis_is_the_epoch_where_it_was_logged(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    steps = [{"loss": 3, "epoch": 10}, {"loss": 2, "epoch": 20}, {"loss": 1, "epoch": 40}]
    files = visualise_run(record(tmp_path, steps), tmp_path / "out", show=False)
    assert len(files or []) == 1  # the epoch has no picture of its own
    assert lines(drawn["loss"]) == {"loss": [(10, 3), (20, 2), (40, 1)]}


def test_a_metric_that_was_logged_without_the_epoch_is_by_index(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    steps = [{"train/loss": 3}, {"train/loss": 2}, {"eval/loss": 1, "epoch": 7}]
    visualise_run(record(tmp_path, steps), show=False)
    assert lines(drawn["train/loss"]) == {"train/loss": [(0, 3), (1, 2)]}
    assert lines(drawn["eval/loss"]) == {"eval/loss": [(7, 1)]}


def test_what_is_missing_is_a_gap(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    values = [1.0, 2.0, None, math.nan, math.inf, -math.inf, 3.0, 4.0]
    steps = [{"b": 1} if value is None else {"a": value} for value in values]
    visualise_run(record(tmp_path, steps), show=False)
    assert [y for _, y in lines(drawn["a"])["a"]] == [1, 2, None, None, None, None, 3, 4]


def test_records_of_other_groups_are_no_gaps(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    steps = [{"train/a": 1}, {"eval/a": 5}, {"train/a": 2}, {"train/b": 1}, {"train/a": 3}]
    visualise_run(record(tmp_path, steps), show=False)
    assert lines(drawn["train/a"]) == {"train/a": [(0, 1), (2, 2), (3, None), (4, 3)]}


def test_a_metric_that_is_logged_in_intervals_is_drawn_through(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    steps = [{"a": 1.0} | ({"b": float(step)} if step % 3 == 0 else {}) for step in range(7)]
    visualise_run(record(tmp_path, steps), show=False)
    assert lines(drawn["b"]) == {"b": [(0, 0), (3, 3), (6, 6)]}


def test_a_point_between_gaps_is_marked_in_a_long_line(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    steps = [{"a": 1.0} if step not in (99, 101) else {"b": 1} for step in range(200)]
    visualise_run(record(tmp_path, steps), show=False)
    (line,) = drawn["a"].axes[0].get_lines()
    assert line.get_markevery() == [100]


def test_points_that_a_rewind_superseded_are_not_drawn(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    with Run("back", log_dir=tmp_path) as run:
        for value in (1, 2, 3):
            run.log({"a": value})
        run.rewind(1)
        run.log({"a": 9})
    visualise_run(run.path, show=False)
    assert lines(drawn["a"]) == {"a": [(0, 1), (1, 9)]}


def test_of_several_ranks_the_least_is_drawn(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    first = RunWriter.create(tmp_path, "ranks")
    second = RunWriter.join(first.path, 1, 0)
    for step in range(3):
        second.log({"a": step + 10, "b": step})
        first.log({"a": step})
    second.finish()
    first.finish()
    visualise_run(first.path, show=False)
    assert lines(drawn["a"]) == {"a": [(0, 0), (1, 1), (2, 2)]}
    assert lines(drawn["b"]) == {"b": [(0, 0), (1, 1), (2, 2)]}


def test_texts_are_as_in_0_5(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    visualise_run(record(tmp_path, [{"_x$a$": 1, "val__x$a$": 2}], "a $name$"), show=False)
    axes = drawn["_x$a$"].axes[0]
    assert axes.get_title(loc="left") == "_x$a$ vs Epochs — a $name$"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Epochs", "_x$a$")
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text().strip() for text in legend.get_texts()] == ["_x$a$", "val__x$a$"]


# -- runs


def test_a_run_of_0_5_is_drawn(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    steps = [
        {"loss": 1.0, "note": "x", "epoch": 0},
        5,
        {"loss": None, "epoch": 1},
        {"loss": 2, "epoch": 2},
    ]
    path = legacy(tmp_path / "old", [*steps, {"loss": math.nan, "big": 10**400, "epoch": 3}])
    files = visualise_run(path / "run.json", tmp_path / "out", show=False)
    assert [file.name for file in files or []] == ["loss_vs_epochs.png"]
    assert lines(drawn["loss"]) == {"loss": [(0, 1), (2, 2)]}


def test_one_metric_that_cannot_be_drawn_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = legacy(tmp_path / "old", [{"a": "text", "b": 1}])
    files = visualise_run(path, tmp_path / "out", show=False)
    assert [file.name for file in files or []] == ["b_vs_epochs.png"]
    assert "metric 'a'" in caplog.text


def test_a_file_that_cannot_be_written_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "out" / "a_vs_epochs.png").mkdir(parents=True)
    files = visualise_run(record(tmp_path, [{"a": 1, "b": 1}]), tmp_path / "out", show=False)
    assert [file.name for file in files or []] == ["b_vs_epochs.png"]
    assert "metric 'a'" in caplog.text


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"steps": 5}', '{"name": "x"}', "\udcff"]
)
def test_what_is_no_run_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    path = tmp_path / "run"
    if content is not None:
        path.mkdir()
        (path / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    assert visualise_run(path, tmp_path / "out", show=False) is None
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("steps", [[], [{}], [{"epoch": 1}]])
def test_a_run_without_steps_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, steps: list[dict[str, Any]]
) -> None:
    for path in (record(tmp_path, steps), legacy(tmp_path / "old", steps)):
        caplog.clear()
        assert visualise_run(path, tmp_path / "out", show=False) is None
        assert [each.levelno for each in caplog.records] == [logging.WARNING]
    assert not (tmp_path / "out").exists()


def test_a_live_run_is_drawn(tmp_path: Path) -> None:
    with Run("live", log_dir=tmp_path) as run:
        run.log({"a": 1})
        assert visualise_run(run.path, tmp_path / "out", show=False)


# -- windows


def test_without_a_display_nothing_is_shown_and_nothing_is_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("there is no display"))
    assert visualise_run(record(tmp_path, [{"a": 1}]), tmp_path / "out", show=True)


@pytest.mark.parametrize("interactive", [False, True])
def test_figures_are_shown_together_and_closed_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interactive: bool
) -> None:
    path = record(tmp_path, [{f"m{number}": 1 for number in range(25)}])
    shown = []
    monkeypatch.setattr(plt, "get_backend", lambda: "QtAgg")
    monkeypatch.setattr(plt, "isinteractive", lambda: interactive)
    monkeypatch.setattr(plt, "show", lambda: shown.append(len(plt.get_fignums())))
    visualise_run(path)
    assert shown == [25]
    assert len(plt.get_fignums()) == (25 if interactive else 0)
    plt.close("all")


def test_a_figure_that_is_not_shown_needs_no_display(tmp_path: Path) -> None:
    path = record(tmp_path, [{"a": 1}])
    code = (
        "import sys; from blackboxml import visualise_run\n"
        f"visualise_run({str(path)!r}, {str(tmp_path / 'out')!r}, show=False)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {"PYTHONPATH": str(Path(visualise.__file__).parents[2]), "MPLBACKEND": "QtAgg"}
    environment["MPLCONFIGDIR"] = str(tmp_path / "config")
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert names(tmp_path / "out") == {"a_vs_epochs.png"}


# -- what is optional


def test_matplotlib_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'blackboxml\[plot\]'"):
        visualise_run(record(tmp_path, [{"a": 1}]))


def test_a_module_that_is_there_is_returned() -> None:
    assert require("matplotlib.figure", "plot").Figure


def test_a_package_that_lacks_something_itself_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import what_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        require("half_installed", "plot")
    with pytest.raises(MissingDependencyError) as caught:
        require("not_installed.at_all", "demo")
    assert caught.value.name == "not_installed"
