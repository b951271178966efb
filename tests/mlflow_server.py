"""A real tracking server of MLflow on loopback, with a database of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Server(NamedTuple):
    """A server that answers."""

    uri: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill the server and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Start a server that keeps all it has below a folder, and end it."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "kept")]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    uri = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            for _ in range(480):
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    with urllib.request.urlopen(f"{uri}/health", timeout=2):
                        break
                except OSError:
                    time.sleep(0.25)
            else:
                raise AssertionError((folder / "log").read_text())
            yield Server(uri, process)
        finally:
            # It keeps nothing in memory, and takes its time over SIGTERM.
            Server(uri, process).kill()
