"""`@track`: every dict that a generator yields is a step."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import open_run, track
from blackboxml.errors import MetricError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    Tracked = Callable[..., Callable[..., list[Any]]]


@pytest.fixture
def tracked(tmp_path: Path) -> Tracked:
    def make(**options: Any) -> Callable[..., list[Any]]:
        return track("fit", log_dir=tmp_path, **({"environment": (), "seal": False} | options))

    return make


def runs(path: Path) -> list[Any]:
    return [open_run(each) for each in sorted(path.iterdir())] if path.exists() else []


def test_what_is_yielded_is_returned_and_recorded_in_order(
    tracked: Tracked, tmp_path: Path
) -> None:
    @tracked(tags=["a", "b"])
    def fit(count: int, *, scale: float = 1.0) -> Iterator[dict[str, float]]:
        """Fit."""
        for step in range(count):
            yield {"loss": scale / (step + 1), "step": step}

    wanted = [{"loss": 2.0 / (step + 1), "step": step} for step in range(4)]
    assert fit(4, scale=2.0) == wanted
    (reader,) = runs(tmp_path)
    assert [record.metrics for record in reader.records()] == wanted
    assert [record.step for record in reader.records()] == [0, 1, 2, 3]
    assert (reader.name, reader.tags, reader.status) == ("fit", ["a", "b"], "completed")
    assert (fit.__name__, fit.__doc__) == ("fit", "Fit.")


def test_each_call_is_a_run_of_its_own_with_all_the_tags(tracked: Tracked, tmp_path: Path) -> None:
    @tracked(tags=iter(["a"]))
    def fit(value: float) -> Iterator[dict[str, float]]:
        yield {"loss": value}

    fit(1.0)
    fit(2.0)
    found = runs(tmp_path)
    assert [[record.metrics["loss"] for record in reader.records()] for reader in found] == [
        [1.0],
        [2.0],
    ]
    assert [reader.tags for reader in found] == [["a"], ["a"]]


def test_tags_default_to_none_and_a_text_is_refused(tracked: Tracked, tmp_path: Path) -> None:
    @tracked()
    def fit() -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}

    fit()
    assert runs(tmp_path)[0].tags == []
    with pytest.raises(ValueError, match="wanted a list of texts"):
        tracked(tags="baseline")(fit.__wrapped__)()


def test_the_default_folder_is_made_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    @track("fit", environment=(), seal=False)
    def fit() -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}

    fit()
    assert len(runs(tmp_path / "blackboxml_logs")) == 1


def test_a_generator_without_a_step_is_a_run_without_a_record(
    tracked: Tracked, tmp_path: Path
) -> None:
    @tracked(seal=True)
    def fit() -> Iterator[dict[str, float]]:
        yield from ()

    assert fit() == []
    (reader,) = runs(tmp_path)
    assert list(reader.records()) == []
    assert (reader.status, reader.sealed) == ("completed", True)


def test_a_function_that_returns_a_generator_is_recorded(tracked: Tracked, tmp_path: Path) -> None:
    @tracked()
    def fit(count: int) -> Iterator[dict[str, float]]:
        return ({"loss": float(step)} for step in range(count))

    assert fit(3) == [{"loss": 0.0}, {"loss": 1.0}, {"loss": 2.0}]
    assert len(list(runs(tmp_path)[0].records())) == 3


async def coroutine() -> None:
    """Return nothing, later."""


async def asynchronous() -> AsyncIterator[dict[str, float]]:
    yield {"loss": 1.0}


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda: None, "did not yield"),
        (lambda: {"loss": 1.0}, "did not yield"),
        (lambda: [{"loss": 1.0}], "did not yield"),
        (lambda: iter([{"loss": 1.0}]), "did not yield"),
        (coroutine, "is a coroutine"),
        (asynchronous, "is an async generator"),
    ],
)
def test_a_function_that_does_not_yield_runs_once_with_one_warning_and_no_run(
    tracked: Tracked,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    result: Callable[[], Any],
    said: str,
) -> None:
    calls = []

    @tracked()
    def fit() -> Any:
        calls.append(1)
        return result()

    assert fit() == []
    assert calls == [1]
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "blackboxml")
    assert "@track expected a generator function" in record.getMessage()
    assert said in record.getMessage()
    assert "fit" in record.getMessage()
    assert runs(tmp_path) == []


def test_a_run_inside_an_async_generator_works(tmp_path: Path) -> None:
    from blackboxml import Run

    async def train() -> None:
        with Run("async", log_dir=tmp_path, environment=(), seal=False) as run:
            async for metrics in asynchronous():
                run.log(metrics)

    asyncio.run(train())
    assert len(list(runs(tmp_path)[0].records())) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad batch"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(3), "failed"),
        (RuntimeError("generator raised StopIteration"), "failed"),
    ],
)
def test_an_exception_keeps_the_steps_before_it_and_goes_on(
    tracked: Tracked, tmp_path: Path, error: BaseException, status: str
) -> None:
    @tracked()
    def fit() -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}
        yield {"loss": 2.0}
        raise error

    with pytest.raises(type(error)) as caught:
        fit()
    assert caught.value is error
    (reader,) = runs(tmp_path)
    assert [record.metrics["loss"] for record in reader.records()] == [1.0, 2.0]
    assert reader.status == status


@pytest.mark.parametrize("value", [5, None, "loss", [1.0], {"loss": "low"}, {1: 1.0}])
def test_a_step_that_cannot_be_stored_ends_the_run_and_closes_the_generator(
    tracked: Tracked, tmp_path: Path, value: Any
) -> None:
    closed = []

    @tracked()
    def fit() -> Iterator[Any]:
        try:
            yield {"loss": 1.0}
            yield value
            yield {"loss": 3.0}
        finally:
            closed.append(runs(tmp_path)[0].status)

    with pytest.raises(MetricError):
        fit()
    assert closed == ["running"]  # what the generator still does belongs to the run
    (reader,) = runs(tmp_path)
    assert reader.status == "failed"
    assert len(list(reader.records())) == 1


def test_a_dict_that_is_yielded_again_and_again_is_stored_as_it_was(
    tracked: Tracked, tmp_path: Path
) -> None:
    @tracked()
    def fit() -> Iterator[dict[str, float]]:
        metrics: dict[str, float] = {}
        for step in range(3):
            metrics["loss"] = step
            yield metrics

    fit()
    assert [record.metrics["loss"] for record in runs(tmp_path)[0].records()] == [0, 1, 2]


def test_options_of_a_run_are_passed_on(tracked: Tracked, tmp_path: Path) -> None:
    @tracked(config={"lr": 0.1}, seal=True)
    def fit() -> Iterator[dict[str, float]]:
        yield {"train/loss": 1.0}

    fit()
    (reader,) = runs(tmp_path)
    assert reader.config == {"lr": 0.1}
    assert reader.sealed
