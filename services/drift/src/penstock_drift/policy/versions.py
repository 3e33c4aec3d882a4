"""Versions of the policy on the topic `policies`: which is in force, and the next one. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable

from penstock.codec import decode, encode
from penstock.errors import InvalidRequest
from penstock.records import Outgoing, Record
from penstock.v1 import drift_pb2
from penstock_drift.policy.document import default_document, parse_policy

__all__ = ["POLICY_KEY", "Refused", "check_alone", "in_force", "next_version", "policy_record"]

# The key of the one policy that a deployment has.
POLICY_KEY = "default"


class Refused(Exception):
    """A policy cannot be set; says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Standing:
    """The policy in force; version 0 is the default, which nobody set."""

    version: int
    document: str
    set_by: str = ""
    set_at: dt.datetime | None = None


def in_force(records: Iterable[Record]) -> Standing:
    """The newest version on the log, or the default."""
    standing = Standing(0, default_document())
    for record in records:
        found = _decoded(record)
        if found is not None and found.version > standing.version:
            at = found.set_at.ToDatetime(dt.UTC) if found.HasField("set_at") else None
            standing = Standing(found.version, found.document, found.set_by, at)
    return standing


def next_version(
    document: str, standing: Standing, *, version: int | None, by: str, now: dt.datetime
) -> drift_pb2.PolicyVersion | None:
    """The version that sets a document; None where it is in force already.

    Args:
        document: The policy, YAML.
        standing: What is in force.
        version: The version to give it; None takes the next one.
        by: Who sets it.
        now: The present, UTC.

    Raises:
        PolicyError: The document is no policy.
        Refused: The version is not above the one in force.
    """
    parse_policy(document)
    if standing.version and document == standing.document:
        return None
    wanted = standing.version + 1 if version is None else version
    if wanted <= standing.version:
        raise Refused(
            f"version {standing.version} is in force and workers refuse a lower or equal one: "
            f"leave --version out, or give {standing.version + 1} or more"
        )
    made = drift_pb2.PolicyVersion(version=wanted, document=document, set_by=by)
    made.set_at.FromDatetime(now)
    return made


def policy_record(version: drift_pb2.PolicyVersion, topic: str) -> Outgoing:
    """A version as the record of `policies`, by the topic's full name."""
    event_id = f"policy:{version.version}"
    return encode(version, topic=topic, key=POLICY_KEY, source="cli", event_id=event_id)


def check_alone(written: drift_pb2.PolicyVersion, records: Iterable[Record]) -> None:
    """Finds out whether somebody else set the same version at the same time.

    Raises:
        Refused: Somebody did; the first one counts for workers.
    """
    found = (_decoded(record) for record in records)
    same = [each for each in found if each is not None and each.version == written.version]
    if any(each.document != written.document for each in same):
        raise Refused(
            f"somebody else set version {written.version} at the same moment, and workers may "
            "have taken either: look at `penstock drift policy show`, then set yours again"
        )


def _decoded(record: Record) -> drift_pb2.PolicyVersion | None:
    if record.value is None:
        return None
    try:
        return decode(record, drift_pb2.PolicyVersion)
    except InvalidRequest:
        return None
