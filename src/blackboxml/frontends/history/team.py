"""The ranks of a job: who they are, what rank 0 tells the others, and their values together."""

from __future__ import annotations

import itertools
import json
import logging
import secrets
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from blackboxml.base import variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackboxml.frontends.history.channel import Key, Receiver, Sender
    from blackboxml.frontends.history.recording import Recording
    from blackboxml.frontends.history.statistics import Statistics

logger = logging.getLogger("blackboxml")

MOST_RANKS: Final = 384
"""Statistics across more ranks than this are only taken if they are asked for."""

SWITCHES: Final = ("EZPZ_NO_DISTRIBUTED_HISTORY", "EZPZ_LOCAL_HISTORY")

_MEETING: Final = 3
"""How many times the usual wait another rank waits for rank 0 to begin the run."""

_TAG: Final = 20_611
_POLL_SECONDS: Final = 0.005
_meetings = itertools.count()
"""Histories of this process so far; the ranks of a job make theirs in the same order."""


class Meeting(Protocol):
    """How rank 0 tells the others something, once."""

    def say(self, message: bytes) -> None:
        """Leave a message for all other ranks; does not wait for them."""

    def hear(self, wait: float) -> bytes | None:
        """Return the message of rank 0, None if it does not come within so many seconds."""


@dataclass(frozen=True, slots=True)
class Job:
    """What this process is a part of.

    Attributes:
        rank: From 0.
        world: Number of ranks that can be reached; 1 where the processes know nothing of another.
        meeting: How they find each other; None for one.
    """

    rank: int
    world: int
    meeting: Meeting | None = None


