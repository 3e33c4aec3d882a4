"""Remedies are bounded, logged, reversible, and dry runs unless the policy says otherwise."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from penstock.cli.routes_plan import Version
from penstock.codec import decode, encode
from penstock.errors import InvalidRequest
from penstock.kafka.memory import MemoryBroker
from penstock.measures import Kind, Measures
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import alert_pb2, drift_pb2, route_pb2
from penstock_drift.policy.document import Policy, Remedy, parse_policy
from penstock_drift.remedies.agent import RemedyAgent
from penstock_drift.remedies.decision import Ask, Deed, Outcome, alert_of, ask_of, decide
from penstock_drift.remedies.view import RemedyView

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
NOW_MS = round(NOW.timestamp() * 1000)
HOUR_MS = 3_600_000
CHAMPION, CANDIDATE = route_pb2.STAGE_CHAMPION, route_pb2.STAGE_CANDIDATE


def variant(name: str, stage: route_pb2.Stage.ValueType, weight: int) -> route_pb2.Variant:
    return route_pb2.Variant(name=name, base_model="engines", stage=stage, weight=weight)


def route(version: int, *variants: route_pb2.Variant) -> Version:
    return Version(route_pb2.Route(model="triage", version=version, variants=variants), 0, "cli")


CANARY = [
    route(1, variant("base", CHAMPION, 100)),
    route(2, variant("base", CHAMPION, 90), variant("new", CANDIDATE, 10)),
]
PROMOTED = [
    *CANARY,
    route(3, variant("new", CHAMPION, 100)),
    route(4, variant("new", CHAMPION, 50)),
]


def ask(variant: str = "new", age_s: float = 60) -> Ask:
    found_ms = NOW_MS - round(age_s * 1000)
    return Ask("e1", "drift/i1", "triage", variant, "error", "back", found_ms)


def remedy(**more: object) -> Remedy:
    chosen = {"name": "back", "do": "rollback_route", "dry_run": False} | more
    return Remedy.model_validate(chosen)


def test_a_candidate_gives_its_traffic_back_and_the_way_back_is_told() -> None:
    found = decide(ask(), remedy(), [], CANARY, NOW_MS)
    assert found.outcome is Outcome.DONE
    assert found.route is not None
    assert found.route.version == 3
    assert {v.name: v.weight for v in found.route.variants} == {"base": 90, "new": 0}
    assert found.undo == "penstock routes rollback triage --to 2"


def test_a_champion_gives_way_to_the_newest_other_one() -> None:
    found = decide(ask(), remedy(), [], PROMOTED, NOW_MS)
    assert found.outcome is Outcome.DONE
    assert found.route is not None
    assert found.route.version == 5
    assert {v.name: v.weight for v in found.route.variants} == {"base": 90, "new": 10}
    assert "version 2 comes back" in found.reason


def test_a_dry_run_says_what_it_would_do_and_writes_nothing() -> None:
    found = decide(ask(), remedy(dry_run=True), [], CANARY, NOW_MS)
    assert (found.outcome, found.route, found.undo) == (Outcome.DRY_RUN, None, "")
    assert "it would write version 3" in found.reason


@pytest.mark.parametrize(
    ("asked", "chosen", "deeds", "versions", "reason"),
    [
        (ask(), None, [], CANARY, "no remedy named back"),
        (ask(age_s=901), remedy(), [], CANARY, "901 s old"),
        (ask(), remedy(), [Deed("e0", "back", NOW_MS - HOUR_MS + 1)], CANARY, "1 times within"),
        (ask(), remedy(), [], [], "no route on the log"),
        (ask("gone"), remedy(), [], CANARY, "takes no traffic in version 2"),
        (ask("base"), remedy(), [], CANARY, "nothing to roll back to"),
    ],
)
def test_what_is_refused_says_why(
    asked: Ask, chosen: Remedy | None, deeds: list[Deed], versions: list[Version], reason: str
) -> None:
    found = decide(asked, chosen, deeds, versions, NOW_MS)
    assert (found.outcome, found.route) == (Outcome.REFUSED, None)
    assert reason in found.reason


@pytest.mark.parametrize(
    "deeds",
    [
        [Deed("e0", "back", NOW_MS - HOUR_MS)],
        [Deed("e0", "other", NOW_MS - 1)],
        # The same finding, handled again after a crash.
        [Deed("e1", "back", NOW_MS - 1)],
    ],
)
def test_the_hour_counts_other_findings_of_the_same_remedy(deeds: list[Deed]) -> None:
    assert decide(ask(), remedy(), deeds, CANARY, NOW_MS).outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("chosen", "kind", "model", "words"),
    [
        (
            {"do": "scale", "replicas": 3},
            Kind.SCALE,
            "engines",
            "engines has at least 3 engine replicas until 2026-05-01T12:15:00Z",
        ),
        (
            {"do": "shed", "for_s": 60},
            Kind.SHED,
            "triage",
            "20% of the requests for triage are refused until 2026-05-01T12:01:00Z",
        ),
        (
            {"do": "shed", "priority_above": 0},
            Kind.SHED,
            "triage",
            "requests for triage with a priority value above 0 are refused until",
        ),
        (
            {"do": "restart_replica"},
            Kind.RESTART,
            "engines",
            "the slowest replica of engines starts anew once another one lives, until",
        ),
    ],
)
def test_a_measure_is_asked_for_a_while_and_the_way_back_is_told(
    chosen: dict[str, object], kind: Kind, model: str, words: str
) -> None:
    found = decide(ask(), remedy(**chosen), [], CANARY, NOW_MS)
    assert (found.outcome, found.route) == (Outcome.DONE, None)
    assert found.measure is not None
    assert (found.measure.kind, found.measure.model) == (kind, model)
    assert found.reason.startswith(words)
    assert found.undo == f"penstock models end {found.measure.measure_id}"
    # The finding is handled again after a crash: the same measure.
    again = decide(ask(), remedy(**chosen), [], CANARY, NOW_MS + 1)
    assert again.measure is not None
    assert again.measure.measure_id == found.measure.measure_id
    dry = decide(ask(), remedy(**chosen, dry_run=True), [], CANARY, NOW_MS)
    assert (dry.outcome, dry.measure, dry.undo) == (Outcome.DRY_RUN, None, "")
    assert words in dry.reason


@pytest.mark.parametrize("do", ["scale", "shed", "restart_replica"])
def test_no_measure_is_taken_about_what_takes_no_traffic(do: str) -> None:
    found = decide(ask("gone"), remedy(do=do), [], CANARY, NOW_MS)
    assert (found.outcome, found.measure) == (Outcome.REFUSED, None)
    assert decide(ask(), remedy(do=do), [], [], NOW_MS).outcome is Outcome.REFUSED


def test_only_events_of_operational_drift_with_a_remedys_name_ask() -> None:
    event = drift_pb2.DriftEvent(event_id="e", kind=drift_pb2.DRIFT_KIND_OPERATIONAL, action="back")
    assert ask_of(event) is not None
    for change in ({"action": ""}, {"action": "retrain"}, {"kind": drift_pb2.DRIFT_KIND_QUALITY}):
        other = drift_pb2.DriftEvent()
        other.CopyFrom(event)
        for name, value in change.items():
            setattr(other, name, value)
        assert ask_of(other) is None


def test_what_was_done_stays_open_and_what_was_not_is_over_as_it_begins() -> None:
    done = alert_of(ask(), decide(ask(), remedy(), [], CANARY, NOW_MS), NOW_MS)
    assert done.state == alert_pb2.ALERT_STATE_OPENED
    assert "penstock routes rollback triage --to 2" in done.summary
    refused = alert_of(ask(), decide(ask(), None, [], CANARY, NOW_MS), NOW_MS)
    assert refused.state == alert_pb2.ALERT_STATE_RESOLVED
    assert refused.incident_id == done.incident_id == "remedy/e1"


# The agent, over the same log in memory that unit tests of the kit use.

POLICY = parse_policy(
    "actions: {remedies: [{name: back, do: rollback_route, dry_run: false, max_per_hour: 5}]}"
)


class World:
    """A log, and the agent with its view of it."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.log = MemoryBroker(1)
        self.view = RemedyView()
        self.policy = policy
        self.agent = RemedyAgent(self.view, lambda: self.policy, "p", clock=lambda: NOW)
        for each in CANARY:
            self.write(encode(each.route, topic="p.routes", key="triage", source="cli"))

    def write(self, out: Outgoing) -> Record:
        record = self.log.append(out)
        if out.topic == "p.routes":
            self.view.on_route(record)
        elif out.topic == "p.alerts":
            self.view.on_alert(record)
        return record

    def hear(self, event: drift_pb2.DriftEvent) -> list[Outgoing]:
        record = self.log.append(encode(event, topic="p.drift", key="k", source="drift"))
        return list(self.agent.outputs(record))

    def alerts(self, outputs: list[Outgoing]) -> list[alert_pb2.Alert]:
        return [
            decode(self.log.append(out), alert_pb2.Alert)
            for out in outputs
            if out.topic == "p.alerts"
        ]


