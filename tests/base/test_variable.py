from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blackboxml.base.variable import (
    LOCAL_RANKS,
    RANKS,
    WORLD_SIZES,
    flag,
    local_rank,
    rank,
    world_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("text", ["", " ", "0", "false", "False", "NO", " off "])
def test_x13_these_texts_switch_off(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCH", text)
    assert not flag("SWITCH")
    assert not flag("SWITCH", default=True)


@pytest.mark.parametrize("text", ["1", "true", "yes", "on", "2", "whatever"])
def test_x13_all_others_switch_on(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCH", text)
    assert flag("SWITCH")


def test_a_variable_that_is_not_set_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWITCH", raising=False)
    assert not flag("SWITCH")
    assert flag("SWITCH", default=True)


@pytest.mark.parametrize(
    ("ask", "name", "default"),
    [(rank, name, 0) for name in RANKS]
    + [(world_size, name, 1) for name in WORLD_SIZES]
    + [(local_rank, name, 0) for name in LOCAL_RANKS],
)
def test_a_launcher_says_which_process_this_is(
    ask: Callable[[], int], name: str, default: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in (*RANKS, *WORLD_SIZES, *LOCAL_RANKS):
        monkeypatch.delenv(other, raising=False)
    assert ask() == default
    monkeypatch.setenv(name, "3")
    assert ask() == 3
    monkeypatch.setenv(name, "what")
    assert ask() == default
