"""What ezpz leaves behind: History's JSON Lines, HDF5 and CSV, and what its CSV tracker writes.

`History.update` appends a line for each rank to `<run_id>.jsonl`, with statistics across ranks on
rank 0, and without the step; `finalize` writes `<group>_dataset.h5` (float32, no coordinates),
tables, plots and `report.md`. `CSVBackend` writes `metrics.csv`, with the step, and `config.json`
(https://github.com/saforem2/ezpz, src/ezpz/history.py and src/ezpz/tracker.py). The numbers come
from the first there is of JSON Lines, `metrics.csv`, HDF5 and tables; the other files are kept as
they are, and the steps of `metrics.csv` are taken where its rows agree with the lines.
"""

from __future__ import annotations

import csv
import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.converters.ezpz.dataset import is_dataset, read_dataset
from blackboxml.errors import FormatError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import (
    ForeignRun,
    Medium,
    Point,
    fingerprint,
    is_plain,
    open_plain,
)
from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blackboxml.foreign.interchange import Item, Kind, Ledger
    from blackboxml.model import Number

EXTRA: Final = None

_METRICS: Final = "metrics.csv"
_CONFIG: Final = "config.json"
_REPORT: Final = "report.md"
_INFO: Final = "run_info.json"
_FOLDERS: Final = ("assets", "plots")
_STATISTICS: Final = ("mean", "max", "min", "std")
_START: Final = re.compile(r"\d{8}-\d{6}")
_ENTRY: Final = re.compile(r"- \*\*(.+?)\*\*: (.*)")
_OBJECT: Final = re.compile(r'\{"timestamp"')
_INTEGER: Final = re.compile(r"[+-]?\d{1,19}")
_LINE: Final = 2**26
_LAST_TIME: Final = 1e15
_SMALL: Final = 16 * 2**20
_MOST_ROWS: Final = 2**20
_MOST_FILES: Final = 10_000
_DECODER: Final = json.JSONDecoder()
_TYPES: Final[dict[str, tuple[Kind, str]]] = {
    ".csv": ("table", "text/csv"),
    ".h5": ("artifact", "application/x-hdf5"),
    ".json": ("artifact", "application/json"),
    ".md": ("text", "text/markdown"),
    ".pdf": ("figure", "application/pdf"),
    ".png": ("figure", "image/png"),
    ".svg": ("figure", "image/svg+xml"),
    ".txt": ("text", "text/plain"),
}
_NO_STEP: Final = "the place among the updates of its rank is taken for a step that is not said"


def recognise(path: Path) -> bool:
    """Tell whether a file is one of ezpz's, or a folder has some of them."""
    try:
        if path.is_dir():
            return _has_some(path, path.stat().st_mtime_ns)
        if path.suffix == ".jsonl":
            return _is_history(path)
        if path.suffix == ".csv":
            return path.is_file() and _has_some(path.parent, path.parent.stat().st_mtime_ns)
        return is_dataset(path)
    except OSError as error:
        raise_refusal(error)
        return False


@lru_cache(maxsize=16)
def _has_some(folder: Path, changed: int) -> bool:
    """Tell whether a folder has files of ezpz; asked for each of its tables, and found once."""
    del changed
    return bool(_lines(folder) or _rows(folder))


def members(path: Path) -> set[str]:
    """Return the files and folders that ezpz writes."""
    names = {each.name for each in _lines(path)} | set(_FOLDERS)
    names |= {_CONFIG, _REPORT, _INFO}
    return names | {each.name for each in _files(path, ".csv", "_dataset.h5")}


def _files(folder: Path, *endings: str) -> list[Path]:
    """Return the files of a folder with these endings, by name; links are none."""
    return sorted(
        each for each in folder.iterdir() if each.name.endswith(endings) and is_plain(each)
    )


def _lines(folder: Path) -> list[Path]:
    """Return the JSON Lines of a folder."""
    return [each for each in _files(folder, ".jsonl") if _is_history(each)]


