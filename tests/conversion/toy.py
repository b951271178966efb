"""A format for tests: a JSON document with runs; what it cannot do is settled by options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from blackboxml.foreign.interchange import ForeignRun, Medium, Point, Restart, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blackboxml.foreign.interchange import Item, Ledger
    from blackboxml.reader import RunReader

EXTRA = None
SUFFIXES = (".toy",)


def recognise(path: Path) -> bool:
    return path.suffix == ".toy" and path.read_bytes().startswith(b'{"toy"')


def members(path: Path) -> set[str]:
    return set()


def read(path: Path) -> Iterator[ForeignRun]:
    for key, said in json.loads(path.read_text())["toy"].items():
        known = ("name", "tags", "config", "status", "start", "end", "exception", "extra")
        yield ForeignRun(
            source=str(path),
            key=key,
            fingerprint=fingerprint([], json.dumps(said)),
            items=lambda ledger, said=said: items(said, ledger),
            files=[path],
            **{member: said[member] for member in known if member in said},
        )


def items(said: dict[str, Any], ledger: Ledger) -> Iterator[Item]:
    for entry in said["items"]:
        if "restart" in entry:
            yield Restart(entry["restart"])
        elif "damaged" in entry:
            ledger.unreadable("scalar", "the entry is damaged", where="entry")
        elif "kind" in entry:
            yield Medium(**entry)
        elif "explode" in entry:
            raise OSError(5, "the disk is bad")
        else:
            metrics = {
                name: float(value) if isinstance(value, str) else value
                for name, value in entry["metrics"].items()
            }
            yield Point(**(entry | {"metrics": metrics}))


def write(run: RunReader, target: Path, ledger: Ledger, options: Mapping[str, Any]) -> Path:
    entries: list[dict[str, Any]] = []
    for record in run.records():
        metrics: dict[str, Any] = dict(record.metrics)
        if options.get("forget") in metrics:
            del metrics[options["forget"]]
            if "quietly" not in options:
                ledger.lost("scalar", "toys cannot hold it")
        if "round" in options:
            for name, value in metrics.items():
                metrics[name] = round(value, 1)
                if metrics[name] != value:
                    ledger.changed("scalar", "one digit", by=abs(metrics[name] - value))
        metrics = {
            name: str(value) if value - value != 0 else value for name, value in metrics.items()
        }
        entries.append(
            {"step": record.step, "time": record.time, "metrics": metrics, "rank": record.rank}
        )
    for medium in run.media():
        if medium.file is not None:
            ledger.lost("artifact" if medium.kind == "artifact" else "image", "toys are small")
            continue
        entries.append(
            {
                "name": medium.name,
                "kind": medium.kind,
                "step": medium.step,
                "time": medium.time,
                "value": medium.value,
            }
        )
    document = {
        "name": run.name,
        "tags": run.tags,
        "config": run.config,
        "status": run.status,
        "start": run.start.timestamp(),
        "end": run.end.timestamp(),
        "items": entries,
        "extra": {"blackbox_id": run.id},
    }
    target.write_text('{"toy"' + json.dumps({"": {run.id: document}})[3:])
    return target