def event(event_id: str = "e1", **more: object) -> drift_pb2.DriftEvent:
    made = drift_pb2.DriftEvent(
        event_id=event_id,
        incident_id="drift/i1",
        model="triage",
        variant="new",
        signal="error",
        kind=drift_pb2.DRIFT_KIND_OPERATIONAL,
        state=drift_pb2.DRIFT_STATE_DRIFT,
        action="back",
    )
    made.detected_at.FromDatetime(NOW)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_finding_writes_route_and_alert_and_its_end_closes_the_alert() -> None:
    world = World()
    outputs = world.hear(event())
    assert [out.topic for out in outputs] == ["p.alerts", "p.routes"]
    for out in outputs:
        world.write(out)
    assert world.view.versions("triage")[-1].route.version == 3
    (over,) = world.alerts(world.hear(event("e2", action="", state=drift_pb2.DRIFT_STATE_COOLDOWN)))
    assert (over.incident_id, over.state) == ("remedy/e1", alert_pb2.ALERT_STATE_RESOLVED)
    assert world.hear(event("e3", action="", state=drift_pb2.DRIFT_STATE_ARMED)) == []


def test_the_end_of_another_finding_of_the_incident_closes_nothing() -> None:
    world = World()
    for out in world.hear(event(segment="task=refund")):
        world.write(out)
    over = {"action": "", "state": drift_pb2.DRIFT_STATE_COOLDOWN}
    assert world.hear(event("e2", signal="latency", segment="task=refund", **over)) == []
    assert world.hear(event("e3", **over)) == []
    (end,) = world.alerts(world.hear(event("e4", segment="task=refund", **over)))
    assert (end.incident_id, end.state) == ("remedy/e1", alert_pb2.ALERT_STATE_RESOLVED)


