"""The self-test is judged like all others and has no part in what is said of them."""

from __future__ import annotations

import math

from penstock_drift.findings.causes import likely_causes
from penstock_drift.findings.events import Watch
from penstock_drift.judge.judge import _strong
from penstock_drift.policy.document import SELF_TEST_MODEL
from penstock_drift.records.evidence import Entry
from penstock_drift.records.values import Key
from tests.unit.drift.toy import ToyChannel

ALPHA, AMONG = 1e-4, 100
ALONE = math.log(AMONG / ALPHA)


def watch(model: str) -> Watch:
    return Watch(Key(model, "v"), "refusal")


def test_made_up_findings_make_no_room_for_others() -> None:
    real, made_up = watch("m"), watch(SELF_TEST_MODEL)
    # Half the evidence that one alone needs: enough for the weaker one of two that are found.
    weak = ALONE - math.log(2)
    assert _strong({real: weak, watch("n"): 30.0}, AMONG, ALPHA) == {real, watch("n")}
    assert _strong({real: weak, made_up: 30.0}, AMONG, ALPHA) == {made_up}


def test_a_made_up_finding_needs_what_one_alone_needs() -> None:
    made_up = watch(SELF_TEST_MODEL)
    assert _strong({made_up: ALONE + 1e-9}, AMONG, ALPHA) == {made_up}
    assert _strong({made_up: ALONE - 1e-9}, AMONG, ALPHA) == set()
    assert _strong({made_up: ALONE - 0.1, watch("m"): 30.0}, AMONG, ALPHA) == {watch("m")}
    assert _strong({}, AMONG, ALPHA) == set()


def test_made_up_changes_cause_nothing() -> None:
    def entry(model: str) -> Entry:
        return Entry(Key(model, "v"), ToyChannel("latency", {"n": 8, "sum": 15.0}).evidence(), 3)

    (cause,) = likely_causes(entry("m"), [entry("m"), entry(SELF_TEST_MODEL)])
    assert cause.name == "unknown"
    (cause,) = likely_causes(entry("m"), [entry("n"), entry(SELF_TEST_MODEL)])
    assert cause.name == "upstream"
    assert SELF_TEST_MODEL not in cause.reason
