"""Everything that can go wrong, as one tree.

    BlackboxError
     ├─ NotARunError            (also FileNotFoundError)  no run at that path
     ├─ FormatError             (also ValueError)         files that break the format
     │   ├─ ManifestError       (also json.JSONDecodeError)  run.json is unreadable
     │   ├─ JournalError        a journal that cannot be read at all
     │   ├─ TableError          a sealed table or dataset that cannot be used
     │   ├─ UnsupportedVersionError   written by a newer format, or with an unknown feature
     │   └─ LimitError          larger than a reader accepts
     ├─ UnsafePathError         (also ValueError)         a path that leaves the run
     ├─ MetricError             (also ValueError)         a name or a value that cannot be stored
     ├─ ConfigError             (also ValueError)         a hyper-parameter that cannot be stored
     ├─ RunStateError           (also RuntimeError)       log() before start or after finish
     │   └─ RunIsLiveError      a run that another process is writing
     ├─ WriteError              (also OSError)            the disk refused, and strict=True
     ├─ SealError               sealing or packing could not be completed
     ├─ RepairError             a run that cannot be mended
     ├─ ConversionError         nothing to convert, or no such format
     ├─ QueryError              (also ValueError)         SQL that cannot be answered
     └─ MissingDependencyError  (also ImportError)        an optional package is not installed

A `Problem` is not an error: it is a finding about a run, as data.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

MOST_OF_A_KIND: Final = 1000
"""Findings of one rule in one file that are kept; the rest are counted."""


class BlackboxError(Exception):
    """Base of every error that this library raises on purpose."""


class NotARunError(BlackboxError, FileNotFoundError):
    """There is no run directory at the path."""


class FormatError(BlackboxError, ValueError):
    """A file of the run breaks the format."""


class ManifestError(FormatError, json.JSONDecodeError):
    """`run.json` is damaged and no journal is there to rebuild it from."""

    def __init__(self, message: str, document: str = "", position: int = 0) -> None:
        """Keep the parts that `json.JSONDecodeError` needs to be pickled."""
        json.JSONDecodeError.__init__(self, message, document, position)

    def __str__(self) -> str:
        """Return the message alone: it names the place already."""
        return self.msg


class JournalError(FormatError):
    """A line of a journal is damaged.

    Attributes:
        rule: Identifier of the rule that the line breaks.
    """

    def __init__(self, message: str, rule: str = "BB-JNL-007") -> None:
        """Keep the rule beside the message."""
        super().__init__(message, rule)
        self.rule = rule

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0])


class TableError(FormatError):
    """A sealed table or dataset is missing, damaged or unsafe to open.

    Attributes:
        rule: Identifier of the rule that the file breaks.
    """

    def __init__(self, message: str, rule: str = "BB-TAB-016") -> None:
        """Keep the rule beside the message."""
        super().__init__(message, rule)
        self.rule = rule

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0])


class UnsupportedVersionError(FormatError):
    """The run needs a newer reader: its major version or a feature is unknown."""


class LimitError(FormatError):
    """The run exceeds a limit that protects the reader."""


class UnsafePathError(BlackboxError, ValueError):
    """A path inside the run is absolute, leaves the directory, or follows a link."""


class MetricError(BlackboxError, ValueError):
    """A metric's name, value or step cannot be stored."""


class ConfigError(BlackboxError, ValueError):
    """A hyper-parameter cannot be stored."""


class RunStateError(BlackboxError, RuntimeError):
    """The call does not fit the state of the run."""


class RunIsLiveError(RunStateError):
    """Another process is writing the run."""


class WriteError(BlackboxError, OSError):
    """The file system refused, and the run was opened with `strict=True`."""


class SealError(BlackboxError):
    """Sealing or packing could not be completed; the journal is untouched."""


class RepairError(BlackboxError):
    """A run cannot be mended; it is as it was."""


class ConversionError(BlackboxError):
    """There is nothing that can be converted, or no such format."""


class QueryError(BlackboxError, ValueError):
    """A query over many runs is no SQL, or asks for what is not there."""


class MissingDependencyError(BlackboxError, ImportError):
    """An optional package is not installed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding about one run.

    Attributes:
        rule: Identifier of the rule in the specification, such as `BB-JNL-004`.
        severity: `error` where the run is not valid, `warning` where it is.
        message: What was found, and what was wanted.
        file: Path inside the run, `/`-separated; empty for the run as a whole.
        line: Line number in `file`, from 1.
        offset: Byte offset in `file`, from 0.
        pointer: JSON pointer inside `file`.
        cure: The command or the step that mends it.
    """

    rule: str
    severity: Literal["error", "warning"]
    message: str
    file: str = ""
    line: int | None = None
    offset: int | None = None
    pointer: str | None = None
    cure: str | None = None

    def __str__(self) -> str:
        """Return the finding as one line: place, severity, rule, message."""
        place = self.file or "run"
        if self.line is not None:
            place += f":{self.line}"
        if self.pointer:
            place += f"#{self.pointer}"
        return f"{place}: {self.severity}: {self.rule}: {self.message}"


class Findings(list[Problem]):
    """Problems without repetition, and bounded: a file of damage alone does not fill the memory."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self._seen: set[Problem] = set()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def __contains__(self, problem: object) -> bool:
        """Tell whether a problem was found already, in constant time."""
        return problem in self._seen

    def append(self, problem: Problem) -> None:
        """Keep a problem, unless it is known or there are too many of its kind."""
        if problem in self._seen:
            return
        kind = (problem.file, problem.rule, problem.severity)
        self._counts[kind] += 1
        if self._counts[kind] <= MOST_OF_A_KIND:
            self._seen.add(problem)
            super().append(problem)

    def whole(self) -> list[Problem]:
        """Return the problems, and how many more there are of each kind."""
        more = [
            Problem(
                rule,
                "warning" if severity == "warning" else "error",
                f"this was found {count - MOST_OF_A_KIND:,} times more",
                file,
            )
            for (file, rule, severity), count in self._counts.items()
            if count > MOST_OF_A_KIND
        ]
        return [*self, *more]
