"""`StopWatch`: how long a block or a function takes."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import ContextDecorator
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("blackboxml")


class StopWatch(ContextDecorator):
    """Times a block, or every call of the function that it decorates.

    Attributes:
        data: `<wbtag>/dt`, the seconds of the last time, and `<wbtag>/iter`; empty without a tag.

    >>> with StopWatch("forward", wbtag="timing/forward", iter=3, log_output=False) as watch:
    ...     total = sum(range(10))
    >>> sorted(watch.data), watch.data["timing/forward/dt"] >= 0
    (['timing/forward/dt', 'timing/forward/iter'], True)
    """

    def __init__(  # noqa: PLR0917 - the signature of ezpz
        self,
        msg: str,
        wbtag: str | None = None,
        iter: int | None = None,  # noqa: A002 - as above
        commit: bool | None = False,  # noqa: FBT001, FBT002
        prefix: str = "StopWatch/",
        log_output: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Prepare.

        Args:
            msg: What is timed; `<msg> took 0.010 seconds` is logged.
            wbtag: Begins the names in `data`, which go to an active `wandb.run`, too.
            iter: A number that is kept along.
            commit: Passed on to wandb.
            prefix: The name under which wandb gets `data`.
            log_output: Log the line.
        """
        self.msg = msg
        self.wbtag = wbtag
        self.iter = iter
        self.commit = commit
        self.prefix = prefix
        self.log_output = log_output
        self.data: dict[str, float | None] = {}
        self._started: list[float] = []
        if wbtag is not None:
            self.data[f"{wbtag}/dt"] = None
            if iter is not None:
                self.data[f"{wbtag}/iter"] = iter

    def __enter__(self) -> Self:
        """Begin; a decorated function may call itself."""
        self._started.append(time.perf_counter())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep the seconds, pass them on and log them."""
        seconds = time.perf_counter() - self._started.pop()
        if self.wbtag is not None:
            self.data[f"{self.wbtag}/dt"] = seconds
            run: Any = getattr(sys.modules.get("wandb"), "run", None)
            if run is not None:
                try:
                    run.log({self.prefix: dict(self.data)}, commit=self.commit)
                except Exception as problem:  # noqa: BLE001 - tracking never stops training
                    logger.warning("wandb did not take the time of %s: %s", self.msg, problem)
        if self.log_output:
            logger.info("%s took %.3f seconds", self.msg, seconds)
