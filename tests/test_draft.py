"""A draft of version 1.1, which no disk of a user ever sees: what a later minor version may do.

The draft adds an optional member `cost` of the manifest, a kind of record `checkpoint` and an
advisory rule. Its schemas and rules stand in folders of their own, as those of 1.0 do.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import RunWriter, open_run, published, validate
from blackboxml.base import schema
from blackboxml.errors import UnsupportedVersionError
from blackboxml.journal import encode
from blackboxml.repair import repair
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from blackboxml.validation import catalogue, rules, subject
from tests.torture.subjects import read
from tests.validation import runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
BASES = sorted((ROOT / "fixtures" / "bases").iterdir())
ADVICE = "BB-MAN-990"


@pytest.fixture
def draft(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Any]]:
    """Know 1.1 while `with draft():` lasts."""
    root = tmp_path_factory.mktemp("published")
    for path in (ROOT / "schemas" / "1.0").iterdir():
        copy = root / "schemas" / "1.1" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text().replace("/schemas/1.0/", "/schemas/1.1/"))
    edit(root / "schemas/1.1/manifest.schema.json", ["properties"], {"cost": {"type": "number"}})
    kind = {"checkpoint": {"type": "object", "required": ["file"]}}
    edit(root / "schemas/1.1/defs.schema.json", ["$defs", "record", "properties"], kind)
    listed = json.loads((ROOT / "spec" / "1.0" / "rules.json").read_text())
    own = {"id": ADVICE, "slug": "tags-given", "level": "SHOULD", "checked": "schema"}
    other = {"chapter": "manifest", "applies_to": "manifest", "mended": False}
    text = "A writer SHOULD give a run a tag."
    listed["rules"].append(own | other | {"text": text})
    (root / "spec" / "1.1").mkdir(parents=True)
    (root / "spec" / "1.1" / "rules.json").write_text(json.dumps(listed))

    @subject.checks("schema", ADVICE)
    def check_tags(run: subject.Subject) -> None:
        if run.manifest is not None:
            run.look(ADVICE)
            if not run.manifest["tags"]:
                run.report(ADVICE, "no tags", "run.json", severity="warning", pointer="/tags")

    @contextlib.contextmanager
    def known() -> Iterator[None]:
        with published._draft("1.1", root), monkeypatch.context() as patch:
            patch.setattr(rules, "CHECKS", (*rules.CHECKS, check_tags))
            yield

    yield known
    del subject.RULES[check_tags]


def edit(path: Path, keys: list[str], members: dict[str, Any]) -> None:
    """Add members to an object within a JSON file."""
    document = json.loads(path.read_text())
    holder = document
    for key in keys:
        holder = holder[key]
    holder.update(members)
    path.write_text(json.dumps(document, indent=2) + "\n")


def later(path: Path, version: str = "1.1", features: tuple[str, ...] = ()) -> Path:
    """Make a run that is not sealed one of a later version, with all that the draft adds."""
    document = runs.manifest(path)
    form = {"version": version, "features": list(features)}
    document["format"] |= form
    document |= {"cost": 1.5, "tags": ["x"], "extensions": {"org.example.x": {"y": [1]}}}
    document["attempts"][0]["cost"] = 0.5
    (path / "run.json").write_text(json.dumps(document, indent=2) + "\n")
    lines = runs.lines(path)
    lines[0]["format"] |= form
    lines[2]["weight"] = 0.25  # a point with a member of its own
    end = lines.pop()
    lines.append({"seq": end["seq"], "time": end["time"], "checkpoint": {"file": "a.pt"}})
    lines.append(end | {"seq": end["seq"] + 1})
    (path / "metrics.jsonl").write_bytes(b"".join(map(encode, lines)))
    config = json.loads((path / "config.json").read_text())
    config["format"] |= form
    config["source"] = "sweep"
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return path


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A run of version 1.1."""
    return later(runs.record(tmp_path / "newer", sealed=False))


def told(path: Path) -> set[tuple[str, str]]:
    """What a validator finds: rules and severities."""
    return {(problem.rule, problem.severity) for problem in validate(path).problems}


# -- folders


def test_each_version_has_folders_of_its_own(draft) -> None:
    assert published.newest() == published.VERSION == schema.VERSION == "1.0"
    with draft():
        assert published.newest() == "1.1"
        assert published.folder("schemas").name == published.folder("spec").name == "1.1"
        assert "cost" in schema.load("manifest")["properties"]
        assert "cost" not in schema.load("manifest", "1.0")["properties"]
        assert catalogue.rule(ADVICE).slug == "tags-given"
        assert not published.is_newer("1.1")
        assert published.is_newer("1.2")
    assert published.folder("schemas").name == "1.0"
    assert "cost" not in schema.load("manifest")["properties"]
    with pytest.raises(ValueError, match=ADVICE):
        catalogue.rule(ADVICE)


# -- an old run under the newer version


