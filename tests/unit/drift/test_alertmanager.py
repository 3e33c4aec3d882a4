"""What Alertmanager is told, in the form that its v2 API wants, and when it is told again."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from penstock.codec import JSON, encode
from penstock.incidents import AlertBook
from penstock.records import Partition, Record
from penstock.settings import SettingsError
from penstock.v1 import alert_pb2, drift_pb2
from penstock_drift.notify.alertmanager import Alertmanager, Forwarder, Unreachable, addresses
from penstock_drift.notify.payloads import payloads
from penstock_drift.views.feed import IncidentFeed

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
HOLD = dt.timedelta(minutes=4)
OPENED, UPDATED = alert_pb2.ALERT_STATE_OPENED, alert_pb2.ALERT_STATE_UPDATED
RESOLVED = alert_pb2.ALERT_STATE_RESOLVED
TICKET, PAGE = alert_pb2.SEVERITY_TICKET, alert_pb2.SEVERITY_PAGE


def alert(
    state: alert_pb2.AlertState.ValueType = OPENED,
    severity: alert_pb2.Severity.ValueType = TICKET,
    minute: float = 0,
    incident: str = "drift/1",
    **labels: str,
) -> alert_pb2.Alert:
    made = alert_pb2.Alert(
        incident_id=incident,
        state=state,
        severity=severity,
        title="refusals rose",
        summary="2 % became 10 %",
        service="drift",
        runbook="docs/runbooks/drift.md",
        labels=labels,
        drift=alert_pb2.DriftIncident(
            model="triage",
            variant="base",
            kind=drift_pb2.DRIFT_KIND_OUTPUT,
            causes=[alert_pb2.Cause(name="route_change", reason="version 4")],
        ),
    )
    made.opened_at.FromDatetime(NOW)
    made.updated_at.FromDatetime(NOW + dt.timedelta(minutes=minute))
    return made


def told(book: AlertBook, minute: float = 1) -> list[dict[str, Any]]:
    return payloads(book, NOW + dt.timedelta(minutes=minute), HOLD)


def test_an_open_incident_is_told_with_its_labels_and_holds_for_a_while() -> None:
    book = AlertBook()
    book.take_alert(alert(**{"odd-name": "x", "1st": "y", "empty": ""}))
    (payload,) = told(book)
    assert payload == {
        "labels": {
            "alertname": "PenstockDrift",
            "severity": "ticket",
            "service": "drift",
            "incident": "drift/1",
            "model": "triage",
            "variant": "base",
            "kind": "output",
            "odd_name": "x",
            "_1st": "y",
        },
        "annotations": {
            "summary": "refusals rose",
            "description": "2 % became 10 %",
            "runbook": "docs/runbooks/drift.md",
            "command": "penstock alerts show drift/1",
            "cause": "route_change: version 4",
        },
        "startsAt": "2026-05-01T12:00:00+00:00",
        "endsAt": "2026-05-01T12:05:00+00:00",
    }


def test_labels_never_change_while_an_incident_lives() -> None:
    book = AlertBook()
    book.take_alert(alert(limit="run"))
    (first,) = told(book)
    book.take_alert(alert(UPDATED, minute=1))
    (second,) = told(book)
    book.take_alert(alert(RESOLVED, alert_pb2.SEVERITY_INFO, minute=2))
    (third,) = told(book, 3)
    assert first["labels"] == second["labels"] == third["labels"]


def test_a_rise_in_severity_ends_the_former_alert() -> None:
    book = AlertBook()
    book.take_alert(alert())
    book.take_alert(alert(UPDATED, PAGE))
    page, ticket = told(book)
    assert (page["labels"]["severity"], ticket["labels"]["severity"]) == ("page", "ticket")
    assert page["endsAt"] == "2026-05-01T12:05:00+00:00"
    assert ticket["endsAt"] == "2026-05-01T12:01:00+00:00"


@pytest.mark.parametrize(("minute", "tellings"), [(6, 1), (19, 1), (21, 0)])
def test_the_end_is_told_for_a_quarter_of_an_hour(minute: float, tellings: int) -> None:
    book = AlertBook()
    book.take_alert(alert())
    book.take_alert(alert(RESOLVED, minute=5))
    found = told(book, minute)
    assert len(found) == tellings
    assert all(payload["endsAt"] == "2026-05-01T12:05:00+00:00" for payload in found)


def test_an_end_by_a_clock_ahead_is_an_end_now() -> None:
    book = AlertBook()
    book.take_alert(alert(RESOLVED, minute=50))
    (payload,) = told(book, 1)
    assert payload["endsAt"] == "2026-05-01T12:01:00+00:00"
    assert payload["startsAt"] <= payload["endsAt"]


def test_what_is_silenced_is_not_told() -> None:
    book = AlertBook()
    book.take_alert(alert())
    book.take_alert(alert(incident="drift/2", team="a"))
    silence = alert_pb2.Silence(silence_id="s", labels={"team": "a"})
    getattr(silence, "from").FromDatetime(NOW)
    silence.until.FromDatetime(NOW + dt.timedelta(hours=1))
    book.take_action(alert_pb2.AlertAction(silence=silence))
    assert [each["labels"]["incident"] for each in told(book)] == ["drift/1"]
    assert len(told(book, 61)) == 2


def test_who_looks_at_it_stands_beside_it() -> None:
    book = AlertBook()
    book.take_alert(alert())
    words = alert_pb2.Acknowledgement(incident_id="drift/1")
    book.take_action(alert_pb2.AlertAction(acknowledge=words, by="ada"))
    (payload,) = told(book)
    assert payload["annotations"]["acknowledged_by"] == "ada"


# Over a socket.


class Receiver:
    """An HTTP server that keeps what is posted to it, or refuses."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, list[dict[str, Any]]]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append((self.path, json.loads(body)))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/am/"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def forwarder(feed: IncidentFeed, *addresses_: str, repeat_s: float = 60) -> Forwarder:
    targets = [Alertmanager(address) for address in addresses_]
    return Forwarder(feed, targets, repeat_s=repeat_s, clock=lambda: NOW)


