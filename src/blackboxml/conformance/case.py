"""Cases of the corpus: what they say, and how their run is built."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

CASE: Final = "case.json"
FOLDERS: Final = ("valid", "warn", "invalid", "torn", "future", "hostile")


class CorpusError(Exception):
    """A corpus, or one of its cases, is not what it has to be."""


class UnsuitedSystemError(Exception):
    """This system has no such thing as a case needs."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        corpus: The folder with `bases` and `cases`.
        name: Folder and name, such as `invalid/crc-differs`.
        document: Its `case.json`.
    """

    corpus: Path
    name: str
    document: dict[str, Any]

    @property
    def rule(self) -> str:
        """The rule it is about."""
        return str(self.document["rule"])

    @property
    def expect(self) -> dict[str, Any]:
        """What has to come out."""
        return dict(self.document["expect"])

    @property
    def operations(self) -> list[Any]:
        """The operations with an expectation."""
        named = {"read": "read", "validate": "verdict"}
        return [operation for operation, member in named.items() if member in self.expect]

    @property
    def base(self) -> Path:
        """The run that it is made from."""
        return self.corpus / "bases" / str(self.document["base"])

    @property
    def files(self) -> Path:
        """The files that differ from the base."""
        return self.corpus / "cases" / self.name / "files"

    @cached_property
    def overlay(self) -> dict[str, Any]:
        """What is done to the base."""
        return dict(self.document["overlay"])

    def wants(self, operation: str) -> set[str]:
        """Return the claims without which an operation is not asked for."""
        if operation != "read":
            return {operation}
        return {operation, *self.document.get("needs", [])}

    def build(self, place: Path) -> None:
        """Build the run in a directory that is not there yet.

        Raises:
            UnsuitedSystemError: If the system has no links or no pipes.
            CorpusError: If a generated file is not what it has to be.
        """
        shutil.copytree(self.base, place)
        for name in self.overlay.get("remove", []):
            target = _inside(place, name)
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        for name in self.overlay.get("write", []):
            _put(_inside(place, name), (self.files / name).read_bytes())
        for entry in self.overlay.get("generate", []):
            _put(_inside(place, entry["path"]), self._generate(entry))
        for entry in self.overlay.get("create", []):
            _create(_inside(place, entry["path"]), entry)

    def _generate(self, entry: dict[str, Any]) -> bytes:
        """Return the content of a file that is not kept."""
        data = b"".join(self._part(part) for part in entry["parts"])
        found = len(data), hashlib.sha256(data).hexdigest()
        if found != (entry["bytes"], entry["sha256"]):
            raise CorpusError(f"{self.name}: {entry['path']} came out as {found}")
        return data

    def _part(self, part: dict[str, Any]) -> bytes:
        """Return one part of a generated file."""
        if "from" in part:
            return _inside(self.base, part["from"]).read_bytes()[part["start"] : part["end"]]
        unit = bytes.fromhex(part["hex"]) if "hex" in part else str(part["text"]).encode()
        return unit * int(part.get("repeat", 1))


def load(corpus: Path) -> list[Case]:
    """Return all cases of a corpus, by name.

    Raises:
        CorpusError: If there is none, or one cannot be read.
    """
    found = list(_read(corpus))
    if not found:
        raise CorpusError(f"{corpus} has no cases/<folder>/<name>/{CASE}")
    return found


def choose(corpus: Path, only: str = "*") -> list[Case]:
    """Return the cases of a corpus whose name fits a pattern.

    Raises:
        CorpusError: If there is none.
    """
    found = [case for case in load(corpus) if fnmatch.fnmatchcase(case.name, only)]
    if not found:
        raise CorpusError(f"{corpus} has no case {only!r}")
    return found


def _read(corpus: Path) -> Iterator[Case]:
    """Yield the cases by name."""
    for file in sorted((corpus / "cases").glob(f"*/*/{CASE}")):
        name = str(PurePosixPath(*file.parent.parts[-2:]))
        try:
            document = json.loads(file.read_bytes())
            case = Case(corpus, name, document)
            _ = case.rule, case.overlay, case.operations
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError(f"{file}: {error!r}") from None
        if not case.base.is_dir():
            raise CorpusError(f"{file}: there is no base {case.base.name!r}")
        yield case


def _inside(place: Path, name: str) -> Path:
    """Return a path below a directory; a corpus of others does not lead out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise CorpusError(f"{name!r} leads out of the run")
    return place / path


def _put(target: Path, data: bytes) -> None:
    """Write a file, and the folders on the way to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _create(target: Path, entry: dict[str, Any]) -> None:
    """Make what is no file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    kind = entry["type"]
    try:
        if kind == "symlink":
            target.symlink_to(entry["target"])
        elif kind == "fifo":
            os.mkfifo(target)
        elif kind == "directory":
            target.mkdir()
        else:
            raise CorpusError(f"{kind!r} is no type of entry")
    except (AttributeError, NotImplementedError, OSError) as error:
        raise UnsuitedSystemError(f"a {kind} cannot be made here: {error}") from None
