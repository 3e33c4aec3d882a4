"""A file's name says what it holds, and files that overlap count each offset once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock_retrain.dataset.names import FileName, Kind, Source, day_of, expired, in_order

SOURCES = st.builds(
    Source,
    log=st.text("abcXYZ-_0123456789", min_size=1),
    topic=st.text("abcXYZ-_.0123456789", min_size=1),
    partition=st.integers(0, 99_999),
)


@given(st.sampled_from(Kind), SOURCES, st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_name_is_read_back(kind: Kind, source: Source, first: int, last: int) -> None:
    name = FileName(kind, source, "2026-11-21", first, last)
    assert FileName.parse(name.path) == name
    assert Source.parse(str(source)) == source


def test_other_files_are_not_the_collectors() -> None:
    for path in (
        "responses/x.parquet",
        "notes.txt",
        "responses/log=a/day=2026-11-21/t-1-2.parquet",
    ):
        assert FileName.parse(path) is None


def test_only_the_collectors_own_old_files_expire() -> None:
    days = ("2026-08-22", "2026-08-23", "2026-08-24")
    paths = [FileName(Kind.FEEDBACK, Source("l", "t", 0), day, 1, 2).path for day in days]
    assert expired([*paths, "notes/day=2020-01-01/x.parquet"], "2026-08-23") == paths[:1]


def test_days_are_of_utc_and_bounded() -> None:
    assert day_of(1_800_000_000_000) == "2027-01-15"
    assert day_of(-1) == "1970-01-01"
    assert day_of(2**62) == "9999-12-31"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12))
def test_each_offset_counts_in_one_file_whatever_a_sleeper_wrote(
    ranges: list[tuple[int, int]],
) -> None:
    source = Source("log", "t", 0)
    names = [FileName(Kind.RESPONSES, source, "2026-11-21", a, a + n) for a, n in ranges]
    counted = [o for name, first in in_order(names) for o in range(first, name.last + 1)]
    held = {o for name in names for o in range(name.first, name.last + 1)}
    assert len(counted) == len(set(counted))
    assert set(counted) == held
    assert counted == sorted(counted)


def test_partitions_and_kinds_do_not_cover_one_another() -> None:
    names = [
        FileName(kind, Source("log", kind.topic, number), "2026-11-21", 0, 9)
        for kind in Kind
        for number in (0, 1)
    ]
    assert len(list(in_order(names))) == 6
