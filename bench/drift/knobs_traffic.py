"""One case on a stack: tickets at a steady rate, right answers for some, and what drift says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from bench.drift.knobs_cases import (
    Case,
    Finding,
    Question,
    Schedule,
    Stretch,
    finding,
    questions,
)
from examples.triage.desk import answer_of, give_label, ticket_record
from penstock.cli.log import publisher, reading_each
from penstock.cli.settings import CliSettings
from penstock.codec import decode
from penstock.records import Outgoing, Record
from penstock.rpc.channel import open_channel
from penstock.v1 import drift_pb2, response_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub
from penstock_native.stack import Stack

__all__ = ["Outcome", "run_case"]

POLICY = Path(__file__).with_name("knobs_policy.yaml")
TENANT = "bench"
STEP_S = 0.05  # tickets of so long are published together
POLL_S = 0.25
OPINIONS = 16  # calls at a time that send feedback
# How long the last answers, and the judge, may take once all tickets are sent.
ANSWERS_S = 120.0
JUDGE_S = 120.0


@dataclasses.dataclass
class Outcome:
    """What came of a case.

    Attributes:
        findings: Incidents as the command lists them, resolved ones too.
        events: Records of `drift`.
        stretch: The responses, in which delays are counted.
        answered: How many responses there are.
        opinions: How many answers got feedback.
        wrong_before: Share of answers with feedback that were wrong, the knob unturned.
        wrong_after: The same of tickets that the knob was turned for; None without.
        latency_p50_s: From publication to the response, by the median.
        late_send_s: How far sending fell behind its rate, at most.
        unfinished: What did not come to its end.
    """

    findings: list[Finding]
    events: list[drift_pb2.DriftEvent]
    stretch: Stretch
    answered: int
    opinions: int
    wrong_before: float
    wrong_after: float | None
    latency_p50_s: float
    late_send_s: float
    unfinished: list[str]


def run_case(stack: Stack, case: Case, schedule: Schedule) -> Outcome:
    """Sets the policy, sends the tickets, waits for the judge, and asks what is open. Blocks.

    Raises:
        RuntimeError: The policy was not taken.
    """
    stack.penstock("drift", "policy", "set", str(POLICY))
    return asyncio.run(_Run(stack, case, schedule).go())


class _Run:
    """A case under way."""

    def __init__(self, stack: Stack, case: Case, schedule: Schedule) -> None:
        self._stack, self._schedule = stack, schedule
        env = stack.env
        self._settings = CliSettings(
            kafka_bootstrap=env["PENSTOCK_KAFKA_BOOTSTRAP"],
            topic_prefix=env["PENSTOCK_TOPIC_PREFIX"],
            ingest_host=env["PENSTOCK_INGEST_HOST"],
            ingest_grpc_port=int(env["PENSTOCK_INGEST_GRPC_PORT"]),
        )
        made = questions(case, schedule)
        self._questions = {_key(question): question for question in made}
        self._responses: dict[str, response_pb2.GenerateResponse] = {}
        self._to_judge: asyncio.Queue[tuple[Question, str]] = asyncio.Queue()
        self._opinions = 0
        self._last_ms = 0
        self._judged_ms = 0
        self._late_s = 0.0
        self._events: list[drift_pb2.DriftEvent] = []

    async def go(self) -> Outcome:
        takers = {
            "responses": self._take_response,
            "drift": self._take_event,
            "judge_state": self._take_progress,
        }
        async with reading_each(self._settings, takers), self._telling():
            await self._send()
            unfinished = await self._finish()
        listed = await asyncio.to_thread(self._stack.penstock, "alerts", "list", "--all", "--json")
        lines = [json.loads(line) for line in listed.splitlines()]
        return self._outcome([finding(line, _instant_ms) for line in lines], unfinished)

    @contextlib.asynccontextmanager
    async def _telling(self) -> AsyncIterator[None]:
        channel = open_channel(self._settings.ingest_address)
        async with channel:
            stub = InferenceStub(channel)
            tasks = [asyncio.create_task(self._tell(stub)) for _ in range(OPINIONS)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _send(self) -> None:
        """Publishes each ticket when it is due, as JSON."""
        waiting = list(self._questions.values())
        begun_s = time.monotonic()
        sent = 0
        async with publisher(self._settings) as to:
            while sent < len(waiting):
                now_s = time.monotonic() - begun_s
                due = min(len(waiting), int(now_s * self._schedule.rate) + 1)
                self._late_s = max(self._late_s, now_s - sent / self._schedule.rate)
                await to.publish([self._record(each) for each in waiting[sent:due]])
                sent = due
                await asyncio.sleep(STEP_S)

    def _record(self, question: Question) -> Outgoing:
        return ticket_record(
            question.ticket,
            topic=self._settings.topic("requests"),
            model=self._stack.env["PENSTOCK_INFERENCE_MODEL_NAME"],
            tenant=TENANT,
            key=_key(question),
            source="bench",
            labels=question.labels,
        )

    async def _tell(self, stub: InferenceStub) -> None:
        """Sends right answers as feedback, as somebody would who looks answers through."""
        while True:
            question, request_id = await self._to_judge.get()
            await give_label(stub, request_id, TENANT, question.ticket)
            self._last_ms = max(self._last_ms, _now_ms())
            self._opinions += 1
            self._to_judge.task_done()

    async def _finish(self) -> list[str]:
        """Waits for the last answers, and until the judge has looked at them."""
        unfinished = []
        if not await _until(lambda: len(self._responses) == len(self._questions), ANSWERS_S):
            missing = len(self._questions) - len(self._responses)
            unfinished.append(f"{missing} tickets were not answered within {ANSWERS_S:g} s")
        try:
            await asyncio.wait_for(self._to_judge.join(), ANSWERS_S)
        except TimeoutError:
            unfinished.append("feedback was not taken in time")
        if not await _until(lambda: self._judged_ms >= self._last_ms, JUDGE_S):
            behind = (self._last_ms - self._judged_ms) / 1000
            unfinished.append(
                f"the judge was {behind:.0f} s of event time short of the end {JUDGE_S:g} s later"
            )
        return unfinished

    def _take_response(self, record: Record) -> None:
        response = decode(record, response_pb2.GenerateResponse)
        question = self._questions.get(response.idempotency_key)
        if question is None or response.idempotency_key in self._responses:
            return
        self._responses[response.idempotency_key] = response
        self._last_ms = max(self._last_ms, response.created_at.ToMilliseconds())
        if question.judged and response.outcome == response_pb2.OUTCOME_ANSWERED:
            self._to_judge.put_nowait((question, response.request_id))

    def _take_event(self, record: Record) -> None:
        self._events.append(decode(record, drift_pb2.DriftEvent))

    def _take_progress(self, record: Record) -> None:
        if record.key == b"//progress" and record.value is not None:
            self._judged_ms = int(json.loads(record.value)["judged_ms"])

    def _outcome(self, findings: list[Finding], unfinished: list[str]) -> Outcome:
        known = {each.incident for each in findings}
        opened = {
            event.incident_id
            for event in self._events
            if event.state == drift_pb2.DRIFT_STATE_DRIFT
        }
        unfinished += [f"the command does not list incident {each}" for each in opened - known]
        refused = [
            response_pb2.Outcome.Name(each.outcome)
            for each in self._responses.values()
            if each.outcome != response_pb2.OUTCOME_ANSWERED
        ]
        if refused:
            unfinished.append(f"{len(refused)} tickets ended otherwise: {', '.join(set(refused))}")
        changed_ms = [
            response.created_at.ToMilliseconds()
            for key, response in self._responses.items()
            if self._questions[key].changed
        ]
        times_ms = [each.created_at.ToMilliseconds() for each in self._responses.values()]
        latencies = sorted(each.timings.total_s for each in self._responses.values())
        return Outcome(
            findings=findings,
            events=self._events,
            stretch=Stretch(times_ms, min(changed_ms, default=None)),
            answered=len(self._responses),
            opinions=self._opinions,
            wrong_before=self._wrong(changed=False) or 0.0,
            wrong_after=self._wrong(changed=True),
            latency_p50_s=latencies[len(latencies) // 2] if latencies else 0.0,
            late_send_s=self._late_s,
            unfinished=unfinished,
        )

    def _wrong(self, *, changed: bool) -> float | None:
        wrong = [
            answer_of(response.text) != self._questions[key].ticket["expected"]
            for key, response in self._responses.items()
            if self._questions[key].changed is changed and self._questions[key].judged
        ]
        return sum(wrong) / len(wrong) if wrong else None


async def _until(condition: Callable[[], bool], limit_s: float) -> bool:
    for _ in range(round(limit_s / POLL_S)):
        if condition():
            return True
        await asyncio.sleep(POLL_S)
    return condition()


def _key(question: Question) -> str:
    return f"knobs-{question.number}"


def _instant_ms(stamp: str) -> int:
    found = Timestamp()
    found.FromJsonString(stamp)
    return found.ToMilliseconds()


def _now_ms() -> int:
    return round(dt.datetime.now(dt.UTC).timestamp() * 1000)
