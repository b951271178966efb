"""What answers requests about runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

Operation = Literal["read", "validate"]


class AdapterError(Exception):
    """An adapter did not answer, or not as the protocol wants."""


class Answerer(Protocol):
    """A process, or this library."""

    @property
    def hello(self) -> dict[str, Any]:
        """What it says of itself: `name`, `version`, `claims`."""

    def ask(self, operation: Operation, run: Path) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            AdapterError: If there is none.
        """
