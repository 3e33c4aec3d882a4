"""GetSpend at its door: times that there are, and no more readers than leave room for bookings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.errors import InvalidRequest
from penstock.pricing import PriceTable
from penstock.v1 import cost_service_pb2
from penstock_cost.ledger import Cell, Sum
from penstock_cost.servicer import READERS, CostServicer
from penstock_cost.spans import Span
from penstock_cost.store import LedgerStore

CONTEXT = cast(Any, None)


class Slow(LedgerStore):
    """A ledger whose sums take until they are let go."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.go = threading.Event()
        self.reading, self.most = 0, 0
        self._counting = threading.Lock()

    def cells(self, span: Span, tenant: str, model: str) -> list[tuple[Cell, Sum]]:
        with self._counting:
            self.reading += 1
            self.most = max(self.most, self.reading)
        self.go.wait(30)
        with self._counting:
            self.reading -= 1
        return []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Slow]:
    store = Slow(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield store
    store.go.set()
    store.close()


def asked(**seconds: int) -> cost_service_pb2.GetSpendRequest:
    request = cost_service_pb2.GetSpendRequest()
    for name, value in seconds.items():
        getattr(request, name).seconds = value
    return request


@pytest.mark.parametrize("seconds", [-(2**63), -62_135_596_801, 253_402_300_800, 2**63 - 1])
@pytest.mark.parametrize("field", ["from", "until"])
async def test_a_time_that_is_none_is_refused_by_its_field(
    store: Slow, field: str, seconds: int
) -> None:
    servicer = CostServicer(store, PriceTable.parse("{}"))
    with pytest.raises(InvalidRequest) as error:
        await servicer.GetSpend(asked(**{field: seconds}), CONTEXT)
    assert error.value.field == field


async def test_the_first_and_the_last_time_there_are_can_be_asked_for(tmp_path: Path) -> None:
    ledger = LedgerStore(f"sqlite:///{tmp_path}/other.sqlite")
    servicer = CostServicer(ledger, PriceTable.parse("{}"))
    ever = {"from": -62_135_596_800, "until": 253_402_300_799}
    assert (await servicer.GetSpend(asked(**ever), CONTEXT)).lines == 0
    ledger.close()


async def test_many_who_ask_leave_threads_and_connections_for_bookings(store: Slow) -> None:
    servicer = CostServicer(store, PriceTable.parse("{}"))
    impatient = [asyncio.create_task(servicer.GetSpend(asked(), CONTEXT)) for _ in range(50)]
    async with asyncio.timeout(30):
        while store.reading < READERS:
            await asyncio.sleep(0.01)
        # Those who leave take no place of others with them, and their reads go on.
        for call in impatient:
            call.cancel()
        await asyncio.gather(*impatient, return_exceptions=True)
        waiting = [asyncio.create_task(servicer.GetSpend(asked(), CONTEXT)) for _ in range(50)]
        assert await asyncio.to_thread(store.apply, []) == (0, 0, 0)
        assert store.reading == READERS
        store.go.set()
        assert [answer.lines for answer in await asyncio.gather(*waiting)] == [0] * 50
    assert store.most == READERS
