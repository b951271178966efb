"""What tests of several areas share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mlflow_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server, one for each worker."""
    with serving(tmp_path_factory.mktemp("mlflow")) as server:
        yield server.uri
