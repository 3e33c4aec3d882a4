"""Evidence to the record of `evidence` and back; the round trip loses nothing."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.v1 import common_pb2, drift_pb2
from penstock_drift.records.evidence import (
    Channel,
    Entry,
    Exemplar,
    Histogram,
    Interval,
    PartTally,
    SignalEvidence,
    TickEvidence,
    Vote,
)
from penstock_drift.records.signal_wire import traffic_from_wire, traffic_to_wire
from penstock_drift.records.values import Key, Kind, PolicyChange, Source

__all__ = [
    "channel_to_wire",
    "entry_from_wire",
    "entry_to_wire",
    "interval_to_wire",
    "kind_to_wire",
    "source_to_wire",
    "stamp",
    "tick_from_wire",
    "tick_to_wire",
]

_KINDS = {
    Kind.INPUT: drift_pb2.DRIFT_KIND_INPUT,
    Kind.OUTPUT: drift_pb2.DRIFT_KIND_OUTPUT,
    Kind.QUALITY: drift_pb2.DRIFT_KIND_QUALITY,
    Kind.OPERATIONAL: drift_pb2.DRIFT_KIND_OPERATIONAL,
}
_KINDS_BACK = {wire: kind for kind, wire in _KINDS.items()}
_CHANNELS = {
    Channel.E_DETECTORS: drift_pb2.DRIFT_CHANNEL_E_DETECTORS,
    Channel.CALIBRATED: drift_pb2.DRIFT_CHANNEL_CALIBRATED,
}
_CHANNELS_BACK = {wire: channel for channel, wire in _CHANNELS.items()}


def stamp(instant_ms: int) -> Timestamp:
    """Milliseconds since 1970 as the contract writes instants."""
    return Timestamp(seconds=instant_ms // 1000, nanos=instant_ms % 1000 * 1_000_000)


def kind_to_wire(kind: Kind) -> drift_pb2.DriftKind.ValueType:
    """A kind as the contract names it."""
    return _KINDS[kind]


def channel_to_wire(channel: Channel) -> drift_pb2.DriftChannel.ValueType:
    """A channel as the contract names it."""
    return _CHANNELS[channel]


def interval_to_wire(interval: Interval) -> drift_pb2.Interval:
    """An interval as the contract has it."""
    return drift_pb2.Interval(estimate=interval.estimate, low=interval.low, high=interval.high)


def source_to_wire(source: Source) -> common_pb2.Coordinates:
    """Coordinates as the contract has them."""
    return common_pb2.Coordinates(
        topic=source.topic, partition=source.partition, offset=source.offset
    )


def tick_to_wire(tick: TickEvidence) -> drift_pb2.Evidence:
    """The record of a tick."""
    policy = tick.policy
    return drift_pb2.Evidence(
        partition=tick.partition,
        partitions=tick.partitions,
        until=stamp(tick.until_ms),
        armed=tick.armed,
        signals=[entry_to_wire(entry) for entry in tick.entries],
        policy=drift_pb2.PolicyVersion(version=policy.version, document=policy.document)
        if policy
        else None,
        late=tick.late,
        traffic=[traffic_to_wire(each) for each in tick.traffic],
        evicted=[drift_pb2.EvidenceKey(**key._asdict()) for key in tick.evicted],
    )


def tick_from_wire(record: drift_pb2.Evidence) -> TickEvidence:
    """What a record says.

    Raises:
        KeyError: A kind or a channel is not known.
    """
    policy = record.policy
    return TickEvidence(
        partition=record.partition,
        partitions=record.partitions,
        until_ms=record.until.ToMilliseconds(),
        armed=record.armed,
        entries=tuple(entry_from_wire(entry) for entry in record.signals),
        policy=PolicyChange(policy.version, policy.document) if record.HasField("policy") else None,
        late=record.late,
        traffic=tuple(traffic_from_wire(each) for each in record.traffic),
        evicted=tuple(Key(each.model, each.variant, each.segment) for each in record.evicted),
    )


def entry_to_wire(entry: Entry) -> drift_pb2.SignalEvidence:
    """The evidence on a signal as the contract has it."""
    found = entry.evidence
    return drift_pb2.SignalEvidence(
        model=entry.key.model,
        variant=entry.key.variant,
        segment=entry.key.segment,
        signal=found.signal,
        kind=_KINDS[found.kind],
        log_evidence=found.log_evidence,
        votes=[
            drift_pb2.Vote(
                detector=vote.detector,
                channel=_CHANNELS[vote.channel],
                log_evidence=vote.log_evidence,
                fired=vote.fired,
            )
            for vote in found.votes
        ],
        onset=stamp(found.onset_ms),
        onset_earliest=stamp(found.onset_earliest_ms),
        onset_latest=stamp(found.onset_latest_ms),
        before=interval_to_wire(found.before),
        after=interval_to_wire(found.after),
        effect=interval_to_wire(found.effect),
        observations_after=found.observations_after,
        observations_before=found.observations_before,
        histogram=drift_pb2.Histogram(
            edges=found.histogram.edges,
            categories=found.histogram.categories,
            before=found.histogram.before,
            after=found.histogram.after,
        ),
        exemplars_before=[_exemplar_to_wire(each) for each in found.exemplars_before],
        exemplars_after=[_exemplar_to_wire(each) for each in found.exemplars_after],
        baseline=found.baseline,
        route_version_before=found.route_version_before,
        route_version_after=found.route_version_after,
        observations_in_tick=entry.in_tick,
        adapter_before=found.adapter_before,
        adapter_after=found.adapter_after,
        parts=[
            drift_pb2.SegmentTally(
                segment=part.segment,
                before=part.before,
                total_before=part.total_before,
                after=part.after,
                total_after=part.total_after,
            )
            for part in found.parts
        ],
        shift=interval_to_wire(found.shift) if found.shift else None,
    )


def entry_from_wire(record: drift_pb2.SignalEvidence) -> Entry:
    """The evidence that a contract's message holds.

    Raises:
        KeyError: A kind or a channel is not known.
    """
    evidence = SignalEvidence(
        signal=record.signal,
        kind=_KINDS_BACK[record.kind],
        log_evidence=record.log_evidence,
        votes=tuple(
            Vote(vote.detector, _CHANNELS_BACK[vote.channel], vote.log_evidence, vote.fired)
            for vote in record.votes
        ),
        onset_ms=record.onset.ToMilliseconds(),
        onset_earliest_ms=record.onset_earliest.ToMilliseconds(),
        onset_latest_ms=record.onset_latest.ToMilliseconds(),
        before=_interval(record.before),
        after=_interval(record.after),
        effect=_interval(record.effect),
        observations_after=record.observations_after,
        observations_before=record.observations_before,
        histogram=Histogram(
            tuple(record.histogram.edges),
            tuple(record.histogram.categories),
            tuple(record.histogram.before),
            tuple(record.histogram.after),
        ),
        exemplars_before=tuple(_exemplar(each) for each in record.exemplars_before),
        exemplars_after=tuple(_exemplar(each) for each in record.exemplars_after),
        baseline=record.baseline,
        route_version_before=record.route_version_before,
        route_version_after=record.route_version_after,
        adapter_before=record.adapter_before if record.HasField("adapter_before") else None,
        adapter_after=record.adapter_after if record.HasField("adapter_after") else None,
        parts=tuple(
            PartTally(part.segment, part.before, part.total_before, part.after, part.total_after)
            for part in record.parts
        ),
        shift=_interval(record.shift) if record.HasField("shift") else None,
    )
    return Entry(
        Key(record.model, record.variant, record.segment), evidence, record.observations_in_tick
    )


def _interval(record: drift_pb2.Interval) -> Interval:
    return Interval(record.estimate, record.low, record.high)


def _exemplar_to_wire(exemplar: Exemplar) -> drift_pb2.Exemplar:
    return drift_pb2.Exemplar(
        request_id=exemplar.request_id,
        source=source_to_wire(exemplar.source),
        event_time=stamp(exemplar.time_ms),
        value=exemplar.value,
    )


def _exemplar(record: drift_pb2.Exemplar) -> Exemplar:
    source = record.source
    return Exemplar(
        record.request_id,
        Source(source.topic, source.partition, source.offset),
        record.event_time.ToMilliseconds(),
        record.value,
    )
