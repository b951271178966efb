"""The environment is found without importing frameworks, and without secrets."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from blackboxml.base.environment import FIELDS, capture, capture_git

if TYPE_CHECKING:
    from pathlib import Path


def git(directory: Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", "-C", directory, *identity, *arguments],
        env=clean | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    # A repository that happens to hold the temporary directory is none of these tests' business.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet")
    (work / "train.py").write_text("pass\n")
    git(work, "add", "train.py")
    git(work, "commit", "--quiet", "-m", "first")
    return work


def fake_program(directory: Path, name: str, script: str) -> None:
    directory.mkdir()
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def test_everything_is_captured_unless_told_otherwise() -> None:
    found = capture()
    assert set(found) == set(FIELDS) - {"git_commit", "git_dirty"}
    assert found["python"] == platform.python_version()
    assert found["hostname"] == socket.gethostname()
    assert found["cpu_count"] == os.cpu_count()
    assert platform.system() in found["platform"]
    json.dumps(found)


def test_versions_are_those_of_the_installed_packages() -> None:
    found = capture()
    assert found["torch"] == version("torch")
    assert found["tensorflow"] == version("tensorflow")
    names = ("jax", "keras", "lightning", "numpy", "scikit-learn", "transformers")
    installed = {name: version(name) for name in names}
    assert found["packages"] == {name: v for name, v in installed.items() if v is not None}


def test_versions_are_read_from_the_names_that_installers_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (
        first / "torch-2.13.0+cu130.dist-info",
        first / "tensorflow_cpu-2.20.0.dist-info",
        first / "Scikit_Learn-1.9.1-py3.11.egg-info",
        first / "~umpy-1.0.dist-info",
        second / "torch-1.0.dist-info",
        second / "numpy-2.4.6.dist-info",
        second / "keras_core-1.0.dist-info",
        second / "jax.egg-info",
    ):
        directory.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "gone.zip"), str(first), str(second), 5])
    assert capture(["torch", "tensorflow", "packages"]) == {
        "torch": "2.13.0+cu130",
        "tensorflow": "2.20.0",
        "packages": {"numpy": "2.4.6", "scikit-learn": "1.9.1"},
    }


def test_capturing_imports_nothing_and_starts_no_process() -> None:
    code = (
        "import sys\n"
        "import blackboxml.base.environment as environment\n"
        "events = []\n"
        "watched = {'import', 'subprocess.Popen', 'os.posix_spawn', 'os.fork', 'os.exec'}\n"
        "sys.addaudithook(lambda name, _: events.append(name) if name in watched else None)\n"
        "environment.capture()\n"
        "assert not events, events\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_the_fields_asked_for_are_captured() -> None:
    assert capture([]) == {}
    assert list(capture({"hostname", "python"})) == ["python", "hostname"]
    assert capture(["git_commit"]) == {}


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="no environment field 'user'; there are git_commit"):
        capture(["python", "user"])


def test_the_command_line_is_captured_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/train.py", "--token", "s3cret\udc80"])
    monkeypatch.setenv("API_KEY", "s3cret")
    assert capture()["argv"] == ["train.py"]
    assert "s3cret" not in json.dumps(capture())
    assert "/home/me" not in json.dumps(capture())
    assert capture(command_line=True)["argv"] == ["/home/me/train.py", "--token", "s3cret?"]


@pytest.mark.parametrize("argv", [[], [""]])
def test_an_interactive_session_has_no_program(
    argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert capture()["argv"] == []


def test_a_clean_work_tree_has_a_commit_and_is_not_dirty(repository: Path) -> None:
    short = git(repository, "rev-parse", "--short", "HEAD")
    assert capture_git(repository) == {"git_commit": short, "git_dirty": False}


def test_the_current_directory_is_asked_by_default(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    assert capture_git()["git_dirty"] is False


def test_changed_and_untracked_files_are_dirty_and_ignored_ones_are_not(repository: Path) -> None:
    git(repository, "config", "status.showUntrackedFiles", "no")
    (repository / ".git" / "info" / "exclude").write_text("*.log\n")
    (repository / "x.log").touch()
    assert capture_git(repository)["git_dirty"] is False
    (repository / "new.py").touch()
    assert capture_git(repository)["git_dirty"] is True
    (repository / "new.py").unlink()
    (repository / "train.py").write_text("changed\n")
    assert capture_git(repository)["git_dirty"] is True


def test_asking_takes_no_lock_of_the_repository(repository: Path) -> None:
    index = repository / ".git" / "index"
    before = index.stat().st_mtime_ns, index.stat().st_ino
    os.utime(repository / "train.py", (1, 1))  # so that git would like to refresh its index
    (repository / ".git" / "index.lock").touch()
    assert capture_git(repository)["git_dirty"] is False
    assert (index.stat().st_mtime_ns, index.stat().st_ino) == before


def test_a_repository_without_commits_has_none(repository: Path) -> None:
    empty = repository.parent / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    assert capture_git(empty) == {"git_commit": None, "git_dirty": False}


def test_outside_a_repository_both_are_none(repository: Path) -> None:
    nothing = {"git_commit": None, "git_dirty": None}
    plain = repository.parent / "plain"
    plain.mkdir()
    assert capture_git(plain) == nothing
    assert capture_git(plain / "missing") == nothing


def test_without_git_both_are_none(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert capture_git(repository) == {"git_commit": None, "git_dirty": None}


def test_a_git_that_does_not_answer_in_time_is_given_up(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = repository.parent / "bin"
    fake_program(programs, "git", "exec sleep 600")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert capture_git(repository, timeout=0.2) == {"git_commit": None, "git_dirty": None}


def test_an_answer_that_is_no_commit_is_not_taken_for_one(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = repository.parent / "bin"
    fake_program(programs, "git", "echo hello")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert capture_git(repository)["git_commit"] is None
