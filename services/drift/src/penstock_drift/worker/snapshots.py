"""Snapshots of fold and judge as records of `drift_state` and `judge_state`: JSON, no pickle. Pure.

A record's key says what it is the state of; laying all records of a partition over each other, the
newest per key, gives the state. One record per key of signals, one for how far the fold or the
judge has come.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import json_format

from penstock.v1 import drift_pb2
from penstock_drift.findings.causes import Cause
from penstock_drift.findings.events import Watch
from penstock_drift.findings.explain import Contribution
from penstock_drift.findings.incidents import Incident, Member
from penstock_drift.findings.states import Standing, State
from penstock_drift.fold.keys import KeySnapshot
from penstock_drift.fold.partition import FoldSnapshot, Progress
from penstock_drift.judge.cases import Case, JudgeProgress, JudgeSnapshot
from penstock_drift.policy.document import Severity
from penstock_drift.records.evidence import Channel, Entry
from penstock_drift.records.evidence_wire import entry_from_wire, entry_to_wire
from penstock_drift.records.values import Key, Kind, PolicyChange, Traffic

__all__ = [
    "PROGRESS_KEY",
    "StateRecords",
    "fold_records",
    "fold_state",
    "judge_records",
    "judge_state",
    "key_state",
    "laid_over",
]

# Of another form nothing is read: a fold then begins anew.
FORM = 1
# No key of signals has it: a model's name is never empty.
PROGRESS_KEY = b"//progress"

# Key and value; None deletes.
StateRecords = list[tuple[bytes, bytes | None]]


def fold_records(snapshot: FoldSnapshot) -> Iterator[tuple[bytes, bytes | None]]:
    """A fold's snapshot as records, to be written all or none; made as they are asked for."""
    for key, state in snapshot.keys.items():
        yield str(key).encode(), _dump(_key_to_json(key, state))
    for key in sorted(snapshot.dropped):
        yield str(key).encode(), None
    yield PROGRESS_KEY, _dump(dataclasses.asdict(snapshot.progress))


def fold_state(
    records: Mapping[bytes, bytes],
) -> tuple[Progress | None, dict[Key, KeySnapshot]]:
    """The state that the newest records by key make; None where there is none of this form."""
    saved = _load(records.get(PROGRESS_KEY))
    if saved is None:
        return None, {}
    keys = {}
    for name, value in records.items():
        found = key_state(value) if name != PROGRESS_KEY else None
        if found is not None:
            keys[found[0]] = found[1]
    policy, traffic = saved.pop("policy"), saved.pop("traffic", ())
    evicted = saved.pop("evicted", ())
    progress = Progress(
        **saved,
        policy=PolicyChange(**policy) if policy else None,
        traffic=tuple(_traffic(each) for each in traffic),
        evicted=tuple(Key(*each) for each in evicted),
    )
    return progress, keys


def key_state(value: bytes) -> tuple[Key, KeySnapshot] | None:
    """A key's state from its record; None where it is of another form."""
    saved = _load(value)
    if saved is None:
        return None
    key = Key(*saved["key"])
    adapters = tuple((version, adapter) for version, adapter in saved.get("adapters", ()))
    return key, KeySnapshot(saved["last_ms"], saved["signals"], frozenset(saved["told"]), adapters)


def judge_records(snapshot: JudgeSnapshot) -> StateRecords:
    """The judge's snapshot as records, to be written all or none."""
    records: StateRecords = [
        (_case_key(watch), _dump(_case_to_json(case))) for watch, case in snapshot.cases.items()
    ]
    records += [(_case_key(watch), None) for watch in sorted(snapshot.closed)]
    found = snapshot.incidents
    records += [
        (f"incident/{name}".encode(), _dump(_incident_to_json(incident)))
        for name, incident in found.incidents.items()
    ]
    # Each on its own: an incident may have many, and a record may not be large.
    records += [
        (_member_key(name, watch), _dump(_member_to_json(name, member)))
        for (name, watch), member in found.members.items()
    ]
    for incident in found.over:
        name = incident.incident_id
        records.append((f"incident/{name}".encode(), None))
        records += [(_member_key(name, watch), None) for watch in sorted(incident.members)]
    progress = dataclasses.asdict(snapshot.progress)
    # JSON's keys are text.
    progress["armed"] = sorted(snapshot.progress.armed.items())
    records.append((PROGRESS_KEY, _dump(progress)))
    return records


