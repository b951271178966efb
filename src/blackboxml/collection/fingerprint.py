"""The files of a sealed run as one number: if it is the same again, nothing changed.

This file is the program of a process of its own as well, which looks at many runs while the one
that started it looks at others (see `scout`). So it needs nothing but the standard library.
"""

from __future__ import annotations

import os
import sys
from array import array
from typing import Final

GONE: Final = -1
"""Stands for a run that has not all of these files; no hash is this number."""

END: Final = "\0"
"""Ends a path, which has everything else."""

AT_ONCE: Final = 256
"""For so many runs numbers are told at once."""

_OUTPUT: Final = 1
_MANIFEST: Final = "/run.json"
_CONFIG: Final = "/config.json"
_lstat = os.lstat


def fingerprint(path: str) -> int:
    """Return a number for directory, manifest and configuration of a run as they are now.

    Raises:
        OSError: If one of them is missing, or cannot be looked at.
    """
    d, m, c = _lstat(path), _lstat(path + _MANIFEST), _lstat(path + _CONFIG)
    own = d.st_ino, d.st_mtime_ns, m.st_ino, m.st_size, m.st_mtime_ns
    return hash((*own, c.st_ino, c.st_size, c.st_mtime_ns))


def main() -> None:
    """Tell the numbers of the runs on standard input, from the last one to the first."""
    root, *places = os.fsdecode(sys.stdin.buffer.read()).split(END)
    while places:
        found = array("q")
        for _ in range(min(AT_ONCE, len(places))):
            try:
                found.append(fingerprint(f"{root}/{places.pop()}"))
            except OSError:
                found.append(GONE)
        os.write(_OUTPUT, found)  # few enough for a pipe to take them whole


if __name__ == "__main__":
    main()
