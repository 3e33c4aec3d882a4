"""What is generated from the topics table is current."""

from pathlib import Path

import pytest
import yaml

from penstock.cli import topics_reference
from penstock.topics import TOPICS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("path", "generated", "command"),
    [
        ("docs/topics.md", topics_reference.markdown, "docs"),
        ("k8s/penstock/files/topics.yaml", topics_reference.helm_values, "helm"),
    ],
)
def test_committed_file_is_what_the_table_gives(path, generated, command):
    committed = (ROOT / path).read_text(encoding="utf-8")
    assert committed == generated(), f"run: penstock topics {command} > {path}"


def test_every_topic_is_in_the_reference():
    text = topics_reference.markdown()
    assert [t.name for t in TOPICS if f"| `{t.name}` |" not in text] == []


def test_helm_values_say_the_same_as_the_table():
    entries = yaml.safe_load(topics_reference.helm_values())
    assert [(e["name"], e["partitions"], e["config"]) for e in entries] == [
        (t.name, t.partitions.value, t.config()) for t in TOPICS
    ]


def test_retention_is_written_for_people():
    kept = {t.name: topics_reference.retention(t) for t in TOPICS}
    assert kept["requests"] == "7 days"
    assert kept["control"] == "1 day"
    assert kept["replies"] == "10 minutes"
    assert kept["usage"] == "for ever"
    assert kept["routes"] == "newest per key"
