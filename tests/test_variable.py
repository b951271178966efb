from __future__ import annotations

import pytest

from blackboxml.variable import RANKS, flag, rank


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


@pytest.mark.parametrize("name", RANKS)
def test_a_launcher_says_the_rank(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in RANKS:
        monkeypatch.delenv(other, raising=False)
    assert rank() == 0
    monkeypatch.setenv(name, "3")
    assert rank() == 3
    monkeypatch.setenv(name, "what")
    assert rank() == 0
