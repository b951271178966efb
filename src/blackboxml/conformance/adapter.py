"""A program that answers requests in JSON Lines: started once, anew when it dies or hangs."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from typing import IO, TYPE_CHECKING, Any, Final, Self

from blackboxml.conformance.answer import AdapterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

PROTOCOL: Final = "1.0"
TIMEOUT_SECONDS: Final = 10.0
LONGEST_ANSWER: Final = 64 * 2**20

_CLAIMS: Final = frozenset(["read", "tables", "validate"])
_SHOWN_BYTES: Final = 2000


class ProcessAdapter:
    """A conversation with an adapter.

    Attributes:
        hello: What it said of itself when it was first started.
    """

    def __init__(self, command: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> None:
        """Start the program, and ask what it can do.

        Args:
            command: The program and its arguments.
            timeout: Seconds within which each answer has to come.

        Raises:
            AdapterError: If it does not start, or does not say what it can do.
        """
        self._command = list(command)
        self._timeout = timeout
        self._id = 0
        self._process: _Process | None = None
        self.hello = self._start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the program."""
        self.close()

    def close(self) -> None:
        """End the program."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def ask(self, operation: str, run: Path) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            AdapterError: If there is none; the program is started anew for the next one.
        """
        if self._process is None:
            self._start()
        answer = self._exchange({"operation": operation, "run": os.fspath(run.absolute())})
        if "error" in answer:
            raise AdapterError(f"the adapter says: {answer['error']!s:.500}")
        found = answer.get(operation)
        if not isinstance(found, dict):
            raise AdapterError(f"the answer has no object {operation!r}: {sorted(answer)!r:.200}")
        return found

    def _start(self) -> dict[str, Any]:
        """Start the program and return its hello."""
        try:
            self._process = _Process(self._command)
        except (OSError, ValueError) as error:
            raise AdapterError(f"{self._command[0]!r} cannot be started: {error}") from None
        said = self._exchange({"operation": "hello", "protocol": PROTOCOL})
        claims = said.get("claims")
        if not isinstance(claims, list) or not all(isinstance(each, str) for each in claims):
            self.close()
            raise AdapterError('the hello has no array of texts "claims"')
        return {
            "name": str(said.get("name", "")),
            "version": str(said.get("version", "")),
            "claims": sorted(_CLAIMS.intersection(claims)),
        }

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return what comes back; a program that fails in this is ended."""
        assert self._process is not None  # noqa: S101 - for the type checker
        sent = {"id": self._id, **request}
        self._id += 1
        try:
            line = self._process.exchange(json.dumps(sent).encode() + b"\n", self._timeout)
            answer = _parse(line)
            if answer.get("id") != sent["id"]:
                raise AdapterError(f"the answer has the id {answer.get('id')!r:.80}")
        except AdapterError as error:
            said = self._process.complaint()
            self.close()
            raise AdapterError(f"{error}{said}") from None
        return answer


def _parse(line: bytes) -> dict[str, Any]:
    """Return the object of an answer."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        answer = json.loads(line.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"the answer is no JSON: {error}: {line!r:.200}") from None
    if not isinstance(answer, dict):
        raise AdapterError(f"the answer is no object: {line!r:.200}")
    return answer


class _Process:
    """One life of the program."""

    def __init__(self, command: list[str]) -> None:
        """Start it, and a thread that waits for its lines."""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the command that the user gave
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except BaseException:
            self._errors.close()
            raise
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def exchange(self, line: bytes, timeout: float) -> bytes:
        """Send a line and return the next one that comes."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            raise AdapterError("the adapter has ended") from None
        try:
            answer = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise AdapterError(f"no answer within {timeout:g} seconds") from None
        if not answer.endswith(b"\n"):
            raise AdapterError("the adapter has ended" if not answer else "the answer is too long")
        return answer

    def complaint(self) -> str:
        """Return the end of what it wrote to standard error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _SHOWN_BYTES))
        text = self._errors.read().decode(errors="backslashreplace").strip()
        return f"; it wrote: {text}" if text else ""

    def end(self) -> None:
        """Close its input, and end it and what it started if that does not."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._thread.join(timeout=5)
        if self._process.stdout is not None and not self._thread.is_alive():
            self._process.stdout.close()
        self._errors.close()

    def _listen(self) -> None:
        """Pass on its lines; an empty one at the end."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        while line := self._process.stdout.readline(LONGEST_ANSWER):
            self._lines.put(line)
        self._lines.put(b"")
