"""The names of requests and responses: the same wherever and however often they are derived."""

from __future__ import annotations

import hashlib
import uuid

from penstock.records import Record

__all__ = ["id_of_key", "id_of_record", "new_id", "response_id_of", "seed_of"]


def id_of_key(tenant: str, idempotency_key: str) -> str:
    """The id of a request that its client named; two with one key and tenant are one request."""
    return _request_id("key", tenant, idempotency_key)


def id_of_record(record: Record) -> str:
    """The id of a request that has no name of its own: derived from where it stands on the log."""
    topic, number = record.partition
    return _request_id("record", topic, str(number), str(record.offset))


def new_id() -> str:
    """The id of a request that came neither with a name nor from the log."""
    return f"req-{uuid.uuid4().hex}"


def response_id_of(request_id: str) -> str:
    """The same for every run of a request: so a repeat can be told, and feedback finds it."""
    return "rsp-" + hashlib.blake2b(request_id.encode(), digest_size=16).hexdigest()


def seed_of(request_id: str) -> int:
    """The seed of a request that names none, in [0, 2^63): a run again draws the same tokens."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=b"seed").digest()
    return int.from_bytes(digest, "big") >> 1


def _request_id(*parts: str) -> str:
    # Length before each part: ("a", "bc") and ("ab", "c") must not meet.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return "req-" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
