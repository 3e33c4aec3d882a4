"""Debian's Alertmanager takes what drift tells it, notifies, and lets go of what is over."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock.codec import JSON, encode
from penstock.records import Partition, Record
from penstock.v1 import alert_pb2, drift_pb2
from penstock_drift.notify.alertmanager import Alertmanager, Forwarder
from penstock_drift.views.feed import IncidentFeed
from penstock_native.ports import free_port

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(PROGRAM is None, reason="prometheus-alertmanager is not installed"),
]

CONFIG = """
route:
  receiver: hook
  group_by: [incident]
  group_wait: 0s
  group_interval: 1s
receivers:
  - name: hook
    webhook_configs:
      - url: http://127.0.0.1:{port}/
        send_resolved: true
"""


class Hook:
    """What Alertmanager's receiver is told: status and alerts, in order."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.told.append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


@pytest.fixture
def alertmanager(hook: Hook, tmp_path: Path) -> Iterator[str]:
    config = tmp_path / "alertmanager.yml"
    config.write_text(CONFIG.format(port=hook.server.server_port))
    port = free_port()
    with (tmp_path / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(PROGRAM),
                f"--config.file={config}",
                f"--storage.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def alert(
    state: alert_pb2.AlertState.ValueType,
    severity: alert_pb2.Severity.ValueType = alert_pb2.SEVERITY_TICKET,
) -> alert_pb2.Alert:
    made = alert_pb2.Alert(
        alert_id=f"drift-3f9c/{state}",
        incident_id="drift-3f9c",
        state=state,
        severity=severity,
        title="refusals of triage/base rose from 2 % to 10 %",
        summary="over 400 values",
        service="drift",
        runbook="docs/runbooks/drift.md",
        labels={"signal": "refusal"},
        drift=alert_pb2.DriftIncident(
            model="triage", variant="base", kind=drift_pb2.DRIFT_KIND_OUTPUT
        ),
    )
    now = dt.datetime.now(dt.UTC)
    made.opened_at.FromDatetime(now)
    made.updated_at.FromDatetime(now)
    return made


def give(feed: IncidentFeed, made: alert_pb2.Alert) -> None:
    out = encode(made, topic="t", key="k", source="drift", encoding=JSON)
    feed.on_alert(Record(Partition("t", 0), 0, out.key, out.value, out.headers, 0))


def firing(address: str) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{address}/api/v2/alerts?active=true", timeout=2) as answer:
            found: list[dict[str, Any]] = json.load(answer)
    except OSError:
        return []
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


async def test_an_incident_fires_rises_and_is_over(hook: Hook, alertmanager: str) -> None:
    feed = IncidentFeed()
    # Begins before Alertmanager is up, as at a start of the machine.
    forwarder = Forwarder(feed, [Alertmanager(alertmanager)], repeat_s=1)
    telling = asyncio.create_task(forwarder.run())
    give(feed, alert(alert_pb2.ALERT_STATE_OPENED))
    await until(lambda: len(firing(alertmanager)) == 1)
    (shown,) = firing(alertmanager)
    assert shown["labels"]["alertname"] == "PenstockDrift"
    assert shown["labels"]["signal"] == "refusal"
    assert shown["annotations"]["summary"].startswith("refusals of triage/base rose")
    await until(lambda: len(hook.told) == 1)
    assert hook.told[0]["status"] == "firing"

    give(feed, alert(alert_pb2.ALERT_STATE_UPDATED, alert_pb2.SEVERITY_PAGE))
    await until(lambda: [a["labels"]["severity"] for a in firing(alertmanager)] == ["page"])

    give(feed, alert(alert_pb2.ALERT_STATE_RESOLVED, alert_pb2.SEVERITY_INFO))
    await until(lambda: firing(alertmanager) == [])
    await until(lambda: hook.told[-1]["status"] == "resolved")
    telling.cancel()


async def test_what_is_not_told_any_more_is_over(hook: Hook, alertmanager: str) -> None:
    feed = IncidentFeed()
    telling = asyncio.create_task(Forwarder(feed, [Alertmanager(alertmanager)], repeat_s=0.5).run())
    give(feed, alert(alert_pb2.ALERT_STATE_OPENED))
    await until(lambda: len(firing(alertmanager)) == 1)
    telling.cancel()
    await until(lambda: firing(alertmanager) == [])
