"""The action for GitHub: its steps, run by bash as a runner would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.validation import runs

ROOT = Path(__file__).resolve().parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
EXPRESSION = re.compile(r"\$\{\{\s*(?P<what>[a-z.-]+)\s*\}\}")
HOSTILE = "a$(touch pwned)`touch pwned`;touch pwned #'\""


@dataclass
class Done:
    """What a runner sees of an action."""

    status: int
    said: str
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def annotations(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("::")]


class Runner:
    """Runs the steps of the action in a workspace."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.temp = folder / "temp"
        for place in (self.workspace, self.temp):
            place.mkdir()

    def run(self, names: list[str], **inputs: str) -> Done:
        """Run some steps, by name, until one fails."""
        given = {key.replace("_", "-"): value for key, value in inputs.items()}
        assert given.keys() <= ACTION["inputs"].keys()
        values = {name: said.get("default", "") for name, said in ACTION["inputs"].items()} | given
        done = Done(0, "")
        for step in ACTION["runs"]["steps"]:
            if step["name"] not in names:
                continue
            script, told = self.temp / "step.sh", self.temp / "outputs"
            script.write_text(step["run"])
            told.write_text("")
            fixed = {"RUNNER_TEMP": str(self.temp), "GITHUB_OUTPUT": str(told)}
            env = {name: self._evaluate(text, values) for name, text in step["env"].items()}
            process = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
                cwd=self.workspace,
                env={**os.environ, **fixed, **env},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            done.status, done.said = process.returncode, done.said + process.stdout
            done.outputs |= dict(line.split("=", 1) for line in told.read_text().splitlines())
            if done.status:
                break
        return done

    @staticmethod
    def _evaluate(text: str, values: dict[str, str]) -> str:
        match = EXPRESSION.fullmatch(text)
        assert match is not None
        return values[match["what"].removeprefix("inputs.")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def runner(recorded: Path, tmp_path: Path) -> Runner:
    """A workspace with a valid run and an invalid one, and the command where it is installed."""
    runner = Runner(tmp_path)
    for name in ("good", "bad"):
        shutil.copytree(recorded, runner.workspace / "runs" / name)
    journal = runner.workspace / "runs" / "bad" / "metrics.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"seq":1,', b'"seq":7,', 1))
    command = runner.temp / "blackboxml" / "bin" / "blackbox"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m blackboxml "$@"\n')
    command.chmod(0o755)
    return runner


def test_the_action_is_valid_by_the_schema_of_actions() -> None:
    command = [sys.executable, "-m", "check_jsonschema"]
    options = ["--builtin-schema", "vendor.github-actions", ROOT / "action.yml"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_command_holds_what_a_workflow_says() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"
        names = [EXPRESSION.fullmatch(text)["what"] for text in step["env"].values()]
        assert {name.removeprefix("inputs.") for name in names} <= ACTION["inputs"].keys()
        assert all(f'"${name}"' in step["run"] or name in step["run"] for name in step["env"])


def test_a_valid_run_passes_without_an_annotation(runner: Runner) -> None:
    done = runner.run(["Validate"], path="runs/good")
    assert (done.status, done.annotations, done.outputs) == (0, [], {"status": "0"})


def test_an_invalid_run_fails_and_is_annotated(runner: Runner) -> None:
    done = runner.run(["Validate"], path="runs", sarif="found here.sarif")
    assert (done.status, done.outputs) == (1, {"status": "1"})
    (line,) = [each for each in done.annotations if "BB-JNL-004" in each]
    assert line.startswith("::error file=runs/bad/metrics.jsonl,line=3,title=BB-JNL-004")
    log = json.loads((runner.workspace / "found here.sarif").read_text())
    found = {each["ruleId"] for each in log["runs"][0]["results"]}
    assert log["version"] == "2.1.0"
    assert {"BB-JNL-004", "BB-INT-009"} <= found


def test_paths_stand_on_lines_of_their_own(runner: Runner) -> None:
    (runner.workspace / "runs" / "good").rename(runner.workspace / "runs" / "a good one")
    assert runner.run(["Validate"], path="runs/a good one\n\n").status == 0
    assert runner.run(["Validate"], path="runs/a good one\nruns/bad").status == 1
    assert runner.run(["Validate"], path="nowhere").status == 2
    assert runner.run(["Validate"], path="-x").status == 2


def test_the_inputs_reach_the_command(runner: Runner) -> None:
    good = runner.workspace / "runs" / "good"
    (good / "SHA256SUMS").unlink()
    assert runner.run(["Validate"], path="runs/good").status == 1
    assert runner.run(["Validate"], path="runs/good", level="schema").status == 0
    assert runner.run(["Validate"], path="runs/good", ignore="BB-INT-003, BB-LAY-008").status == 0
    assert runner.run(["Validate"], path="runs/good", ignore="BB-NOT-001").status == 2
    manifest = runs.manifest(good)
    for key in ("sealed", "groups", "journals", "files"):
        del manifest[key]
    (good / "run.json").write_text(json.dumps(manifest))
    assert runner.run(["Validate"], path="runs/good").status == 0  # not indented: a warning
    assert runner.run(["Validate"], path="runs/good", fail_on="warning").status == 1


def test_a_run_that_has_not_ended_is_undecided_unless_accepted(runner: Runner) -> None:
    shutil.copytree(ROOT / "fixtures" / "bases" / "crashed", runner.workspace / "crashed")
    done = runner.run(["Validate"], path="crashed")
    assert (done.status, done.outputs) == (3, {"status": "3"})
    assert done.annotations[0].startswith("::notice file=crashed")
    assert runner.run(["Validate"], path="crashed", accept_incomplete="true").status == 0


@pytest.mark.parametrize("name", sorted(set(ACTION["inputs"]) - {"version", "pip-spec", "python"}))
def test_a_hostile_input_is_data(runner: Runner, name: str) -> None:
    inputs = {"path": "runs/good"} | {name.replace("-", "_"): HOSTILE}
    done = runner.run(["Validate"], **inputs)
    assert done.status in {0, 2}
    assert not (runner.workspace / "pwned").exists()


@pytest.mark.parametrize("name", ["version", "pip-spec", "python"])
def test_a_hostile_input_of_the_installation_is_data(
    runner: Runner, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    done = runner.run(["Install blackboxml"], **{name.replace("-", "_"): HOSTILE})
    assert done.status not in {0, 126}
    assert not (runner.workspace / "pwned").exists()


def test_it_installs_the_package_that_is_asked_for(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From this checkout, without the network: what it depends on is lent by this environment."""
    shutil.rmtree(runner.temp / "blackboxml")
    lent = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    for name, value in {**lent, "PYTHONPATH": sysconfig.get_path("purelib")}.items():
        monkeypatch.setenv(name, value)
    inputs = {"pip_spec": str(ROOT), "python": sys.executable, "path": "runs/good"}
    done = runner.run(["Install blackboxml", "Validate"], **inputs)
    assert (done.status, done.outputs) == (0, {"status": "0"}), done.said
    assert (runner.temp / "blackboxml" / "bin" / "blackbox").exists()
