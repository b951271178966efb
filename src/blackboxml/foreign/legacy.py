"""Runs that blackboxml 0.5 wrote: one `run.json` with all steps in it.

It was written by `json.dump(run, file, indent=2)` when the run ended, with NaN and Infinity as they
are, and cut off where a value could not be written. `load_legacy` reads a whole one; `scan_legacy`
goes through one of any size step by step, around damage.
"""

from __future__ import annotations

import codecs
import json
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from blackboxml import manifest as manifests
from blackboxml.base.files import raise_refusal
from blackboxml.errors import ManifestError
from blackboxml.model import LIMITS, MANIFEST

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from typing import IO

MEMBERS: Final = ("name", "tags", "environment", "start", "end", "duration_seconds", "steps")
"""The members in the order of the file; a Keras run has `model` behind `environment`."""

_CHUNK: Final = 2**16
_MOST_CHARACTERS: Final = 2**26
_LONGEST_TOKEN: Final = 16
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_STEPS: Final = re.compile(r'"steps"\s*:\s*\[')
_INDENTED: Final = re.compile(r"\n {4}(?=[^\s\]}])")
_COMPACT: Final = re.compile(r"\}\s*,\s*(?=\{)")
_DECODER: Final = json.JSONDecoder()


def load_legacy(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the `run.json` of a run that 0.5 wrote, or None if it is something else.

    Its members are name, tags, environment, start, end, duration_seconds and steps. Numbers that
    are not finite stand there as NaN and Infinity, which is no JSON, and are read all the same.

    Args:
        path: A run directory, or its `run.json`.

    Raises:
        ManifestError: If it is damaged.
    """
    place = Path(path)
    file = place if place.name == MANIFEST else place / MANIFEST
    try:
        if not stat.S_ISREG(file.lstat().st_mode):  # a link may lead out of the run
            return None
        if file.stat().st_size > LIMITS.manifest_bytes * 16:
            return None
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise_refusal(error)
        return None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file} is damaged: {error}") from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{file} is damaged: {error}", text) from None
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        return None
    if not isinstance(document.get("name"), str) or not isinstance(document.get("start"), str):
        return None
    try:
        manifests.seconds(document["start"])
    except ValueError as error:
        message = f"{file} is damaged: its start is {document['start']!r:.80}: {error}"
        raise ManifestError(message, text) from None
    return document


class Piece(NamedTuple):
    """A part of a file.

    Attributes:
        kind: A member of the document, a step, or damage.
        key: The member's key, the number of the step, or what is wrong.
        value: The value; None for damage.
        offset: Where it begins, in bytes.
    """

    kind: Literal["member", "step", "damage"]
    key: Any
    value: Any
    offset: int


def scan_legacy(path: Path) -> Iterator[Piece]:
    """Yield the members of a document, the steps one by one, and what cannot be read.

    After damage the next whole step is looked for. The memory taken is that of one step.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        yield from _Scanner(file).document()


class _Scanner:
    """A window of text that moves through a file."""

    def __init__(self, file: IO[bytes]) -> None:
        """Begin at the beginning."""
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text = ""
        self._at = 0
        self._base = 0
        self._over = False
        self._skipped = False
        self._number = 0

    def document(self) -> Iterator[Piece]:
        """Yield the pieces of the whole file."""
        if self._peek() != "{":
            yield self._damage("it does not begin with an object")
        else:
            self._at += 1
        while (sign := self._peek()) not in ("}", ""):
            if sign == ",":
                self._at += 1
                continue
            try:
                yield from self._member()
            except (ValueError, RecursionError) as error:
                yield self._damage(str(error))
                if self._find(_STEPS, _INDENTED):
                    yield from self._steps()
        if not sign and not self._skipped:
            yield self._damage("it ends too early")

    def _member(self) -> Iterator[Piece]:
        """Yield a member of the document, or the steps in it.

        Raises:
            ValueError: If it is damaged.
            RecursionError: If it nests too deep.
        """
        offset, key = self._offset(), self._value()
        if self._peek() != ":":
            raise ValueError("a colon is missing")
        self._at += 1
        if self._peek() == "[" and key == "steps":
            self._at += 1
            yield from self._steps()
        else:
            yield Piece("member", key, self._value(), offset)

    def _steps(self) -> Iterator[Piece]:
        """Yield steps up to the end of their list."""
        while True:
            sign = self._peek()
            if sign in ("]", ""):
                self._at += 1
                return
            if sign == ",":
                self._at += 1
                continue
            offset = self._offset()
            try:
                value = self._value()
                sign = self._peek()
                # What is cut at the very end is whole only if it has its bracket.
                if sign not in (",", "]") and (sign or not isinstance(value, (dict, list))):
                    raise ValueError("it has no end")
                yield Piece("step", self._number, value, offset)
            except (ValueError, RecursionError) as error:
                yield self._damage(f"step {self._number}: {error}")
                if not self._find(_INDENTED, _COMPACT):
                    return
            self._number += 1

    def _damage(self, what: str) -> Piece:
        """Return what is wrong here."""
        return Piece("damage", what, None, self._offset())

    def _offset(self) -> int:
        """Return the place in the file, in bytes."""
        return self._base + len(self._text[: self._at].encode("utf-8", "surrogateescape"))

    def _more(self) -> bool:
        """Read on; tell whether there was anything."""
        data = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._base = self._offset()
        self._over = not data
        self._text = self._text[self._at :] + self._decode(data, not data)
        self._at = 0
        return bool(data)

    def _peek(self) -> str:
        """Return the next character that is no space, and go there; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return self._text[self._at : self._at + 1]

    def _value(self) -> Any:
        """Return the value that begins here, and go behind it.

        Raises:
            ValueError: If there is none.
            RecursionError: If it nests too deep.
        """
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                near = error.pos >= len(self._text) - _LONGEST_TOKEN
                short = near or error.msg.startswith("Unterminated string")
                if self._over or not short or len(self._text) - self._at > _MOST_CHARACTERS:
                    raise ValueError(error.msg) from None
            else:
                # A number that ends with the window may go on behind it.
                if self._over or end < len(self._text):
                    self._at = end
                    return value
            self._more()

    def _find(self, *patterns: re.Pattern[str]) -> bool:
        """Go behind the next match of the first pattern that has one; tell whether there is one."""
        self._at += 1
        while True:
            for pattern in patterns:
                if found := pattern.search(self._text, self._at):
                    self._at = found.end()
                    return True
            self._at = max(self._at, len(self._text) - _LONGEST_TOKEN)
            if not self._more():
                self._at = len(self._text)
                self._skipped = True
                return False
