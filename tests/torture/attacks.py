"""Runs and sources that mean harm: each is laid out in a folder, and leads outside or to a trap."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import socket
import sqlite3
import stat
import struct
import unicodedata
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml import Run
from blackboxml.conformance import case
from blackboxml.seal.pack import pack
from tests.torture.sources import _BOMB, TRAP, _Evil

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).resolve().parents[2]
PIXELS: Final = 60_000
"""Width and height of an image that says it is large."""

Attack = "Callable[[Path, Path], None]"


# -- a run to be spoiled


def write_run(place: Path, *, state: str = "sealed") -> None:
    """Write a run of each kind of content: `open` (not sealed), `sealed` or `packed`."""
    import numpy as np

    with Run("victim", log_dir=place.parent / "made", config={"lr": 0.1}, environment=()) as run:
        for step in range(12):
            run.log({"train/loss": step / 3, "eval/ok": True, "seen": step}, step)
        run.log_text("train/text", "a text", step=1)
        run.log_array("train/array", np.arange(6.0), step=1)
        run.log_image("train/image", np.zeros((4, 4, 3), np.uint8), step=1)
        run.log_artifact("weights", _artifact(place.parent))
        run.finish(seal=state != "open")
    if state == "packed":
        pack(run.path)
    shutil.rmtree(place, ignore_errors=True)
    run.path.rename(place)
    shutil.rmtree(place.parent / "made")


def _artifact(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "weights.bin"
    path.write_bytes(bytes(100))
    return path


def _edit(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest."""
    manifest = json.loads((place / "run.json").read_bytes())
    change(manifest)
    (place / "run.json").write_text(json.dumps(manifest), "utf-8")


def _line(document: dict[str, Any]) -> bytes:
    """Return a line of a journal with its checksum."""
    head = json.dumps(document, separators=(",", ":"))[:-1].encode()
    return head + b',"crc":"%08x"}\n' % zlib.crc32(head)


# -- what is no file


