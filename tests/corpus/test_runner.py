"""The runner and its protocol, against adapters that answer, lie, hang and die."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml.cli import main
from blackboxml.conformance import AdapterError, CorpusError, run_corpus
from blackboxml.conformance.adapter import ProcessAdapter
from blackboxml.conformance.case import Case, load
from blackboxml.conformance.compare import compare_read, compare_validate
from tests.corpus.bases import FIXTURES

if TYPE_CHECKING:
    from pathlib import Path

ADAPTER = """
import json, sys, time
claims = {claims!r}
count = 0
for line in sys.stdin:
    request = json.loads(line)
    known, operation = request["id"], request["operation"]
    if operation == "hello":
        answer = {{"id": known, "name": "toy", "version": "1", "claims": claims}}
        print(json.dumps(answer), flush=True)
        continue
    count += 1
{body}
"""
VALID = """
    answer = {"verdict": "valid", "findings": []}
    print(json.dumps({"id": known, "validate": answer}), flush=True)
"""
ONLY = "valid/m*imal"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three cases: two that a careless validator passes, and one that it does not."""
    place = tmp_path / "corpus"
    for base in ("minimal", "packed"):
        shutil.copytree(FIXTURES / "bases" / base, place / "bases" / base)
    for case in ("valid/minimal", "valid/packed", "invalid/crc-differs"):
        shutil.copytree(FIXTURES / "cases" / case, place / "cases" / case)
    return place


def command(
    tmp_path: Path, body: str = VALID, claims: tuple[str, ...] = ("validate",)
) -> list[str]:
    """Return the command of an adapter."""
    script = tmp_path / "adapter.py"
    script.write_text(ADAPTER.format(claims=list(claims), body=body))
    return [sys.executable, str(script)]


def outcomes(corpus: Path, adapter: list[str], timeout: float = 30) -> dict[tuple[str, str], Any]:
    """Return what came of each check."""
    with ProcessAdapter(adapter, timeout) as process:
        result = run_corpus(corpus, process)
    return {(check.operation, check.case): check for check in result.checks}


def test_what_is_not_claimed_is_not_passed(corpus: Path, tmp_path: Path) -> None:
    found = outcomes(corpus, command(tmp_path))
    assert {key: check.outcome for key, check in found.items()} == {
        ("read", "invalid/crc-differs"): "not claimed",
        ("validate", "invalid/crc-differs"): "failed",
        ("read", "valid/minimal"): "not claimed",
        ("validate", "valid/minimal"): "passed",
        ("read", "valid/packed"): "not claimed",
        ("validate", "valid/packed"): "passed",
    }
    assert (
        "the verdict is 'valid', wanted 'invalid'"
        in found["validate", "invalid/crc-differs"].differences
    )


def test_a_reader_of_journals_is_not_asked_for_tables(corpus: Path, tmp_path: Path) -> None:
    body = '    print(json.dumps({"id": known, "read": {}}), flush=True)'
    found = outcomes(corpus, command(tmp_path, body, ("read",)))
    assert found["read", "valid/packed"].outcome == "not claimed"
    assert found["read", "valid/minimal"].outcome == "failed"
    assert "groups is missing" in found["read", "valid/minimal"].differences


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    sys.exit('no more')", "it wrote: no more"),
        ("    print('{', flush=True)", "the answer is no JSON"),
        ("    print('[]', flush=True)", "the answer is no object"),
        ("    print('{\"id\": NaN}', flush=True)", "the answer is no JSON"),
        ("    print('{\"id\": 99}', flush=True)", "the answer has the id 99"),
        ("    print(json.dumps({'id': known}), flush=True)", "the answer has no object 'validate'"),
        (
            "    print(json.dumps({'id': known, 'error': 'cannot'}), flush=True)",
            "the adapter says: cannot",
        ),
    ],
)
def test_an_adapter_that_does_not_answer_fails_the_case(
    corpus: Path, tmp_path: Path, body: str, told: str
) -> None:
    found = outcomes(corpus, command(tmp_path, body))
    asked = [check for check in found.values() if check.operation == "validate"]
    assert [check.outcome for check in asked] == ["failed"] * 3
    assert all(told in check.differences[0] for check in asked), asked


