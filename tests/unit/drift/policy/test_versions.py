from __future__ import annotations

import datetime as dt

import pytest

from penstock.records import Outgoing, Partition, Record
from penstock.v1 import drift_pb2
from penstock_drift.policy.document import PolicyError, default_document
from penstock_drift.policy.versions import (
    Refused,
    Standing,
    check_alone,
    in_force,
    next_version,
    policy_record,
)

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def record(out: Outgoing, offset: int = 0) -> Record:
    return Record(Partition(out.topic, 0), offset, out.key, out.value, out.headers, 0)


def version(number: int, document: str = "tick_s: 5") -> drift_pb2.PolicyVersion:
    return drift_pb2.PolicyVersion(version=number, document=document, set_by="ada")


def test_nobody_set_one() -> None:
    assert in_force([]) == Standing(0, default_document())


def test_the_highest_version_is_in_force_whatever_else_is_on_the_topic() -> None:
    records = [record(policy_record(version(n, f"tick_s: {n}"), "t")) for n in (3, 7, 5)]
    tombstone = Record(Partition("t", 0), 9, b"default", None, (), 0)
    odd = Record(Partition("t", 0), 9, b"default", b"\xff\xff", (), 0)
    standing = in_force([*records, tombstone, odd])
    assert (standing.version, standing.document, standing.set_by) == (7, "tick_s: 7", "ada")


def test_the_next_version_is_one_above() -> None:
    made = next_version("tick_s: 6", Standing(4, "tick_s: 5"), version=None, by="ada", now=NOW)
    assert made is not None
    assert (made.version, made.set_by, made.set_at.ToDatetime(dt.UTC)) == (5, "ada", NOW)


def test_what_is_in_force_is_not_written_again() -> None:
    standing = Standing(4, "tick_s: 5")
    assert next_version("tick_s: 5", standing, version=None, by="", now=NOW) is None
    # The default that nobody set is no version yet.
    assert next_version(default_document(), in_force([]), version=None, by="", now=NOW) is not None


@pytest.mark.parametrize("wanted", [3, 4])
def test_a_version_must_rise(wanted: int) -> None:
    with pytest.raises(Refused, match="give 5 or more"):
        next_version("tick_s: 6", Standing(4, "x: 1"), version=wanted, by="", now=NOW)


def test_what_is_no_policy_is_not_set() -> None:
    with pytest.raises(PolicyError, match="did you mean tick_s"):
        next_version("tick: 6", Standing(0, ""), version=None, by="", now=NOW)


def test_two_who_set_one_version_at_once_are_told() -> None:
    mine, other = version(5, "tick_s: 5"), version(5, "tick_s: 6")
    both = [record(policy_record(each, "t"), n) for n, each in enumerate((other, mine))]
    with pytest.raises(Refused, match="somebody else set version 5"):
        check_alone(mine, both)
    check_alone(mine, both[1:])