def _special(name: str, kind: str, place: Path, outside: Path) -> None:
    """Put something else in the place of a file or folder."""
    target = place / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "socket":
        _bind(target)
    elif kind == "device":
        try:
            os.mknod(target, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except OSError:  # only root may
            target.symlink_to("/dev/zero")
    elif kind == "folder":
        (target / "inside").mkdir(parents=True)
    elif kind == "hard link":
        os.link(outside / "secret", target)
    else:
        leads = {"link": outside / "secret", "link to a folder": outside, "loop": target}
        target.symlink_to(leads[kind])


def _bind(target: Path) -> None:
    """Leave a socket; its path must be short to be bound."""
    here = os.getcwd()
    try:
        os.chdir(target.parent)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(target.name)
    finally:
        os.chdir(here)


FILES: Final = (
    *("run.json", "config.json", "metrics.jsonl", "metrics.1.jsonl", "media.jsonl", "SHA256SUMS"),
    *("train.parquet", "train.h5", "media", "artifacts", "repair", "console.log", "report.md"),
)
KINDS: Final = ("link", "link to a folder", "loop", "pipe", "socket", "device", "folder")


# -- paths that lead out

PATHS: Final = (
    *("../../outside/secret", "{outside}/secret", "..\\..\\outside\\secret", "C:\\secret"),
    *("media/../../../outside/secret", "~/secret", "/proc/self/environ", "a\0b", "", ".", "-rf"),
    *("file:///etc/passwd", "train.parquet/../../../outside/secret", "%2e%2e/outside/secret"),
)


def _table(path: str, manifest: dict[str, Any]) -> None:
    for group in manifest["groups"].values():
        group["table"] = path


def _dataset(path: str, manifest: dict[str, Any]) -> None:
    for group in manifest["groups"].values():
        group["dataset"] = path


def _listed(path: str, manifest: dict[str, Any]) -> None:
    manifest["files"][path] = {"bytes": 33, "sha256": "0" * 64}


def _journal(path: str, manifest: dict[str, Any]) -> None:
    manifest["journals"][0]["file"] = path


def _named(path: str, manifest: dict[str, Any]) -> None:
    """Let what ends up in the names of files lead out."""
    manifest["name"] = path
    manifest["groups"] = {path: next(iter(manifest["groups"].values()))}


FIELDS: Final = {
    "table": _table,
    "dataset": _dataset,
    "files": _listed,
    "journals": _journal,
    "name": _named,
}


def _path(field: str, path: str, place: Path, outside: Path) -> None:
    """Let a member of the manifest that is a path lead out."""
    _edit(place, partial(FIELDS[field], path.format(outside=outside)))


def _medium(path: str, place: Path, outside: Path) -> None:
    """Let a medium be a file elsewhere, an array, a text, an image."""
    journal = place / "media.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    named = {"file": path.format(outside=outside), "bytes": 33}
    journal.write_bytes(b"".join(_relined(line, named) for line in lines))


def _relined(line: bytes, said: dict[str, Any]) -> bytes:
    """Return a line of media that says something else of its file."""
    document = json.loads(line)
    document.pop("crc")
    if "file" in document.get("media", {}):
        document["media"] |= said
    return _line(document)


def _sums(path: str, place: Path, outside: Path) -> None:
    """Let a line of the checksums name a file elsewhere."""
    with (place / "SHA256SUMS").open("ab") as file:
        file.write(f"{'0' * 64}  {path.format(outside=outside)}\n".encode())


# -- names that fall together


def _collide(names: tuple[str, ...], place: Path, _: Path) -> None:
    """Log metrics and groups of names that a file system may not tell apart, after the end."""
    (place / "run.json").unlink()
    lines = (place / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:1]
    for seq, name in enumerate(names):
        lines.append(_line({"seq": seq, "step": seq, "time": 1.5, "metrics": {name: seq}}))
    lines.append(_line({"seq": len(names), "time": 2.0, "end": {"status": "completed"}}))
    (place / "metrics.jsonl").write_bytes(b"".join(lines))


COLLISIONS: Final = (
    ("Train/x", "train/x", "TRAIN/x", "metrics/x", "x"),
    tuple(unicodedata.normalize(form, "é/ä") for form in ("NFC", "NFD")),
    ("../../outside/x", "/etc/x", "./x", "con/x", "nul/x", "aux.h5/x", "run.json/x", "-rf/x"),
    ("config/x", "media/x", "artifacts/x", "SHA256SUMS/x", ".tmp-x/x", "a\u202eb/x", "\x1b[2J/x"),
    (
        "=cmd()/x",
        "<script>/x",
        "%s%n/x",
        "{0.__class__}/x",
        "a\nb/x",
        "\ufeffx/x",
        "x" * 200 + "/x",
    ),
)


# -- bombs


def _json_bomb(name: str, kind: str, place: Path, _: Path) -> None:
    """Put JSON into a document, or into a line of a journal, that is deep, wide or huge."""
    bombs = {
        "deep": "[" * 200_000 + "]" * 200_000,
        "wide": "{" + ",".join(f'"k{number}":{number}' for number in range(400_000)) + "}",
        "number": "1" * 3_000_000,
        "exponent": "1e999999999",
        "empty": "[" + "[]," * 1_500_000 + "[]]",
        "escapes": '"' + "\\ud83d" * 500_000 + '"',
    }
    if name.endswith(".jsonl"):
        head = f'{{"seq":13,"time":1.0,"step":13,"metrics":{{"a":1}},"x":{bombs[kind]}'.encode()
        with (place / name).open("ab") as file:
            file.write(head + b',"crc":"%08x"}\n' % zlib.crc32(head))
    else:
        text = (place / name).read_text("utf-8").rstrip()
        (place / name).write_text(f'{text[:-1]},"x":{bombs[kind]}}}', "utf-8")


def _sparse(name: str, place: Path, _: Path) -> None:
    """Let a file be 5 GiB of nothing."""
    with (place / name).open("ab") as file:
        file.truncate(5 * 2**30)


def parquet_bomb(path: Path) -> None:
    """Write a table of few bytes that is gigabytes in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.array(["x" * 2**20]).dictionary_encode()
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), text.dictionary)
    table = pa.table({"loss": rows})
    pq.write_table(table, path, use_dictionary=True, compression="zstd")


def hdf5_evil(kind: str, path: Path, outside: Path) -> None:
    """Write an HDF5 file that reaches out, or declares more than there is."""
    import h5py

    secret, other = str(outside / "secret"), str(outside / "other.h5")
    virtual = h5py.VirtualLayout((12,), "f8")
    virtual[:] = h5py.VirtualSource(other, "loss", (12,))
    with h5py.File(path, "w", libver="latest") as file:
        file["draw"] = range(12)
        file["draw"].make_scale("draw")
        make: dict[str, Callable[[], Any]] = {
            "external storage": lambda: file.create_dataset(
                "loss", (12,), "f8", external=[(secret, 0, 96)]
            ),
            "virtual": lambda: file.create_virtual_dataset("loss", virtual),
            "external link": lambda: file.__setitem__("loss", h5py.ExternalLink(other, "loss")),
            "soft link": lambda: file.__setitem__("loss", h5py.SoftLink("/loss")),
            "huge": lambda: file.create_dataset("loss", (2**43,), "f8", chunks=(2**20,)),
            "cycle": lambda: file.create_group("a").__setitem__("b", file["/"]),
            "filter": lambda: _filtered(file),
            "strings": lambda: file.create_dataset("loss", (12,), h5py.string_dtype()),
            "references": lambda: file.create_dataset("loss", (12,), h5py.ref_dtype),
        }
        make[kind]()
        with contextlib.suppress(Exception):  # what leads nowhere has no scale
            file["loss"].dims[0].attach_scale(file["draw"])


def _filtered(file: Any) -> None:
    """Make a dataset with a filter that would be loaded from a plugin."""
    import h5py

    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((12,))
    plist.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((12,))
    h5py.h5d.create(file.id, b"loss", h5py.h5t.IEEE_F64LE, space, plist)


HDF5: Final = (
    *("external storage", "virtual", "external link", "soft link", "huge", "cycle", "filter"),
    *("strings", "references"),
)


def _table_of(make: Callable[[Path], None], place: Path, _: Path) -> None:
    make(place / "train.parquet")
    _vouch(place, "train.parquet")


def _dataset_of(kind: str, place: Path, outside: Path) -> None:
    (place / "train.h5").unlink(missing_ok=True)
    hdf5_evil(kind, place / "train.h5", outside)
    _vouch(place, "train.h5")


def _vouch(place: Path, name: str) -> None:
    """Let the manifest say what a file now is, as whoever made it could."""
    import hashlib

    data = (place / name).read_bytes()
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def say(manifest: dict[str, Any]) -> None:
        if "files" in manifest:
            manifest["files"][name] = entry

    _edit(place, say)


def png(width: int, height: int, data: bytes) -> bytes:
    """Return an image that says how large it is."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def npy(declares: str, body: bytes = b"") -> bytes:
    """Return an array file whose header says what it likes."""
    head = declares.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def zipped(size: int) -> bytes:
    """Return an archive of evil names, of pickles, and of much."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for name in (f"../../{TRAP}", f"/{TRAP}", "archive/data.pkl", "_log", "_parameters"):
            file.writestr(name, pickle.dumps(_Evil()))
        file.writestr("config.json", bytes(size))
    return data.getvalue()


CONTENTS: Final[dict[str, Callable[[], bytes]]] = {
    "pickle": lambda: pickle.dumps(_Evil()),
    "array of pickles": lambda: npy(
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps(_Evil())
    ),
    "huge array": lambda: npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }"
    ),
    "code in a header": lambda: npy(f"__import__('os').system('touch {TRAP}')"),
    "image bomb": lambda: png(PIXELS, PIXELS, zlib.compress(bytes(2**26))),
    "zip bomb": lambda: zipped(2**28),
    "yaml that calls": f'a: !!python/object/apply:os.system ["touch {TRAP}"]\n'.encode,
    "yaml bomb": _BOMB.encode,
    "deep yaml": lambda: b"[" * 60_000,
    "svg": lambda: (
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    ),
    "xml entity": lambda: b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "deep json": lambda: b'{"a":' * 100_000,
    "long line": lambda: b"x" * 2**26,
    "many columns": lambda: b",".join(b"c%d" % each for each in range(300_000)) + b"\n" + b"1,\n",
    "long record": lambda: struct.pack("<QI", 2**62, 0) * 100,
}
"""What a file may hold, whatever its name says."""


def _content(kind: str, place: Path, _: Path) -> None:
    """Fill all media and artifacts with something, and vouch for it."""
    data = CONTENTS[kind]()
    for folder in ("media", "artifacts"):
        for path in sorted((place / folder).rglob("*")):
            if path.is_file():
                path.write_bytes(data)
    if not (place / "media.jsonl").exists():
        return
    import hashlib

    said = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    lines = (place / "media.jsonl").read_bytes().splitlines()
    (place / "media.jsonl").write_bytes(b"".join(_relined(line, said) for line in lines))


# -- all of them


def _fixture(found: case.Case, place: Path, _: Path) -> None:
    """Lay out a hostile case of the corpus."""
    shutil.rmtree(place)
    found.build(place)


def run_attacks() -> dict[str, Callable[[Path, Path], None]]:
    """Return what can be done to a run, by name."""
    documents = ("run.json", "config.json", "metrics.jsonl", "media.jsonl")
    bombs = ("deep", "wide", "number", "exponent", "empty", "escapes")
    hostile = case.choose(ROOT / "fixtures", "hostile/*")
    return {
        **{f"corpus: {found.name}": partial(_fixture, found) for found in hostile},
        **{f"{kind} as {name}": partial(_special, name, kind) for name in FILES for kind in KINDS},
        **{f"{path!r} as {f}": partial(_path, f, path) for path in PATHS for f in FIELDS},
        **{f"{path!r} as a medium": partial(_medium, path) for path in PATHS},
        **{f"{path!r} in the checksums": partial(_sums, path) for path in PATHS},
        **{f"names like {each[0]!r:.40}": partial(_collide, each) for each in COLLISIONS},
        **{
            f"{b} JSON in {name}": partial(_json_bomb, name, b) for name in documents for b in bombs
        },
        **{f"5 GiB of {name}": partial(_sparse, name) for name in documents},
        "table bomb": partial(_table_of, parquet_bomb),
        **{f"dataset: {kind}": partial(_dataset_of, kind) for kind in HDF5},
        **{f"media: {kind}": partial(_content, kind) for kind in CONTENTS},
    }


NAMES: Final = (
    *("log.csv", "metrics.csv", "results.csv", "progress.csv", "args.yaml", "hparams.yaml"),
    *("meta.yaml", "metrics.jsonl", "log.jsonl", "result.json", "trainer_state.json", "run.json"),
    *("metrics_0.json", "params.json", "events.out.tfevents.1.host", "table.parquet", "data.nc"),
    *("data.h5", "mlflow.db", "runs.sqlite", "log.pkl", "checkpoint.tar", "checkpoint.zip"),
)
"""Names under which importers look for what they know."""


def _everywhere(data: Callable[[], bytes], place: Path, _: Path) -> None:
    content = data()
    for name in NAMES:
        (place / name).write_bytes(content)


def _special_everywhere(kind: str, place: Path, outside: Path) -> None:
    for name in NAMES:
        _special(name, kind, place, outside)


def _hdf5_source(kind: str, place: Path, outside: Path) -> None:
    for name in ("data.nc", "data.h5", "train.h5"):
        hdf5_evil(kind, place / name, outside)


def _parquet_source(place: Path, _: Path) -> None:
    parquet_bomb(place / "table.parquet")


def _database_source(place: Path, outside: Path) -> None:
    """Make databases whose tables are endless views, and that would attach another."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    for name in ("mlflow.db", "runs.sqlite", "log.db"):
        with contextlib.closing(sqlite3.connect(place / name)) as database:
            for table in ("metrics", "runs", "experiments", "records", "entries", "status"):
                database.execute(f"CREATE VIEW {table} AS {endless}")
            database.execute(f"CREATE TABLE results (a DEFAULT 'ATTACH ''{outside}/secret''')")
            database.commit()


def _mlruns(path: str, place: Path, outside: Path) -> None:
    """Make a store whose entries lead out."""
    run = place / "mlruns" / "7" / ("0" * 32)
    for folder in ("metrics", "params", "tags", "artifacts"):
        (run / folder).mkdir(parents=True)
    leads = path.format(outside=outside).replace("\0", "")
    said = f"artifact_uri: '{leads}'\nlifecycle_stage: active\nexperiment_id: '7'\n"
    (run.parent / "meta.yaml").write_text(f"name: x\nartifact_location: '{leads}'\n{said}")
    rest = "start_time: 1\nend_time: 2\nstatus: 3\nuser_id: a\n"
    (run / "meta.yaml").write_text(f"{said}name: '{leads}'\nrun_id: {'0' * 32}\n{rest}")
    (run / "metrics" / "loss").write_text("1600000000000 0.5 0\n")
    (run / "artifacts" / "out").symlink_to(outside)
    (run / "params" / "link").symlink_to(outside / "secret")


def source_attacks() -> dict[str, Callable[[Path, Path], None]]:
    """Return what can be laid before an importer, by name."""
    made: dict[str, Callable[[Path, Path], None]] = {}
    for kind in ("link", "link to a folder", "loop", "pipe", "socket", "device", "folder"):
        made[f"source: {kind}"] = partial(_special_everywhere, kind)
    for kind, data in CONTENTS.items():
        made[f"source: {kind}"] = partial(_everywhere, data)
    for kind in HDF5:
        made[f"source: {kind} in HDF5"] = partial(_hdf5_source, kind)
    for path in PATHS:
        made[f"source: mlruns that lead to {path!r}"] = partial(_mlruns, path)
    made["source: table bomb"] = _parquet_source
    made["source: endless views"] = _database_source
    return made
