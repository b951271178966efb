"""A slice of `make torture-fuzz` without coverage, on every input that was ever a finding too."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from tests.torture import fuzz

SLICE = 40


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_parser_raises_what_it_says(target: str) -> None:
    found = fuzz.plain(target, 20261121, SLICE)
    assert not found, "\n".join(found)
    assert len(fuzz.seeds(target)) > 1


def test_a_careless_parser_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from blackboxml import journal

    monkeypatch.setattr(journal, "parse", journal.parse)  # and put back afterwards
    target, spoil = fuzz.VARIANTS["careless"]
    spoil()
    assert any("KeyError" in each for each in fuzz.plain(target, 1, SLICE))


def test_what_was_found_is_fed_again() -> None:
    assert fuzz.FOUND.keys() <= fuzz.TARGETS.keys()
    for target, texts in fuzz.FOUND.items():
        assert {base64.b64decode(text) for text in texts} <= set(fuzz.seeds(target))


def test_make_names_every_target() -> None:
    text = (Path(fuzz.ROOT) / "Makefile").read_text("utf-8")
    (named,) = re.findall(r"for target in ([a-z ]+);", text)
    assert named.split() == list(fuzz.TARGETS)
