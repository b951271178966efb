"""What the machine does while a run trains: sampled on a thread, into the group `system`.

A sample is a point at the step that training has come to; it takes no part in the count of steps. A
source that does not answer, such as the disks of a container, is not asked again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.extras import require

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger("blackboxml")

SECONDS: Final = 15.0
"""Between two samples, where nothing else is asked for."""

_FIRST: Final = 1.0
"""Seconds to the first sample: rates need some time to be rates of."""

METRICS: Final = {
    "cpu_percent": ("%", "busy time of all cores"),
    "memory_percent": ("%", "memory that cannot be had without swapping"),
    "memory_bytes": ("B", "memory in use"),
    "process_cpu_percent": ("%", "busy time of this process, 100 for each core"),
    "process_memory_bytes": ("B", "resident memory of this process"),
    "process_threads": (None, "threads of this process"),
    "disk_percent": ("%", "used part of the file system that holds the run"),
    "disk_read_bytes_per_second": ("B/s", "read from all disks"),
    "disk_write_bytes_per_second": ("B/s", "written to all disks"),
    "network_receive_bytes_per_second": ("B/s", "received on all interfaces"),
    "network_send_bytes_per_second": ("B/s", "sent on all interfaces"),
    "gpu{}_percent": ("%", "time in which GPU {} computed"),
    "gpu{}_memory_percent": ("%", "used part of the memory of GPU {}"),
    "gpu{}_memory_bytes": ("B", "memory in use on GPU {}"),
    "gpu{}_celsius": ("°C", "temperature of GPU {}"),
    "gpu{}_watts": ("W", "power drawn by GPU {}"),
}
"""Units and descriptions by name, without the group; `{}` is the number of a GPU."""


class SystemMetrics:
    """Samples the machine until it is stopped; nothing that goes wrong gets out of its thread."""

    def __init__(
        self,
        record: Callable[[dict[str, float]], None],
        describe: Callable[[str, str | None, str], None],
        folder: str | os.PathLike[str],
        seconds: float = SECONDS,
    ) -> None:
        """Begin to sample.

        Args:
            record: Records a sample.
            describe: Gives a metric a unit and a description.
            folder: A folder on the file system to watch.
            seconds: Time between two samples.

        Raises:
            MissingDependencyError: If psutil is not installed.
        """
        self._psutil: Any = require("psutil", "system")
        self._record = record
        self._describe = describe
        self._folder = folder
        self._seconds = seconds
        self._described: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="blackboxml-system", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling, before the run ends."""
        self._stop.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        """Sample until it is stopped."""
        try:
            with _open_gpus() as gpus:
                sources = [*self._sources(), *gpus]
                _ask(sources)  # rates begin to count
                wait = min(_FIRST, self._seconds)
                while not self._stop.wait(wait):
                    wait = self._seconds
                    self._take(_ask(sources))
        except Exception:
            if self._stop.is_set():
                return
            logger.warning("system metrics are not recorded any further", exc_info=True)

    def _take(self, sample: dict[str, float]) -> None:
        """Record a sample; what a metric means is said the first time."""
        for name in sample.keys() - self._described:
            self._described.add(name)
            number = "".join(filter(str.isdigit, name))
            unit, text = METRICS[name.replace(f"gpu{number}", "gpu{}") if number else name]
            self._describe(f"system/{name}", unit, text.format(number))
        if sample and not self._stop.is_set():
            self._record({f"system/{name}": value for name, value in sample.items()})

    def _sources(self) -> Iterator[Callable[[], Mapping[str, float]]]:
        """Yield what can be asked of every machine."""
        psutil = self._psutil
        process = psutil.Process()
        yield lambda: {"cpu_percent": psutil.cpu_percent()}
        yield partial(_memory, psutil)
        yield lambda: {
            "process_cpu_percent": process.cpu_percent(),
            "process_memory_bytes": process.memory_info().rss,
            "process_threads": process.num_threads(),
        }
        yield lambda: {"disk_percent": psutil.disk_usage(self._folder).percent}
        yield _Rates(
            psutil.disk_io_counters, {"disk_read": "read_bytes", "disk_write": "write_bytes"}
        )
        yield _Rates(
            psutil.net_io_counters, {"network_receive": "bytes_recv", "network_send": "bytes_sent"}
        )


class _Rates:
    """Turns counters into rates."""

    def __init__(self, count: Callable[[], Any], fields: Mapping[str, str]) -> None:
        self._count = count
        self._fields = fields
        self._before: tuple[float, dict[str, int]] | None = None

    def __call__(self) -> dict[str, float]:
        """Return bytes per second since the last call; nothing at the first."""
        counters = self._count()
        now = time.monotonic(), {name: getattr(counters, f) for name, f in self._fields.items()}
        before, self._before = self._before, now
        if before is None:
            return {}
        seconds = max(now[0] - before[0], 1e-3)
        # A counter that wrapped, or an interface that went, counts as nothing.
        return {
            f"{name}_bytes_per_second": max(value - before[1][name], 0) / seconds
            for name, value in now[1].items()
        }


def _ask(sources: list[Callable[[], Mapping[str, float]]]) -> dict[str, float]:
    """Return what all sources say; one that fails is dropped."""
    sample: dict[str, float] = {}
    for source in list(sources):
        try:
            sample.update(source())
        except Exception as error:  # noqa: BLE001 - whatever a driver or a container refuses
            logger.debug("a source of system metrics is left out: %s", error)
            sources.remove(source)
    return sample


def _memory(psutil: Any) -> dict[str, float]:
    """Return the memory in use."""
    memory = psutil.virtual_memory()
    return {"memory_percent": memory.percent, "memory_bytes": memory.total - memory.available}


@contextlib.contextmanager
def _open_gpus() -> Iterator[list[Callable[[], Mapping[str, float]]]]:
    """Give the GPUs that NVML shows; none where it or its driver is missing."""
    try:
        nvml: Any = require("pynvml", "system")
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - also a driver that is broken
        logger.debug("there are no metrics of GPUs: %s", error)
        yield []
        return
    try:
        count = nvml.nvmlDeviceGetCount()
        yield [
            partial(read, nvml, nvml.nvmlDeviceGetHandleByIndex(index), f"gpu{index}")
            for index in range(count)
            for read in (_use, _gpu_memory, _temperature, _power)
        ]
    finally:
        nvml.nvmlShutdown()


def _use(nvml: Any, gpu: Any, name: str) -> dict[str, float]:
    return {f"{name}_percent": nvml.nvmlDeviceGetUtilizationRates(gpu).gpu}


def _gpu_memory(nvml: Any, gpu: Any, name: str) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    return {
        f"{name}_memory_bytes": memory.used,
        f"{name}_memory_percent": 100 * memory.used / memory.total,
    }


def _temperature(nvml: Any, gpu: Any, name: str) -> dict[str, float]:
    celsius = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
    return {f"{name}_celsius": celsius}


def _power(nvml: Any, gpu: Any, name: str) -> dict[str, float]:
    return {f"{name}_watts": nvml.nvmlDeviceGetPowerUsage(gpu) / 1000}
