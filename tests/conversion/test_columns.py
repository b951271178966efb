"""What comes over column by column is what would come over point by point."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import converters, open_run, validate
from blackboxml.conversion import convert
from blackboxml.journal.metric import Points
from blackboxml.writer.recorder import Recorder
from tests.torture import sources

if TYPE_CHECKING:
    from pathlib import Path

    from blackboxml.conversion import ConversionReport
    from blackboxml.journal.metric import Stretch

SEEDS = {"ezpz": 2}
"""Which of the samples is taken: one with points."""
COLUMNS = {"tensorboard", "mlflow"}
"""The formats that are read column by column."""


def lines(path: Path) -> list[bytes]:
    """The records of the journals: all of a point, of others no time and no checksum."""
    found = []
    for journal in sorted(path.glob("metrics*.jsonl")):
        for line in journal.read_bytes().splitlines()[1:]:
            of_now = b'"metrics"' not in line
            found.append(re.sub(rb'"time":[^,]+,|"crc":"[^"]+"', b"", line) if of_now else line)
    return found


def essence(report: ConversionReport) -> list[Any]:
    """What came of a conversion, but for the ids and the times that are of now."""
    found = []
    for each in report.runs:
        run = open_run(each.target)
        assert [each for each in validate(run.path).problems if each.severity == "error"] == []
        tables = [(name, run.arrow(name, "all").to_pydict()) for name in run.groups]
        counts = [dict(each.came_in), dict(each.went_out), each.remarks]
        found.append((each.key, lines(run.path), repr(tables), run.descriptions, counts))
    return found


@pytest.mark.parametrize("form", converters.FORMATS)
def test_columns_come_over_as_points_do(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    place = sources.make(form, folder, random.Random(SEEDS.get(form, 1)))
    seen: list[Points] = []
    log_points = Recorder.log_points

    def noting(self: Recorder, points: Points) -> Stretch | None:
        seen.append(points)
        return log_points(self, points)

    monkeypatch.setattr(Recorder, "log_points", noting)
    monkeypatch.setattr(Points, "worth", property(lambda _: True))
    at_once = essence(convert(place, tmp_path / "at_once", source_format=form))
    assert at_once
    assert bool(seen) == (form in COLUMNS)
    seen.clear()
    monkeypatch.setattr(Points, "worth", property(lambda _: False))
    assert essence(convert(place, tmp_path / "singly", source_format=form)) == at_once
    assert not seen
