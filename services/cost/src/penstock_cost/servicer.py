"""The gRPC edge: `penstock.v1.Cost`."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from penstock.errors import InvalidRequest
from penstock.pricing import PriceTable
from penstock.v1 import cost_service_pb2, cost_service_pb2_grpc
from penstock_cost.errors import PricesMissing
from penstock_cost.ledger import group_sums
from penstock_cost.spans import Span
from penstock_cost.store import LedgerStore
from penstock_cost.wire import FIRST_S, LAST_S, micros, spend_response

__all__ = ["CostServicer"]

# Of the threads and connections that the booking of lines needs too; more calls wait their turn.
READERS = 4


class CostServicer(cost_service_pb2_grpc.CostServicer):
    """Answers from the ledger; what is still on the log is not in it yet.

    Args:
        store: The ledger.
        prices: Orders price versions.
    """

    def __init__(self, store: LedgerStore, prices: PriceTable) -> None:
        self._store = store
        self._prices = prices
        # Threads of its own, not a semaphore: a call that is cancelled keeps its thread to the end.
        self._readers = ThreadPoolExecutor(READERS, "spend")

    async def GetSpend(  # noqa: N802 - the contract's name
        self,
        request: cost_service_pb2.GetSpendRequest,
        context: grpc.aio.ServicerContext[
            cost_service_pb2.GetSpendRequest, cost_service_pb2.GetSpendResponse
        ],
    ) -> cost_service_pb2.GetSpendResponse:
        """See the contract."""
        span = _span(request)
        cells = await asyncio.get_running_loop().run_in_executor(
            self._readers, self._store.cells, span, request.tenant, request.model
        )
        sums = group_sums(cells, self._prices)
        unpriced = sum(found.unpriced for found in sums)
        if unpriced:
            raise PricesMissing((f.group.model for f in sums if f.unpriced), unpriced)
        return spend_response(sums)


def _span(request: cost_service_pb2.GetSpendRequest) -> Span:
    # `from` is a keyword of Python's.
    start = _micros(getattr(request, "from"), "from") if request.HasField("from") else None
    end = _micros(request.until, "until") if request.HasField("until") else None
    if start is not None and end is not None and start > end:
        raise InvalidRequest("until is before from; swap them", field="until")
    return Span(start, end)


def _micros(time: Timestamp, field: str) -> int:
    if not FIRST_S <= time.seconds <= LAST_S:
        raise InvalidRequest(f"{time.seconds} s is no time of the years 1 to 9999", field=field)
    return micros(time)
