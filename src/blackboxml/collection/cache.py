"""What was read of many runs, in a file that may be deleted at any time.

Strategy: every row says of which files it was read, so that a row is right or is not used, whoever
wrote it. The file is replaced whole, by renaming, so that any number of processes may read and
write; of two that write at once, the later one's rows stay, and others may have to be read again.
It is a ZIP archive, whose checksums tell of damage.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from blackboxml.collection.ledger import Ledger

logger = logging.getLogger("blackboxml")

FILE: Final = ".blackbox-catalogue.zip"
"""The name of the file in the folder of the runs."""

_VERSION: Final = b"blackbox-catalogue 2"
_ABANDONED_SECONDS: Final = 60
"""Nobody writes for so long: whoever began was killed."""

_UNREADABLE: Final = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, EOFError),
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError),
)
"""What a damaged archive, or one of somebody else, may raise."""


class Cache:
    """The file of one folder of runs; without a place to write, nothing is kept."""

    def __init__(self, root: Path) -> None:
        """Find a place: the folder itself, else the user's folder for caches."""
        self._root = root
        self._places = [root / FILE]
        with suppress(RuntimeError):  # a user without a home
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
            self._places.append(Path(home) / "blackboxml" / f"{digest}.zip")

    def load(self) -> Ledger | None:
        """Return what was kept; None where the file is missing or damaged."""
        found = []
        for place in self._places:
            with suppress(OSError):
                status = place.lstat()
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime_ns, place))
        if not found:
            return None
        try:
            with max(found)[1].open("rb") as file, zipfile.ZipFile(file) as archive:
                packed = any(member.compress_type for member in archive.infolist())
                if archive.comment != _VERSION or packed:  # ours is as large as it looks
                    return None
                return Ledger.load({name: archive.read(name) for name in archive.namelist()})
        except _UNREADABLE as error:
            logger.debug("the catalogue of %s is not used: %s", self._root, error)
            return None

    def save(self, ledger: Ledger) -> None:
        """Replace the file; should that fail, the next reader reads the runs again."""
        for place in self._places:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                _replace(place, ledger)
            except OSError as error:
                logger.debug("%s was not written: %s", place, error)
                continue
            return


def _replace(place: Path, ledger: Ledger) -> None:
    """Write a new file beside the old one and rename it; nothing is done while another does.

    Raises:
        OSError: If the file system refuses.
    """
    new = place.with_name(f"{place.name}-new")
    try:
        archive = zipfile.ZipFile(new, "x")
    except FileExistsError:
        with suppress(FileNotFoundError):
            if abs(time.time() - new.stat().st_mtime) > _ABANDONED_SECONDS:
                new.unlink()
        return
    try:
        with archive:
            for name, data in ledger.dump().items():
                archive.writestr(name, data)
            archive.comment = _VERSION
        new.replace(place)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