def test_an_adapter_that_died_is_started_anew(corpus: Path, tmp_path: Path) -> None:
    body = "    if 'second' in sys.argv or count == 2:\n        sys.exit()\n" + VALID
    found = outcomes(corpus, command(tmp_path, body))
    asked = [check.outcome for check in found.values() if check.operation == "validate"]
    assert asked == ["failed", "failed", "passed"]


def test_an_adapter_that_hangs_fails_the_case_and_is_ended(corpus: Path, tmp_path: Path) -> None:
    body = "    if count == 1:\n        time.sleep(600)\n" + VALID
    with ProcessAdapter(command(tmp_path, body), timeout=1.5) as adapter:
        result = run_corpus(corpus, adapter, ONLY)
        asked = [check for check in result.checks if check.operation == "validate"]
        assert "no answer within 1.5 seconds" in asked[0].differences[0]


@pytest.mark.parametrize("adapter", [["/does/not/exist"], [sys.executable, "-c", "pass"]])
def test_a_command_that_is_no_adapter_is_refused(adapter: list[str]) -> None:
    with pytest.raises(AdapterError):
        ProcessAdapter(adapter)


# -- the command


def test_the_command_tells_counts_and_status(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["conformance", "--corpus", str(corpus)]
    toy = ["--", *command(tmp_path)]
    assert main([*arguments, "--only", "valid/*", *toy]) == 0
    assert capsys.readouterr().out == (
        "toy 1, which claims validate: 2 passed, 0 failed, 2 not claimed, 0 left out\n"
    )
    assert main([*arguments, *toy]) == 1
    assert "failed: validate invalid/crc-differs (BB-JNL-004)" in capsys.readouterr().out
    assert main([*arguments, "--json", *toy]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"passed": 2, "failed": 1, "not claimed": 3, "left out": 0}
    assert told["hello"]["name"] == "toy"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--serve", "--build", "x"],
        ["--corpus", "/does/not/exist", "--", sys.executable, "-c", "pass"],
        ["--only", "none/*", "--", "/does/not/exist"],
        ["--timeout", "0", "--serve"],
    ],
)
def test_wrong_usage_is_told(arguments: list[str]) -> None:
    assert main(["conformance", "--corpus", str(FIXTURES), *arguments]) == 2


def test_an_adapter_without_a_claim_does_not_pass(corpus: Path, tmp_path: Path) -> None:
    toy = command(tmp_path, claims=())
    assert main(["conformance", "--corpus", str(corpus), "--", *toy]) == 1


def test_cases_can_be_built_as_directories(corpus: Path, tmp_path: Path) -> None:
    place = tmp_path / "built"
    assert main(["conformance", "--corpus", str(corpus), "--build", str(place)]) == 0
    built = sorted(path.relative_to(place).as_posix() for path in place.glob("*/*"))
    assert built == ["invalid/crc-differs", "valid/minimal", "valid/packed"]