def _rows(folder: Path) -> list[Path]:
    """Return what has the numbers where there are no JSON Lines: one kind of file."""
    metrics = folder / _METRICS
    ours = _configuration(folder) is not None or (folder / _REPORT).exists()
    lightning = (folder / "hparams.yaml").exists()
    if ours and not lightning and is_plain(metrics):
        return [metrics]
    datasets = [each for each in _files(folder, "_dataset.h5") if is_dataset(each)]
    return datasets or _files(folder, "_dataset.csv")


def _is_history(path: Path) -> bool:
    """Tell whether the first line of a file is one of History's."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LINE)
        record = json.loads(line)
    except (OSError, ValueError, RecursionError) as error:
        raise_refusal(error)
        return False
    return (
        isinstance(record, dict)
        and isinstance(record.get("metrics"), dict)
        and isinstance(record.get("rank"), int)
        and "timestamp" in record
    )


def _configuration(folder: Path) -> dict[str, Any] | None:
    """Return what `config.json` says, None if it is not there or something else."""
    path = folder / _CONFIG
    try:
        if path.is_symlink() or path.stat().st_size > _SMALL:
            return None
        with open_plain(path) as file:
            found = json.loads(file.read())
    except (OSError, ValueError, RecursionError) as error:
        raise_refusal(error)
        return None
    return found if isinstance(found, dict) and "format" not in found else None


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the runs of a folder or a file.

    Raises:
        FormatError: If there are none.
        OSError: If it cannot be read.
    """
    if not path.is_dir():
        yield _run([path], "", [], path)
        return
    lines = _lines(path)
    if len(lines) > 1:
        for file in lines:
            yield _run([file], file.name, [], path)
        return
    sources = lines or _rows(path)
    if not sources:
        raise FormatError(f"{path} has nothing of ezpz")
    yield _run(sources, "", _others(path, sources), path)


def _others(folder: Path, sources: list[Path]) -> list[Path]:
    """Return the files that come with those that have the numbers."""
    found = _files(folder, ".csv", "_dataset.h5", _REPORT, _CONFIG, _INFO)
    for name in _FOLDERS:
        below = folder / name
        if below.is_dir() and not below.is_symlink():
            found += sorted(each for each in below.rglob("*") if each.is_file())
    return [each for each in found if each not in sources][:_MOST_FILES]


