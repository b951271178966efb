"""The code of a run: sources and difference, as artifacts without secrets."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml import Run, open_run, validate
from blackboxml.base.environment import read_git
from blackboxml.collection import find_runs
from blackboxml.companion import snapshot

if TYPE_CHECKING:
    import pytest

SCRIPT = """\
import sys
from blackboxml import Run
import helper  # of this project
TOKEN = "s3cr3t-literal"
with Run("r", log_dir=sys.argv[1], code=True, config={"api_key": "s3cr3t-config"}) as run:
    run.log({"a": helper.value})
"""


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def project(folder: Path, *, repository: bool = True) -> Path:
    code = folder / "project" / "train"
    code.mkdir(parents=True)
    (code / "main.py").write_text(SCRIPT)
    (code / "helper.py").write_text("value = 1\n")
    (code / "never_loaded.py").write_text("value = 2\n")
    if repository:
        git(folder / "project", "init", "-q")
        git(folder / "project", "add", ".")
        git(folder / "project", "commit", "-q", "-m", "m")
        (code / "helper.py").write_text("value = 3\n# by s3cr3t-variable and s3cr3t-config\n \n")
    return code


def train(folder: Path, code: Path) -> dict[str, Any]:
    environment = {
        **os.environ,
        "SOME_TOKEN": "s3cr3t-variable",
        "GIT_CEILING_DIRECTORIES": str(folder),
    }
    subprocess.run(
        [sys.executable, "train/main.py", str(folder / "logs")],
        cwd=code.parent,
        check=True,
        env=environment,
    )
    (path,) = find_runs(folder / "logs")
    reader = open_run(path)
    assert reader.status == "completed"
    assert validate(path).ok
    found = {}
    for medium in reader.media():
        assert medium.kind == "artifact"
        data = (path / str(medium.file)).read_bytes()
        assert medium.sha256 == hashlib.sha256(data).hexdigest()
        assert b"s3cr3t" not in data
        found[medium.name] = (Path(str(medium.file)), data)
    return found


def test_sources_and_difference_are_artifacts_without_secrets(tmp_path: Path) -> None:
    code = project(tmp_path)
    found = train(tmp_path, code)
    assert set(found) == {"code/sources", "code/difference"}
    place, data = found["code/sources"]
    assert (place.parts[0], place.suffix) == ("artifacts", ".zip")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["train/helper.py", "train/main.py"]
        kept = archive.read("train/main.py").decode()
        assert kept == SCRIPT.replace("s3cr3t-literal", "<hidden>").replace(
            '"s3cr3t-config"', '"<hidden>"'
        )
        assert archive.read("train/helper.py") == b"value = 3\n# by <hidden> and <hidden>\n \n"
    place, data = found["code/difference"]
    assert (place.parts[0], place.suffix) == ("artifacts", ".patch")
    git(tmp_path / "project", "checkout", "-q", ".")
    patch = tmp_path / "difference.patch"
    patch.write_bytes(data)
    git(tmp_path / "project", "apply", str(patch))
    assert (code / "helper.py").read_text() == "value = 3\n# by <hidden> and <hidden>\n \n"


def test_without_git_there_are_the_sources(tmp_path: Path) -> None:
    found = train(tmp_path, project(tmp_path, repository=False))
    with zipfile.ZipFile(io.BytesIO(found.pop("code/sources")[1])) as archive:
        assert archive.namelist() == ["helper.py", "main.py"]
    assert not found


def test_it_is_off_by_default(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path) as run:
        pass
    assert list(open_run(run.path).media()) == []
    assert not (run.path / "artifacts").exists()


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = project(tmp_path)
    monkeypatch.setattr(snapshot, "MOST_DIFF_BYTES", 50)
    assert snapshot.difference(str, code, 10) is None
    monkeypatch.setattr(snapshot, "MOST_DIFF_BYTES", 5000)
    assert snapshot.difference(str, code, 10)
    assert read_git(["diff", "HEAD"], code, 0) is None
    program = sys.modules["__main__"]
    monkeypatch.setattr(program, "__file__", str(code / "main.py"), raising=False)
    monkeypatch.setattr(snapshot, "MOST_SOURCE_BYTES", len(SCRIPT) - 1)
    assert snapshot.sources(str, code, 10) == b""
    monkeypatch.setattr(snapshot, "MOST_SOURCE_BYTES", len(SCRIPT))
    assert snapshot.sources(str, code, 10)


def test_bytes_that_are_no_text_stay_as_they_are(tmp_path: Path) -> None:
    code = project(tmp_path)
    (code / "helper.py").write_bytes(b"# caf\xe9\n")
    assert b"+# caf\xe9\n" in (snapshot.difference(str, code, 10) or b"")
