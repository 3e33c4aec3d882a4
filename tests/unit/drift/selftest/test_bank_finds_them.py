"""The real bank finds the self-test's changes within the patience that it is given."""

from __future__ import annotations

from penstock_drift.channels.bank import CatalogueBank
from penstock_drift.findings.events import Event
from penstock_drift.findings.states import State
from penstock_drift.fold.partition import PartitionFold
from penstock_drift.judge.judge import Judge
from penstock_drift.policy.document import SELF_TEST_MODEL, default_document, parse_policy
from penstock_drift.records.values import Tick
from penstock_drift.selftest.changes import Result, SelfTest, Verdict
from penstock_drift.signals.catalogue import CATALOGUE

START_MS = 1_777_636_800_000
POLICY = parse_policy(default_document())
HOURS = 1.5


def run(seed: int) -> list[Verdict]:
    """What the self-test hears in some hours of event time, from the fold and the judge."""
    fold = PartitionFold(0, 1, CatalogueBank(CATALOGUE))
    judge = Judge(CATALOGUE)
    test = SelfTest(POLICY, run="run-1", seed=seed, now_ms=START_MS)
    verdicts, offset, told = [], 0, 0
    for second in range(round(HOURS * 3600)):
        now_ms = START_MS + 1000 * (second + 1)
        items = [*test.due(now_ms)]
        if second % 10 == 9:
            items.append(Tick("responses/0", now_ms - 2000, 1))  # type: ignore[arg-type]
        events: list[Event] = []
        for item in items:
            offset += 1
            for evidence in fold.apply(item, offset):
                told += 1
                events += judge.take(evidence, told).events
        # As if a thousand signals were judged with it.
        test.armed = judge.armed + 1000
        heard = [
            test.heard(
                event.watch.signal,
                stands=event.state is State.DRIFT,
                found_ms=event.detected_ms,
            )
            for event in events
            if event.watch.key.model == SELF_TEST_MODEL
        ]
        verdicts += [verdict for verdict in (*heard, test.look(now_ms)) if verdict is not None]
    return verdicts


def test_every_change_is_found_and_nothing_else() -> None:
    verdicts = [verdict for seed in range(3) for verdict in run(seed)]
    assert {verdict.result for verdict in verdicts} == {Result.FOUND}
    assert {verdict.signal for verdict in verdicts} == {"refusal", "latency"}
    # A change every 150 s of quiet, after the baseline; found ones wait for their cool-down.
    assert len(verdicts) >= 3 * 15
    # The ticks that a finding takes come on top of its values.
    ticks_s = (POLICY.hysteresis_ticks + 1) * POLICY.tick_s + POLICY.lateness_s
    for verdict in verdicts:
        assert verdict.values < verdict.expected + ticks_s * POLICY.self_test.rate_per_s
