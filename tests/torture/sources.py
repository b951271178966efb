"""Sources of every format, small and real, and what a hostile or a broken disk makes of them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml import Run
from blackboxml.conversion import convert

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

DATA: Final = Path(__file__).resolve().parents[1] / "converters" / "data"
TRAP: Final = "sprung-by-a-source"
"""The name of a file that no import may make."""
SECRET: Final = b"the-secret-outside-of-the-source"
"""What no import may read."""
_SMALL: Final = 300_000
_RUN: Final = "0123456789abcdef0123456789abcdef"
_BOMB: Final = "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(12)
)


# -- makers


def make(form: str, folder: Path, random: random.Random) -> Path:
    """Make a source of a format in a folder that is there; return its place."""
    if form in _WRITTEN:
        return _WRITTEN[form](folder)
    if (DATA / form).is_dir():
        return _copy(form, folder, random)
    return _export(form, folder)


def _copy(form: str, folder: Path, random: random.Random) -> Path:
    """Copy one of the samples: a folder with files, or a file."""
    files = sorted(
        path
        for path in (DATA / form).rglob("*")
        if path.is_file() and path.stat().st_size < _SMALL and path.name != "expected.json"
    )
    chosen = random.choice(files)
    place = folder / chosen.parent.name
    place.mkdir()
    for path in files:
        if path.parent == chosen.parent:
            shutil.copyfile(path, place / path.name)
    return place


def _export(form: str, folder: Path) -> Path:
    """Export a run of this package."""
    with Run("sample", log_dir=folder.parent / "runs", config={"lr": 0.1}, tags=["t"]) as run:
        for step in range(40):
            run.log({"train/loss": 1 / (step + 1), "seen": step})
        run.log({"ok": True})
    target = folder / {"tensorboard": "logs"}.get(form, f"sample.{form}")
    report = convert(run.path, target, target_format=form)
    assert report.ok, report.to_json()
    return folder


def _ultralytics(folder: Path) -> Path:
    place = folder / "train"
    place.mkdir()
    head = "epoch, train/box_loss, metrics/mAP50(B), lr/pg0\n"
    rows = "".join(f"{n}, {1 / n}, {n / 9}, 0.003\n" for n in range(1, 9))
    (place / "results.csv").write_text(head + rows)
    (place / "args.yaml").write_text("epochs: 8\nlr0: 0.01\n")
    return place


def _mlflow(folder: Path) -> Path:
    run = folder / "mlruns" / "7" / _RUN
    for inner in ("metrics", "params", "tags", "artifacts/plots"):
        (run / inner).mkdir(parents=True)
    said = "lifecycle_stage: active\nexperiment_id: '7'\n"
    (run.parent / "meta.yaml").write_text(f"artifact_location: ''\n{said}name: digits\n")
    (run / "meta.yaml").write_text(
        f"artifact_uri: file:///gone\n{said}name: fox\nrun_id: {_RUN}\nrun_uuid: {_RUN}\n"
        "start_time: 1600000000000\nend_time: 1600000009000\nstatus: 3\nuser_id: ada\n"
    )
    lines = "".join(f"{1600000000000 + n} {1 / (n + 1)} {n}\n" for n in range(40))
    (run / "metrics" / "loss").write_text(lines)
    (run / "params" / "lr").write_text("0.1")
    (run / "artifacts/plots/a.txt").write_text("a")
    uri = "mlruns/7/other/artifacts"
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER, name TEXT);"
            "CREATE TABLE runs (run_uuid TEXT, name TEXT, experiment_id INTEGER, status TEXT,"
            " start_time INTEGER, end_time INTEGER, artifact_uri TEXT);"
            "CREATE TABLE metrics (key TEXT, value FLOAT, timestamp INTEGER, run_uuid TEXT,"
            " step INTEGER, is_nan INTEGER);"
            "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);"
            "INSERT INTO experiments VALUES (1, 'digits');"
            f"INSERT INTO runs VALUES ('other', 'fox', 1, 'FINISHED', 1000, 2000, '{uri}');"
            "INSERT INTO params VALUES ('lr', '0.1', 'other');"
        )
        rows = [("loss", 1 / (n + 1), 1500 + n, "other", n, 0) for n in range(40)]
        database.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
    database.close()
    return folder


_WRITTEN: Final[dict[str, Callable[[Path], Path]]] = {
    "ultralytics": _ultralytics,
    "mlflow": _mlflow,
}


# -- spoiling


class _Evil:
    """What springs a trap where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {TRAP}",)


def spoil(place: Path, outside: Path, random: random.Random) -> list[str]:
    """Spoil a source in one or two ways; return what was done.

    Args:
        place: The source, a folder.
        outside: A folder that is none of the source's, with a file `secret` in it.
        random: What the ways are drawn from.
    """
    done = []
    for _ in range(random.choice((1, 1, 2))):
        files = sorted(
            path for path in place.rglob("*") if path.is_file() and not path.is_symlink()
        )
        if not files:
            break
        path, way = random.choice(files), random.choice(WAYS)
        way(path, outside, random)
        done.append(f"{way.__name__.strip('_')} {path.relative_to(place)}")
    return done


def _truncate(path: Path, _: Path, random: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: random.randrange(len(data) + 1)])


