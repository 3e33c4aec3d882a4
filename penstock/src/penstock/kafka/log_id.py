"""Names a log for good, so that what was kept of one is never taken for another's.

A cluster's id does not suffice: a broker that is formatted anew may be given the same one, and a
topic that is deleted and made again has the same name and counts its offsets from 0. Kafka gives
every topic a random id when it is made (KIP-516); aiokafka (0.14) does not ask for it, so the
request that tells it, version 10 of Metadata, is written out here.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from penstock.kafka.ports import LogError

__all__ = ["log_id", "log_id_of"]

_KEY, _VERSION = 3, 10
_NONE = bytes(16)


# aiokafka has no types of its own that mypy could see.
class _Uuid(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class _Answer(Response):  # type: ignore[misc]
    API_KEY = _KEY
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _Asked(RequestStruct):  # type: ignore[misc]
    API_KEY = _KEY
    API_VERSION = _VERSION
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Metadata(Request[_Asked]):  # type: ignore[misc]
    API_KEY = _KEY

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_Asked]) -> _Asked:
        asked: list[tuple[bytes, str, dict[int, bytes]]] = [
            (_NONE, name, {}) for name in self._topics
        ]
        return request_struct_class(asked, False, False, False, {})


async def log_id(bootstrap: str, topics: Sequence[str]) -> str:
    """What some topics of a cluster are called together, for good: another one, another name.

    Args:
        bootstrap: Kafka's bootstrap servers.
        topics: Their full names; at least one.

    Raises:
        LogError: Kafka cannot be reached, or one of them is not there.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="penstock-log-id")
    try:
        await admin.start()
        answer = await admin._send_request(_Metadata(topics))
    except (KafkaError, OSError, NotImplementedError) as error:
        raise LogError(f"Kafka at {bootstrap} does not say its topics' ids: {error!r}") from error
    finally:
        await admin.close()
    found = answer.to_object()
    ids: dict[str, bytes] = {}
    for topic in found["topics"]:
        if topic["error_code"]:
            reason = for_code(topic["error_code"]).__name__
            raise LogError(f"{topic['name']} is not there: {reason}")
        ids[topic["name"]] = topic["topic_id"]
    return log_id_of(str(found["cluster_id"] or "unnamed"), ids)


def log_id_of(cluster: str, ids: Mapping[str, bytes]) -> str:
    """The name: letters, digits, `_`, `-` and one `.`. Pure.

    Args:
        cluster: The cluster's id.
        ids: The topics' ids, 16 bytes each, by full name.
    """
    digest = hashlib.sha256()
    for name, number in sorted(ids.items()):
        digest.update(name.encode() + b"\0" + number)
    short = base64.urlsafe_b64encode(digest.digest()[:9]).decode()
    return f"{cluster}.{short}"
