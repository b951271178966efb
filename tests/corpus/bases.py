"""The bases of the corpus: `python -m tests.corpus.bases` writes them anew.

They are committed, and made anew only when the format itself gains something to show: every case
is cut from their bytes. Journals and documents are spelled here, not recorded, so that they hold
what no writer of this version writes: unknown kinds, unknown members, continuation journals.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np

from blackboxml import manifest as manifests
from blackboxml.journal import encode
from blackboxml.seal import seal
from blackboxml.seal.pack import pack

FIXTURES: Final = Path(__file__).parents[2] / "fixtures"
BASES: Final = FIXTURES / "bases"

START: Final = 1795270921.125
WRITER: Final = {"name": "blackboxml", "version": "1.0.0"}
PROCESS: Final = {
    "host": "node7.corpus.invalid",
    "pid": 4711,
    "started": 1234567,
    "boot_id": "0a6f2d0e-6e0f-4a5b-9f6c-1d2e3f405162",
    "pid_namespace": 4026531836,
}
NAN, INFINITY, MINUS_INFINITY = "NaN", "Infinity", "-Infinity"

Document = dict[str, Any]


def run_id(name: str) -> str:
    """Return the id of a base: fixed, and another one for each."""
    return hashlib.sha256(f"blackbox corpus {name}".encode()).hexdigest()[:32]


def process(pid: int = 4711) -> Document:
    """Return a process of a machine that does not exist."""
    return {**PROCESS, "pid": pid}


def header(name: str, *, rank: int = 0, attempt: int = 0, **members: Any) -> Document:
    """Return the header of a journal."""
    said = {
        "first_seq": 0,
        "time": START,
        "process": process(),
        "form": "blackbox-journal",
        "tags": None,
        **members,
    }
    run = {"id": run_id(name), "name": name}
    if said["tags"] is not None:
        run["tags"] = said["tags"]
    return {
        "format": {"name": said["form"], "version": "1.0", "features": []},
        "run": run,
        "rank": rank,
        "attempt": attempt,
        "first_seq": said["first_seq"],
        "time": said["time"],
        "process": said["process"],
        "writer": WRITER,
    }


def records(*found: Document, first: int = 0, start: float = START) -> list[Document]:
    """Give records their `seq`, and a time an eighth of a second after the one before."""
    made = []
    for at, members in enumerate(found, start=first):
        frame: Document = {"seq": at}
        if "step" in members:
            frame["step"] = members["step"]
        frame["time"] = start + (at + 1) / 8
        made.append(frame | members)
    return made


def point(step: int, ranks: Document | None = None, **metrics: Any) -> Document:
    """Return a metrics record; `__` in a keyword stands for `/`."""
    named = {key.replace("__", "/"): value for key, value in metrics.items()}
    return {"step": step, "metrics": named} | ({} if ranks is None else {"ranks": ranks})


def end(status: str = "completed", **members: Any) -> Document:
    """Return an end record."""
    return {"end": {"status": status, **members}}


def attempt(number: int, journal: list[Document], **members: Any) -> Document:
    """Return the entry of an attempt: ended as its journal says, or running."""
    head, last = journal[0], journal[-1]
    entry: Document = {"attempt": number, "start": manifests.timestamp(head["time"])}
    if "end" in last:
        entry["end"] = manifests.timestamp(last["time"])
    entry["status"] = last.get("end", {"status": "running"})["status"]
    if "exception" in last.get("end", {}):
        entry["exception"] = last["end"]["exception"]
    return {**entry, "process": head["process"], **members}


def manifest(name: str, attempts: list[Document], **members: Any) -> Document:
    """Return a manifest whose last attempt says how the run ended."""
    last = attempts[-1]
    document: Document = {
        "format": {"name": "blackbox-run", "version": "1.0", "features": []},
        "id": run_id(name),
        "name": name,
        "tags": [],
        "status": last["status"],
        "start": attempts[0]["start"],
    }
    if "end" in last:
        document["end"] = last["end"]
        lasted = manifests.seconds(last["end"]) - manifests.seconds(document["start"])
        document["duration_seconds"] = lasted
    if "exception" in last:
        document["exception"] = last["exception"]
    document |= {"environment": {}, "writer": WRITER, "generation": 1, "attempts": attempts}
    return document | members


class Base:
    """One base while it is written."""

    def __init__(self, name: str) -> None:
        self.path = BASES / name
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)

    def journal(self, file: str, documents: list[Document], tail: bytes = b"") -> None:
        self.file(file, b"".join(map(encode, documents)) + tail)

    def manifest(self, document: Document) -> None:
        self.file("run.json", manifests.encode(document))

    def file(self, name: str, data: bytes) -> None:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def seal(self) -> None:
        """Seal, at a fixed time."""
        with mock.patch("time.time", return_value=START + 3600):
            seal(self.path)
        self._sign()

    def pack(self) -> None:
        with mock.patch("time.time", return_value=START + 7200):
            pack(self.path)
        self._sign()

    def _sign(self) -> None:
        """Name the same version of the writer whatever this library is."""
        document = json.loads((self.path / "run.json").read_bytes())
        before = manifests.encode(document)
        document["writer"] = WRITER
        data = manifests.encode(document)
        sums = self.path / "SHA256SUMS"
        old, new = (hashlib.sha256(each).hexdigest() for each in (before, data))
        self.file("run.json", data)
        self.file("SHA256SUMS", sums.read_bytes().replace(old.encode(), new.encode()))


def minimal() -> None:
    """One metric, one journal, ended."""
    journal = [
        header("minimal"),
        *records(
            point(0, train__loss=0.5),
            point(1, train__loss=0.25),
            point(2, train__loss=0.125),
            end(),
        ),
    ]
    base = Base("minimal")
    base.journal("metrics.jsonl", journal)
    base.manifest(manifest("minimal", [attempt(0, journal)]))


def sealed() -> None:
    """Two groups, statistics, absent values, a superseded row."""
    statistics = {"train/loss": {"mean": 0.375, "count": 2}}
    journal = [
        header("sealed", tags=["baseline"]),
        *records(
            {"describe": {"metric": "train/loss", "unit": "nat", "description": "cross entropy"}},
            point(0, train__loss=0.5, train__seen=64, lr=0.001),
            point(1, statistics, train__loss=0.25, train__best=True),
            {"rewind": {"step": 1}},
            point(1, statistics, train__loss=0.375, train__seen=128),
            point(2, train__loss=NAN, train__best=False, lr=0.0005),
            end(),
        ),
    ]
    base = Base("sealed")
    base.journal("metrics.jsonl", journal)
    form = {"name": "blackbox-config", "version": "1.0", "features": []}
    config = {"format": form, "config": {"learning_rate": 0.001, "layers": [64, 64]}}
    base.file("config.json", manifests.dump(config))
    base.manifest(manifest("sealed", [attempt(0, journal)], tags=["baseline"]))
    base.seal()


CONFIG: Final = """\
{
  "format": {"name": "blackbox-config", "version": "1.0", "features": [], "later": true},
  "config": {
    "learning_rate": 0.001,
    "one": 1.0,
    "small": 5e-324,
    "minus_zero": -0.0,
    "layers": [64, 64, [], [[0]]],
    "largest": 9223372036854775807,
    "least": -9223372036854775808,
    "odd": 9007199254740993,
    "on": true,
    "off": false,
    "nothing": null,
    "text": "Größe \\u0000 \\ud83d\\ude80 \\"/\\\\",
    "empty": {},
    "10": "ten",
    "9": "nine",
    "nested": {"a/b": {"~": 1}, "": 2, "a$": 3},
    "nan": {"$float": "NaN"},
    "infinity": {"$float": "Infinity"},
    "minus_infinity": {"$float": "-Infinity"},
    "big": {"$int": "123456789012345678901234"},
    "beyond": {"$int": "9223372036854775808"},
    "below": {"$int": "-9223372036854775809"},
    "betas": {"$tuple": [0.9, 0.999, {"$tuple": []}]},
    "data": {"$path": "data/train"},
    "salt": {"$bytes": "AAEC/w=="},
    "no_salt": {"$bytes": ""},
    "class_weight": {"$dict": [[0, 1.0], [{"$tuple": [1, 2]}, 2.5], ["$a", null], ["b", []]]},
    "optimizer": {"$repr": {"type": "torch.optim.Adam", "text": "Adam(lr=0.001)"}}
  },
  "replaced": [
    {"attempt": 0, "time": "2026-11-21T14:22:02.000000+00:00", "values": {"one": {"$tuple": [2]}}}
  ],
  "later": {"$tuple": 1}
}
"""


def _features() -> tuple[list[Document], list[Document]]:
    """Return the journals of two attempts with everything that a record can hold."""
    spread = {"mean": 0.5, "min": 0.25, "max": INFINITY, "std": 0.0, "count": 4, "later": [1]}
    first = [
        {**header("features", tags=["a", "", "Größe"]), "later": {"x": [1.5]}},
        *records(
            {"describe": {"metric": "train/loss", "unit": "nat", "description": "first words"}},
            {"describe": {"metric": "train/loss", "description": "cross entropy", "later": 1}},
            {"describe": {"metric": "never/logged", "unit": "m"}},
            point(-5, train__loss=0.5, train__seen=64, lr=0.001),
            point(-5, train__loss=NAN, train__big=9007199254740993, train__flag=True),
            point(0, train__loss=MINUS_INFINITY, train__big=9223372036854775807, train__zero=-0.0),
            point(1, train__loss=5e-324, train__big=-9223372036854775808, train__flag=False),
            point(1, train__loss=1.7976931348623157e308, train__seen=0.5),
            {"gap": {"records": 12, "reason": "No space left on device"}},
            {"teleport": {"to": 5}},
            {"step": 3, "metrics": {}},
            {"step": 3, "metrics": {"train/seen": 9007199254740993}, "later": [{"a": 1}]},
            {"step": 3, "metrics": {}, "ranks": {"train/only": {"mean": 1, "count": 2}}},
            point(4, {"train/loss": spread}, train__loss=INFINITY, old__x=1),
            {"step": 9, "metrics": {"old/x": 2, "old/mixed": True}},
            {"rewind": {"step": 4}},
            point(
                4,
                {
                    "train/a": {"mean": 1.5, "count": 2},
                    "train/loss": {"mean": 2, "min": NAN},
                },
                **{"train/a": 1, "train/a/mean": 2, "train/mixed": True},
            ),
            {
                "step": 9223372036854775807,
                "metrics": {
                    "train/step": 1.0,
                    "train/step_": 2.0,
                    "train/损失": 3.0,
                    "train/a.mean": 4.0,
                    "train/ x ": 5.0,
                    "train/50%": 6.0,
                    "train/.x": 7.0,
                    "train/mixed": 2,
                },
            },
            {"step": -9223372036854775808, "metrics": {"été/größe": 1.5, "Val/x": 1, "val/x": 2}},
            {"step": 6, "metrics": {"0/1": True, "0/0": False, "n//": 1} | {"x" * 1024: 1}},
        ),
    ]
    del first[-1]["metrics"]["n//"]
    second = [
        header("features", attempt=1, time=START + 60, process=process(4800)),
        *records(
            {"rewind": {"step": 6}},
            point(6, train__loss=0.375, train__flag=True, lr=1),
            end("failed", exception={"type": "ValueError", "message": "bad\nbatch \u0007"}),
            start=START + 60,
        ),
    ]
    second[-1]["end"]["exception"]["traceback"] = "Traceback (most recent call last):\n  …\n"
    return first, second


def features(name: str = "features") -> Base:
    """Everything at once, sealed."""
    first, second = _features()
    base = Base(name)
    base.journal("metrics.jsonl", first)
    base.journal("metrics.1.jsonl", second)
    base.file("config.json", CONFIG.encode())
    base.file("console.log", b"\x1b[31mepoch 1\x1b[0m\n")
    base.file("artifacts/notes.txt", b"a file without a rule\n")
    broken = attempt(0, first, status="interrupted", end=manifests.timestamp(first[-1]["time"]))
    base.manifest(
        manifest(
            "features",
            [broken, attempt(1, second, later={"x": 1})],
            tags=["a", "", "Größe"],
            environment={"hostname": "node7.corpus.invalid", "gpu": None, "free": {"x": [1.5]}},
            lineage={"parent": run_id("minimal")},
            extensions={"org.example.scheduler": {"job": 77123, "queue": "long"}},
            later=[1, 2.5, None],
        )
    )
    base.seal()
    return base


def packed() -> None:
    """The same, packed."""
    features("packed").pack()


def ranks() -> None:
    """Two ranks, three attempts, continuation journals with copies."""
    first = [header("ranks"), *records(*(point(s, train__loss=s / 4) for s in range(5)))]
    copies = [header("ranks", first_seq=3, time=START + 1), *first[4:]]
    more = records(*(point(s, train__loss=s / 4) for s in (5, 6)), first=5)
    second = [
        header("ranks", attempt=1, time=START + 60, process=process(4800)),
        *records(
            {"rewind": {"step": 4}},
            point(4, train__loss=1.5),
            end("interrupted"),
            start=START + 60,
        ),
    ]
    third = [
        header("ranks", attempt=2, time=START + 120, process=process(4900)),
        *records(
            {"rewind": {"step": 6}},
            point(6, {"train/loss": {"mean": 2.5, "count": 2}}, train__loss=2.5, eval__top=1),
            end(),
            start=START + 120,
        ),
    ]
    other = [
        header("ranks", rank=1, process=process(4712)),
        *records(*(point(s, train__loss=s / 2, train__idle=s % 2 == 0) for s in range(3))),
    ]
    late = [
        header("ranks", rank=1, attempt=2, time=START + 121, process=process(4912)),
        *records(
            {"rewind": {"step": 2}},
            point(2, train__loss=8.5, train__idle=False),
            end(),
            start=START + 121,
        ),
    ]
    base = Base("ranks")
    base.journal("metrics.jsonl", first, b'{"seq":5,"step":5,"ti')
    base.journal("metrics.1.jsonl", copies + more)
    base.journal("metrics.2.jsonl", second)
    base.journal("metrics.3.jsonl", third)
    base.journal("metrics.r1.jsonl", other)
    base.journal("metrics.r1.1.jsonl", late)
    killed = manifests.timestamp(more[-1]["time"])
    broken = attempt(0, first, status="interrupted", end=killed)
    base.manifest(manifest("ranks", [broken, attempt(1, second), attempt(2, third)]))
    base.seal()


PIXEL: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)


def media() -> None:
    """A media journal with a value of each kind, and files."""
    journal = [
        header("media"),
        *records(
            point(0, train__loss=0.5),
            {"rewind": {"step": 10}},
            point(10, train__loss=0.25),
            end(),
        ),
    ]
    notes = b"learning rate halved\n"
    sound = [
        header("media", form="blackbox-media"),
        *records(
            {"step": 0, "media": {"name": "notes", "kind": "text", "value": "begun"}},
            {"step": 10, "media": _file("train/sample", "image", "media/sample-10.png", PIXEL)},
            {"rewind": {"step": 10}},
            {"step": 10, "media": _file("train/sample", "image", "media/sample-10_2.png", PIXEL)},
            {"step": 10, "media": _file("notes", "text", "artifacts/notes.txt", notes)},
            {
                "step": 10,
                "media": {
                    "name": "train/weights",
                    "kind": "histogram",
                    "value": {"edges": [-1.0, 0.0, INFINITY], "counts": [12, 20]},
                },
            },
            {
                "step": 10,
                "media": {
                    "name": "eval/errors",
                    "kind": "table",
                    "value": {"columns": ["text", "p"], "rows": [["cat", 0.5], ["dog", NAN]]},
                },
            },
            {"step": 10, "media": {"name": "deploy", "kind": "event", "value": {"to": ["a"]}}},
            {
                "step": 10,
                "media": {"name": "model", "kind": "graph", "value": {"nodes": [], "edges": []}},
            },
            {"gap": {"records": 1, "reason": "No space left on device"}},
        ),
    ]
    base = Base("media")
    base.journal("metrics.jsonl", journal)
    base.journal("media.jsonl", sound)
    base.file("media/sample-10.png", PIXEL)
    base.file("media/sample-10_2.png", PIXEL)
    base.file("artifacts/notes.txt", notes)
    base.manifest(manifest("media", [attempt(0, journal)]))


def _file(name: str, kind: str, path: str, data: bytes) -> Document:
    """Return a `media` member for a file."""
    suffix = {".png": "image/png", ".txt": "text/plain", ".npy": "application/x-npy"}
    return {
        "name": name,
        "kind": kind,
        "file": path,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "media_type": suffix[re.sub(r".*(?=\.)", "", path)],
    }


def series() -> None:
    """Arrays and histograms that stand in a dataset, and some that do not."""
    journal = [
        header("series"),
        *records(
            point(0, train__loss=0.5),
            point(1, train__loss=0.25),
            {"rewind": {"step": 1}},
            point(1, train__loss=0.375),
            point(2, train__loss=0.125),
            end(),
        ),
    ]
    base = Base("series")

    def array(name: str, step: int, values: Any, **more: Any) -> Document:
        number = len(list(base.path.rglob("*.npy")))
        path = f"media/{name.replace('/', '_')}-{step}-{number}.npy"
        data = _npy(values)
        base.file(path, data)
        return {"step": step, "media": {**_file(name, "array", path, data), **more}}

    def histogram(step: int, *counts: int) -> Document:
        value = {"edges": [-1.0, 0.0, 0.5 + step], "counts": list(counts)}
        return {"step": step, "media": {"name": "train/w", "kind": "histogram", "value": value}}

    def draws(step: int, first: float) -> Document:
        values = np.arange(4, dtype=np.float32).reshape(2, 2) + np.float32(first)
        return array("train/draws", step, values, dims=["chain", "parameter"])

    found = [
        header("series", form="blackbox-media"),
        *records(
            draws(0, 0.0),
            histogram(0, 12, 20),
            array("train/mask", 0, np.array([True, False])),
            array("train/growing", 0, np.zeros(1)),
            draws(1, 10.0),
            {"rewind": {"step": 1}},
            draws(1, 20.0),
            array("train/mask", 1, np.array([False, False])),
            array("train/growing", 1, np.zeros(2)),
            draws(2, np.nan),
            histogram(2, 4, 28),
            array("train/mask", 2, np.array([True, True])),
            {"step": 2, "media": {"name": "data", "kind": "artifact", "reference": REFERENCE}},
        ),
    ]
    base.journal("metrics.jsonl", journal)
    base.journal("media.jsonl", found)
    base.manifest(manifest("series", [attempt(0, journal)]))
    base.seal()


REFERENCE: Final = {"uri": "file:///data/train.tar", "bytes": 1048576}


def _npy(values: Any) -> bytes:
    """Return an array as a file of version 1.0."""
    file = io.BytesIO()
    np.lib.format.write_array(file, values, (1, 0), allow_pickle=False)
    return file.getvalue()


def live(name: str = "live", tail: bytes = b"") -> None:
    """No end, and a process that nobody can ask."""
    journal = [
        header(name, tags=["baseline"]),
        *records(
            point(0, train__loss=0.5, train__seen=64),
            point(1, train__loss=0.25, train__seen=128),
            point(2, train__loss=0.125, train__seen=192),
        ),
    ]
    base = Base(name)
    base.journal("metrics.jsonl", journal, tail)
    base.manifest(manifest(name, [attempt(0, journal)], tags=["baseline"], generation=0))


def crashed() -> None:
    """The same, cut within a record."""
    live("crashed", b'{"seq":3,"step":3,"time":1795270921.625,"metrics":{"train/lo' + b"\0" * 16)


ALL: Final = (minimal, sealed, features, ranks, media, series, live, crashed, packed)


def main() -> None:
    """Write all bases."""
    for make in ALL:
        make()


if __name__ == "__main__":
    main()
