"""The gRPC edge: `penstock.v1.Drift`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import grpc

from penstock.errors import InvalidRequest
from penstock.incidents import Incident
from penstock.rpc.errors import NotFound
from penstock.v1 import alert_pb2, drift_service_pb2, drift_service_pb2_grpc
from penstock_drift.views.feed import IncidentFeed, SignalView
from penstock_drift.views.statuses import MAX_STATUSES

__all__ = ["DriftServicer", "Statuses"]


class Statuses(Protocol):
    """Makes of saved states what a caller asks for; called off the event loop."""

    def __call__(
        self,
        states: Mapping[tuple[int, bytes], bytes],
        findings: Mapping[tuple[str, str, str, str], int],
        wanted: drift_service_pb2.GetSignalsRequest,
    ) -> Sequence[drift_service_pb2.SignalStatus]:
        """Those wanted, in order."""
        ...


class DriftServicer(drift_service_pb2_grpc.DriftServicer):
    """Answers from what readers of the log have seen.

    Args:
        feed: Incidents.
        view: Saved states.
        statuses: Decodes them.
    """

    def __init__(self, feed: IncidentFeed, view: SignalView, statuses: Statuses) -> None:
        self._feed = feed
        self._view = view
        self._statuses = statuses

    async def GetIncident(  # noqa: N802 - the contract's name
        self,
        request: drift_service_pb2.GetIncidentRequest,
        context: grpc.aio.ServicerContext[drift_service_pb2.GetIncidentRequest, alert_pb2.Alert],
    ) -> alert_pb2.Alert:
        """See the contract."""
        if not request.incident_id:
            raise InvalidRequest("name an incident", field="incident_id")
        incident = self._feed.book.get(request.incident_id)
        if incident is None or not incident.alert.HasField("drift"):
            raise NotFound(
                f"{request.incident_id} is no incident of drift that is still on the log; "
                "see: penstock alerts list --all",
                field="incident_id",
            )
        return incident.alert

    async def WatchIncidents(  # noqa: N802 - the contract's name
        self,
        request: drift_service_pb2.WatchIncidentsRequest,
        context: grpc.aio.ServicerContext[drift_service_pb2.WatchIncidentsRequest, alert_pb2.Alert],
    ) -> AsyncIterator[alert_pb2.Alert]:
        """See the contract."""
        with self._feed.follow() as changes:
            for incident in self._feed.book.incidents(resolved=request.resolved):
                if _wanted(incident, request):
                    yield incident.alert
            while not request.once:
                for incident in await changes.take():
                    # That one is over is news to whoever saw it open.
                    if _wanted(incident, request):
                        yield incident.alert

    async def GetSignals(  # noqa: N802 - the contract's name
        self,
        request: drift_service_pb2.GetSignalsRequest,
        context: grpc.aio.ServicerContext[
            drift_service_pb2.GetSignalsRequest, drift_service_pb2.GetSignalsResponse
        ],
    ) -> drift_service_pb2.GetSignalsResponse:
        """See the contract."""
        # The dictionaries change meanwhile: their copies do not.
        states, findings = dict(self._view.states), dict(self._view.findings)
        found = await asyncio.to_thread(self._statuses, states, findings, request)
        if len(found) > MAX_STATUSES:
            raise InvalidRequest(
                f"more than {MAX_STATUSES} signals are too many for one answer: name a model, a "
                "variant, a segment or a signal",
                field="model",
            )
        return drift_service_pb2.GetSignalsResponse(signals=found)


def _wanted(incident: Incident, request: drift_service_pb2.WatchIncidentsRequest) -> bool:
    drift = incident.alert.drift
    return (
        incident.alert.HasField("drift")
        and request.model in ("", drift.model)
        and request.variant in ("", drift.variant)
    )
