"""What the pump asks before an engine: the exact cache first, then the semantic one."""

from __future__ import annotations

from typing import NamedTuple

from penstock.v1 import admitted_pb2, engine_service_pb2, route_pb2
from penstock_inference import metrics
from penstock_inference.caching.embedding import HashedNgrams
from penstock_inference.caching.exact import Hit, ResponseCache
from penstock_inference.caching.keys import answer_key, question_of
from penstock_inference.caching.semantic import SemanticCache, SemanticKey
from penstock_inference.settings import InferenceSettings

__all__ = ["AnswerCache", "CacheKey", "make_answer_cache"]

MIB = 1024 * 1024


class CacheKey(NamedTuple):
    """Names a request in both caches."""

    exact: bytes
    semantic: SemanticKey | None


class AnswerCache:
    """Both caches behind three verbs; either may be missing. In one pump, of one thread.

    Example:
        key = cache.key(admitted, variant)  # again where another variant is chosen
        hit = cache.get(key, now_s)
        if hit is None:
            result = ...  # an engine's
            cache.put(key, result, now_s)

    Args:
        exact: Finds the same question.
        semantic: Finds a similar one.
    """

    def __init__(
        self, exact: ResponseCache | None = None, semantic: SemanticCache | None = None
    ) -> None:
        self._exact = exact
        self._semantic = semantic
        # Looked up once: `labels` costs as much as a lookup.
        self._exact_hits = metrics.CACHE_LOOKUPS.labels("exact")
        self._similar_hits = metrics.CACHE_LOOKUPS.labels("similar")
        self._misses = metrics.CACHE_LOOKUPS.labels("miss")

    def key(
        self, admitted: admitted_pb2.AdmittedRequest, variant: route_pb2.Variant
    ) -> CacheKey | None:
        """The request's name in the caches; None where it may not be answered from one.

        Args:
            admitted: The request, with every default filled in.
            variant: What answers it.
        """
        if self._exact is None and self._semantic is None:
            return None
        exact = answer_key(admitted, variant)
        if exact is None:
            return None
        question = question_of(admitted, variant) if self._semantic is not None else None
        return CacheKey(exact, SemanticKey(question) if question is not None else None)

    def get(self, key: CacheKey | None, now_s: float) -> Hit | None:
        """The answer that need not be generated, if there is one.

        Args:
            key: From `key`; None finds nothing.
            now_s: The present by a clock that never goes back.
        """
        if key is None:
            return None
        if self._exact is not None and (hit := self._exact.get(key.exact, now_s)) is not None:
            self._exact_hits.inc()
            return hit
        if self._semantic is not None and key.semantic is not None:
            hit = self._semantic.get(key.semantic, now_s)
            if hit is not None:
                self._similar_hits.inc()
                return hit
        self._misses.inc()
        return None

    def put(
        self, key: CacheKey | None, result: engine_service_pb2.WorkResult, now_s: float
    ) -> None:
        """Keeps what an engine answered, where it is complete. A hit's result must not come here.

        Args:
            key: The key under which `get` found nothing; None keeps nothing.
            result: The engine's.
            now_s: As in `get`.
        """
        if key is None:
            return
        if self._exact is not None:
            self._exact.put(key.exact, result, now_s)
            metrics.CACHE_BYTES.labels("exact").set(self._exact.size_bytes)
        if self._semantic is not None and key.semantic is not None:
            self._semantic.put(key.semantic, result, now_s)
            metrics.CACHE_BYTES.labels("similar").set(self._semantic.size_bytes)


def make_answer_cache(settings: InferenceSettings) -> AnswerCache:
    """The caches that the settings ask for."""
    exact = semantic = None
    if settings.cache_mib:
        exact = ResponseCache(settings.cache_mib * MIB, settings.cache_ttl_s)
    if settings.semantic_cache_mib and settings.semantic_cache_threshold is not None:
        semantic = SemanticCache(
            HashedNgrams(),
            settings.semantic_cache_threshold,
            settings.semantic_cache_mib * MIB,
            settings.cache_ttl_s,
        )
    return AnswerCache(exact, semantic)