@pytest.mark.parametrize("base", BASES, ids=lambda path: path.name)
def test_an_old_run_is_judged_the_same_by_the_newer_version(draft, base: Path) -> None:
    before = validate(base)
    with draft():
        after = validate(base)
    assert after.verdict == before.verdict
    advice = [problem for problem in after.problems if problem.rule == ADVICE]
    assert [each for each in after.problems if each.rule != ADVICE] == before.problems
    assert len(advice) == (not open_run(base).tags)
    assert {problem.severity for problem in advice} <= {"warning"}
    assert after.outcomes[ADVICE].state == ("failed" if advice else "passed")


def test_what_the_newer_version_says_of_a_member_does_not_bind_an_old_run(
    draft, tmp_path: Path
) -> None:
    path = runs.record(tmp_path / "old", sealed=False)
    runs.change(path, lambda document: document.update(cost="a lot"))
    assert validate(path).verdict == "valid"
    with draft():
        assert validate(path).verdict == "valid"
        runs.change(path, lambda document: document["format"].update(version="1.1"))
        assert ("BB-MAN-001", "error") in told(path)
    assert told(path) >= {("BB-VER-003", "warning")}
    assert validate(path).verdict == "valid"


# -- a newer run under the old version


def test_a_newer_run_is_valid_and_noted_by_the_old_version(draft, newer: Path) -> None:
    report = validate(newer)
    assert report.verdict == "valid"
    found = {(each.rule, each.file, each.pointer) for each in report.problems}
    assert {(file, pointer) for rule, file, pointer in found if rule == "BB-VER-003"} == {
        (name, "/format/version") for name in ("run.json", "metrics.jsonl", "config.json")
    }
    assert ("BB-JNL-011", "metrics.jsonl", None) in found
    with draft():
        assert told(newer) == set()


def test_a_newer_run_reads_as_far_as_it_is_known(newer: Path, tmp_path: Path) -> None:
    reader = open_run(newer)
    assert (reader.status, reader.config["lr"]) == ("completed", 0.1)
    assert reader.polars("train", "all")["seen"].to_list()[:6] == [0, 1, 2, 3, 4, 5]
    noted = [each for each in reader.problems if each.rule == "BB-VER-003"]
    assert [(each.file, each.severity) for each in noted] == [
        ("run.json", "warning"),
        ("metrics.jsonl", "warning"),
    ]
    assert (newer / "run.json").read_bytes().count(b'"1.1"') == 1  # reading migrates nothing


def test_an_unknown_feature_is_refused_by_name(tmp_path: Path) -> None:
    path = later(runs.record(tmp_path / "run", sealed=False), "1.1", ("delta", "org.example.x"))
    with pytest.raises(UnsupportedVersionError, match=r"delta, org\.example\.x"):
        open_run(path)
    report = validate(path)
    assert report.verdict == "unsupported"
    assert "delta, org.example.x" in report.problems[0].message
    for rewrite in (seal, pack, RunWriter.resume, mended):
        with pytest.raises(UnsupportedVersionError, match="delta"):
            rewrite(path)


# -- rewriting


def mended(path: Path) -> Path:
    """Damage a run and let it be repaired."""
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"seq":99')
    output = path.with_name("mended")
    repair(path, output)
    return output


def resumed(path: Path) -> Path:
    writer = RunWriter.resume(path)
    writer.log({"train/loss": 0.5})
    writer.finish()
    return path


def packed_and_back(path: Path) -> Path:
    pack(path)
    assert not (path / "metrics.jsonl").exists()
    kept(path, journal=False)
    seal(path)
    return path


def sealed(path: Path) -> Path:
    seal(path)
    return path


def kept(path: Path, *, journal: bool = True) -> None:
    """Check that nothing is lost of what version 1.0 does not know."""
    document = runs.manifest(path)
    assert document["format"] == {"name": "blackbox-run", "version": "1.1", "features": []}
    assert document["cost"] == 1.5
    assert document["extensions"] == {"org.example.x": {"y": [1]}}
    assert document["attempts"][0]["cost"] == 0.5
    config = json.loads((path / "config.json").read_text())
    assert (config["source"], config["format"]["version"]) == ("sweep", "1.1")
    if journal:
        lines = runs.lines(path)
        assert [each["weight"] for each in lines if "weight" in each] == [0.25]
        assert [each["checkpoint"] for each in lines if "checkpoint" in each] == [{"file": "a.pt"}]


@pytest.mark.parametrize(
    "rewrite", [sealed, packed_and_back, resumed, mended], ids=lambda each: each.__name__
)
def test_what_is_not_known_survives(rewrite, draft, newer: Path) -> None:
    before = read(newer).sessions
    path = rewrite(newer)
    kept(path)
    after = read(path).sessions
    assert {key: after[key] for key in before} == before
    report = validate(path)
    assert report.ok, report.problems
    with draft():
        assert {each.rule for each in validate(path).problems} <= {"BB-SEA-014"}


def test_the_draft_is_gone_with_its_test() -> None:
    assert published.newest() == "1.0"
    assert not (ROOT / "schemas" / "1.1").exists()
