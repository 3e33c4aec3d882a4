"""What operators type about dead letters, halts and replays, on a real Kafka."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import signal
import sys
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaProducer

from penstock.codec import decode, encode
from penstock.failures import Poisoned
from penstock.kafka.dlq import REPLAYED_FROM
from penstock.kafka.ports import Fenced
from penstock.kafka.transactions import TransactionalPublisher
from penstock.records import Outgoing, Record
from penstock.v1 import admitted_pb2, common_pb2, response_pb2, route_pb2
from penstock_native.kafka import KafkaServer
from tests.integration.operator_place import MARKER, Place, admitted, make_place

pytestmark = pytest.mark.integration


@pytest.fixture
async def place(kafka: KafkaServer) -> Place:
    return await make_place(kafka.bootstrap)


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
