"""The key of a server as a header of every request, through MLflow's own plugin point.

The entry point `mlflow.request_header_provider` of this package names `ApiKey`, so that MLflow
itself loads it; without the key in the environment it adds nothing.
"""

from __future__ import annotations

import os
from typing import Final

from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

VARIABLES: Final = ("AMSC_API_KEY", "AM_SC_API_KEY")
"""Environment variables that hold the key, in the order in which they are asked."""

HEADER: Final = "X-Api-Key"


class ApiKey(RequestHeaderProvider):
    """Adds the key to what MLflow asks a server."""

    def in_context(self) -> bool:
        """Tell whether there is a key."""
        return bool(_key())

    def request_headers(self) -> dict[str, str]:
        """Return the header."""
        return {HEADER: _key()}


def _key() -> str:
    return next((os.environ[name] for name in VARIABLES if os.environ.get(name)), "")
