"""Whether what a validator and a reader say of a damaged run may be.

What is claimed, for every mutant:

- `validate` returns a report, or raises `NotARunError`; `open_run` and what it gives raise nothing
  but the errors that their docstrings name. Nothing hangs, nothing ends the process.
- A run that is found valid, without any finding that its base has not, can be read.

And of one that is found so, by kind of run:

- *sealed* and *packed*: nothing has changed. No byte of any file is different, none is missing and
  none was added: each is covered by a digest, and the digests cover each other.
- sealed, and sizes and digests made to fit by whoever changed it (*vouched*): every table, record
  and status that a reader gives is as before. Configuration, tags and environment are covered by
  digests alone; so are the tables of a packed run.
- *not sealed*: every committed line of a journal is as before, but for a number of last lines of a
  session, or all of a rank, that are gone without anything else in the run proving that they were
  there. Those of the last session of the least rank are not, once the run has ended in order. A
  journal that was added holds copies alone, as a continuation may. `config.json`, `tags` and
  `environment` have no checksum before sealing: nothing is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blackboxml.errors import (
    LimitError,
    ManifestError,
    NotARunError,
    TableError,
    UnsupportedVersionError,
)
from tests.torture.subjects import Base, Said, Values, committed, journals, look, read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.torture.mutate import Files

DOCUMENTED = (NotARunError, ManifestError, UnsupportedVersionError, TableError, LimitError)
"""What `open_run` and the methods of a reader say that they raise."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged run.

    Attributes:
        index: Its number.
        base: The run that it was.
        done: What was done to it.
        changed: The files that differ.
        vouched: Whether digests were made to fit.
    """

    index: int
    base: Base
    done: list[str]
    changed: Files
    vouched: bool

    def file(self, name: str) -> bytes | None:
        """Return a file as it is now."""
        return self.changed[name] if name in self.changed else self.base.files.get(name)


def judge(mutant: Mutant, place: Path, *, reading: bool = True) -> str | None:
    """Return what is wrong about a mutant that lies in a directory, or None."""
    said = values = None
    try:
        said = look(place)
    except NotARunError:
        pass
    except Exception as error:  # noqa: BLE001 - it is the finding
        return f"validate raised {type(error).__name__}: {error}"
    if reading:
        try:
            values = read(place)
        except DOCUMENTED:
            pass
        except Exception as error:  # noqa: BLE001 - it is the finding
            return f"the reader raised {type(error).__name__}: {error}"
    if said is None or is_noticed(mutant.base, said):
        return None
    if reading and values is None:
        return "nothing was found, and the reader refuses the run"
    return _unseen(mutant, said, values)


def is_noticed(base: Base, said: Said) -> bool:
    """Tell whether a validator says more of a mutant than of its base."""
    good = {"valid", base.said.verdict}
    return said.verdict not in good or not said.findings <= base.said.findings


def _unseen(mutant: Mutant, said: Said, values: Values | None) -> str | None:
    """Return what a validator should have seen."""
    base = mutant.base
    if not base.sealed:
        return _unseen_lines(mutant, said, values)
    if not mutant.vouched:
        return f"nothing was found, though there are changes in {', '.join(mutant.changed)}"
    if base.packed or values is None:
        return None
    if values.logged != base.values.logged:
        return "nothing was found, though a value that is read has changed"
    return None


def _unseen_lines(mutant: Mutant, said: Said, values: Values | None) -> str | None:
    """Return which line of a run that is not sealed should have been missed."""
    base = mutant.base
    now = {name: mutant.file(name) for name in base.files | mutant.changed}
    cut = False
    for name in journals({**mutant.changed, **base.files}):
        before, after = committed(base.files.get(name)), committed(now[name])
        if not before.startswith(after) and not _is_copy(base, name, after):
            return f"nothing was found, though a line of {name} has changed"
        if now[name] is None and (other := _next(now, name)):
            return f"nothing was found, though {name} is gone before {other}"
        cut = cut or before != after
    if values is None:
        return None
    if not cut:
        same = values.logged == base.values.logged
        return None if same else "nothing was found, though a value that is read has changed"
    for session, points in values.sessions.items():
        if points != base.values.sessions.get(session, [])[: len(points)]:
            return f"nothing was found, though points of session {session} have changed"
    return _unseen_end(base, said, values)


def _is_copy(base: Base, name: str, data: bytes) -> bool:
    """Tell whether a journal that was added writes again what another of its rank has written.

    That is a continuation like any other, as long as no line of it differs.
    """
    places = journals({name: data, **base.files})
    return name not in base.files and any(
        place[0] == places[name][0] and committed(base.files.get(other)).startswith(data)
        for other, place in places.items()
    )


def _next(files: Files, name: str) -> str | None:
    """Return a journal that the rank of another wrote after it."""
    rank, ordinal = journals({name: b""})[name]
    for other, place in journals(files).items():
        if place[0] == rank and place[1] > ordinal and committed(files[other]):
            return other
    return None


def _unseen_end(base: Base, said: Said, values: Values) -> str | None:
    """Return what is gone from a session that has ended in order."""
    if said.verdict != "valid":
        return None
    least = min(rank for _, rank in base.values.sessions)
    last = max(session for session in base.values.sessions if session[1] == least)
    if values.sessions.get(last) != base.values.sessions[last]:
        return f"it is valid, though points of the last session {last} are gone"
    return None
