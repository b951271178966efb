"""Hyper-parameters survive as they are, or say what became of them."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
import math
import sys
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType, SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blackboxml.config import decode_config, encode_config
from blackboxml.conformance import library as corpus
from blackboxml.errors import ConfigError
from blackboxml.reader import open_run
from tests.histories import header, write

PATHS = st.text("ab./ ", max_size=8).map(PurePosixPath)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | PATHS
)
KEYS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.sampled_from(["$float", "$x", "a"]), inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


class Mode(enum.Enum):
    FAST = "fast"
    BOTH = ("a", "b")


class Size(enum.IntEnum):
    BIG = 9


@dataclasses.dataclass
class Optimiser:
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)


class Plain:
    pass


def through_json(tree: dict[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(tree, allow_nan=False).encode())


def depth_of(tree: object) -> int:
    if isinstance(tree, dict):
        return 1 + max(map(depth_of, tree.values()), default=0)
    return 1 + max(map(depth_of, tree), default=0) if isinstance(tree, list) else 0


def kept(value: object) -> object:
    return decode_config(through_json(encode_config({"v": value})))["v"]


def same(a: object, b: object) -> bool:
    """Equal, and of equal types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    return a == b


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@pytest.mark.rule("BB-CFG-005")
def test_a_configuration_of_the_rebuilt_types_comes_back_equal(
    config: dict[object, object],
) -> None:
    assert same(decode_config(through_json(encode_config(config))), config)


def test_the_tags_are_those_of_the_format() -> None:
    config = {
        "nan": math.nan,
        "inf": [math.inf, -math.inf],
        "big": 2**63,
        "pair": (1, 2.5),
        "data": Path("data/train"),
        "salt": b"\x00\xff",
        "by_class": {0: "cat", 1: "dog"},
        "odd": {"$ref": 1},
    }
    tree = encode_config(config)
    assert tree == {
        "nan": {"$float": "NaN"},
        "inf": [{"$float": "Infinity"}, {"$float": "-Infinity"}],
        "big": {"$int": "9223372036854775808"},
        "pair": {"$tuple": [1, 2.5]},
        "data": {"$path": "data/train"},
        "salt": {"$bytes": "AP8="},
        "by_class": {"$dict": [[0, "cat"], [1, "dog"]]},
        "odd": {"$dict": [["$ref", 1]]},
    }
    assert math.isnan(decode_config(tree)["nan"])


def test_a_dataclass_a_namespace_and_any_mapping_are_configurations() -> None:
    wanted = {"lr": 0.1, "betas": (0.9, 0.999)}
    for config in (
        Optimiser(0.1),
        argparse.Namespace(**wanted),
        SimpleNamespace(**wanted),
        OrderedDict(wanted),
        MappingProxyType(wanted),
    ):
        assert decode_config(encode_config(config)) == wanted
        assert kept(config) == wanted


@pytest.mark.parametrize("config", [5, "text", [1], None, Optimiser, object()])
def test_anything_else_is_no_configuration(config: object) -> None:
    with pytest.raises(ConfigError, match="give a mapping"):
        encode_config(config)


@pytest.mark.rule("BB-CFG-008")
def test_a_key_that_is_not_text_makes_the_root_a_tagged_dict() -> None:
    assert encode_config({1: 2}) == {"$dict": [[1, 2]]}
    assert decode_config({"$dict": [[1, 2]]}) == {1: 2}


def test_a_key_that_could_not_be_a_key_again_is_kept_as_text() -> None:
    assert kept({frozenset([1]): 2}) == {"frozenset({1})": 2}


def test_numbers_of_numpy_and_frameworks_are_plain_numbers() -> None:
    for value in (np.float32(0.5), np.array(0.5), torch.tensor(0.5), jnp.asarray(0.5)):
        assert same(kept(value), 0.5)
    assert same(kept(np.float64(0.1)), 0.1)
    assert same(kept(np.int64(2**60)), 2**60)
    assert kept(np.bool_(True)) is True
    assert same(kept(np.str_("adam")), "adam")


