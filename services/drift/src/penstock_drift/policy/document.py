"""What drift looks for and what it does about it: a YAML document, validated. Pure.

The default is `default_policy.yaml` beside this module, which explains every field. A deployment's
own is set with `penstock drift policy set FILE`, which writes it to the topic `policies`; every
worker takes it over at one place of the log of `signals`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Iterable, Mapping
from enum import StrEnum
from importlib import resources
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from penstock.documents import DocumentError, fault_lines, read_mapping
from penstock_drift.policy.actions import RETRAIN, Actions, Remedy, Retrain, Strict
from penstock_drift.records.values import Kind

__all__ = [
    "MIN_BLOCKS",
    "RETRAIN",
    "SELF_TEST_MODEL",
    "Actions",
    "DetectorName",
    "Finding",
    "Limits",
    "Policy",
    "PolicyError",
    "Rebase",
    "Remedy",
    "Retrain",
    "SelfTest",
    "Severities",
    "Severity",
    "SignalPolicy",
    "SignalRule",
    "default_document",
    "kept_policy",
    "parse_policy",
]

# Whose signals are made up; people hear of it only when the bank does not see its changes.
SELF_TEST_MODEL = "penstock-selftest"

# Of the calibrated channel; which e-detectors a signal has follows from its type.
DetectorName = Literal[
    "adwin",
    "adwin_spread",
    "page_hinkley",
    "kswin",
    "seed",
    "stepd",
    "ddm",
    "eddm",
    "fhddm",
    "hddm_a",
    "hddm_w",
]

# Whose thresholds are in deviations; those of all others lie between 0 and 1.
_IN_DEVIATIONS = ("page_hinkley", "ddm")

# Blocks of a baseline, or values where they are not averaged. With 100 every type of signal finds a
# change by two deviations of a block's mean within 100 blocks; with 50 scores take twice as long,
# and with 20 they do not find it: the bound on what was not seen leaves too much open.
MIN_BLOCKS = 100


class PolicyError(Exception):
    """A document is no policy; a line per error, which names the field and the remedy."""


class Severity(StrEnum):
    """How urgently a person is wanted; in order."""

    INFO = "info"
    TICKET = "ticket"
    PAGE = "page"


class _SignalFields(Strict):
    @field_validator("detectors", mode="after", check_fields=False)
    @classmethod
    def _once_each(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) < len(names):
            raise ValueError("a detector is there twice: remove one")
        return names

    @field_validator("thresholds", mode="after", check_fields=False)
    @classmethod
    def _possible(cls, dials: Mapping[str, float] | None) -> Mapping[str, float] | None:
        for name, dial in (dials or {}).items():
            share = name not in _IN_DEVIATIONS
            if dial <= 0 or (share and dial >= 1):
                raise ValueError(
                    f"{name} cannot be set to {dial:g}: "
                    f"write a number above 0{' and below 1' if share else ''}"
                )
        return dials


class SignalPolicy(_SignalFields):
    """How one signal is watched, all rules put together; see `Policy.for_signal`.

    Attributes:
        min_effect: The least change worth a finding, in standard deviations of the baseline; of
            numbers, counts and points.
        min_change: The same of rates, shares and bounded values, in their own unit.
        detectors: The calibrated channel's; one without a threshold is shown and has no vote.
        thresholds: By detector, as `penstock drift calibrate` finds them.
    """

    enabled: bool = True
    min_effect: float = Field(default=0.2, ge=0, le=10)
    min_change: float = Field(default=0.02, ge=0, le=1)
    baseline_observations: int = Field(default=2000, ge=MIN_BLOCKS, le=1_000_000)
    season: Literal["none", "day", "week"] = "none"
    season_periods: int = Field(default=3, ge=1, le=20)
    block: int = Field(default=1, ge=1, le=1000)
    detectors: tuple[DetectorName, ...] = ()
    thresholds: Mapping[DetectorName, float] = Field(default_factory=dict)
    severity: Severity | None = None

    @model_validator(mode="after")
    def _used(self) -> Self:
        unused = sorted(set(self.thresholds) - set(self.detectors))
        if unused:
            raise ValueError(f"thresholds of {', '.join(unused)}: name the detector in detectors")
        return self


class SignalRule(_SignalFields):
    """What a rule says of the signals that it matches; what it leaves out stays as it was."""

    enabled: bool | None = None
    min_effect: float | None = Field(default=None, ge=0, le=10)
    min_change: float | None = Field(default=None, ge=0, le=1)
    baseline_observations: int | None = Field(default=None, ge=MIN_BLOCKS, le=1_000_000)
    season: Literal["none", "day", "week"] | None = None
    season_periods: int | None = Field(default=None, ge=1, le=20)
    block: int | None = Field(default=None, ge=1, le=1000)
    detectors: tuple[DetectorName, ...] | None = None
    thresholds: Mapping[DetectorName, float] | None = None
    severity: Severity | None = None


class Limits(Strict):
    """Bounds of a worker's memory, per partition of `signals`."""

    max_keys: int = Field(default=2000, ge=1, le=1_000_000)
    key_ttl_s: float = Field(default=86_400, ge=60, le=1e9)
    max_buffered: int = Field(default=100_000, ge=1000)