def test_a_finding_writes_measure_and_alert_together_and_a_repeat_is_no_second_measure() -> None:
    world = World(
        parse_policy(
            "actions: {remedies: [{name: back, do: shed, priority_above: 0, dry_run: false}]}"
        )
    )
    measures = Measures()
    for _ in range(2):
        outputs = world.hear(event())
        assert [out.topic for out in outputs] == ["p.alerts", "p.control"]
        (alert,) = world.alerts(outputs)
        measures.take(dataclasses.replace(world.write(outputs[1]), timestamp_ms=NOW_MS))
    (found,) = measures.in_force(NOW)
    assert (found.model, found.priority_above, found.requested_by) == ("triage", 0, "drift")
    assert f"Take it back with: penstock models end {found.measure_id}" in alert.summary
    assert alert.state == alert_pb2.ALERT_STATE_OPENED


def test_what_a_former_version_asked_for_is_over_with_its_finding() -> None:
    world = World()
    old = alert_of(ask(), decide(ask(), remedy(), [], CANARY, NOW_MS), NOW_MS)
    old.labels["outcome"] = "requested"
    del old.labels["segment"]
    world.write(encode(old, topic="p.alerts", key=old.incident_id, source="drift"))
    (over,) = world.alerts(world.hear(event("e2", action="", state=drift_pb2.DRIFT_STATE_COOLDOWN)))
    assert over.state == alert_pb2.ALERT_STATE_RESOLVED


