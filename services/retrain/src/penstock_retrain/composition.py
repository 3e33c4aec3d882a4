"""What the states of a job do: the one place where stages are put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

from penstock.kafka.log_id import log_id
from penstock.pricing import PriceTable, PriceTableError
from penstock.settings import SettingsError
from penstock.signing import SigningKey
from penstock.topics import topic_of
from penstock_retrain.bases import Bases
from penstock_retrain.canary.log_windows import LogWindows
from penstock_retrain.canary.observing import CanaryLog
from penstock_retrain.canary.shadow_stage import ShadowStage
from penstock_retrain.canary.stage import CanaryStage
from penstock_retrain.dataset.findings import KafkaFindings
from penstock_retrain.dataset.policy import DatasetPolicy
from penstock_retrain.dataset.stage import DatasetStage, Settling
from penstock_retrain.dataset.store import FileStore
from penstock_retrain.gates.contenders import RegistryContenders
from penstock_retrain.gates.stage import GateStage
from penstock_retrain.jobs.policy import parse_policy
from penstock_retrain.jobs.stages import Desk, Stage
from penstock_retrain.jobs.states import JobState
from penstock_retrain.registry.stage import RegisteringStage
from penstock_retrain.registry.store import Registry
from penstock_retrain.settings import RetrainSettings
from penstock_retrain.training.request import Resources
from penstock_retrain.training.stage import TrainingStage

__all__ = ["Parts", "compose_stages"]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What stages are made of.

    Attributes:
        settings: The service's.
        desk: Where a stage keeps what it knows, and changes the route.
        registry: Versions and aliases.
        key: Signs manifests.
        collector: Brings what is on the log into files.
        serving: The engine's model that serves a model's champion now; empty where none does.
    """

    settings: RetrainSettings
    desk: Desk
    registry: Registry
    key: SigningKey
    collector: Settling
    serving: Callable[[str], str]

    def topic(self, name: str) -> str:
        """A topic's full name."""
        return topic_of(name).full_name(self.settings.topic_prefix)


def compose_stages(parts: Parts) -> Mapping[JobState, Stage]:
    """What each state does."""
    log = _canary_log(parts)
    return {
        JobState.DATASET: _dataset(parts),
        JobState.TRAINING: _training(parts),
        JobState.EVALUATING: _gates(parts),
        JobState.REGISTERING: _registering(parts),
        JobState.SHADOW: ShadowStage(parts.desk, log),
        JobState.CANARY: CanaryStage(parts.desk, log),
    }


def _dataset(parts: Parts) -> Stage:
    settings = parts.settings
    return DatasetStage(
        parts.desk,
        FileStore(settings.collected_url),
        settings.work_dir / "datasets",
        KafkaFindings(settings.kafka_bootstrap, parts.topic("drift")),
        parts.collector,
        policy_of=lambda document: DatasetPolicy.of(parse_policy(document).dataset),
    )


def _training(parts: Parts) -> Stage:
    settings = parts.settings
    resources = Resources(
        settings.ray_address,
        settings.training_cpus,
        settings.training_gpus,
        settings.training_memory_mib,
        settings.training_retries,
    )
    folder = settings.work_dir / "training"
    return TrainingStage(
        parts.desk, folder, resources, _bases(settings), settings.imports_dir, parts.serving
    )


def _bases(settings: RetrainSettings) -> Bases:
    return Bases(settings.base_models, settings.models_dir)


def _gates(parts: Parts) -> Stage:
    settings = parts.settings
    contenders = RegistryContenders(parts.registry, settings.adapters_dir, _bases(settings))
    return GateStage(settings.work_dir / "gates", settings.suites_dir, contenders)


def _canary_log(parts: Parts) -> CanaryLog:
    settings = parts.settings
    bootstrap = settings.kafka_bootstrap
    return CanaryLog(
        partial(LogWindows, bootstrap), partial(log_id, bootstrap), parts.topic, _prices(settings)
    )


def _prices(settings: RetrainSettings) -> PriceTable | None:
    if settings.prices is None:
        return None
    try:
        return PriceTable.parse(settings.prices.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, PriceTableError) as error:
        raise SettingsError(f"PENSTOCK_RETRAIN_PRICES={settings.prices}: {error}") from error


def _registering(parts: Parts) -> Stage:
    settings = parts.settings
    return RegisteringStage(
        parts.desk, parts.registry, settings.adapters_dir, settings.models_dir, parts.key
    )
