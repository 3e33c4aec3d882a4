"""The edge of the self-test: writes its values to `signals`, hears of findings, tells people."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import Callable, Sequence

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.kafka.halts import alert_record
from penstock.kafka.ports import LogError, Publisher
from penstock.records import Record
from penstock.telemetry import logger
from penstock.v1 import alert_pb2, drift_pb2
from penstock_drift import metrics
from penstock_drift.policy.document import SELF_TEST_MODEL, Policy
from penstock_drift.records.evidence_wire import stamp
from penstock_drift.records.signal_wire import SignalWriter
from penstock_drift.selftest.changes import Result, SelfTest, Verdict

__all__ = ["SelfTestAgent", "missed_alert"]

log = logger(__name__)

STEP_S = 0.5
INCIDENT = "drift-self-test"
RUNBOOK = "docs/runbooks/drift.md"


class SelfTestAgent:
    """Runs a worker's self-test for as long as the policy wants one.

    Args:
        writer: Makes the records of `signals`.
        publisher: Writes values and alerts.
        policy: Gives the policy in force.
        alerts: The full name of `alerts`.
        clock: The time now, UTC.
    """

    def __init__(
        self,
        writer: SignalWriter,
        publisher: Publisher,
        policy: Callable[[], Policy],
        alerts: str,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._writer = writer
        self._publisher = publisher
        self._policy = policy
        self._alerts = alerts
        self._clock = clock
        self._armed: dict[int, int] = {}
        self._test: SelfTest | None = None
        self._tested: Policy | None = None
        self._verdicts: list[Verdict] = []
        # By incident: the pages that are open, whichever worker opened them, and when.
        self._open: dict[str, alert_pb2.Alert] = {}

    def on_alert(self, record: Record) -> None:
        """Takes a record of `alerts`; only the self-test's matter."""
        try:
            alert = decode(record, alert_pb2.Alert)
        except InvalidRequest:
            return
        if alert.incident_id.startswith(f"{INCIDENT}/"):
            self._note(alert)

    def on_evidence(self, record: Record) -> None:
        """Takes a record of `evidence`: how many signals a finding holds its own among."""
        try:
            evidence = decode(record, drift_pb2.Evidence)
        except InvalidRequest:
            return
        self._armed[evidence.partition] = evidence.armed

    def on_event(self, record: Record) -> None:
        """Takes a record of `drift`; only those about this run matter."""
        try:
            event = decode(record, drift_pb2.DriftEvent)
        except InvalidRequest:
            return
        test = self._test
        if test is None or (event.model, event.variant) != test.key[:2]:
            return
        verdict = test.heard(
            event.signal,
            stands=event.state == drift_pb2.DRIFT_STATE_DRIFT,
            found_ms=event.detected_at.ToMilliseconds(),
        )
        if verdict is not None:
            self._verdicts.append(verdict)

    async def run(self) -> None:
        """Makes up values until it is cancelled; waits where the log cannot be written."""
        while True:
            try:
                await self.step()
            except LogError as error:
                log.warning("the self-test waits", error=str(error))
            await asyncio.sleep(STEP_S)

    async def step(self) -> None:
        """Writes what is due and tells of what is known.

        Pages of signals that are not changed any more, as the policy has it, end here.

        Raises:
            LogError: Something could not be written; values are lost then, verdicts are told the
                next time.
        """
        now_ms = round(self._clock().timestamp() * 1000)
        test = self._current(now_ms)
        changed = test.signals if test is not None else frozenset()
        await self._end(
            [alert for alert in self._open.values() if alert.labels["signal"] not in changed],
            "The policy in force has no self-test of it.",
            now_ms,
        )
        if test is None:
            return
        test.armed = sum(self._armed.values())
        overdue = test.look(now_ms)
        if overdue is not None:
            self._verdicts.append(overdue)
        values = self._writer.observations(test.due(now_ms))
        if values:
            await self._publisher.publish(values)
        while self._verdicts:
            await self._tell(self._verdicts[0], now_ms)
            del self._verdicts[0]

    def _current(self, now_ms: int) -> SelfTest | None:
        policy = self._policy()
        if policy is not self._tested:
            self._tested = policy
            run = f"run-{secrets.token_hex(4)}"
            wanted = policy.self_test.enabled
            self._test = SelfTest(policy, run=run, seed=now_ms, now_ms=now_ms) if wanted else None
        return self._test

    async def _tell(self, verdict: Verdict, now_ms: int) -> None:
        known = [each for each in self._open.values() if each.labels["signal"] == verdict.signal]
        if verdict.result is Result.MISSED and not known:
            await self._publish([missed_alert(verdict, now_ms)])
        if verdict.result is Result.FOUND:
            await self._end(known, f"The next one was found after {verdict.values} values.", now_ms)
            metrics.SELF_TEST_DELAY.labels(verdict.signal).set(verdict.values)
        metrics.SELF_TEST_CHANGES.labels(verdict.signal, str(verdict.result)).inc()
        log.info("self-test", signal=verdict.signal, result=verdict.result, values=verdict.values)

    async def _end(self, alerts: Sequence[alert_pb2.Alert], why: str, now_ms: int) -> None:
        if alerts:
            await self._publish([_ended(alert, why, now_ms) for alert in alerts])

    async def _publish(self, alerts: Sequence[alert_pb2.Alert]) -> None:
        await self._publisher.publish([alert_record(alert, self._alerts) for alert in alerts])
        # They are read back later, and the next step must not say them again.
        for alert in alerts:
            self._note(alert)

    def _note(self, alert: alert_pb2.Alert) -> None:
        if alert.state == alert_pb2.ALERT_STATE_RESOLVED:
            self._open.pop(alert.incident_id, None)
        else:
            self._open[alert.incident_id] = alert


def _ended(alert: alert_pb2.Alert, why: str, now_ms: int) -> alert_pb2.Alert:
    over = alert_pb2.Alert()
    over.CopyFrom(alert)
    over.state = alert_pb2.ALERT_STATE_RESOLVED
    over.alert_id = f"{alert.incident_id}/resolved"
    over.summary = why
    over.updated_at.CopyFrom(stamp(now_ms))
    return over


def missed_alert(verdict: Verdict, now_ms: int) -> alert_pb2.Alert:
    """What people are told when a made-up change was not found in time."""
    incident_id = f"{INCIDENT}/{verdict.signal}/{now_ms}"
    return alert_pb2.Alert(
        alert_id=f"{incident_id}/opened",
        incident_id=incident_id,
        state=alert_pb2.ALERT_STATE_OPENED,
        severity=alert_pb2.SEVERITY_PAGE,
        title=f"drift does not see changes: a made-up one of {verdict.signal} was missed",
        summary=(
            f"{verdict.values} values after it began there was no finding on `drift`, and theory "
            f"expects one within {verdict.expected}. Real changes may be missed as well: is every "
            "partition of `signals` folded, and does the judge run?"
        ),
        service="drift",
        labels={"signal": verdict.signal, "model": SELF_TEST_MODEL},
        runbook=RUNBOOK,
        opened_at=stamp(now_ms),
        updated_at=stamp(now_ms),
    )
