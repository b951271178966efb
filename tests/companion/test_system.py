"""Samples of the machine beside a training."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from blackboxml import Run, open_run, validate
from blackboxml.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALWAYS = {
    *("cpu_percent", "memory_percent", "memory_bytes", "disk_percent"),
    *("process_cpu_percent", "process_memory_bytes", "process_threads"),
}


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def samples(run: Run, view: Any = "effective") -> list[Any]:
    found = open_run(run.path).records(view)
    return [record for record in found if any(name[:7] == "system/" for name in record.metrics)]


def test_samples_are_recorded_beside_the_training(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, environment=(), system_metrics=0.02) as run:
        for step in range(3):
            run.log({"loss": 1.0 - step})
            seen = len(samples(run))
            wait_for(lambda seen=seen: len(samples(run)) > seen + 1)
    reader = open_run(run.path)
    training = [record for record in reader.records() if "loss" in record.metrics]
    assert [record.step for record in training] == [0, 1, 2]
    found = samples(run)
    assert {record.step for record in found} == {0, 1, 2}
    assert [record.time for record in found] == sorted(record.time for record in found)
    names = {name.removeprefix("system/") for record in found for name in record.metrics}
    assert names >= ALWAYS
    assert 0 < found[0].metrics["system/process_memory_bytes"] < psutil.virtual_memory().total
    for record in found:
        assert 0 <= record.metrics["system/cpu_percent"] <= 100
        assert 0 <= record.metrics["system/memory_percent"] <= 100
        assert all(value >= 0 for value in record.metrics.values())
    assert reader.descriptions["system/process_memory_bytes"] == {
        "unit": "B",
        "description": "resident memory of this process",
    }
    assert validate(run.path).ok


def test_automatic_steps_are_those_of_the_training_alone(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, environment=(), seal=False, system_metrics=0.001) as run:
        for _ in range(3000):
            run.log({"loss": 1.0})
        wait_for(lambda: samples(run))
    reader = open_run(run.path)
    assert [r.step for r in reader.records() if "loss" in r.metrics] == list(range(3000))
    with Run("r", log_dir=tmp_path, environment=(), seal=False, resume=True) as again:
        again.log({"loss": 2.0})
    (last,) = [r for r in open_run(run.path).records() if r.metrics.get("loss") == 2.0]
    assert last.step == 3000


def test_they_are_off_by_default_and_stop_with_the_run(tmp_path: Path) -> None:
    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if "system" in each.name]

    with Run("r", log_dir=tmp_path, environment=()):
        assert threads() == []
    with Run("r", log_dir=tmp_path, environment=(), system_metrics=True):
        assert threads() == ["blackboxml-system"]
    assert threads() == []


def test_a_forked_process_samples_nothing(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, environment=(), seal=False, system_metrics=0.01) as run:
        wait_for(lambda: samples(run))
        child = os.fork()
        if child == 0:
            os._exit(len(threading.enumerate()) - 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        seen = len(samples(run))
        wait_for(lambda: len(samples(run)) > seen)
    assert validate(run.path).ok


def test_a_source_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)  # as in some containers
    monkeypatch.setattr(psutil, "disk_usage", refuse)
    with Run("r", log_dir=tmp_path, environment=(), seal=False, system_metrics=0.01) as run:
        wait_for(lambda: samples(run))
    names = set(samples(run)[0].metrics)
    assert "system/cpu_percent" in names
    assert not {"system/disk_percent", "system/network_send_bytes_per_second"} & names


class FakeNVML(SimpleNamespace):
    """Two GPUs, the second without a power meter; a machine of the tests has none."""

    NVML_TEMPERATURE_GPU = 0
    down = False

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None:  # noqa: N802
        self.down = True

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=50 + gpu)

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=1000, total=4000)

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:  # noqa: N802
        return 60

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:  # noqa: N802
        if gpu:
            raise RuntimeError("Not Supported")
        return 250_500


def test_gpus_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNVML()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    with Run("r", log_dir=tmp_path, environment=(), seal=False, system_metrics=0.01) as run:
        wait_for(lambda: samples(run))
    metrics = samples(run)[0].metrics
    found = {name[7:]: value for name, value in metrics.items() if "/gpu" in name}
    both = [("percent", 50), ("memory_bytes", 1000), ("memory_percent", 25), ("celsius", 60)]
    expected = {f"gpu{gpu}_{name}": value for gpu, (name, value) in itertools.product("01", both)}
    assert found == expected | {"gpu1_percent": 51, "gpu0_watts": 250.5}
    said = open_run(run.path).descriptions["system/gpu1_percent"]
    assert said == {"unit": "%", "description": "time in which GPU 1 computed"}
    assert fake.down


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1", None, 1e300])
def test_a_time_that_is_none_is_refused(tmp_path: Path, seconds: Any) -> None:
    with pytest.raises(ValueError, match="wanted seconds, True or False"):
        Run("r", log_dir=tmp_path, system_metrics=seconds)


def test_without_psutil_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingDependencyError, match=r"blackboxml\[system\]"):
        Run("r", log_dir=tmp_path, system_metrics=True)
    assert list(tmp_path.iterdir()) == []
