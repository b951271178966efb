"""The hook for pre-commit, run by pre-commit itself in a repository with runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.validation import runs

ROOT = Path(__file__).resolve().parents[2]
HOOKS = ROOT / ".pre-commit-hooks.yaml"


def git(place: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=place, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the hook, whose command is the one of this environment.

    To install the package for each test would take a minute; the entry and all else is as it is.
    """
    place = tmp_path_factory.mktemp("tool")
    (hook,) = yaml.safe_load(HOOKS.read_text())
    hook["language"] = "unsupported"  # what `system` is called now
    (place / HOOKS.name).write_text(yaml.safe_dump([hook]))
    git(place, "init", "--quiet")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "x")
    return place


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.record(tmp_path_factory.mktemp("recorded"))


class Project:
    """A repository of a user, with two runs in it."""

    def __init__(self, place: Path, tool: Path, recorded: Path) -> None:
        self.place, self.tool = place, tool
        for name in ("a", "b"):
            shutil.copytree(recorded, place / "runs" / name)
        (place / "run.json").write_text('{"of": "another tool"}\n')
        git(place, "init", "--quiet")
        git(place, "add", ".")
        git(place, "commit", "--quiet", "--message", "x")

    def commit(self, *files: str) -> tuple[int, str]:
        """Stage files and run the hook over them, as a commit would."""
        git(self.place, "add", *files)
        command = [sys.executable, "-m", "pre_commit", "try-repo", self.tool, "blackbox-validate"]
        folder = self.place / ".git" / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "blackbox").write_text(f'#!/bin/sh\nexec {sys.executable} -m blackboxml "$@"\n')
        (folder / "blackbox").chmod(0o755)
        home = {"PRE_COMMIT_HOME": str(self.place / ".git" / "home")}
        path = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [*command, "--verbose", "--color", "never"],
            cwd=self.place,
            env={**os.environ, **home, **path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture
def project(tool: Path, recorded: Path, tmp_path: Path) -> Project:
    return Project(tmp_path, tool, recorded)


def test_the_hook_is_valid_by_the_schema_of_pre_commit() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", HOOKS]
    subprocess.run(command, check=True)
    (hook,) = yaml.safe_load(HOOKS.read_text())
    assert hook["language"] == "python"


def test_a_change_of_any_file_of_a_run_validates_that_run_once(project: Project) -> None:
    for name in ("config.json", "train.parquet", "train.h5"):
        with (project.place / "runs" / "b" / name).open("ab") as file:
            file.write(b"\n")
    status, said = project.commit(".")
    assert status == 1
    assert said.count("runs/b: invalid") == 1
    assert "runs/a" not in said
    assert "BB-INT-009" in said


def test_a_new_run_that_is_valid_passes(project: Project) -> None:
    shutil.copytree(project.place / "runs" / "a", project.place / "runs" / "c")
    status, said = project.commit(".")
    assert status == 0, said
    assert said.count("runs/c: valid") == 1


def test_files_outside_of_runs_are_passed_over(project: Project) -> None:
    (project.place / "run.json").write_text("{}\n")
    (project.place / "code.py").write_text("pass\n")
    status, said = project.commit(".")
    assert status == 0, said
    assert "0 runs" in said
