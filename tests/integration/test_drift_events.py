"""A shifted stream of responses gives a drift event and an alert, from the service as it runs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from penstock.codec import encode
from penstock.v1 import common_pb2, drift_pb2, response_pb2
from penstock_native.ports import free_port

pytestmark = pytest.mark.integration


async def write(bootstrap: str, prefix: str, tokens: list[int], *, abort: bool = False) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{prefix}-{abort}")
    await producer.start()
    await producer.begin_transaction()
    for count in tokens:
        message = response_pb2.GenerateResponse(
            request_id=uuid.uuid4().hex,
            outcome=response_pb2.OUTCOME_ANSWERED,
            model="triage",
            variant="triage-base",
            usage=common_pb2.Usage(completion_tokens=count),
        )
        out = encode(message, topic=f"{prefix}.responses", key="k", source="inference")
        await producer.send(out.topic, out.value, key=out.key, headers=list(out.headers))
    await (producer.abort_transaction() if abort else producer.commit_transaction())
    await producer.stop()


async def first(bootstrap: str, topic: str) -> Any:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        return await asyncio.wait_for(consumer.getone(), 60)
    finally:
        await consumer.stop()


async def test_a_shift_gives_an_event_and_an_alert(kafka: Any, tmp_path: Path) -> None:
    prefix = uuid.uuid4().hex[:8]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    names = ("responses", "drift", "alerts", "dlq")
    await admin.create_topics([NewTopic(f"{prefix}.{name}", 1, 1) for name in names])
    await admin.close()
    await write(kafka.bootstrap, prefix, [20] * 300)
    # Were aborted records seen, the detector would fire on these.
    await write(kafka.bootstrap, prefix, [500] * 200, abort=True)
    await write(kafka.bootstrap, prefix, [20] * 100 + [60] * 100)

    port = free_port()
    env = os.environ | {
        "PENSTOCK_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "PENSTOCK_TOPIC_PREFIX": prefix,
        "PENSTOCK_DRIFT_METRICS_PORT": str(port),
    }
    with (tmp_path / "drift.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock_drift", env=env, stderr=log
        )
    try:
        event_record = await first(kafka.bootstrap, f"{prefix}.drift")
        alert_record = await first(kafka.bootstrap, f"{prefix}.alerts")
        with await asyncio.to_thread(
            urllib.request.urlopen, f"http://127.0.0.1:{port}/metrics"
        ) as answer:
            metrics = str(answer.read(), "utf-8")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 40) == 0
    finally:
        if process.returncode is None:
            process.kill()

    for shown in (
        'penstock_drift_values_total{signal="completion_tokens"}',
        'penstock_drift_changes_total{signal="completion_tokens"} 1.0',
        "penstock_drift_detectors 1.0",
        "penstock_drift_overflow_values_total 0.0",
        "penstock_drift_unusable_values_total",
    ):
        assert shown in metrics
    event = drift_pb2.DriftEvent.FromString(event_record.value)
    assert event_record.key == b"triage/triage-base"
    assert (event.model, event.variant) == ("triage", "triage-base")
    assert (event.signal, event.mean_before) == ("completion_tokens", 20)
    assert 20 < event.mean_after <= 60
    assert 400 < event.observations <= 440
    alert = json.loads(alert_record.value)
    assert dict(alert_record.headers)["content-type"] == b"application/json"
    assert (alert["state"], alert["service"]) == ("ALERT_STATE_OPENED", "drift")
    assert alert["incident_id"] == f"drift/{event.event_id}"
    assert (Path(__file__).parents[2] / alert["runbook"]).is_file()
