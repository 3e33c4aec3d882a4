"""Which adapters the routes want on a base model's engines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.kafka.reader import LogReader, Start
from penstock.records import Record
from penstock.routing import RouteTable
from penstock.settings import SettingsError
from penstock.signing import KeyFileError, PublicKeys
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import route_pb2
from penstock_inference.adapters.store import AdapterStore
from penstock_inference.engines.errors import AdapterUnusable
from penstock_inference.engines.generation import Adapter
from penstock_inference.engines.models import Model, VllmModel

__all__ = ["WantedAdapters", "finder_of", "wanted"]

log = logger(__name__)


def wanted(routes: Iterable[route_pb2.Route], base_model: str) -> frozenset[str]:
    """The adapters of all variants on a base model; those without weight too, being prepared."""
    return frozenset(
        variant.adapter
        for route in routes
        for variant in route.variants
        if variant.adapter and variant.base_model == base_model
    )


class WantedAdapters:
    """Follows `routes` from its beginning.

    Args:
        bootstrap: Kafka's bootstrap servers.
        topic_prefix: What stands before the dot in topics' names.
        base_model: Whose adapters are wanted.
    """

    def __init__(self, bootstrap: str, topic_prefix: str, base_model: str) -> None:
        self._base_model = base_model
        self._table = RouteTable()
        topic = topic_of("routes").full_name(topic_prefix)
        self._reader = LogReader(bootstrap, topic, start=Start.BEGINNING)
        self.names: Collection[str] = frozenset()

    async def run(self) -> None:
        """Reads until cancelled; goes on after faults of Kafka."""
        await self._reader.run(self._take)

    def _take(self, record: Record) -> None:
        if record.value is None:
            self._table.remove((record.key or b"").decode(errors="replace"))
        else:
            try:
                self._table.apply(decode(record, route_pb2.Route))
            except InvalidRequest as error:
                log.error("a route is passed over", reason=error.message, offset=record.offset)
                return
        # Before all is read this may name what was withdrawn since: that is unloaded when idle.
        self.names = wanted(self._table.models(), self._base_model)


def finder_of(model: Model) -> Callable[[str], Adapter]:
    """How the adapters of a base model are found: on disk, or by their names alone.

    Raises:
        SettingsError: A public key cannot be read.
    """
    if not isinstance(model, VllmModel):
        return lambda name: Adapter(name, Path(), "")
    if model.adapters_dir:
        return AdapterStore(Path(model.adapters_dir), _signers(model)).find
    return _nowhere


def _signers(model: VllmModel) -> PublicKeys | None:
    if not model.adapter_keys:
        return None
    try:
        return PublicKeys.load([Path(key) for key in model.adapter_keys])
    except KeyFileError as error:
        raise SettingsError(f"adapter_keys: {error}") from error


def _nowhere(name: str) -> Adapter:
    raise AdapterUnusable(f"no adapters_dir is set: {name} cannot be found; set it, and start anew")