def judge_state(
    records: Mapping[bytes, bytes],
) -> tuple[JudgeProgress | None, dict[Watch, Case], list[Incident]]:
    """The state that the newest records by key make; None where there is none of this form."""
    saved = _load(records.get(PROGRESS_KEY))
    if saved is None:
        return None, {}, []
    cases: dict[Watch, Case] = {}
    incidents: list[dict[str, Any]] = []
    members: dict[str, list[Member]] = {}
    for name in sorted(records):
        found = _load(records[name])
        if name == PROGRESS_KEY or found is None:
            continue
        if name.startswith(b"incident/"):
            incidents.append(found)
        elif name.startswith(b"member/"):
            members.setdefault(found["incident_id"], []).append(_member(found))
        else:
            case = _case(found)
            cases[_watch_of(case.entry)] = case
    saved["armed"] = dict(saved["armed"])
    policy, traffic = saved.pop("policy"), saved.pop("traffic", {})
    progress = JudgeProgress(
        **saved,
        policy=PolicyChange(**policy) if policy else None,
        traffic={model: _traffic(each) for model, each in traffic.items()},
    )
    return (
        progress,
        cases,
        [_incident(each, members.get(each["incident_id"], [])) for each in incidents],
    )


def _traffic(saved: Mapping[str, Any]) -> Traffic:
    return Traffic(saved["model"], saved["route_version"], tuple(saved["variants"]))


def _key_to_json(key: Key, state: KeySnapshot) -> dict[str, Any]:
    return {
        "key": key,
        "last_ms": state.last_ms,
        "told": sorted(state.told),
        "signals": state.signals,
        "adapters": state.adapters,
    }


def _case_key(watch: Watch) -> bytes:
    return f"case/{watch.key}/{watch.signal}".encode()


def _case_to_json(case: Case) -> dict[str, Any]:
    return {
        "entry": _entry_to_json(case.entry),
        "standing": {**dataclasses.asdict(case.standing), "state": case.standing.state.value},
        "channel": case.channel.value if case.channel else None,
        "incident_id": case.incident_id,
    }


def _case(saved: Mapping[str, Any]) -> Case:
    standing = saved["standing"]
    return Case(
        _entry(saved["entry"]),
        Standing(**{**standing, "state": State(standing["state"])}),
        Channel(saved["channel"]) if saved["channel"] else None,
        saved["incident_id"],
    )


def _incident_to_json(incident: Incident) -> dict[str, Any]:
    plain = {
        field.name: getattr(incident, field.name)
        for field in dataclasses.fields(Incident)
        if field.name not in ("members", "causes", "segments")
    }
    return {
        **plain,
        "kind": incident.kind.value,
        "severity": incident.severity.value,
        "causes": [dataclasses.asdict(each) for each in incident.causes],
        "segments": [dataclasses.asdict(each) for each in incident.segments],
    }


def _incident(saved: dict[str, Any], members: Iterable[Member]) -> Incident:
    return Incident(
        **{
            **saved,
            "kind": Kind(saved["kind"]),
            "severity": Severity(saved["severity"]),
            "causes": tuple(Cause(**each) for each in saved["causes"]),
            "segments": tuple(Contribution(**each) for each in saved["segments"]),
            "actions": tuple(saved["actions"]),
            "members": {_watch_of(each.entry): each for each in members},
        }
    )


def _member_key(incident_id: str, watch: Watch) -> bytes:
    return f"member/{incident_id}/{watch.key}/{watch.signal}".encode()


def _member_to_json(incident_id: str, member: Member) -> dict[str, Any]:
    return {
        "incident_id": incident_id,
        "entry": _entry_to_json(member.entry),
        "channel": member.channel.value,
        "ended": member.ended,
    }


def _member(saved: Mapping[str, Any]) -> Member:
    return Member(_entry(saved["entry"]), Channel(saved["channel"]), saved["ended"])


def _watch_of(entry: Entry) -> Watch:
    return Watch(entry.key, entry.evidence.signal)


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    return json_format.MessageToDict(entry_to_wire(entry), preserving_proto_field_name=True)


def _entry(saved: dict[str, Any]) -> Entry:
    return entry_from_wire(json_format.ParseDict(saved, drift_pb2.SignalEvidence()))


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps({"form": FORM, **value}, separators=(",", ":")).encode()


def _load(value: bytes | None) -> dict[str, Any] | None:
    if value is None:
        return None
    found: dict[str, Any] = json.loads(value)
    return found if found.pop("form", None) == FORM else None


def laid_over(records: Iterable[tuple[bytes, bytes | None]]) -> dict[bytes, bytes]:
    """The newest value by key; what was deleted is not there."""
    state: dict[bytes, bytes] = {}
    for key, value in records:
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
    return state