def test_a_second_finding_waits_until_the_first_ones_route_is_read_back() -> None:
    world = World()
    first = world.hear(event())
    (alert,) = world.alerts(world.hear(event("e2")))
    assert alert.labels["outcome"] == "refused"
    assert "not read back yet" in alert.summary
    for out in first:
        world.write(out)
    (alert,) = world.alerts(world.hear(event("e3")))
    assert "takes no traffic in version 3 any more" in alert.summary


def test_an_event_whose_transaction_failed_has_its_remedy_when_it_comes_again() -> None:
    world = World()
    # Nothing of what is written first comes onto the log.
    assert [out.topic for out in world.hear(event())] == ["p.alerts", "p.routes"]
    again = world.hear(event())
    assert [out.topic for out in again] == ["p.alerts", "p.routes"]
    assert decode(world.write(again[1]), route_pb2.Route).version == 3
    world.write(again[0])
    end = event("e2", action="", state=drift_pb2.DRIFT_STATE_COOLDOWN)
    assert len(world.hear(end)) == 1
    (over,) = world.alerts(world.hear(end))
    assert over.state == alert_pb2.ALERT_STATE_RESOLVED


def test_what_never_came_onto_the_log_does_not_count_within_the_hour() -> None:
    world = World(parse_policy("actions: {remedies: [{name: back, do: scale, dry_run: false}]}"))
    assert [out.topic for out in world.hear(event())] == ["p.alerts", "p.control"]
    # The event comes again, and now the remedy is not in the policy.
    policy, world.policy = world.policy, Policy()
    (alert,) = world.alerts(world.hear(event()))
    assert alert.labels["outcome"] == "refused"
    world.policy = policy
    assert [out.topic for out in world.hear(event("e2"))] == ["p.alerts", "p.control"]


def test_what_another_worker_decided_holds() -> None:
    world = World()
    world.hear(event())
    # The partition went to another worker before the commit.
    refused = alert_of(ask(), decide(ask(), None, [], CANARY, NOW_MS), NOW_MS)
    world.write(encode(refused, topic="p.alerts", key=refused.incident_id, source="drift"))
    assert [out.topic for out in world.hear(event("e2"))] == ["p.alerts", "p.routes"]


def test_a_view_read_from_the_log_knows_what_was_done() -> None:
    world = World()
    for out in world.hear(event()):
        world.write(out)
    fresh = RemedyView()
    for record in world.log.read("p.alerts"):
        fresh.on_alert(record)
    assert fresh.account().deeds == world.view.account().deeds
    assert set(fresh.account().open) == {"drift/i1"}


def test_a_remedy_that_left_the_policy_is_not_carried_out() -> None:
    world = World()
    world.policy = Policy()
    (alert,) = world.alerts(world.hear(event()))
    assert alert.labels["outcome"] == "refused"


def test_other_events_write_nothing() -> None:
    world = World()
    assert world.hear(event(action="")) == []
    assert world.hear(event(action="retrain", kind=drift_pb2.DRIFT_KIND_QUALITY)) == []


def test_what_is_no_event_becomes_a_dead_letter() -> None:
    world = World()
    odd = Record(Partition("p.drift", 0), 5, b"k", b"\xff\xff", (), 0)
    with pytest.raises(InvalidRequest) as raised:
        world.agent.outputs(odd)
    (letter,) = world.agent.failed(odd, raised.value)
    assert letter.topic == "p.dlq"
