"""Which requests share an answer: the keys of the caches, and the salt of the engine's own. Pure.

A key covers everything of a request except what is named here as not touching the answer. So a
field that the contract gains later counts until somebody decides that it does not: a cache that
misses too often is slow, one that hits too often is wrong.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from penstock.identity import seed_of
from penstock.v1 import admitted_pb2, common_pb2, request_pb2, route_pb2

__all__ = ["Question", "answer_key", "cache_salt", "is_cacheable", "question_of"]

KEY_BYTES = 16
# What is asked stays the same whatever these say. `no_cache` is false wherever there is a key.
IRRELEVANT = (
    "deadline",
    "idempotency_key",
    "labels",
    "no_cache",
    "ordering_key",
    "priority",
    "timeout",
)


class Question(NamedTuple):
    """A request split for comparison by meaning.

    Attributes:
        partition: Covers everything but the text; two questions of different partitions never
            share an answer.
        text: The last user turn, or the prompt.
    """

    partition: bytes
    text: str


def is_cacheable(admitted: admitted_pb2.AdmittedRequest) -> bool:
    """Whether the request may be answered from a cache, and its answer kept.

    It may where it asks for one certain answer: at temperature 0, or with a seed of its own.
    Admission derives the seed of a request that brings none from its id, so any other seed was
    somebody's choice, the client's or the variant's. Replays, shadow copies and probes exist to
    see an engine work: they neither read nor write.
    """
    request = admitted.request
    if request.no_cache or admitted.purpose != common_pb2.PURPOSE_UNSPECIFIED:
        return False
    sampling = request.sampling
    return sampling.temperature == 0 or sampling.seed != seed_of(admitted.request_id)


def answer_key(admitted: admitted_pb2.AdmittedRequest, variant: route_pb2.Variant) -> bytes | None:
    """The exact cache's key, or None where the request may not be answered from it.

    Args:
        admitted: The request, with every default filled in.
        variant: What answers it, which is not always the variant named at admission.
    """
    if not is_cacheable(admitted):
        return None
    return _digest(_asked(admitted), variant, b"answer")


def question_of(
    admitted: admitted_pb2.AdmittedRequest, variant: route_pb2.Variant
) -> Question | None:
    """The request for the semantic cache, or None where it may not be answered from it.

    A conversation has to end with a user turn: only this turn's text is compared by meaning.
    """
    if not is_cacheable(admitted):
        return None
    asked = _asked(admitted)
    if asked.messages:
        last = asked.messages[-1]
        if last.role != "user":
            return None
        text, last.content = last.content, ""
    else:
        text, asked.prompt = asked.prompt, ""
    return Question(_digest(asked, variant, b"question"), text) if text else None


@functools.lru_cache(maxsize=65_536)
def cache_salt(tenant: str, adapter: str) -> str:
    """The salt of the engine's prefix cache: blocks of one salt are never used under another.

    Per tenant, so that nobody learns from the time to a first token what another tenant sent, and
    per adapter, whose weights make other blocks of the same tokens. Variants that differ in
    template or parameters alone may share: a block depends on the tokens before it, which hold
    the template, and on no parameter. The tenant's name does not appear in it.
    """
    return hashlib.blake2b(
        _joined((tenant, adapter)), digest_size=KEY_BYTES, person=b"prefix"
    ).hexdigest()


def _asked(admitted: admitted_pb2.AdmittedRequest) -> request_pb2.GenerateRequest:
    """A copy of the request that holds only what its answer depends on, the tenant among it."""
    asked = request_pb2.GenerateRequest()
    asked.CopyFrom(admitted.request)
    for field in IRRELEVANT:
        asked.ClearField(field)  # type: ignore[arg-type]  # the stubs want literals
    if asked.sampling.temperature == 0:
        # Nothing is drawn, and the seed differs from request to request.
        asked.sampling.ClearField("seed")
    return asked


def _digest(asked: request_pb2.GenerateRequest, variant: route_pb2.Variant, person: bytes) -> bytes:
    parts = (
        asked.tenant,
        asked.model,
        variant.name,
        variant.base_model,
        variant.adapter,
        variant.prompt_template_version,
    )
    digest = hashlib.blake2b(_joined(parts), digest_size=KEY_BYTES, person=person)
    # Deterministic: maps in one order. Both sides of a comparison are of this process.
    digest.update(asked.SerializeToString(deterministic=True))
    return digest.digest()


def _joined(parts: Iterable[str]) -> bytes:
    # Length before each part: ("a", "bc") and ("ab", "c") must not meet.
    return "".join([f"{len(part)}:{part}" for part in parts]).encode()
