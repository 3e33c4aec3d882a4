"""What is declared against what a cluster has."""

import dataclasses

import pytest

from penstock.kafka.admin import Observed, Sizes, TopicRefused, plan
from penstock.topics import TOPICS, topic_of

REQUESTS = topic_of("requests")


def as_declared():
    sizes = Sizes()
    return {
        topic.full_name("p"): Observed(
            sizes.partitions(topic), 1, {**topic.config(), "segment.bytes": "1"}
        )
        for topic in TOPICS
    }


def test_an_empty_cluster_gets_every_topic():
    changes = plan(TOPICS, "p", Sizes(work=6, reply=2), {})
    assert all(change.creates for change in changes)
    sizes = {change.name: change.partitions for change in changes}
    assert (sizes["p.requests"], sizes["p.replies"], sizes["p.routes"]) == (6, 2, 1)
    config = {change.name: change.config for change in changes}["p.routes"]
    assert config["cleanup.policy"] == (None, "compact")


def test_a_cluster_as_declared_needs_nothing():
    changes = plan(TOPICS, "p", Sizes(), as_declared())
    assert not any(changes)
    assert {str(change) for change in changes} == {"as declared"}


def test_topics_that_must_match_grow_together():
    changes = [c for c in plan(TOPICS, "p", Sizes(work=8), as_declared()) if c]
    assert all(change.grows for change in changes)
    assert {"p.requests", "p.admitted", "p.responses", "p.feedback"} <= {c.name for c in changes}
    assert str(changes[0]) == "partitions: 4 -> 8"


def test_drift_of_a_setting_is_reported_with_both_values():
    observed = as_declared()
    seen = observed["p.requests"]
    observed["p.requests"] = dataclasses.replace(
        seen, config={**seen.config, "retention.ms": "1000"}
    )
    (change,) = [c for c in plan(TOPICS, "p", Sizes(), observed) if c]
    assert change.config == {"retention.ms": ("1000", REQUESTS.config()["retention.ms"])}
    assert str(change) == "retention.ms: 1000 -> 604800000"


def test_fewer_partitions_are_refused_with_a_remedy():
    with pytest.raises(TopicRefused, match=r"p\.requests has 4 and 2 are declared.*--work-part"):
        plan(TOPICS, "p", Sizes(work=2), as_declared())
