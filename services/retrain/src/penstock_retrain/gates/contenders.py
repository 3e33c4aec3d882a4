"""Who is judged and whom it is compared with. Blocks: digests read every byte of the weights."""

from __future__ import annotations

from pathlib import Path

from penstock.manifest import ManifestError, digest_of, file_digests
from penstock_retrain.bases import Bases, NoBaseModel
from penstock_retrain.errors import NoSuchVersion
from penstock_retrain.gates.errors import GateError
from penstock_retrain.gates.examples import Contender
from penstock_retrain.jobs.states import Job, JobState
from penstock_retrain.registry.store import Registry
from penstock_retrain.registry.versions import CHAMPION

__all__ = ["ADAPTER_CONFIG", "RegistryContenders", "contender_of"]

# What makes a directory an adapter of PEFT's.
ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")


def contender_of(name: str, model: Path, adapter: Path | None = None) -> Contender:
    """A contender of directories.

    Args:
        name: For people.
        model: A Hugging Face directory.
        adapter: A PEFT directory; None for the model as it is.

    Raises:
        GateError: One of them is none.
    """
    if not (model / "config.json").is_file():
        raise GateError(f"{model} is no Hugging Face directory: it has no config.json")
    if adapter is not None and not (adapter / ADAPTER_CONFIG).is_file():
        raise GateError(f"{adapter} is no PEFT adapter: it has no {ADAPTER_CONFIG}")
    try:
        weights = [_weights(path) for path in (model, adapter) if path is not None]
    except (ManifestError, OSError) as error:
        raise GateError(f"the weights of {name} cannot be read: {error}") from error
    digest = digest_of({str(number): each for number, each in enumerate(weights)})
    return Contender(name, digest, model, adapter)


def _weights(path: Path) -> str:
    """The digest of what answers depend on; cards, manifests and reports come and go."""
    found = file_digests(path)
    return digest_of({name: each for name, each in found.items() if name.endswith(_WEIGHTS)})


class RegistryContenders:
    """A job's candidate, and the champion that the registry names.

    Args:
        registry: Versions and aliases.
        adapters: Where registered adapters are.
        bases: Where base models and registered full weights are.
    """

    def __init__(self, registry: Registry, adapters: Path, bases: Bases) -> None:
        self._registry = registry
        self._adapters = adapters
        self._bases = bases

    def candidate(self, job: Job) -> Contender:
        """What the job's training made.

        Raises:
            GateError: It is not there.
        """
        made = job.result(JobState.TRAINING)
        if not made.get("dir"):
            raise GateError(f"the training of job {job.id} says no dir: nothing to judge")
        path, name = Path(str(made["dir"])), f"candidate of {job.id}"
        if made.get("kind") == "full":
            return contender_of(name, path)
        return contender_of(name, self._base(str(made.get("base_model", ""))), path)

    def champion(self, job: Job) -> Contender:
        """What serves the model now: the champion, or the base model where no job made one.

        Raises:
            GateError: Its files are not there.
        """
        try:
            version = self._registry.by_alias(job.model, CHAMPION)
        except NoSuchVersion:
            base = str(job.result(JobState.TRAINING).get("base_model", ""))
            return contender_of(base, self._base(base))
        if version.kind == "full":
            return contender_of(version.name, self._bases.registered / version.name)
        model = self._base(version.base_model)
        return contender_of(version.name, model, self._adapters / version.name)

    def _base(self, name: str) -> Path:
        try:
            return self._bases.find(name)
        except NoBaseModel as error:
            raise GateError(str(error)) from None
