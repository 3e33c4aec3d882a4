"""A policy that a former version of penstock took, and this one refuses, stops nobody."""

from __future__ import annotations

import pytest

from penstock_drift.fold.partition import PartitionFold, Progress
from penstock_drift.judge.cases import JudgeProgress
from penstock_drift.judge.judge import Judge
from penstock_drift.policy.document import PolicyError, parse_policy
from penstock_drift.records.evidence import TickEvidence
from penstock_drift.records.values import PolicyChange, Tick
from tests.unit.drift.toy import BANK, DECLARED, observation

# Of a field that was taken out.
FORMER = PolicyChange(3, "tick_s: 1\npatience_of_the_judge: 5\n")


def test_it_is_refused() -> None:
    with pytest.raises(PolicyError):
        parse_policy(FORMER.document)


def test_a_fold_goes_on_by_the_default() -> None:
    fold = PartitionFold(0, 1, BANK, Progress(offset=5, closed_ms=10_000, policy=FORMER), {})
    fold.apply(observation(1, 12_000, 1.0), 5)
    told = fold.apply(Tick("responses/0", 20_000, 1), 6)
    assert [each.until_ms for each in told] == [20_000]
    # The next version counts, and a lower one does not.
    fold.apply(PolicyChange(2, "tick_s: 2"), 7)
    fold.apply(PolicyChange(4, "tick_s: 5"), 8)
    (told_next,) = fold.apply(Tick("responses/0", 25_000, 1), 9)
    assert (told_next.until_ms, told_next.policy) == (25_000, PolicyChange(4, "tick_s: 5"))


def test_the_judge_goes_on_by_the_default_whether_it_hears_of_it_or_had_it() -> None:
    heard, had = Judge(DECLARED), Judge(DECLARED, JudgeProgress(1000, 1, policy=FORMER))
    heard.take(TickEvidence(0, 1, 1000, 0, policy=FORMER), 0)
    for judge in (heard, had):
        judge.take(TickEvidence(0, 1, 2000, 0), 1)
        assert (judge.judged_ms, judge.snapshot().progress.policy) == (2000, FORMER)