def _flip_bits(path: Path, _: Path, random: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(random.choice((1, 1, 8, 64)) if data else 0):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def _overwrite(path: Path, _: Path, random: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at, size = random.randrange(len(data) + 1), random.choice((1, 8, 512, 4096))
    data[at : at + size] = random.choice((bytes(size), random.randbytes(size), b""))
    path.write_bytes(data)


def _swap(path: Path, _: Path, random: random.Random) -> None:
    data = path.read_bytes()
    a, b, c = sorted(random.randrange(len(data) + 1) for _ in range(3))
    path.write_bytes(data[:a] + data[b:c] + data[a:b] + data[c:])


def _repeat(path: Path, _: Path, random: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data * random.choice((2, 3)))


def _empty(path: Path, _: Path, __: random.Random) -> None:
    path.write_bytes(b"")


def _rename(path: Path, _: Path, random: random.Random) -> None:
    names = ("-rf", "a\nb", "ü" * 60, "metrics.csv", "run.json", "metrics.jsonl", "x.db", "a b;c")
    target = path.with_name(random.choice((*names, "\udcff" + path.name, path.name + "~")))
    if not target.exists():
        path.rename(target)


def _trade(path: Path, _: Path, random: random.Random) -> None:
    """Put the content of another sample under its name."""
    others = sorted(each for each in DATA.rglob("*") if each.is_file())
    small = [each for each in others if each.stat().st_size < _SMALL]
    shutil.copyfile(random.choice(small), path)


def _make_folder(path: Path, _: Path, __: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _make_pipe(path: Path, _: Path, __: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, outside: Path, random: random.Random) -> None:
    target = random.choice((outside / "secret", Path("/dev/zero"), path, path.parent, outside))
    path.unlink()
    path.symlink_to(target)


def _link_beside(path: Path, outside: Path, random: random.Random) -> None:
    target = random.choice((outside / "secret", outside, Path("/"), path.parent))
    beside = path.with_name(f"beside_{path.name}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)


def _pickle(path: Path, _: Path, random: random.Random) -> None:
    head = path.read_bytes()[: random.choice((0, 0, 40))]
    path.write_bytes(head + pickle.dumps({"log": _Evil(), 1: [_Evil()]}, random.randrange(5)))


def _yaml(path: Path, _: Path, random: random.Random) -> None:
    evil = f'a: !!python/object/apply:os.system ["touch {TRAP}"]\n'
    text = random.choice(
        (evil, _BOMB, "[" * 50_000, "a: " * 5000, f"? {'{' * 3000}\n", "&a [*a]\n")
    )
    path.write_text(text)


def _json(path: Path, _: Path, random: random.Random) -> None:
    deep = '{"a":' * 100_000
    huge = f'{{"a": 1{"0" * 6000}, "step": 1e999, "loss": -1e400, "epoch": {2**80}}}\n'
    odd = '{"a\\u0000b": 1, "a": 1, "a": 2, "\\ud800": NaN, "step": true}\n'
    wrong = json.dumps({"log_history": {"a": 1}, "steps": "x", "config": [1], "step": None})
    path.write_text(random.choice((deep, huge * 50, odd * 50, wrong, "[]", "null", '"x"', "1")))


def _zip(path: Path, _: Path, __: random.Random) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in (f"../../{TRAP}", f"/{TRAP}", "_log", "_parameters", "_pkl"):
            file.writestr(name, pickle.dumps(_Evil()) + bytes(2**20))


def _database(path: Path, _: Path, random: random.Random) -> None:
    """Make an SQLite file that is something else, under the names of a tracker's tables."""
    path.unlink()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    names = ("metrics", "runs", "experiments", "records", "entries", "status", "tags", "results")
    with sqlite3.connect(path) as database:
        for name in names:
            what = random.choice(
                (
                    f"CREATE TABLE {name} (run_uuid, key, value BLOB, timestamp, step, name, id)",
                    f"CREATE VIEW {name} AS {endless}",
                    f"CREATE TABLE {name} (experiment_id, run_uuid, status, name, uuid, time)",
                )
            )
            database.execute(what)
            if what.startswith("CREATE TABLE"):
                count = what.count(",") + 1
                row = [random.choice((b"\xff\0", -1, 2**62, "../..", None, 1e308))] * count
                database.execute(f"INSERT INTO {name} VALUES ({','.join('?' * count)})", row)
    database.close()


def _lead_out(path: Path, outside: Path, random: random.Random) -> None:
    """Let texts name a place outside."""
    data = path.read_bytes()
    places = (f"../../../{TRAP}", str(outside / "secret"), f"{outside}/{TRAP}", "..", "/etc/passwd")
    evil = random.choice(places).encode()
    parts = data.split(b'"')
    if len(parts) > 2:
        for _ in range(random.choice((1, 5))):
            parts[random.randrange(1, len(parts), 2)] = evil
        path.write_bytes(b'"'.join(parts))
    else:
        words = data.split(b" ")
        words[random.randrange(len(words))] = evil
        path.write_bytes(b" ".join(words))


WAYS: Final = (
    *(_truncate, _flip_bits, _flip_bits, _overwrite, _swap, _repeat, _empty, _rename, _trade),
    *(_make_folder, _make_pipe, _link, _link_beside, _pickle, _yaml, _json, _zip, _database),
    _lead_out,
)
"""How a source is spoiled; the more often, the more there is to it."""
