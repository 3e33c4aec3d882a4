"""Tells whether Kafka answers, for readiness."""

from __future__ import annotations

import asyncio

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

__all__ = ["KafkaProbe"]


class KafkaProbe:
    """Asks a cluster for its metadata.

    Args:
        bootstrap: Kafka's bootstrap servers.
        timeout_s: How long an answer may take.
    """

    def __init__(self, bootstrap: str, *, timeout_s: float = 3.0) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s

    async def answers(self) -> bool:
        """Whether a broker of the cluster answered within the timeout."""
        client = AIOKafkaClient(bootstrap_servers=self._bootstrap, client_id="penstock-probe")
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.bootstrap()
        except (KafkaError, OSError, TimeoutError):
            return False
        finally:
            await client.close()
        return True
