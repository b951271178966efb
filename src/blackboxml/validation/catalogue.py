"""The rules of the specification, as `spec/1.0/rules.json` lists them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from blackboxml import published

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE: Final = "rules.json"
_ABSOLUTE: Final = frozenset(["MUST", "MUST NOT"])


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the specification.

    Attributes:
        id: Permanent identifier, such as `BB-JNL-004`.
        slug: Its name in a few words, such as `crc-matches`.
        chapter: The chapter it stands in, such as `journal`.
        level: The word of requirement in it.
        applies_to: The thing that has to be so, or the program that has to act so.
        checked: How it is checked; `behaviour` is not to be seen in the files of a run.
        mended: Whether a repairer can mend a run that breaks it.
        text: What it says; steps that it speaks of stand on lines of their own.
    """

    id: str
    slug: str
    chapter: str
    level: Literal["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"]
    applies_to: str
    checked: Literal["schema", "structure", "integrity", "data", "behaviour"]
    mended: bool
    text: str

    @property
    def absolute(self) -> bool:
        """Whether a run that breaks it is not valid; advice may be left."""
        return self.level in _ABSOLUTE


def rules() -> tuple[Rule, ...]:
    """Return every rule, in the order of the chapters and numbers.

    Raises:
        BlackboxError: The installation lacks the catalogue.
    """
    return tuple(_by_id().values())


def rule(name: str) -> Rule:
    """Return the rule of an id.

    Raises:
        ValueError: There is no such rule.
        BlackboxError: The installation lacks the catalogue.
    """
    found = _by_id().get(name)
    if found is None:
        message = f"no rule has the id {name!r:.80}; the specification lists them, as BB-JNL-004"
        raise ValueError(message)
    return found


def _by_id() -> Mapping[str, Rule]:
    """Return the catalogue of the newest version that is known."""
    return _read(published.newest())


@cache
def _read(version: str) -> Mapping[str, Rule]:
    """Return the catalogue of a version, read once."""
    document = json.loads((published.folder("spec", version) / FILE).read_bytes())
    found = [Rule(**members) for members in document["rules"]]
    return MappingProxyType({each.id: each for each in found})