class Rebase(Strict):
    """After how many values at the evidence's cap a change is the new normal; None: never."""

    input: int | None = Field(default=20_000, ge=100)
    output: int | None = Field(default=20_000, ge=100)
    quality: int | None = Field(default=None, ge=100)
    operational: int | None = Field(default=20_000, ge=100)

    def of(self, kind: Kind) -> int | None:
        """That of a kind."""
        found: int | None = getattr(self, kind.value)
        return found


class Severities(Strict):
    """How urgent a kind's incidents are."""

    input: Severity = Severity.INFO
    output: Severity = Severity.TICKET
    quality: Severity = Severity.PAGE
    operational: Severity = Severity.PAGE

    def of(self, kind: Kind) -> Severity:
        """That of a kind."""
        found: Severity = getattr(self, kind.value)
        return found


class SelfTest(Strict):
    """The made-up traffic that shows whether the bank still sees changes."""

    enabled: bool = True
    rate_per_s: float = Field(default=20, gt=0, le=1000)
    quiet_observations: int = Field(default=3000, ge=500)
    patience: float = Field(default=4, ge=1, le=100)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What has to be known of a finding to say which action answers it.

    Attributes:
        kind: Its kind.
        model: The model concerned.
        signal: The signal that changed.
        causes: Names of likely causes, if any are known yet.
        worse: Whether the change is for the worse; None where the signal has no better.
    """

    kind: Kind
    model: str
    signal: str
    causes: tuple[str, ...] = ()
    worse: bool | None = None


class Policy(Strict):
    """What drift looks for and what it does about it.

    Attributes:
        tick_s: Evidence is looked at once per tick of event time.
        lateness_s: How long a tick stays open for what comes late, in event time.
        alpha: Error over patience, per value: of findings that stand after n values per signal
            at most a share of alpha * n is false in expectation (arXiv 2501.04130).
        suspect_alpha: The same for one signal alone, to be called suspect.
        hysteresis_ticks: Ticks in a row that evidence has to be there, or gone.
        cooldown_ticks: Ticks after a finding has gone before a signal is armed again.
        signals: Rules by glob pattern, in order; a later one wins field by field.
        segments: By label of requests, how many of its values are watched on their own.
    """

    tick_s: float = Field(default=10, ge=0.1, le=3600)
    lateness_s: float = Field(default=2, ge=0, le=3600)
    alpha: float = Field(default=1e-4, gt=0, lt=1)
    suspect_alpha: float = Field(default=1e-4, gt=0, lt=1)
    hysteresis_ticks: int = Field(default=2, ge=1, le=1000)
    cooldown_ticks: int = Field(default=30, ge=0, le=100_000)
    signals: Mapping[str, SignalRule] = Field(default_factory=dict)
    segments: Mapping[str, int] = Field(default_factory=dict)
    limits: Limits = Limits()
    rebase_after: Rebase = Rebase()
    severities: Severities = Severities()
    actions: Actions = Actions()
    self_test: SelfTest = SelfTest()

    @field_validator("segments")
    @classmethod
    def _few_values(cls, segments: Mapping[str, int]) -> Mapping[str, int]:
        for label, values in segments.items():
            if not label or "=" in label or "/" in label:
                raise ValueError(f"{label!r} cannot be watched: a label has no = and no /")
            if not 1 <= values <= 1000:
                raise ValueError(f"{label}: {values} values; watch 1 to 1000 of a label's values")
        return segments

    @field_validator("signals")
    @classmethod
    def _sound_rules(cls, rules: Mapping[str, SignalRule]) -> Mapping[str, SignalRule]:
        for pattern in rules:
            try:
                chosen = SignalPolicy.model_validate(_said(rules, pattern))
            except ValidationError as error:
                reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                raise ValueError(f"{pattern}: {reason}") from None
            values, block = chosen.baseline_observations, chosen.block
            if values < MIN_BLOCKS * block:
                raise ValueError(
                    f"{pattern}: too little is found with {values // block} blocks of a "
                    f"baseline: raise baseline_observations to {MIN_BLOCKS * block} at least, or "
                    f"lower block to {values // MIN_BLOCKS}"
                )
        return rules

    def for_signal(self, name: str) -> SignalPolicy:
        """How a signal is watched.

        Rules that are sound each may meet at a signal that neither names. There a threshold has no
        effect without its detector, and a baseline has as many blocks as each rule has to have.
        """
        said = _said(self.signals, name)
        dials, detectors = said.get("thresholds", {}), said.get("detectors", ())
        met = SignalPolicy.model_validate(
            said | {"thresholds": {each: dials[each] for each in dials if each in detectors}}
        )
        least = MIN_BLOCKS * met.block
        if met.baseline_observations >= least:
            return met
        return met.model_copy(update={"baseline_observations": least})

    def severity(self, kind: Kind, signal: str) -> Severity:
        """How urgent a change of a signal is."""
        return self.for_signal(signal).severity or self.severities.of(kind)

    def action_for(self, finding: Finding) -> str:
        """What answers a finding: `retrain`, a remedy's name, or nothing (empty).

        Only quality starts a retraining, and not for the better. Only operational drift for the
        worse has a remedy: the first that matches.
        """
        if finding.worse is False or finding.model == SELF_TEST_MODEL:
            return ""
        retrain = self.actions.retrain
        if finding.kind is Kind.QUALITY:
            asked = (
                retrain.enabled
                and _any_match(retrain.signals, finding.signal)
                and _any_match(retrain.models, finding.model)
            )
            return RETRAIN if asked else ""
        if finding.kind is not Kind.OPERATIONAL or not finding.worse:
            return ""
        return next((r.name for r in self.actions.remedies if _answers(r, finding)), "")


@functools.lru_cache(maxsize=8)
def parse_policy(document: str) -> Policy:
    """The policy of a document; a field that it leaves out is as in the default document.

    Raises:
        PolicyError: It is none; every error on a line of its own.
    """
    wanted = "no policy: write `field: value` lines, as default_policy.yaml does"
    try:
        found = read_mapping(document, wanted)
        return Policy.model_validate(yaml.safe_load(default_document()) | found)
    except DocumentError as error:
        raise PolicyError(str(error)) from None
    except ValidationError as error:
        raise PolicyError("\n".join(fault_lines(error, lambda _: _FIELDS))) from None


def kept_policy(document: str | None) -> Policy:
    """The policy of a document that a saved state holds; the default where it holds none.

    The default as well where this version refuses what a former one took: whoever reads `policies`
    says so, and nothing stands still for it.
    """
    try:
        return parse_policy(document or "")
    except PolicyError:
        return parse_policy("")


def default_document() -> str:
    """The default policy as YAML, with its comments."""
    return (resources.files(__package__) / "default_policy.yaml").read_text(encoding="utf-8")


def _said(rules: Mapping[str, SignalRule], name: str) -> dict[str, Any]:
    """All that rules say of a signal, the later ones last."""
    said: dict[str, Any] = {}
    for pattern, rule in rules.items():
        # A pattern matches itself, so that every rule can be tried on its own.
        if pattern == name or fnmatch.fnmatchcase(name, pattern):
            said |= rule.model_dump(exclude_none=True)
    return said


def _answers(remedy: Remedy, finding: Finding) -> bool:
    return (
        _any_match(remedy.signals, finding.signal)
        and _any_match(remedy.models, finding.model)
        and (not remedy.causes or not set(remedy.causes).isdisjoint(finding.causes))
    )


def _any_match(patterns: Iterable[str], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


_MODELS = (Policy, SignalRule, Limits, Rebase, Severities, Actions, Retrain, Remedy, SelfTest)
_FIELDS = sorted({field for model in _MODELS for field in model.model_fields})