def _run(sources: list[Path], key: str, others: list[Path], place: Path) -> ForeignRun:
    """Return the run whose numbers are in some files."""
    stem = sources[0].stem
    named = _START.fullmatch(stem)
    start = None
    if named is not None:
        with suppress(ValueError):
            start = datetime.strptime(stem, "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
    folder = sources[0].parent
    tracked = others or sources[0].name == _METRICS
    run = ForeignRun(
        source=str(place if not key else sources[0]),
        key=key,
        fingerprint=fingerprint([*sources, *others], *(each.name for each in others)),
        name=stem if named else (folder.name if place.is_dir() else stem) or "ezpz",
        items=lambda ledger: _items(sources, others, folder, ledger),
        config=(_configuration(folder) or {}) if tracked else {},
        start=start,
        files=[*sources, *others],
    )
    plain = {path for path in others if not path.is_symlink()}
    if folder / _REPORT in plain:
        run.environment = _environment(folder / _REPORT)
    if folder / _INFO in plain:
        info = foreign.parse((folder / _INFO).read_text("utf-8", "replace"))
        run.extra["run_info"] = foreign.to_tree(info)
    return run


def _environment(report: Path) -> dict[str, Any]:
    """Return what a report says of the environment, by section, and the versions in it."""
    found: dict[str, Any] = {}
    section, inside = "", False
    with report.open(encoding="utf-8", errors="replace") as file:
        for line in islice(file, 10_000):
            if line.startswith("## "):
                inside = line.strip() == "## Environment"
            elif inside and line.startswith("### "):
                section = line[4:].strip()
            elif inside and (entry := _ENTRY.match(line.strip())):
                found.setdefault(section, {})[entry[1]] = entry[2]
    known = {
        "hostname": found.get("Distributed", {}).get("HOSTNAME"),
        "python": found.get("Python", {}).get("Version"),
        "torch": found.get("Torch", {}).get("Version"),
    }
    return {key: value for key, value in known.items() if value} | found


def _items(sources: list[Path], others: list[Path], folder: Path, ledger: Ledger) -> Iterator[Item]:
    """Yield what was logged, then the files that come with it."""
    name = foreign.Names(ledger)
    last = 0
    for source in sources:
        if source.suffix == ".jsonl":
            metrics = folder / _METRICS
            steps = _aligned(source, metrics) if metrics in others else []
            items = _History(source, name, ledger).items(steps)
        elif source.suffix == ".csv":
            items = _read_rows(source, name, ledger)
        else:
            items = read_dataset(source, name, ledger)
        for item in items:
            last = max(last, item.step) if isinstance(item, Point | Medium) else last
            yield item
    for path in others:
        if path == folder / _CONFIG and _configuration(folder) is not None:
            continue
        if path.is_symlink():
            ledger.lost("artifact", "a link is not followed", where=path.name)
            continue
        ledger.made("step", "a file that was written for the whole run stands at its last step")
        kind, media_type = _TYPES.get(path.suffix, ("artifact", "application/octet-stream"))
        yield Medium(
            name(path.relative_to(folder).as_posix()),
            kind,
            last,
            None,
            path=path,
            media_type=media_type,
        )


# ---- JSON Lines --------------------------------------------------------------------------------


def _records(path: Path, lost: Callable[[int, str], None]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file; of a line that two ranks wrote at once, those that are whole."""
    offset = 0
    with path.open("rb") as file:
        while line := file.readline(_LINE):
            text = line.decode(errors="replace").rstrip()
            at = 0
            while at < len(text):
                try:
                    record, end = _DECODER.raw_decode(text, at)
                    _check(record)
                    yield record
                except (ValueError, RecursionError) as error:
                    lost(offset + len(text[:at].encode()), str(error))
                    following = _OBJECT.search(text, at + 1)
                    end = following.start() if following else len(text)
                at = end
            offset += len(line)


def _check(record: Any) -> None:
    """Refuse what is no update.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(record, dict) or not isinstance(record.get("metrics"), dict):
        raise ValueError("it is no update of a history")  # noqa: TRY004 - of a file


class _History:
    """Makes items of the lines of one file."""

    def __init__(self, path: Path, name: foreign.Names, ledger: Ledger) -> None:
        """Begin."""
        self._path = path
        self._name = name
        self._ledger = ledger

    def items(self, steps: list[int | None]) -> Iterator[Item]:
        """Yield points and media; the steps are those of the updates, where they are known."""

        def lost(offset: int, why: str) -> None:
            where = f"{self._path.name}: byte {offset}: {why}"
            self._ledger.unreadable("scalar", "a line that is damaged", where=where)

        counts: dict[int, int] = {}
        made = 0
        for record in _records(self._path, lost):
            rank = record.get("rank")
            if type(rank) is not int or not 0 <= rank < 2**31:
                self._ledger.unreadable("field", "a rank that is no number", where=repr(rank)[:80])
                rank = 0
            count = counts[rank] = counts.get(rank, -1) + 1
            step = record.get("step")
            if type(step) is not int or not INT64_MIN <= step <= INT64_MAX:
                step = steps[count] if count < len(steps) else None
            if step is None:
                step, made = count, made + 1
            yield from self._update(record, step, rank)
        if made:
            self._ledger.made("step", _NO_STEP, made)

    def _update(self, record: dict[str, Any], step: int, rank: int) -> Iterator[Item]:
        """Yield what one update logged."""
        time = record.get("timestamp")
        # Also false for NaN.
        time = float(time) if isinstance(time, int | float) and abs(time) < _LAST_TIME else None
        metrics, ranks = _split(record["metrics"], record.get("aggregated"))
        values = {key: _array(value) for key, value in metrics.items()}
        numbers, media = foreign.separate(values, self._name, step, time, self._ledger)
        for medium in media:
            medium.rank = rank
        if numbers:
            statistics = {self._name(key): each for key, each in ranks.items()} or None
            yield Point(step, time, numbers, statistics, rank)
        yield from media


def _split(
    metrics: dict[str, Any], aggregated: Any
) -> tuple[dict[str, Any], dict[str, dict[str, Number]]]:
    """Return the metrics of an update, and the statistics across ranks that stand among them."""
    ranks: dict[str, dict[str, Number]] = {}
    taken = set()
    for key, value in aggregated.items() if isinstance(aggregated, dict) else ():
        base, _, statistic = key.rpartition("/")
        number = foreign.number(value)
        if statistic not in _STATISTICS or base not in metrics or number is None:
            continue
        own = metrics.get(key, value)
        if own == value or (own != own and value != value):  # noqa: PLR0124 - NaN
            ranks.setdefault(base, {})[statistic] = number
            taken.add(key)
    if foreign.number(next((metrics[base] for base in ranks), None)) is None:
        return metrics, {}
    return {key: value for key, value in metrics.items() if key not in taken}, ranks


def _array(value: Any) -> Any:
    """Return a list of numbers as an array, which is what was logged; anything else as it is."""
    if not isinstance(value, list) or not value:
        return value
    import numpy as np

    try:
        array = np.array(value)
    except ValueError:
        return value
    return array if array.dtype.kind in "bif" and array.size else value


# ---- CSV ---------------------------------------------------------------------------------------


def _cells(path: Path, lost: Callable[[int, str], None]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table that are not empty, without their empty cells."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file)
        header: list[str] | None = None
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lost(reader.line_num, str(error))
                continue
            if header is None:
                header = row
                continue
            if len(row) != len(header):
                lost(reader.line_num, f"{len(row)} cells, wanted {len(header)}")
            yield {key: cell for key, cell in zip(header, row, strict=False) if cell != ""}


def _parse(cell: str) -> Any:
    """Return the value that a cell spells."""
    if cell in ("True", "False"):
        return cell == "True"
    if _INTEGER.fullmatch(cell):
        number = int(cell)
        return number if INT64_MIN <= number <= INT64_MAX else float(cell)
    try:
        return float(cell)
    except ValueError:
        found = foreign.parse(cell) if cell[:1] in ("[", "{") else None
        return cell if found is None else _array(found)


def _read_rows(path: Path, name: foreign.Names, ledger: Ledger) -> Iterator[Item]:
    """Yield the rows of a table as points."""

    def lost(line: int, why: str) -> None:
        where = f"{path.name}: line {line}: {why}"
        ledger.unreadable("scalar", "a row that is damaged", where=where)

    made = 0
    for index, cells in enumerate(_cells(path, lost)):
        values = {key: _parse(cell) for key, cell in cells.items()}
        step = values.pop("step", None)
        if type(step) is not int:
            if step is not None:
                values["step"] = step
            step, made = index, made + 1
        found = {
            key: value
            for key, value in values.items()
            if (base := key.rpartition("/")[0])
            and all(f"{base}/{each}" in values for each in _STATISTICS)
            and key.rpartition("/")[2] in _STATISTICS
        }
        metrics, ranks = _split(values, found)
        numbers, media = foreign.separate(metrics, name, step, None, ledger)
        if numbers:
            yield Point(step, None, numbers, {name(key): of for key, of in ranks.items()} or None)
        yield from media
    if made:
        ledger.made("step", _NO_STEP, made)


def _aligned(lines: Path, metrics: Path) -> list[int | None]:
    """Return the steps of `metrics.csv`, if its rows are the updates of rank 0 one by one."""
    steps: list[int | None] = []
    rows = _cells(metrics, lambda *_: None)
    for record in _records(lines, lambda *_: None):
        if record.get("rank") != 0:
            continue
        row = next(rows, None)
        if row is None or len(steps) >= _MOST_ROWS or "step" in record["metrics"]:
            return []
        for key, value in record["metrics"].items():
            number = foreign.number(value)
            said = _parse(row.get(key, ""))
            if number is not None and said != number and said == said:  # noqa: PLR0124 - NaN
                return []
        step = _parse(row.get("step", ""))
        steps.append(step if type(step) is int else None)
    return steps if next(rows, None) is None else []
