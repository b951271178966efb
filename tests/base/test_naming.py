"""Names: what they become in files, tables and datasets, and that no two become one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackboxml.base import naming
from blackboxml.errors import MetricError

TROUBLE = st.text(alphabet="aAbB/._% -%2Ekstep_draw", max_size=12)
NAMES = TROUBLE | st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
STATISTICS = ("mean", "min", "max", "std", "count")


def test_a_directory_name_keeps_letters_digits_dash_and_underscore_of_ascii() -> None:
    assert naming.sanitise("my run/with spaces!") == "my_run_with_spaces_"
    assert naming.sanitise("../escape") == "___escape"
    assert naming.sanitise("--force") == "_-force"
    assert naming.sanitise("é中\x00\ud800") == "____"
    assert naming.sanitise("ok_Name-9") == "ok_Name-9"
    assert naming.sanitise("") == ""


@given(st.text())
def test_a_sanitised_name_is_always_a_safe_piece_of_a_file_name(name: str) -> None:
    assert re.fullmatch(r"(?:[A-Za-z0-9_][A-Za-z0-9_-]{0,99})?", naming.sanitise(name))


@pytest.mark.rule("BB-LAY-001")
def test_a_run_directory_carries_the_moment_in_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    local = datetime(2026, 11, 21, 23, 22, 1, 5, tzinfo=tokyo)
    assert naming.run_directory_name("res net", local) == "res_net_20261121_142201"
    utc = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert naming.run_directory_name("x", utc) == "x_20260102_030405"


def test_a_moment_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        naming.run_directory_name("x", datetime(2026, 1, 2))  # noqa: DTZ001


@pytest.mark.parametrize("name", ["loss", "train/loss", "a//b", "ü" * 512, " ", "$x", "a/b/c"])
def test_an_ordinary_metric_name_is_accepted(name: str) -> None:
    naming.check_metric_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("a\nb", re.escape("U+000A")),
        ("a\x7f", re.escape("U+007F")),
        ("a\x9f", re.escape("U+009F")),
        ("a\ud800", re.escape("U+D800")),
        ("/a", "begins or ends with '/'"),
        ("a/", "begins or ends with '/'"),
        ("/", "begins or ends with '/'"),
        ("x" * 1025, "has 1025 bytes"),
        ("ü" * 513, "has 1026 bytes"),
        (5, "is of type int"),
        (None, "is of type NoneType"),
    ],
)
def test_a_bad_metric_name_is_refused_with_name_finding_and_cure(name: str, reason: str) -> None:
    with pytest.raises(MetricError, match=reason) as caught:
        naming.check_metric_name(name)
    message = str(caught.value)
    assert message.startswith("the metric name ")
    assert "; " in message
    assert len(message) < 200
    message.encode()


def test_the_group_is_the_text_before_the_first_slash() -> None:
    assert [naming.group_of(name) for name in ("lr", "train/loss", "a/b/c")] == ["", "train", "a"]
    assert [naming.short_name(name) for name in ("lr", "train/loss", "a/b/c")] == [
        "lr",
        "loss",
        "b/c",
    ]


def test_a_metric_named_like_a_column_of_the_format_gets_an_underscore() -> None:
    assert naming.column_names(["t/step", "t/step_", "t/draw", "t/steps", "t/a/step"]) == {
        "t/step": "step_",
        "t/step_": "step__",
        "t/draw": "draw_",
        "t/steps": "steps",
        "t/a/step": "a/step",
    }


@given(st.lists(NAMES.filter(bool), unique=True))
def test_no_two_metrics_of_a_group_share_a_column(names: list[str]) -> None:
    columns = naming.column_names([f"group/{name}" for name in names])
    assert len(set(columns.values())) == len(names)
    assert not {"step", "time", "attempt", "rank", "seq", "draw"} & set(columns.values())


def test_a_statistic_steps_aside_for_a_metric_of_that_name() -> None:
    assert naming.statistic_column("loss", "mean", {"loss"}) == "loss/mean"
    assert naming.statistic_column("loss", "mean", {"loss", "loss/mean"}) == "loss/ranks/mean"
    taken = {"loss", "loss/mean", "loss/ranks/mean"}
    assert naming.statistic_column("loss", "mean", taken) == "loss/ranks/ranks/mean"


@given(st.lists(st.sampled_from(["a", "a/mean", "a/ranks", "a/ranks/mean"]), unique=True))
def test_no_two_columns_of_a_table_are_equal(metrics: list[str]) -> None:
    columns = naming.column_names([f"g/{metric}" for metric in metrics])
    taken = set(columns.values())
    for column in columns.values():
        for statistic in STATISTICS:
            name = naming.statistic_column(column, statistic, taken)
            assert name not in taken
            taken.add(name)


def test_a_variable_is_the_column_with_dots_unless_that_is_ambiguous() -> None:
    assert naming.variable_names(["loss", "loss/mean", "a b", "größe"]) == {
        "loss": "loss",
        "loss/mean": "loss.mean",
        "a b": "a b",
        "größe": "größe",
    }
    assert naming.variable_names(["a/b", "a.b"]) == {"a/b": "a%2Fb", "a.b": "a.b"}
    assert naming.variable_names(["100%", " x", "x ", ".x", "/x"]) == {
        "100%": "100%25",
        " x": "%20x",
        "x ": "x%20",
        ".x": "%2Ex",
        "/x": "%2Fx",
    }


@given(st.lists(NAMES.filter(bool), unique=True))
def test_no_two_columns_share_a_variable_and_none_is_a_path(columns: list[str]) -> None:
    variables = naming.variable_names(columns)
    assert list(variables) == columns
    assert len(set(variables.values())) == len(columns)
    for variable in variables.values():
        assert "/" not in variable
        assert not variable.startswith((".", " "))
        assert not variable.endswith(" ")


def test_a_safe_group_name_names_its_files_and_any_other_is_hashed() -> None:
    assert naming.file_stems(["", "train", "my eval", "metrics", "CON", "x-0123abcd"]) == {
        "": "metrics",
        "train": "train",
        "my eval": "my_eval-a1b6193e",
        "metrics": "metrics-177a7ea3",
        "CON": "CON-a3dbc4b6",
        "x-0123abcd": "x-0123abcd-6324b7ee",
    }


def test_groups_that_differ_in_case_alone_are_both_hashed() -> None:
    stems = naming.file_stems(["Train", "train", "eval"])
    assert stems["eval"] == "eval"
    assert re.fullmatch(r"Train-[0-9a-f]{8}", stems["Train"])
    assert re.fullmatch(r"train-[0-9a-f]{8}", stems["train"])


def test_groups_with_equal_short_digests_take_the_whole_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Digest:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def hexdigest(self) -> str:
            return "0" * 8 + self.data.hex().rjust(56, "0")

    # Two names with the same first 32 bits of a SHA-256 can be found, but not kept short here.
    monkeypatch.setattr(naming, "sha256", Digest)
    stems = naming.file_stems(["a b", "a c", "a.b", "d e"])
    assert stems["d e"] == "d_e-00000000"
    assert len(set(stems.values())) == 4
    assert {len(stems[name]) for name in ("a b", "a c", "a.b")} >= {3 + 1 + 64}


@given(st.lists(NAMES.map(lambda name: name.replace("/", "")), unique=True))
def test_no_two_groups_share_a_file_even_where_case_is_ignored(groups: list[str]) -> None:
    stems = naming.file_stems(groups)
    assert list(stems) == groups
    assert len({stem.lower() for stem in stems.values()}) == len(groups)
    for group, stem in stems.items():
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,96}", stem)
        assert stem.lower() not in {"media", "run", "config", "con", "prn", "aux", "nul", "com1"}
        assert (stem == "metrics") == (group == "")


def test_the_stem_of_a_group_does_not_depend_on_the_order_of_the_groups() -> None:
    groups = ["", "a", "A", "b c", "b.c", "run"]
    assert naming.file_stems(groups) == naming.file_stems(groups[::-1])


def test_rank_zero_and_ordinal_zero_are_left_out_of_a_journal_name() -> None:
    assert naming.journal_name(0, 0) == "metrics.jsonl"
    assert naming.journal_name(0, 1) == "metrics.1.jsonl"
    assert naming.journal_name(3, 0) == "metrics.r3.jsonl"
    assert naming.journal_name(3, 1, stem="media") == "media.r3.1.jsonl"


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.sampled_from(["metrics", "media"]))
def test_a_journal_name_is_parsed_back(rank: int, ordinal: int, stem: str) -> None:
    assert naming.parse_journal_name(naming.journal_name(rank, ordinal, stem), stem) == (
        rank,
        ordinal,
    )


@pytest.mark.parametrize(
    "name",
    [
        "metrics.r0.jsonl",
        "metrics.0.jsonl",
        "metrics.01.jsonl",
        "metrics.1.r1.jsonl",
        "metrics.jsonl\n",
        "metrics.jsonl.gz",
        "media.jsonl",
        "Metrics.jsonl",
        "metrics.r\u0661.jsonl",
        "metrics.r2147483648.jsonl",
        "metrics." + "9" * 5000 + ".jsonl",
        "",
    ],
)
def test_any_other_file_name_is_no_journal(name: str) -> None:
    assert naming.parse_journal_name(name) is None


@pytest.mark.parametrize(("rank", "ordinal"), [(-1, 0), (0, -1), (2**31, 0)])
def test_a_journal_of_an_impossible_rank_is_refused(rank: int, ordinal: int) -> None:
    with pytest.raises(ValueError, match="of a journal is 0 to"):
        naming.journal_name(rank, ordinal)