def test_a_small_array_is_nested_lists() -> None:
    wanted = [[0.0, 1.0], [2.0, math.inf]]
    for array in (np.array(wanted), torch.tensor(wanted), jnp.asarray(wanted)):
        assert same(kept(array), wanted)
    assert same(kept(torch.ones(2, requires_grad=True)), [1.0, 1.0])
    assert same(kept(np.zeros((0, 3))), [])
    assert len(kept(np.zeros(10_000))) == 10_000


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(10_001),
        np.array(["2026-01-01"], dtype="datetime64[ns]"),
        np.complex64(1j),
        torch.tensor(1.0, device="meta"),
        pd.Series([1.0, 2.0]),
        pd.DataFrame({"a": [1]}),
    ],
)
def test_what_is_no_plain_array_is_kept_as_text(value: object) -> None:
    tree = encode_config({"v": value})["v"]
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    assert tree == {"$repr": {"type": kind, "text": repr(value)}}
    assert kept(value) == repr(value)


def test_a_member_of_an_enumeration_is_its_plain_value() -> None:
    assert kept(Mode.FAST) == "fast"
    assert same(kept(Size.BIG), 9)
    assert kept(Mode.BOTH) == repr(Mode.BOTH)
    assert kept({Mode.FAST: 1}) == {"fast": 1}


def test_a_set_is_a_sorted_list() -> None:
    assert kept({10, 9, 2.5}) == [2.5, 9, 10]
    assert kept(frozenset("cab")) == ["a", "b", "c"]
    assert kept({"b", 1, (2,), None}) == [1, "b", None, (2,)]


def test_a_named_tuple_is_the_tuple_that_it_equals() -> None:
    point = namedtuple("point", "x y")(1, 2)  # noqa: PYI024
    assert same(kept(point), (1, 2))


def test_dates_and_times_are_kept_as_iso_8601_text() -> None:
    moment = datetime(2026, 11, 21, 14, 22, 1, tzinfo=UTC)
    assert encode_config({"v": moment})["v"] == {
        "$repr": {"type": "datetime.datetime", "text": "2026-11-21T14:22:01+00:00"}
    }
    assert kept(date(2026, 11, 21)) == "2026-11-21"


def test_a_windows_path_is_kept_with_slashes() -> None:
    assert kept(PureWindowsPath("a\\b")) == PurePosixPath("a/b")


def test_the_text_of_an_object_carries_no_memory_address() -> None:
    assert encode_config({"f": depth_of, "o": Plain(), "c": Plain}) == {
        "f": {"$repr": {"type": "builtins.function", "text": "<function depth_of>"}},
        "o": {
            "$repr": {
                "type": f"{__name__}.Plain",
                "text": f"<{__name__}.Plain object>",
            }
        },
        "c": {"$repr": {"type": "builtins.type", "text": f"<class '{__name__}.Plain'>"}},
    }


def test_an_object_that_raises_whatever_is_asked_of_it_is_named_by_its_type() -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> object:
            raise KeyError(name)

        def __repr__(self) -> str:
            raise KeyError

    assert "Hostile whose repr raised KeyError" in kept(Hostile())


def test_a_long_text_of_an_object_is_cut() -> None:
    class Talkative:
        def __repr__(self) -> str:
            return "x" * 1_000_000

    assert len(kept(Talkative())) == 10_000
    assert kept(Talkative()).endswith("x…")


def test_text_that_is_not_unicode_is_kept_escaped() -> None:
    assert kept("a\udc80") == r"'a\udc80'"
    assert kept(Path("a\udc80")) == r"PosixPath('a\udc80')"
    assert kept({"a\udc80": 1}) == {r"'a\udc80'": 1}


def test_an_int_too_long_to_convert_is_kept_in_hexadecimal() -> None:
    assert same(kept(10**4_298), 10**4_298)
    assert kept(1 << 20_000) == hex(1 << 20_000)


def test_a_configuration_that_contains_itself_is_refused_by_its_place() -> None:
    layers: list[object] = [1, 2, 3]
    layers.append({"model": layers})
    with pytest.raises(
        ConfigError, match=r"config\.model\.layers\[3\]\.model is a list that conta"
    ):
        encode_config({"model": {"layers": layers}})
    config: dict[str, object] = {}
    config["me"] = config
    with pytest.raises(ConfigError, match=r"config\.me is a dict that contains itself"):
        encode_config(config)


def test_a_value_used_twice_is_no_cycle() -> None:
    shared = [1]
    assert kept([shared, shared]) == [[1], [1]]


def test_a_key_that_is_no_identifier_is_quoted_in_the_place() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match=r"config\['a b'\]\[0\] is a list"):
        encode_config({"a b": loop})


