"""The topics table on a real broker."""

import asyncio
import uuid

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.kafka.admin import KafkaAdmin, Sizes, TopicRefused, plan
from penstock.kafka.ports import LogError
from penstock.topics import TOPICS

pytestmark = pytest.mark.integration

ROUTE = """[{"model": "m", "version": "%d",
    "variants": [{"name": "v", "base_model": "b", "weight": 1, "stage": "STAGE_CHAMPION"}]}]"""


@pytest.fixture
def prefix():
    return f"t{uuid.uuid4().hex[:8]}"


async def apply(bootstrap, prefix, sizes=None):
    sizes = sizes or Sizes()
    async with KafkaAdmin(bootstrap) as admin:
        observed = await admin.observe(prefix)
        changes = plan(TOPICS, prefix, sizes, observed)
        await admin.apply(changes, observed, sizes.replication)
        return [change for change in changes if change], await admin.observe(prefix)


async def set_on_topic(bootstrap, name, settings):
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)])
    finally:
        await client.close()


async def test_an_empty_cluster_gets_every_topic_and_the_second_time_nothing(kafka, prefix):
    changed, observed = await apply(kafka.bootstrap, prefix)
    assert len(changed) == len(TOPICS)
    assert {name: seen.partitions for name, seen in observed.items()} == {
        topic.full_name(prefix): Sizes().partitions(topic) for topic in TOPICS
    }
    for topic in TOPICS:
        config = observed[topic.full_name(prefix)].config
        assert {key: config[key] for key in topic.config()} == topic.config()
    changed, _ = await apply(kafka.bootstrap, prefix)
    assert changed == []


async def test_drift_is_mended_and_what_an_operator_set_stays(kafka, prefix):
    await apply(kafka.bootstrap, prefix)
    name = f"{prefix}.requests"
    # AlterConfigs replaces: this also takes away what was declared.
    await set_on_topic(kafka.bootstrap, name, {"retention.ms": "1000", "min.insync.replicas": "1"})
    async with asyncio.timeout(30), KafkaAdmin(kafka.bootstrap) as admin:
        while (await admin.observe(prefix))[name].config["retention.ms"] != "1000":
            pass
    changed, observed = await apply(kafka.bootstrap, prefix)
    assert [change.name for change in changed] == [name]
    assert changed[0].config["retention.ms"] == ("1000", "604800000")
    assert observed[name].own["min.insync.replicas"] == "1"
    assert observed[name].config["max.message.bytes"] == str(8 * 1024 * 1024)


async def test_topics_grow_and_never_shrink(kafka, prefix):
    await apply(kafka.bootstrap, prefix, Sizes(work=2))
    changed, observed = await apply(kafka.bootstrap, prefix, Sizes(work=3, reply=2))
    assert {change.name: change.grows for change in changed}[f"{prefix}.responses"]
    assert observed[f"{prefix}.responses"].partitions == 3
    assert observed[f"{prefix}.replies"].partitions == 2
    with pytest.raises(TopicRefused, match=f"{prefix}.requests has 3 and 2 are declared"):
        await apply(kafka.bootstrap, prefix, Sizes(work=2, reply=2))


async def test_two_that_apply_at_once_do_not_hinder_each_other(kafka, prefix):
    await asyncio.gather(*[apply(kafka.bootstrap, prefix) for _ in range(3)])
    changed, _ = await apply(kafka.bootstrap, prefix)
    assert changed == []


async def test_more_copies_than_brokers_is_a_clear_error(kafka, prefix):
    with pytest.raises(LogError, match=r"cannot be created: InvalidReplicationFactorError"):
        await apply(kafka.bootstrap, prefix, Sizes(replication=3))


def test_the_commands_tell_what_they_did(kafka, prefix, tmp_path):
    env = {"PENSTOCK_KAFKA_BOOTSTRAP": kafka.bootstrap, "PENSTOCK_TOPIC_PREFIX": prefix}

    def penstock(*arguments, code=0):
        result = CliRunner().invoke(app, list(arguments), env=env)
        assert result.exit_code == code, result.output
        return result.output

    file = tmp_path / "routes.json"
    file.write_text(ROUTE % 2)

    assert "topic" in penstock("routes", "apply", str(file), code=1)
    assert f"{len(TOPICS)} of {len(TOPICS)} topics would change" in penstock(
        "topics", "apply", "--dry-run"
    )
    assert f"{prefix}.replies: created with 1 partition\n" in penstock("topics", "apply")
    assert f"0 of {len(TOPICS)} topics changed" in penstock("topics", "apply")
    assert "m: version 2 written" in penstock("routes", "apply", str(file))
    assert "m: version 2 was there" in penstock("routes", "apply", str(file))
    file.write_text(ROUTE % 1)
    assert "version 2 is there and the file has 1" in penstock("routes", "apply", str(file), code=1)
    assert "m: version 2 was there" in penstock("routes", "apply", str(file), "--keep-newer")
    assert penstock("tail", "routes", "--from-beginning", "--until-end", "--json").count("\n") == 1
    assert '"version": "2"' in penstock("routes", "list", "--json")