def test_this_library_passes_by_its_own_adapter(corpus: Path) -> None:
    serve = [sys.executable, "-m", "blackboxml", "conformance", "--serve"]
    done = subprocess.run(
        [*serve[:-1], "--corpus", str(corpus), "--", *serve],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed, 0 failed, 0 not claimed, 0 left out" in done.stdout


# -- cases and comparison


def test_a_generated_file_has_to_come_out_as_stated(tmp_path: Path) -> None:
    case = next(case for case in load(FIXTURES) if "generate" in case.overlay)
    case.overlay["generate"][0]["parts"].append({"text": "x"})
    with pytest.raises(CorpusError):
        case.build(tmp_path / "run")


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x"])
def test_a_case_of_others_does_not_lead_out(tmp_path: Path, path: str) -> None:
    overlay = {"create": [{"path": path, "type": "directory"}]}
    document = {"rule": "BB-LAY-006", "base": "minimal", "overlay": overlay, "expect": {}}
    with pytest.raises(CorpusError):
        Case(FIXTURES, "hostile/x", document).build(tmp_path / "run")


def group(kind: str, *values: Any) -> dict[str, Any]:
    """Return what a reader gives of one column."""
    rows = len(values)
    index = {name: list(range(rows)) for name in ("step", "time", "attempt", "rank", "seq")}
    columns = [{"metric": "a/b", "type": kind, "values": list(values)}]
    found = {"group": "a", **index, "effective": [True] * rows, "columns": columns}
    return {"groups": [found]}


@pytest.mark.parametrize(
    ("kind", "want", "have", "equal"),
    [
        ("float64", 1.0, 1, True),
        ("float64", 0.1, "0.1", True),
        ("float64", 1e300, "1e+300", True),
        ("float64", "NaN", "NaN", True),
        ("float64", "-0.0", -0.0, True),
        ("float64", "-0.0", 0, False),
        ("float64", 0.5, "0.5 ", False),
        ("float64", 0.5, "inf", False),
        ("float64", None, None, True),
        ("float64", None, "NaN", False),
        ("float64", 1.0, True, False),
        ("int64", "9007199254740993", 9007199254740993, True),
        ("int64", "9007199254740993", "9007199254740992", False),
        ("int64", 1, "1", True),
        ("int64", 1, "01", False),
        ("int64", 1, 1.0, False),
        ("int64", 1, True, False),
        ("int64", 1, "9223372036854775808", False),
        ("bool", True, True, True),
        ("bool", True, 1, False),
    ],
)
def test_numbers_are_compared_by_value_in_their_type(
    kind: str, want: Any, have: Any, equal: bool
) -> None:
    differences = compare_read({"read": group(kind, want)}, group(kind, have))
    assert (not differences) == equal


@pytest.mark.parametrize(
    ("want", "have", "equal"),
    [
        ({"int64": 1}, {"int64": "1"}, True),
        ({"int64": 1}, {"float64": 1}, False),
        ({"int64": 1}, 1, False),
        ({"tuple": [True]}, [True], True),
        ([True], {"tuple": [True]}, False),
        ({"repr": {"type": "a", "text": "b"}}, "b", True),
        ({"repr": {"type": "a", "text": "b"}}, "a", False),
        ({"mapping": [["a", None], ["b", None]]}, {"mapping": [["b", None], ["a", None]]}, False),
        ({"mapping": [[{"int64": 1}, "x"]]}, {"mapping": [[{"int64": "1"}, "x"]]}, True),
        ({"unknown": ["$x", {"float64": "NaN"}]}, {"unknown": ["$x", {"float64": "NaN"}]}, True),
        (True, 1, False),
        ("1", {"int": "1"}, False),
    ],
)
def test_configurations_are_compared_with_their_types(want: Any, have: Any, equal: bool) -> None:
    assert (not compare_read({"read": {"config": want}}, {"config": have})) == equal


def test_findings_are_a_set(tmp_path: Path) -> None:
    finding = {"rule": "BB-JNL-004", "severity": "error", "file": "metrics.jsonl", "line": 3}
    expect = {"verdict": "invalid", "findings": [finding]}
    assert not compare_validate(
        expect, {**expect, "findings": [finding, {**finding, "pointer": ""}]}
    )
    for other in ({**finding, "line": 4}, {**finding, "severity": "warning"}):
        answer = {**expect, "findings": [other]}
        assert len(compare_validate(expect, answer)) == 2
    assert compare_validate(expect, {"verdict": "invalid"})


def test_a_run_that_has_to_be_refused_is_not_read() -> None:
    refused = {"read": {"refused": True}}
    assert not compare_read(refused, {"refused": True})
    assert compare_read(refused, {"id": "x"})
    assert compare_read({"read": {"id": "x"}}, {"refused": True})