def give(feed: IncidentFeed, made: alert_pb2.Alert) -> None:
    out = encode(made, topic="t", key="k", source="drift", encoding=JSON)
    feed.on_alert(Record(Partition("t", 0), 0, out.key, out.value, out.headers, 0))


async def test_all_is_posted_in_batches_under_the_servers_path(receiver: Receiver) -> None:
    feed = IncidentFeed()
    for number in range(230):
        give(feed, alert(incident=f"drift/{number}"))
    await forwarder(feed, receiver.address).tell()
    assert {path for path, _ in receiver.posts} == {"/am/api/v2/alerts"}
    assert [len(batch) for _, batch in receiver.posts] == [100, 100, 30]


async def test_one_that_does_not_answer_keeps_the_others_from_nothing(receiver: Receiver) -> None:
    feed = IncidentFeed()
    give(feed, alert())
    await forwarder(feed, "http://127.0.0.1:1", receiver.address).tell()
    assert len(receiver.posts) == 1
    receiver.status = 400
    await forwarder(feed, receiver.address).tell()


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of a server that answers one request with some bytes, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            caller, _ = server.accept()
            with caller:
                while not caller.recv(65536).endswith(b"]"):
                    pass
                caller.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort",
        b"HTTP/1.1 500 Broken\r\nContent-Length: 99\r\n\r\nshort",
        b"",
    ],
)
async def test_whatever_answers_there_ends_nothing(answer: bytes) -> None:
    with answering(answer) as address, pytest.raises(Unreachable, match="127"):
        await Alertmanager(address).post([{"labels": {}}])


@pytest.mark.parametrize("address", ["http://127.0.0.1:port", "http://[::1", "http://a b"])
async def test_an_address_that_is_none_ends_nothing(address: str) -> None:
    with pytest.raises(Unreachable):
        await Alertmanager(address).post([{"labels": {}}])


async def test_a_change_is_told_soon_and_all_is_told_again(receiver: Receiver) -> None:
    feed = IncidentFeed()
    task = asyncio.create_task(forwarder(feed, receiver.address, repeat_s=0.4).run())
    await asyncio.sleep(0)
    give(feed, alert())
    async with asyncio.timeout(10):
        while len(receiver.posts) < 3:
            await asyncio.sleep(0.02)
    task.cancel()
    assert all(len(batch) == 1 for _, batch in receiver.posts)


async def test_without_incidents_nothing_is_posted(receiver: Receiver) -> None:
    await forwarder(IncidentFeed(), receiver.address).tell()
    assert receiver.posts == []


def test_addresses_are_separated_by_commas() -> None:
    found = addresses("http://a:9093, https://b/am/ ,")
    assert [each.address for each in found] == ["http://a:9093", "https://b/am"]
    assert addresses("") == []
    with pytest.raises(SettingsError, match="PENSTOCK_DRIFT_ALERTMANAGER_URL"):
        addresses("file:///etc/passwd")