@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: (v,), lambda v: {1: v}, lambda v: {"k": v}]
)
def test_the_tree_of_what_is_accepted_fits_64_levels_wherever_it_stands(wrap) -> None:
    depths = []
    value: object = math.nan
    for _ in range(100):
        try:
            tree = encode_config({"v": value})
        except ConfigError as error:
            assert "nests deeper than 64 levels" in str(error)  # noqa: PT017 - sooner or later
            break
        assert decode_config(tree).keys() == {"v"}
        depths.append(depth_of({"replaced": [{"values": tree}]}))
        value = wrap(value)
    assert 61 <= depths[-1] <= 64
    assert len(depths) < 100


@pytest.mark.parametrize(
    "tree",
    [
        {"$float": "nan"},
        {"$float": 1},
        {"$float": []},
        {"$int": "1.5"},
        {"$int": "9" * 4301},
        {"$int": 5},
        {"$tuple": "ab"},
        {"$tuple": {"a": 1}},
        {"$path": None},
        {"$bytes": "*"},
        {"$bytes": 1},
        {"$dict": ["ab"]},
        {"$dict": [[1, 2, 3]]},
        {"$dict": 7},
        {"$repr": {}},
        {"$repr": "text"},
        {"$repr": {"text": 1}},
    ],
)
def test_a_damaged_tag_is_reported_with_its_place(tree: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"config\.a\[0\] has a damaged \$"):
        decode_config({"a": [tree]})


def test_a_tag_of_a_later_version_is_left_as_it_stands() -> None:
    assert decode_config({"a": {"$quaternion": [1, 2]}}) == {"a": {"$quaternion": [1, 2]}}
    assert decode_config({"a": {"$float": "NaN", "b": 1}}) == {"a": {"$float": "NaN", "b": 1}}


@pytest.mark.parametrize("tree", [[], "a", None, {"$tuple": []}])
def test_a_tree_that_is_no_mapping_is_refused(tree: object) -> None:
    with pytest.raises(ConfigError, match="not an object"):
        decode_config(tree)


def test_a_hostile_depth_is_refused_before_the_stack_ends() -> None:
    tree: object = 1
    for _ in range(sys.getrecursionlimit() * 2):
        tree = [tree]
    with pytest.raises(ConfigError, match="nests deeper"):
        decode_config({"a": tree})


def test_the_tree_shares_nothing_with_the_configuration() -> None:
    config = {"layers": [1, 2]}
    tree = encode_config(config)
    config["layers"].append(3)
    assert tree == {"layers": [1, 2]}


@pytest.mark.parametrize(
    "pairs",
    [
        [[[64, 64], "a"]],
        [[{"b": 1}, "a"]],
        [[[], 1], [{}, 2], [None, 3]],
        [[1, "a"], [1.0, "b"], [True, "c"]],
        [["a", 1], ["a", 2]],
    ],
)
def test_keys_that_python_has_not_are_given_as_they_stand(pairs: list[list[object]]) -> None:
    tree = {"x": {"$dict": [*pairs, ["betas", {"$tuple": [1, 2]}]]}, "y": 1}
    wanted = {"$dict": [*pairs, ["betas", (1, 2)]]}
    assert decode_config(tree) == {"x": wanted, "y": 1}
    assert [type(key) for key, _ in decode_config(tree)["x"]["$dict"]][:-1] == [
        type(key) for key, _ in pairs
    ]
    assert decode_config(tree["x"]) == wanted
    spelled = corpus.tree(decode_config(tree["x"]))["mapping"]
    assert spelled == [[corpus.tree(key), corpus.tree(value)] for key, value in wanted["$dict"]]


def test_such_keys_damage_nothing_else(tmp_path: Path) -> None:
    files = {"metrics.jsonl": header()}
    path = write(tmp_path / "run", files)
    document = {"format": {"name": "blackbox-config", "version": "1.0", "features": []}}
    document["config"] = {"weights": {"$dict": [[[0, 1], 0.5]]}, "lr": 0.1}
    (path / "config.json").write_text(json.dumps(document))
    reader = open_run(path)
    assert reader.config == {"weights": {"$dict": [[[0, 1], 0.5]]}, "lr": 0.1}
    assert all(problem.file != "config.json" for problem in reader.problems)
