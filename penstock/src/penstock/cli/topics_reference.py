"""The topics table as text for people and for the Helm chart."""

from __future__ import annotations

import json

from penstock.topics import DAY_MS, HOUR_MS, MINUTE_MS, TOPICS, Partitions, Topic

__all__ = ["helm_values", "markdown", "record_name", "retention"]

_PARTITIONS = {
    Partitions.WORK: "work (4)",
    Partitions.REPLY: "reply (1)",
    Partitions.ONE: "1",
}

_HEAD = """\
# Topics

Generated from `penstock/topics.py` by `penstock topics docs`; do not edit.

Names carry the deployment's prefix (`PENSTOCK_TOPIC_PREFIX`, `penstock` by default) and a dot.
"work" and "reply" are sizes of the deployment, with their defaults in brackets: `requests`,
`admitted`, `responses` and `feedback` always have equally many partitions, and `replies` and
`tokens` have one for each ingest instance. Values are in protobuf or in its JSON mapping, which the
record's `content-type` header tells apart; every record is a CloudEvent in Kafka's binary mode.

| topic | key | record | partitions | kept | written by | read by |
|---|---|---|---|---|---|---|
"""


def record_name(topic: Topic) -> str:
    """The full name of a topic's record in the contracts."""
    return topic.record.DESCRIPTOR.full_name if topic.record else "any bytes"


def retention(topic: Topic) -> str:
    """How long records are kept, for people."""
    kept = topic.retention_ms
    if topic.compacted:
        return "newest per key"
    if kept is None:
        return "for ever"
    for unit_ms, unit in ((DAY_MS, "day"), (HOUR_MS, "hour"), (MINUTE_MS, "minute")):
        count, rest = divmod(kept, unit_ms)
        if count and not rest:
            return f"{count} {unit}{'s' * (count > 1)}"
    return f"{kept} ms"


def markdown() -> str:
    """The reference of all topics."""
    rows = "".join(
        f"| `{t.name}` | {t.key} | `{record_name(t)}` | {_PARTITIONS[t.partitions]} "
        f"| {retention(t)} | {t.writers} | {t.readers} |\n"
        for t in TOPICS
    )
    meanings = "".join(f"- **`{t.name}`**: {t.meaning}{_size(t)}\n" for t in TOPICS)
    return f"{_HEAD}{rows}\n## What they hold\n\n{meanings}"


def helm_values() -> str:
    """The topics as a YAML list for the Helm chart: name, which size they take, settings."""
    head = (
        "# Generated from penstock/topics.py by `penstock topics helm`; do not edit.\n"
        "# `partitions` names the value of the chart that gives the number.\n"
    )
    entries = []
    for topic in TOPICS:
        lines = [f"- name: {topic.name}", f"  partitions: {topic.partitions.value}", "  config:"]
        lines += [f"    {key}: {json.dumps(value)}" for key, value in topic.config().items()]
        entries.append("\n".join(lines) + "\n")
    return head + "".join(entries)


def _size(topic: Topic) -> str:
    if topic.max_message_bytes is None:
        return ""
    return f" Records of up to {topic.max_message_bytes / 1024 / 1024:.1f} MiB."