@dataclass(slots=True)
class Pending:
    """An update whose statistics across ranks are not known yet.

    Attributes:
        key: Its key.
        names: Its metrics.
        values: Their values.
        time: Unix seconds.
        update: Its number in memory.
        statistics: Across ranks, when they are known.
    """

    key: Key
    names: tuple[str, ...]
    values: list[float]
    time: float = 0.0
    update: int = -1
    statistics: Statistics = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Its step."""
        return self.key[0]


class Team:
    """The ranks of a job around one history.

    Attributes:
        together: Whether there are statistics across ranks.
    """

    def __init__(self, rank: int, every: int, wait: float) -> None:
        """Begin alone; `meet` finds the others."""
        self.together = False
        self._rank = rank
        self._every = every
        self._wait = wait
        self._receiver: Receiver | None = None
        self._sender: Sender | None = None
        self._last: Key = (-(2**63), 0)
        self._asked = 0
        self._pending: list[Pending] = []
        self._late: list[Pending] = []

    @classmethod
    def meet(
        cls, job: Job, recording: Recording, *, wanted: bool | None, every: int, wait: float
    ) -> Team | None:
        """Tell the other ranks of the run, or hear of it; None where there are none.

        Args:
            job: What this process is a part of.
            recording: The run; learns on other ranks where it is.
            wanted: Take statistics across ranks; None for 2 to 384 of them.
            every: Exchange once in so many updates.
            wait: Most seconds to wait for another rank.
        """
        if job.meeting is None:
            return None
        together = job.world <= MOST_RANKS if wanted is None else wanted
        if any(map(variable.flag, SWITCHES)):
            together = False
        team = cls(job.rank, every, wait)
        if job.rank == 0:
            team._invite(job, job.meeting, recording, together=together)
        else:
            team._follow(job, job.meeting, recording, together=together)
        return team

    def _invite(self, job: Job, meeting: Meeting, recording: Recording, *, together: bool) -> None:
        """Say on rank 0 where the run is, and where its values are awaited."""
        place = None
        if together:
            from blackboxml.frontends.history.channel import Receiver

            try:
                self._receiver = Receiver(job.world, self._wait, secrets.token_bytes(32))
            except OSError as error:
                logger.warning("there are no statistics across ranks: %s", error)
            else:
                place = self._receiver.place
                self.together = True
        message = {
            "id": recording.run_id,
            "path": str(recording.path),
            "attempt": recording.attempt,
            "place": place,
        }
        try:
            meeting.say(json.dumps(message).encode())
        except Exception as error:  # noqa: BLE001 - whatever the transport raises
            logger.warning("the other ranks cannot be told of %s: %s", recording.path, error)

    def _follow(self, job: Job, meeting: Meeting, recording: Recording, *, together: bool) -> None:
        """Hear on another rank where the run is, and connect."""
        try:
            data = meeting.hear(_MEETING * self._wait)
        except Exception as error:  # noqa: BLE001 - whatever the transport raises
            logger.warning("rank %d hears nothing of rank 0: %s", job.rank, error)
            return
        if data is None:
            logger.warning(
                "rank %d heard nothing of rank 0 within %g s; its values stay with it",
                *(job.rank, _MEETING * self._wait),
            )
            return
        message = json.loads(data)
        recording.run_id, recording.attempt = message["id"], message["attempt"]
        recording.path = Path(message["path"])
        if not (together and message["place"]):
            return
        from blackboxml.frontends.history.channel import Sender

        try:
            self._sender = Sender(message["place"], job.rank, self._wait)
        except OSError as error:
            logger.warning("rank %d cannot reach rank 0: %s", job.rank, error)
        else:
            self.together = True

    # -- values

    def update(self, step: int, numbers: Mapping[str, Any]) -> Statistics | None:
        """Exchange an update; return its statistics if it is its turn and this is rank 0."""
        key = self._last = (step, self._last[1] + 1 if step == self._last[0] else 0)
        if self._sender is not None:
            self._send(key, numbers)
        elif self._receiver is not None and numbers:
            self._pending.append(Pending(key, tuple(numbers), list(numbers.values())))
            if len(self._pending) >= self._every:
                self._exchange()
                return self._late.pop().statistics
        return None

    def remember(self, time: float, update: int) -> None:
        """Say of the newest update where it is, so that its statistics may come late."""
        if self._pending:
            self._pending[-1].time, self._pending[-1].update = time, update

    def take(self) -> list[Pending]:
        """Return the earlier updates whose statistics are known by now."""
        late, self._late = self._late, []
        return late

    def ask(self, numbers: Mapping[str, Any]) -> Statistics | None:
        """Return statistics across ranks at once, on rank 0; all ranks must ask."""
        key = (self._asked, 0)
        self._asked += 1
        if self._receiver is not None:
            from blackboxml.frontends.history.channel import QUESTIONS

            return self._receiver.gather(QUESTIONS, key, tuple(numbers), list(numbers.values()))
        if self._sender is not None:
            self._send(key, numbers, question=True)
        return None

    def finish(self) -> None:
        """Exchange what waits, within the usual time, and part."""
        if self._receiver is not None:
            self._exchange()
            self._receiver.close()
        if self._sender is not None:
            self._sender.close(self._wait)
        self._receiver = self._sender = None

    def _exchange(self) -> None:
        """Take the statistics of all that waits for them."""
        from blackboxml.frontends.history.channel import UPDATES

        if self._receiver is None:
            return
        for each in self._pending:
            each.statistics = self._receiver.gather(UPDATES, each.key, each.names, each.values)
        self._late += self._pending
        self._pending = []

    def _send(self, key: Key, numbers: Mapping[str, Any], *, question: bool = False) -> None:
        """Send values to rank 0; where it is gone there is no more to do."""
        from blackboxml.frontends.history.channel import QUESTIONS, UPDATES

        if self._sender is None:
            return
        self._sender.put(QUESTIONS if question else UPDATES, key, numbers)
        try:
            self._sender.send()
        except OSError:
            logger.warning("rank %d lost rank 0; its values stay with it", self._rank)
            self._sender.close(0.0)
            self._sender = None


class _Store:
    """Meets by the store through which `torch.distributed` was initialised."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._key = f"blackboxml/history/{next(_meetings)}"

    def say(self, message: bytes) -> None:
        self._store.set(self._key, message)

    def hear(self, wait: float) -> bytes | None:
        from torch.distributed import DistStoreError

        try:
            self._store.wait([self._key], timedelta(seconds=wait))
        except (DistStoreError, RuntimeError):
            return None
        return bytes(self._store.get(self._key))


class _Mpi:
    """Meets by messages of MPI."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator
        self._tag = _TAG + next(_meetings) % 1000
        self._sent: list[Any] = []

    def say(self, message: bytes) -> None:
        self._sent = [
            self._communicator.isend(message, dest=rank, tag=self._tag)
            for rank in range(1, self._communicator.Get_size())
        ]

    def hear(self, wait: float) -> bytes | None:
        deadline = time.monotonic() + wait
        while not self._communicator.iprobe(source=0, tag=self._tag):
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_SECONDS)
        return bytes(self._communicator.recv(source=0, tag=self._tag))


def find_job() -> Job:
    """Return what this process is a part of: of `torch.distributed`, of mpi4py, or of nothing.

    Neither is imported; what was not initialised does not count. A rank that only the launcher's
    variables tell of, such as `RANK`, is kept: it records nothing, so that no file comes twice.
    """
    distributed: Any = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        rank, world = distributed.get_rank(), distributed.get_world_size()
        if world > 1:
            store = distributed.distributed_c10d._get_default_store()  # noqa: SLF001 - no other way
            return Job(rank, world, _Store(store))
        return Job(rank, 1)
    mpi: Any = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        world = mpi.COMM_WORLD.Get_size()
        if world > 1:
            return Job(mpi.COMM_WORLD.Get_rank(), world, _Mpi(mpi.COMM_WORLD))
    return Job(variable.rank(), 1)
