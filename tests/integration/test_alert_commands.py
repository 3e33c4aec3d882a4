"""Incidents, policies and reports by their commands, on a real Kafka."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from penstock.codec import JSON, decode, encode
from penstock.records import Outgoing
from penstock.v1 import alert_pb2, common_pb2, drift_pb2, response_pb2
from penstock_native.kafka import KafkaServer
from tests.integration.operator_place import MARKER, Place, admitted, make_place

pytestmark = pytest.mark.integration


@pytest.fixture
async def place(kafka: KafkaServer) -> Place:
    return await make_place(kafka.bootstrap)


def alert(place: Place, incident: str, offset: int = 0, *, resolved: bool = False) -> Outgoing:
    exemplar = drift_pb2.Exemplar(
        request_id="req-1",
        value=1,
        source=common_pb2.Coordinates(topic="responses", partition=1, offset=offset),
    )
    now = dt.datetime.now(dt.UTC)
    state = "ALERT_STATE_RESOLVED" if resolved else "ALERT_STATE_OPENED"
    made = alert_pb2.Alert(
        alert_id=f"{incident}/{state}",
        incident_id=incident,
        state=alert_pb2.AlertState.Value(state),
        severity=alert_pb2.SEVERITY_PAGE,
        title=f"refusals rose ({incident})",
        service="drift",
        drift=alert_pb2.DriftIncident(
            model="triage",
            variant="base",
            kind=drift_pb2.DRIFT_KIND_OUTPUT,
            evidence=[drift_pb2.SignalEvidence(signal="refusal", exemplars_after=[exemplar])],
        ),
    )
    made.opened_at.FromDatetime(now)
    made.updated_at.FromDatetime(now)
    return encode(made, topic=place.topic("alerts"), key=incident, source="drift", encoding=JSON)


async def test_incidents_are_listed_acknowledged_and_silenced(place: Place) -> None:
    odd = Outgoing(place.topic("alerts"), b"odd", b"\xff\xff")
    await place.publish(
        alert(place, "drift-aa11"),
        odd,
        alert(place, "drift-bb22"),
        alert(place, "drift-cc33"),
        alert(place, "drift-cc33", resolved=True),
    )
    listed = await place.done("alerts", "list")
    assert "drift-aa11" in listed
    assert "drift-cc33" not in listed
    assert "drift-cc33" in await place.done("alerts", "list", "--all")
    assert (await place.done("alerts", "list", "--label", "model=other")) == ""

    assert "called false" in await place.done("alerts", "ack", "aa", "--false", "--comment", "test")
    shown = json.loads(await place.done("alerts", "show", "drift-aa", "--json"))
    assert shown["acknowledged"]["acknowledge"] == {
        "incident_id": "drift-aa11",
        "real": False,
        "comment": "test",
    }
    await place.done("alerts", "ack", "bb22", "--real")
    summary = json.loads(await place.done("alerts", "list", "--summary", "--json"))
    assert (summary["real"], summary["false"], summary["unjudged"]) == (1, 1, 1)

    told = await place.done("alerts", "silence", "--label", "incident=drift-b*", "--for", "2h")
    name = told.partition(":")[0]
    rows = [
        json.loads(line) for line in (await place.done("alerts", "list", "--json")).splitlines()
    ]
    assert {row["incident"]: row["silenced_by"] for row in rows} == {
        "drift-aa11": None,
        "drift-bb22": name,
    }
    (silence,) = (await place.done("alerts", "silence", "--json")).splitlines()
    assert json.loads(silence)["labels"] == {"incident": "drift-b*"}
    await place.done("alerts", "silence", "--expire", name)
    assert (await place.done("alerts", "silence")) == ""
    again = await place.command("alerts", "silence", "--expire", name)
    assert again.exit_code == 1

    watched = [
        json.loads(line)
        for line in (await place.done("alerts", "watch", "--once", "--json")).splitlines()
    ]
    assert sorted(row["incident"] for row in watched) == ["drift-aa11", "drift-bb22"]

    (action, *_) = await place.read("alert_actions")
    assert decode(action, alert_pb2.AlertAction).HasField("at")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "drift-zz"], "no incident 'drift-zz'"),
        (["ack", "drift-"], "2 incidents begin so"),
        (["silence", "--label", "x"], "write NAME=VALUE"),
        (["silence", "--label", "x=y", "--for", "2w"], "write 90s, 30m, 2h or 1d"),
        (["silence", "--expire", "silence-0"], "no silence 'silence-0'"),
    ],
)
async def test_what_is_not_there_is_refused(
    place: Place, arguments: list[str], message: str
) -> None:
    await place.publish(alert(place, "drift-aa11"), alert(place, "drift-bb22"))
    result = await place.command("alerts", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


async def test_a_policy_is_set_once_and_its_version_rises(place: Place, tmp_path: Path) -> None:
    assert "the default; nobody set one" in (await place.command("drift", "policy", "show")).stderr
    file = tmp_path / "policy.yaml"
    file.write_text("tick_s: 5\n")
    assert "version 1 is in force" in await place.done("drift", "policy", "set", str(file))
    assert "nothing is written" in await place.done("drift", "policy", "set", str(file))
    file.write_text("tick_s: 6\n")
    assert "version 7" in await place.done("drift", "policy", "set", str(file), "--version", "7")
    file.write_text("tick_s: 7\n")
    lower = await place.command("drift", "policy", "set", str(file), "--version", "3")
    assert lower.exit_code == 1
    assert "give 8 or more" in lower.stderr
    shown = json.loads(await place.done("drift", "policy", "show", "--json"))
    assert (shown["version"], shown["policy"]["tick_s"]) == (7, 6.0)
    file.write_text("tick_ss: 7\n")
    wrong = await place.command("drift", "policy", "set", str(file))
    assert "did you mean tick_s?" in wrong.stderr
    assert len(await place.read("policies")) == 2


async def test_a_report_has_words_only_when_they_are_asked_for(
    place: Place, tmp_path: Path
) -> None:
    answer = response_pb2.GenerateResponse(request_id="req-1", text="I cannot help <with> that")
    request = admitted("req-1")
    await place.publish(
        encode(request, topic=place.topic("admitted"), key="k", source="ingest", partition=1),
        encode(answer, topic=place.topic("responses"), key="k", source="inference", partition=1),
        alert(place, "drift-aa11"),
    )
    page = tmp_path / "page.html"
    await place.done("drift", "report", "aa11", "--out", str(page))
    assert "I cannot help" not in page.read_text()
    assert "responses/1/0" in page.read_text()
    await place.done("drift", "report", "aa11", "--out", str(page), "--with-text")
    assert "I cannot help &lt;with&gt; that" in page.read_text()
    assert MARKER.decode() in page.read_text()
    assert await place.done("drift", "report", "aa11") != ""


async def test_samples_that_are_gone_are_said_to_be_gone(place: Place) -> None:
    await place.publish(alert(place, "drift-aa11", offset=99))
    assert "not on the log any more" in await place.done("drift", "report", "aa11", "--with-text")
