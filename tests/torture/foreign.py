"""Sources of one format that are imported: what is refused, or interrupted, is imported later.

A conversion that says that it is done has made every run, and whole. One that does not may have
left out a part, or a run; the next one makes it, and nothing twice.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Final

from blackboxml import open_run, validate
from blackboxml.collection import find_runs
from blackboxml.conversion import convert
from blackboxml.converters import FORMATS, importer
from blackboxml.errors import ConversionError
from tests.torture import sources

if TYPE_CHECKING:
    from pathlib import Path

    from tests.torture.scenarios import Said

FORMS: Final = tuple(name for name in FORMATS if importer(name) is not None)


def prepare(form: str, folder: Path) -> None:
    """Leave sources of a format, and say what comes of them."""
    for number in range(10):
        made = folder / "made"
        (made / "sources").mkdir(parents=True)
        sources.make(form, made / "sources", random.Random(number))
        place = (made / "sources").rename(folder / "sources")
        shutil.rmtree(made)
        with contextlib.suppress(ConversionError):  # one of the samples is no run by itself
            assert convert(place, folder / "wanted").ok
            (folder / "wanted.json").write_text(json.dumps(contents(folder / "wanted")))
            return
        shutil.rmtree(place)
    message = f"no run comes of the sources of {form}"
    raise AssertionError(message)


def check(folder: Path, said: Said) -> str | None:
    """Check what a conversion that was done has made, and what converting again makes."""
    wanted = Counter(json.loads((folder / "wanted.json").read_text()))
    for again in (False, True):
        if again and not convert(folder / "sources", folder / "runs").ok:
            return "converting again is not done"
        found = Counter(contents(folder / "runs") if (folder / "runs").is_dir() else [])
        if (again or said.done) and found != wanted:
            numbers = f"{found.total()} runs of {wanted.total()}"
            return f"converted again: {again}, {numbers}: {[*found - wanted]}, {[*wanted - found]}"
    return None


def contents(root: Path) -> list[str]:
    """Return what each run says that was imported; its id and the time of that are its own."""
    return [_content(path) for path in find_runs(root)]


def _content(path: Path) -> str:
    reader = open_run(path)
    media = reader.media()
    said = {
        "verdict": validate(path).verdict,
        "manifest": [reader.name, reader.status, reader.tags, repr(reader.config)],
        "records": [(record.step, repr(record.metrics)) for record in reader.records()],
        "media": [(each.kind, each.name, each.step, repr(each.value)) for each in media],
    }
    return json.dumps(said)
