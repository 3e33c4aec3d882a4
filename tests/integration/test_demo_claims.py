"""The demonstration against a stand-in for the stack that can be made to lie."""

import asyncio
import contextlib
import json
from decimal import Decimal
from types import SimpleNamespace

import grpc
import pytest

from penstock.cli.demo_run import Demonstration
from penstock.cli.demo_tally import Ticket, claims
from penstock.cli.run import CliError
from penstock.cli.settings import CliSettings
from penstock.codec import decode, encode
from penstock.kafka.admin import KafkaAdmin, Sizes, plan
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.topics import TOPICS
from penstock.v1 import admitted_pb2, cost_service_pb2, request_pb2, response_pb2
from penstock.v1.cost_service_pb2_grpc import CostServicer, add_CostServicer_to_server

pytestmark = pytest.mark.integration

LABELS = {"category": "billing", "priority": "low", "product": "beacon"}
TICKETS = [Ticket(f"T-{number}", "text", LABELS) for number in range(20)]
PER_TOKEN = Decimal("0.0033")
PREFIX = "demo-claims"


def price(response):
    return PER_TOKEN * (response.usage.prompt_tokens + response.usage.completion_tokens)


class Ledger(CostServicer):
    """Counts the answers that it is told of."""

    def __init__(self):
        self.lines = 0
        self.asked = asyncio.Event()

    async def GetSpend(self, request, context):
        self.asked.set()
        answer = cost_service_pb2.GetSpendResponse(
            total_usd=str(PER_TOKEN * 13 * self.lines), lines=self.lines
        )
        answer.groups.add(prompt_tokens=10 * self.lines, completion_tokens=3 * self.lines)
        return answer


class Stack:
    """Admits, answers and bills every request; `doubled` get a second answer."""

    def __init__(self, bootstrap, ledger, doubled=(), silent=()):
        self.ledger = ledger
        self._bootstrap, self._doubled, self._silent = bootstrap, doubled, silent
        self._requests = asyncio.Queue()
        self.ready = asyncio.Event()

    async def run(self):
        reader = LogReader(self._bootstrap, f"{PREFIX}.requests", start=Start.END)
        to = KafkaPublisher(self._bootstrap, "stand-in")
        await to.start()
        reading = asyncio.create_task(reader.run(self._requests.put_nowait))
        try:
            await reader.caught_up.wait()
            self.ready.set()
            while True:
                await self._answer(to, await self._requests.get())
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await to.stop()

    async def _answer(self, to, record):
        request = decode(record, request_pb2.GenerateRequest)
        name = request.idempotency_key
        admitted = admitted_pb2.AdmittedRequest(request_id=name, request=request)
        response = response_pb2.GenerateResponse(
            request_id=name,
            idempotency_key=name,
            tenant=request.tenant,
            outcome=response_pb2.OUTCOME_ANSWERED,
            text=json.dumps(LABELS),
        )
        response.usage.prompt_tokens, response.usage.completion_tokens = 10, 3
        await to.publish([record_for("admitted", admitted, name)])
        ticket = name.rpartition("-")[0]
        if ticket in self._silent:
            return
        answer = record_for("responses", response, name)
        await to.publish([answer] * (2 if ticket in self._doubled else 1))
        self.ledger.lines += 1


def record_for(topic, message, key):
    return encode(message, topic=f"{PREFIX}.{topic}", key=key, source="stand-in")


@pytest.fixture
async def stack(kafka):
    async with KafkaAdmin(kafka.bootstrap) as admin:
        observed = await admin.observe(PREFIX)
        await admin.apply(plan(TOPICS, PREFIX, Sizes(), observed), observed, 1)
    server = grpc.aio.server()
    ledger = Ledger()
    add_CostServicer_to_server(ledger, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settings = CliSettings.load(
        kafka_bootstrap=kafka.bootstrap, topic_prefix=PREFIX, cost_grpc_port=port
    )
    yield SimpleNamespace(settings=settings, ledger=ledger)
    await server.stop(grace=None)


@contextlib.asynccontextmanager
async def running(stand_in):
    task = asyncio.create_task(stand_in.run())
    try:
        await asyncio.wait_for(stand_in.ready.wait(), 30)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def failing(stack, *, rate=None, timeout_s=30, **lies):
    """The claims that do not hold of a run against a stand-in, and the figures shown."""
    shown = []
    stand_in = Stack(stack.settings.kafka_bootstrap, stack.ledger, **lies)
    async with running(stand_in), Demonstration(stack.settings, TICKETS) as demonstration:
        await demonstration.send_and_await(
            rate, timeout_s, lambda numbers, usd: shown.append((numbers, usd))
        )
        spend = await demonstration.settled_spend()
        found = claims(await demonstration.recount(), spend, price, 0.9)
    return {claim.name: claim.found for claim in found if not claim.holds}, shown


async def test_every_claim_holds_of_an_honest_stack(stack):
    failed, shown = await failing(stack, rate=20)
    assert failed == {}
    # 20 tickets take a second at that rate, so that the figures were seen to move.
    assert any(0 < numbers.published < 20 for numbers, _ in shown)


async def test_a_second_answer_on_the_log_is_seen(stack):
    failed, _ = await failing(stack, doubled={"T-7"})
    name = "every ticket has exactly one terminal response"
    assert failed[name].startswith("19 of 20; more than one: 1 (T-7-")
    assert "the ledger's total is the responses' cost, exactly" in failed


async def test_a_ticket_without_an_answer_ends_the_wait_and_is_named(stack):
    # The others have that long to be answered, on a busy machine too.
    failed, _ = await failing(stack, silent={"T-3"}, timeout_s=10)
    name = "every ticket has exactly one terminal response"
    assert failed[name].startswith("19 of 20; missing: 1 (T-3-")


async def test_a_first_answer_is_waited_for_and_its_absence_told(stack):
    stand_in = Stack(stack.settings.kafka_bootstrap, stack.ledger)
    async with Demonstration(stack.settings, TICKETS) as demonstration:
        async with running(stand_in):
            await demonstration.await_first_answer(30)
        # It is of another tenant: the run itself has seen nothing yet.
        assert (await demonstration.recount()).responses == {}
        with pytest.raises(CliError, match="no response to a first request within 1 s"):
            await demonstration.await_first_answer(1)
