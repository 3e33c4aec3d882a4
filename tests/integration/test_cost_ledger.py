"""Usage becomes an exact ledger: aborted lines never count, a killed process repeats none."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import sys
import urllib.request
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from penstock.codec import encode
from penstock.pricing import PriceTable, Tokens, add, cost_of, plain
from penstock.v1 import common_pb2, cost_service_pb2, cost_service_pb2_grpc, usage_pb2
from penstock_native.ports import free_port

pytestmark = pytest.mark.integration

AT_S = 1_780_000_000
TRIAGE = {"input_cost_per_token": 1e-7, "output_cost_per_token": 4e-7, "version": "1"}


def usage(n: int, model: str = "triage") -> usage_pb2.UsageLine:
    line = usage_pb2.UsageLine(
        line_id=f"line-{model}-{n}",
        request_id=f"request-{n}",
        kind=usage_pb2.USAGE_KIND_GENERATION,
        tenant=f"tenant-{n % 3}",
        model=model,
        variant=f"{model}-base",
        usage=common_pb2.Usage(prompt_tokens=37 + n, completion_tokens=3 + n % 5),
    )
    line.observed_at.seconds = AT_S + n * 60
    return line


def expected_usd(lines: Sequence[usage_pb2.UsageLine], prices: dict[str, Any]) -> str:
    table = PriceTable.parse(json.dumps(prices))
    return plain(
        add(
            *(
                cost_of(
                    table.at(line.model, line.observed_at.ToDatetime(dt.UTC)),
                    Tokens(line.usage.prompt_tokens, 0, line.usage.completion_tokens),
                )
                for line in lines
            )
        )
    )


class Cost:
    """The cost service as a process of its own, with topics and a database of its own."""

    def __init__(self, bootstrap: str, home: Path) -> None:
        self.bootstrap, self.home = bootstrap, home
        self.prefix = uuid.uuid4().hex[:8]
        self.port, self.metrics_port = free_port(), free_port()
        self.process: asyncio.subprocess.Process | None = None
        self.set_prices({"triage": TRIAGE})

    def set_prices(self, prices: dict[str, Any]) -> None:
        (self.home / "prices.json").write_text(json.dumps(prices))

    async def start(self) -> None:
        env = os.environ | {
            "PENSTOCK_KAFKA_BOOTSTRAP": self.bootstrap,
            "PENSTOCK_TOPIC_PREFIX": self.prefix,
            "PENSTOCK_COST_GRPC_PORT": str(self.port),
            "PENSTOCK_COST_METRICS_PORT": str(self.metrics_port),
            "PENSTOCK_COST_DATABASE_URL": f"sqlite:///{self.home}/cost.sqlite",
            "PENSTOCK_COST_PRICES": str(self.home / "prices.json"),
            "PENSTOCK_COST_MAX_BATCH": "7",
        }
        with (self.home / "cost.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "penstock_cost", env=env, stderr=log
            )

    async def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 40)

    async def spend(self, **restrict: Any) -> cost_service_pb2.GetSpendResponse:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = cost_service_pb2_grpc.CostStub(channel)
            return await stub.GetSpend(
                cost_service_pb2.GetSpendRequest(**restrict), wait_for_ready=True, timeout=30
            )

    async def spend_of(self, lines: int) -> cost_service_pb2.GetSpendResponse:
        """What is spent once that many lines are booked."""
        async with asyncio.timeout(60):
            while True:
                found = await self.spend()
                if sum(kind.lines for kind in found.kinds) >= lines:
                    return found
                await asyncio.sleep(0.1)

    async def metrics(self) -> str:
        """What `/metrics` shows."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
            return str(answer.read(), "utf-8")

    async def refusal(self) -> tuple[grpc.StatusCode | None, str]:
        """How the spend of everything is refused, if it is."""
        try:
            await self.spend()
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        return None, ""

    async def write(
        self,
        lines: Sequence[usage_pb2.UsageLine],
        *,
        abort: bool = False,
        pause_s: float = 0,
        last_after: asyncio.Event | None = None,
    ) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, transactional_id=f"{self.prefix}-{abort}"
        )
        await producer.start()
        for start in range(0, len(lines), 5):
            if last_after is not None and start + 5 >= len(lines):
                await last_after.wait()
            await producer.begin_transaction()
            for line in lines[start : start + 5]:
                out = encode(
                    line, topic=f"{self.prefix}.usage", key=line.tenant, source="inference"
                )
                await producer.send(out.topic, out.value, key=out.key, headers=list(out.headers))
            await (producer.abort_transaction() if abort else producer.commit_transaction())
            await asyncio.sleep(pause_s)
        await producer.stop()

    async def alerts(self, count: int) -> list[dict[str, Any]]:
        consumer = AIOKafkaConsumer(
            f"{self.prefix}.alerts",
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                for batch in (await consumer.getmany(timeout_ms=300)).values():
                    found.extend(json.loads(record.value) for record in batch)
        await consumer.stop()
        return found


@asynccontextmanager
async def made(bootstrap: str, home: Path) -> AsyncIterator[Cost]:
    cost = Cost(bootstrap, home)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    names = {"usage": 2, "alerts": 1, "dlq": 1}
    await admin.create_topics([NewTopic(f"{cost.prefix}.{n}", p, 1) for n, p in names.items()])
    await admin.close()
    try:
        yield cost
    finally:
        if cost.process is not None:
            await cost.stop(signal.SIGKILL)


@pytest.fixture
async def cost(kafka: Any, tmp_path: Path) -> AsyncIterator[Cost]:
    async with made(kafka.bootstrap, tmp_path) as service:
        yield service


async def test_spend_is_exact_over_aborts_repeats_and_a_kill(cost: Cost) -> None:
    lines = [usage(n) for n in range(60)]
    await cost.write([usage(n) for n in range(500, 520)], abort=True)
    await cost.start()
    await cost.write(lines[:5])
    await cost.spend_of(5)
    # There is more to come whenever the kill does.
    killed = asyncio.Event()
    writing = asyncio.create_task(cost.write(lines[5:40], pause_s=0.5, last_after=killed))
    await cost.spend_of(15)
    await cost.stop(signal.SIGKILL)
    killed.set()
    await writing

    await cost.write([usage(n) for n in range(520, 540)], abort=True)
    await cost.write(lines[30:])  # ten of them again, under the same line ids
    await cost.start()
    found = await cost.spend_of(60)
    assert found.lines == 60
    assert found.total_usd == expected_usd(lines, {"triage": TRIAGE})
    assert {g.tenant: g.amount_usd for g in found.groups} == {
        f"tenant-{t}": expected_usd(lines[t::3], {"triage": TRIAGE}) for t in range(3)
    }
    assert [list(group.price_versions) for group in found.groups] == [["1"]] * 3
    one = await cost.spend(tenant="tenant-1", model="triage")
    assert one.total_usd == expected_usd(lines[1::3], {"triage": TRIAGE})
    assert await cost.stop() == 0


async def test_hits_replays_shadows_and_probes_are_told_apart(cost: Cost) -> None:
    kinds = [
        usage_pb2.USAGE_KIND_GENERATION,
        usage_pb2.USAGE_KIND_CACHE_HIT,
        usage_pb2.USAGE_KIND_REPLAY,
        usage_pb2.USAGE_KIND_SHADOW,
        usage_pb2.USAGE_KIND_PROBE,
    ]
    lines = [usage(n) for n in range(25)]
    hits = lines[1::5]
    for n, line in enumerate(lines):
        line.kind = kinds[n % 5]
    originals = [usage_pb2.UsageLine.FromString(line.SerializeToString()) for line in hits]
    for hit in hits:
        hit.avoided.CopyFrom(hit.usage)
        hit.usage.Clear()
    await cost.write(lines)
    await cost.write(hits)  # again, under the same line ids
    await cost.start()
    found = await cost.spend_of(25)
    prices = {"triage": TRIAGE}
    billed = [*lines[0::5], *lines[2::5]]
    unbilled = [*lines[3::5], *lines[4::5]]
    assert found.lines == 15
    assert found.total_usd == expected_usd(billed, prices)
    assert found.avoided_usd == expected_usd(originals, prices)
    assert found.unbilled_usd == expected_usd(unbilled, prices)
    assert [(k.kind, k.billed, k.lines) for k in found.kinds] == [
        (usage_pb2.USAGE_KIND_GENERATION, True, 5),
        (usage_pb2.USAGE_KIND_REPLAY, True, 5),
        (usage_pb2.USAGE_KIND_CACHE_HIT, True, 5),
        (usage_pb2.USAGE_KIND_SHADOW, False, 5),
        (usage_pb2.USAGE_KIND_PROBE, False, 5),
    ]
    amounts = [expected_usd(lines[start::5], prices) for start in (0, 2, 1, 3, 4)]
    assert [kind.amount_usd for kind in found.kinds] == amounts
    assert amounts[2] == "0"
    assert await cost.stop() == 0


async def test_a_model_without_a_price_is_refused_told_once_and_priced_later(cost: Cost) -> None:
    lines = [usage(n) for n in range(5)]
    late = [usage(n, "late") for n in range(4)]
    await cost.write([*lines, *late])
    await cost.start()
    async with asyncio.timeout(60):
        while "4 lines" not in (refusal := await cost.refusal())[1]:
            await asyncio.sleep(0.1)
    assert refusal[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert "late" in refusal[1]
    metrics = await cost.metrics()
    assert 'penstock_cost_lines_total{outcome="priced"} 5.0' in metrics
    assert 'penstock_cost_lines_total{outcome="unpriced"} 4.0' in metrics
    assert 'penstock_cost_unpriced_lines{model="late"} 4.0' in metrics
    assert "penstock_cost_batch_seconds_count" in metrics
    assert await cost.stop() == 0
    prices = {"triage": TRIAGE, "late": {"input_cost_per_token": 2, "output_cost_per_token": 3}}
    cost.set_prices(prices)
    await cost.start()
    found = await cost.spend_of(9)
    assert found.total_usd == expected_usd([*lines, *late], prices)
    alerts = await cost.alerts(2)
    assert [alert["state"] for alert in alerts] == ["ALERT_STATE_OPENED", "ALERT_STATE_RESOLVED"]
    assert {alert["labels"]["model"] for alert in alerts} == {"late"}
