"""Sources of one format that are imported: what is refused, or interrupted, is imported later.

A source that was read in part never becomes a run, and one that could not be read is no run that is
up to date. So a conversion that is done once more has everything, and says of it what one that
nothing disturbed says.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import shutil
from typing import TYPE_CHECKING, Any, Final

from blackboxml import open_run, validate
from blackboxml.collection import find_runs
from blackboxml.conversion import convert
from blackboxml.converters import FORMATS, importer
from blackboxml.errors import ConversionError
from tests.torture import sources

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.torture.scenarios import Said, Say

FORMS: Final = tuple(name for name in FORMATS if importer(name) is not None)
DONE: Final = b"D"


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


def act(folder: Path, say: Say) -> None:
    """Convert the sources into run directories."""
    report = convert(folder / "sources", folder / "runs")
    say(DONE if report.ok else b"-")


def check(folder: Path, said: Said) -> str | None:
    """Check that each run that is there is whole, and that converting again makes the others."""
    wanted = json.loads((folder / "wanted.json").read_text())
    for again in (False, True):
        if again and not convert(folder / "sources", folder / "runs").ok:
            return "converting again is not done"
        found = contents(folder / "runs") if (folder / "runs").is_dir() else {}
        for name, content in found.items():
            if content != wanted.get(name):
                return f"{name} has {content}, wanted {wanted.get(name)}"
        if (again or said.done) and found.keys() != wanted.keys():
            return f"there are {sorted(found)} of {sorted(wanted)}, converted again: {again}"
    return None


def contents(root: Path) -> dict[str, Any]:
    """Return what each run says that was imported, by its path; its id and its time are its own."""
    return {str(path.relative_to(root)): _content(path) for path in find_runs(root)}


def _content(path: Path) -> Any:
    report, reader = validate(path), open_run(path)
    said = {
        "verdict": [report.verdict, *map(str, report.problems)],
        "manifest": [reader.name, reader.status, reader.tags, repr(reader.config)],
        "records": [(record.step, repr(record.metrics)) for record in reader.records()],
        "media": [
            (each.kind, each.name, each.step, repr(each.value), each.sha256)
            for each in reader.media()
        ],
    }
    return json.loads(json.dumps(said))


def scenarios() -> dict[str, tuple[Callable[[Path], None], Any, Any]]:
    """Return the three parts of the scenario of each format."""
    return {f"import-{form}": (functools.partial(prepare, form), act, check) for form in FORMS}
