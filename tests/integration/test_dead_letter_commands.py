"""What operators type about dead letters, halts and replays, on a real Kafka."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from click.testing import Result
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.codec import decode, encode
from penstock.failures import Poisoned
from penstock.kafka.admin import KafkaAdmin, Sizes, plan
from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import Delivery, TransactionalConsumer
from penstock.kafka.dlq import REPLAYED_FROM, dead_letter
from penstock.kafka.halts import HaltAlerts, Resumes
from penstock.kafka.ports import Fenced
from penstock.kafka.progress import Progress
from penstock.kafka.progress import encode as encode_progress
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.kafka.transactions import TransactionalPublisher
from penstock.records import Outgoing, Partition, Record
from penstock.topics import TOPICS
from penstock.v1 import admitted_pb2, common_pb2, control_pb2, response_pb2, route_pb2
from penstock_native.kafka import KafkaServer

pytestmark = pytest.mark.integration

MARKER = b"MARKER-of-a-prompt"


class Place:
    """Topics of its own on the session's Kafka, and the command beside them."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = f"d{uuid.uuid4().hex[:8]}"

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    async def command(self, *arguments: str) -> Result:
        env = {
            "PENSTOCK_KAFKA_BOOTSTRAP": self.bootstrap,
            "PENSTOCK_TOPIC_PREFIX": self.prefix,
            "PENSTOCK_COST_GRPC_PORT": "1",
            "COLUMNS": "200",
        }
        result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    async def done(self, *arguments: str) -> str:
        result = await self.command(*arguments)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    async def publish(self, *records: Outgoing) -> None:
        publisher = KafkaPublisher(self.bootstrap, "test")
        await publisher.start()
        await publisher.publish(records)
        await publisher.stop()

    async def read(self, name: str) -> list[Record]:
        reader = LogReader(self.bootstrap, self.topic(name), start=Start.BEGINNING)
        records: list[Record] = []
        task = asyncio.create_task(reader.run(records.append))
        await asyncio.wait_for(reader.caught_up.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return records

    async def bury(self, name: str, value: bytes, **more: Any) -> None:
        """A letter as if a record of that topic had died."""
        headers = (("content-type", b"application/protobuf"), ("mine", b"\xff\x00"))
        record = Record(Partition(self.topic(name), 1), 41, b"key", value, headers, 1_000)
        kept = {"service": "inference", "reason": "it died", "error": None, "attempts": 3} | more
        await self.publish(dead_letter(record, dlq_topic=self.topic("dlq"), **kept))


@pytest.fixture
async def place(kafka: KafkaServer) -> Place:
    place = Place(kafka.bootstrap)
    async with KafkaAdmin(kafka.bootstrap) as admin:
        changes = plan(TOPICS, place.prefix, Sizes(work=2), {})
        await admin.apply(changes, {}, 1)
    return place


def admitted(request_id: str, **more: Any) -> admitted_pb2.AdmittedRequest:
    made = admitted_pb2.AdmittedRequest(request_id=request_id, variant="base", **more)
    made.request.model = "triage"
    made.request.tenant = "acme"
    made.request.prompt = MARKER.decode()
    made.published_at.GetCurrentTime()
    made.deadline.FromMilliseconds(made.published_at.ToMilliseconds() + 20_000)
    return made


async def test_letters_are_listed_and_shown_without_their_values(place: Place) -> None:
    await place.bury("requests", MARKER, service="ingest")
    await place.bury("admitted", MARKER, error=Poisoned("x"), request_id="req-1", tenant="acme")
    listed = await place.done("dlq", "list")
    assert "0-0" in listed
    assert f"{place.prefix}.admitted/1-41" in listed
    lines = [json.loads(line) for line in (await place.done("dlq", "list", "--json")).splitlines()]
    assert [(line["id"], line["service"], line["reason"]) for line in lines] == [
        ("0-0", "ingest", "handler-raised"),
        ("0-1", "inference", "poison"),
    ]
    poison = await place.done("dlq", "list", "--json", "--reason", "poison", "--tenant", "acme")
    assert json.loads(poison)["request_id"] == "req-1"
    later = f"{dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1):%Y-%m-%dT%H:%M:%S}"
    assert await place.done("dlq", "list", "--since", later) == ""

    shown = await place.done("dlq", "show", "0-1")
    assert json.loads(shown)["headers"]["mine"] == "\\xff\x00"
    assert MARKER.decode() not in listed + shown + poison
    assert await place.done("dlq", "show", "0-1", "--value") == MARKER.decode()
    missing = await place.command("dlq", "show", "0-99")
    assert (missing.exit_code, "no dead letter 0-99" in missing.stderr) == (1, True)


async def test_a_letter_goes_back_once_unless_it_is_asked_for_again(place: Place) -> None:
    await place.bury("requests", MARKER)
    assert "would replay" in await place.done("dlq", "replay", "0-0", "--dry-run")
    assert await place.read("requests") == []
    await place.done("dlq", "replay", "0-0")
    refused = await place.command("dlq", "replay", "0-0")
    assert (refused.exit_code, "was replayed before" in refused.stderr) == (1, True)
    (record,) = await place.read("requests")
    assert (record.partition.number, record.key, record.value) == (1, b"key", MARKER)
    assert list(record.headers) == [
        ("content-type", b"application/protobuf"),
        ("mine", b"\xff\x00"),
        (REPLAYED_FROM, f"{place.prefix}.dlq/0-0".encode()),
    ]
    await place.done("dlq", "replay", "0-0", "--again")
    assert len(await place.read("requests")) == 2


async def test_all_that_can_be_replayed_is_each_with_an_id_of_its_own(place: Place) -> None:
    for n in range(3):
        await place.bury("admitted", admitted(f"req-{n}").SerializeToString())
    await place.bury("admitted", admitted("req-0+r1").SerializeToString())
    await place.bury("responses", b"")
    unasked = await place.command("dlq", "replay", "--all")
    assert (unasked.exit_code, "say --yes" in unasked.stderr) == (1, True)
    result = await place.command("dlq", "replay", "--all", "--yes")
    assert (result.exit_code, "whoever else reads" in result.stderr) == (0, True)
    again = await place.command("dlq", "replay", "--all", "--yes")
    assert "4 were replayed before" in again.stderr
    made = [decode(r, admitted_pb2.AdmittedRequest) for r in await place.read("admitted")]
    assert sorted((each.request_id, each.origin_request_id) for each in made) == [
        ("req-0+r1", "req-0"),
        ("req-0+r2", "req-0"),
        ("req-1+r1", "req-1"),
        ("req-2+r1", "req-2"),
    ]
    now_ms = dt.datetime.now(dt.UTC).timestamp() * 1000
    assert all(now_ms < each.deadline.ToMilliseconds() < now_ms + 21_000 for each in made)


async def test_an_operator_who_comes_later_ends_the_other(place: Place) -> None:
    first = TransactionalPublisher(place.bootstrap, "test", f"{place.prefix}-dlq-replay")
    await first.start()
    await place.bury("requests", MARKER)
    await place.done("dlq", "replay", "0-0")
    with pytest.raises(Fenced):
        await first.publish([Outgoing(place.topic("requests"), b"k", b"a second time")])
    await first.stop()
    assert [record.value for record in await place.read("requests")] == [MARKER]


async def halt(place: Place, group: str, at_ms: int) -> None:
    """A group that stands halted in partition 1 of `admitted`, as its owner leaves it."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=place.bootstrap, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    tps = [TopicPartition(place.topic("admitted"), n) for n in range(2)]
    consumer.assign(tps)
    marks = [encode_progress(Progress()), encode_progress(Progress(halted_at_ms=at_ms))]
    await consumer.commit(
        {tp: OffsetAndMetadata(1, mark) for tp, mark in zip(tps, marks, strict=True)}
    )
    await consumer.stop()


async def test_a_halted_partition_is_found_and_told_to_go_on(place: Place) -> None:
    group = f"{place.prefix}-pump"
    # The consumer's clock is ahead of the operator's.
    halted_at_ms = int(dt.datetime.now(dt.UTC).timestamp() * 1000) + 60_000
    await place.publish(
        *(Outgoing(place.topic("admitted"), None, b"", partition=1) for _ in range(4))
    )
    await halt(place, group, halted_at_ms)
    standings = [
        json.loads(line) for line in (await place.done("consumers", "list", "--json")).splitlines()
    ]
    assert [(s["partition"], s["position"], s["lag"]) for s in standings] == [(0, 1, 0), (1, 1, 3)]
    halted = json.loads(await place.done("consumers", "halted", "--json"))
    assert (halted["group"], halted["partition"]) == (group, 1)
    assert group in await place.done("consumers", "halted")

    told = await place.done("consumers", "resume", group, "--topic", "admitted")
    assert "partitions 1" in told
    (record,) = await place.read("control")
    resume = decode(record, control_pb2.Control).resume
    assert (resume.group, resume.topic) == (group, place.topic("admitted"))
    assert not resume.HasField("partition")
    assert resume.requested_at.ToMilliseconds() > halted_at_ms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody", "--topic", "admitted"], "no group 'nobody' has read"),
        (["GROUP", "--topic", "requests"], "has read"),
        (["GROUP", "--topic", "admitted", "--partition", "7"], "partition 7"),
        (["GROUP", "--topic", "nope"], "is not there"),
    ],
    ids=str,
)
async def test_a_command_for_nobody_is_refused(
    place: Place, arguments: Sequence[str], message: str
) -> None:
    group = f"{place.prefix}-pump"
    await halt(place, group, 1)
    named = [group if each == "GROUP" else each for each in arguments]
    result = await place.command("consumers", "resume", *named)
    assert (result.exit_code, message in result.stderr) == (1, True)
    assert await place.read("control") == []


def response(request_id: str, text: str) -> response_pb2.GenerateResponse:
    made = response_pb2.GenerateResponse(
        request_id=request_id,
        text=text,
        outcome=response_pb2.OUTCOME_ANSWERED,
        tenant="acme",
        usage=common_pb2.Usage(prompt_tokens=5, completion_tokens=1),
    )
    made.created_at.GetCurrentTime()
    return made


async def test_a_window_is_run_again_once_and_compared(place: Place) -> None:
    start = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    route = route_pb2.Route(model="triage", version=4)
    for name in ("base", "lora-7"):
        route.variants.add(name=name, base_model="m", weight=1)
    requests = [admitted(f"req-{n}") for n in range(5)]
    shadow = admitted("shadow", purpose=common_pb2.PURPOSE_SHADOW)
    topic = place.topic("admitted")
    await place.publish(
        encode(route, topic=place.topic("routes"), key="triage", source="test"),
        *(encode(r, topic=topic, key=r.request_id, source="test") for r in (*requests, shadow)),
        *(
            encode(
                response(f"req-{n}", "billing"),
                topic=place.topic("responses"),
                key=b"k",
                source="test",
            )
            for n in range(5)
        ),
    )
    # An aborted transaction's record is no request.
    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap, transactional_id=place.prefix)
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(topic, admitted("aborted").SerializeToString())
    await producer.abort_transaction()
    await producer.stop()
    await asyncio.sleep(1.1)
    window = [
        "--from", f"{start:%Y-%m-%dT%H:%M:%S.%f}",
        "--to", f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S.%f}",
    ]  # fmt: skip
    named = [*window, "--variant", "lora-7", "--run-id", "again", "--timeout-s", "5"]

    wrong = await place.command("replay", *window, "--variant", "lora-8")
    assert (wrong.exit_code, "base, lora-7" in wrong.stderr) == (1, True)
    assert "5 of 5 requests" in (await place.command("replay", *named, "--dry-run")).stderr
    assert len(await place.read("admitted")) == 6

    await place.done("replay", *named, "--limit", "2", "--no-wait")
    sent_before = await place.command("replay", *named, "--no-wait", "--rate", "1000")
    assert "2 were sent before" in sent_before.stderr
    await place.done("replay", *named, "--no-wait")
    made = [decode(r, admitted_pb2.AdmittedRequest) for r in await place.read("admitted")][:]
    replays = {r.request_id: r for r in made if r.purpose == common_pb2.PURPOSE_REPLAY}
    assert sorted(replays) == [f"req-{n}~replay-again" for n in range(5)]
    assert len(made) == 6 + 5
    assert {(r.variant, r.route_version) for r in replays.values()} == {("lora-7", 4)}

    # What the pump writes: four answers, one of them another one.
    texts = {0: "billing", 1: "billing", 2: "billing", 3: "shipping"}
    topic = place.topic("replays")
    await place.publish(
        *(
            encode(response(f"req-{n}~replay-again", text), topic=topic, key=b"k", source="test")
            for n, text in texts.items()
        )
    )
    short = await place.command("replay", *named, "--limit", "4", "--json")
    assert short.exit_code == 0, short.output
    found = json.loads(short.stdout)
    assert found["outcomes"] == {"answered": 4}
    assert found["answers"] == {"different": 1, "equal": 3}
    assert (found["sent"], found["ended"], found["completion_tokens"]) == (0, 4, 4)
    assert "did not answer" in found["cost_note"]


class Broken:
    """A handler of a bad deploy, until it is mended."""

    def __init__(self, place: Place) -> None:
        self.mended = False
        self.handled: list[bytes | None] = []
        self._place = place

    def accept(self, delivery: Delivery) -> None:
        if not self.mended:
            raise ValueError("a bad deploy")
        self.handled.append(delivery.record.value)
        delivery.complete(())

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        return [
            dead_letter(
                record,
                dlq_topic=self._place.topic("dlq"),
                service="test",
                reason="it raised",
                error=error,
                attempts=1,
            )
        ]


async def running(
    place: Place, handler: Broken
) -> tuple[TransactionalConsumer, asyncio.Task[None]]:
    group = f"{place.prefix}-test"
    consumer = TransactionalConsumer(
        KafkaBroker(place.bootstrap),
        topic=place.topic("admitted"),
        group=group,
        handler=handler,
        halts=HaltAlerts("test", group, place.topic("alerts")),
    )
    commands = Resumes(group, place.topic("admitted"), consumer.resume)
    reader = LogReader(place.bootstrap, place.topic("control"), start=Start.BEGINNING)

    async def both() -> None:
        hearing = asyncio.create_task(reader.run(commands.take))
        try:
            await consumer.run()
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    return consumer, asyncio.create_task(both())


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float = 60) -> None:
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.2)


async def test_a_bad_deploy_halts_stays_halted_when_restarted_and_is_resumed(place: Place) -> None:
    values = [b"%d" % n for n in range(200)]
    await place.publish(
        *(Outgoing(place.topic("admitted"), None, value, partition=0) for value in values)
    )
    handler = Broken(place)
    consumer, task = await running(place, handler)

    async def halted() -> bool:
        return f"{place.prefix}-test" in await place.done("consumers", "halted")

    await until(halted)
    letters = await place.read("dlq")
    assert len(letters) == 20
    (alert,) = await place.read("alerts")
    summary = json.loads(alert.value or b"")["summary"]
    command = summary.rpartition("penstock ")[2].split()

    await consumer.stop(1)
    await task
    handler.mended = True
    consumer, task = await running(place, handler)
    await until(lambda: _true(len(consumer.assigned) == 2))
    await asyncio.sleep(2)
    assert handler.handled == []

    await place.done(*command)
    await until(lambda: _true(len(handler.handled) == 180))
    states = [json.loads(each.value or b"")["state"] for each in await place.read("alerts")]
    await until(lambda: _not(halted))
    await consumer.stop(1)
    await task
    assert handler.handled == values[20:]
    assert [letter.value for letter in await place.read("dlq")] == values[:20]
    assert states == ["ALERT_STATE_OPENED", "ALERT_STATE_RESOLVED"]


async def _true(value: bool) -> bool:
    return value


async def _not(condition: Callable[[], Awaitable[bool]]) -> bool:
    return not await condition()


async def test_an_interrupted_replay_says_what_it_sent_and_goes_on(place: Place) -> None:
    route = route_pb2.Route(model="triage", version=1)
    route.variants.add(name="base", base_model="m", weight=1)
    start = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    topic = place.topic("admitted")
    await place.publish(
        encode(route, topic=place.topic("routes"), key="triage", source="test"),
        *(encode(admitted(f"r{n}"), topic=topic, key=b"k", source="test") for n in range(30)),
    )
    await asyncio.sleep(1.1)
    arguments = [
        "replay",
        f"--from={start:%Y-%m-%dT%H:%M:%S.%f}",
        f"--to={dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S.%f}",
        "--run-id=stopped",
        "--no-wait",
    ]
    env = {"PENSTOCK_KAFKA_BOOTSTRAP": place.bootstrap, "PENSTOCK_TOPIC_PREFIX": place.prefix}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from penstock.cli.app import main; main()",
        *arguments,
        "--rate=1",
        env=os.environ | env,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    seen = b""
    async with asyncio.timeout(90):
        while b" sent, " not in seen:
            seen += await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        seen += await process.stderr.read()
        code = await process.wait()
    assert code == 130
    told = re.search(rb"interrupted: (\d+) were sent as run stopped", seen)
    assert told is not None, seen

    def replays(records: Sequence[Record]) -> list[str]:
        made = [decode(record, admitted_pb2.AdmittedRequest) for record in records]
        return [r.request_id for r in made if r.purpose == common_pb2.PURPOSE_REPLAY]

    before = replays(await place.read("admitted"))
    assert int(told[1]) <= len(before) < 30
    await place.done(*arguments, "--rate=1000")
    after = replays(await place.read("admitted"))
    assert sorted(after) == sorted(f"r{n}~replay-stopped" for n in range(30))


async def test_a_header_without_a_value_stops_nobody(place: Place) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap)
    await producer.start()
    await producer.send_and_wait(
        place.topic("requests"), b"{}", headers=[("traceparent", None), ("content-type", None)]
    )
    await producer.stop()
    (record,) = await place.read("requests")
    assert (record.header("traceparent"), record.carrier()) == (
        "",
        {"traceparent": "", "content-type": ""},
    )
