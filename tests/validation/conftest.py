"""Runs that are recorded once and copied for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blackboxml.seal.pack import pack
from tests.validation import runs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of each kind."""
    folder = tmp_path_factory.mktemp("recorded")
    found = {
        "ended": runs.record(folder / "ended", sealed=False),
        "sealed": runs.record(folder / "sealed"),
        "packed": runs.record(folder / "packed"),
        "ranks": runs.record_ranks(folder / "ranks"),
    }
    pack(found["packed"])
    return found


@pytest.fixture
def ended(recorded: dict[str, Path], tmp_path: Path) -> Path:
    """A run that has ended and is not sealed."""
    return runs.copy(recorded["ended"], tmp_path)


@pytest.fixture
def sealed(recorded: dict[str, Path], tmp_path: Path) -> Path:
    """A sealed run."""
    return runs.copy(recorded["sealed"], tmp_path)


@pytest.fixture
def packed(recorded: dict[str, Path], tmp_path: Path) -> Path:
    """A packed run."""
    return runs.copy(recorded["packed"], tmp_path)


@pytest.fixture
def ranks(recorded: dict[str, Path], tmp_path: Path) -> Path:
    """A sealed run of two ranks."""
    return runs.copy(recorded["ranks"], tmp_path)
