from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_drift.policy.document import (
    RETRAIN,
    SELF_TEST_MODEL,
    Finding,
    Policy,
    PolicyError,
    Severity,
    default_document,
    parse_policy,
)
from penstock_drift.records.values import Kind

REMEDIES = """
actions:
  retrain: {enabled: true, signals: ["feedback*"], models: [triage]}
  remedies:
    - {name: back, do: rollback_route, signals: ["error"], causes: [route_change, adapter]}
    - {name: more, do: scale, signals: ["latency*"], max_per_hour: 2, dry_run: false}
"""


def test_the_default_document_says_what_the_defaults_are() -> None:
    written = parse_policy(default_document()).model_dump()
    implied = Policy().model_dump()
    # The document alone has rules for single signals and a label that demonstrations use.
    assert next(iter(written.pop("signals"))) == "*"
    assert written.pop("segments") == {"task": 12}
    implied.pop("signals")
    implied.pop("segments")
    assert written == implied


def test_the_first_rule_of_the_default_says_what_the_defaults_are() -> None:
    policy = parse_policy(default_document())
    assert policy.for_signal("anything") == Policy().for_signal("anything")


@pytest.mark.parametrize("document", ["", "# only a comment\n", "{}"])
def test_an_empty_document_is_the_default(document: str) -> None:
    assert parse_policy(document) == parse_policy(default_document())


def test_what_a_document_leaves_out_is_as_in_the_default() -> None:
    policy = parse_policy("tick_s: 5")
    assert policy.for_signal("pii").severity is Severity.PAGE
    assert policy.segments == {"task": 12}
    assert parse_policy("signals: {}\nsegments: {}") == Policy()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("tick_ss: 5", "tick_ss: not known; did you mean tick_s?"),
        ("zzz: 5", "zzz: not known; remove it"),
        ("alpha: 2", "alpha: Input should be less than 1 (it is 2)"),
        ("alpha: .nan", "alpha: Input should be a finite number"),
        ("limits: {max_kyes: 5}", "limits.max_kyes: not known; did you mean max_keys?"),
        ("signals: {x: {detectors: [adwyn]}}", "signals.x.detectors.0: Input should be 'adwin'"),
        (
            "signals: {x: {detectors: [adwin, adwin]}}",
            "signals.x.detectors: a detector is there twice: remove one",
        ),
        (
            "signals: {x: {thresholds: {adwin: 0.1}}}",
            "signals: x: thresholds of adwin: name the detector in detectors",
        ),
        (
            "signals: {x: {detectors: [kswin], thresholds: {kswin: 2}}}",
            "signals.x.thresholds: kswin cannot be set to 2: write a number above 0 and below 1",
        ),
        (
            "signals: {x: {detectors: [ddm], thresholds: {ddm: 0}}}",
            "signals.x.thresholds: ddm cannot be set to 0: write a number above 0",
        ),
        (
            "limits: {key_ttl_s: 1.0e+306}",
            "limits.key_ttl_s: Input should be less than or equal to 1000000000",
        ),
        (
            "actions: {retrain: {cooldown_s: 1.0e+306}}",
            "actions.retrain.cooldown_s: Input should be less than or equal to 1000000000",
        ),
        (
            "signals: {'latency*': {block: 25}}",
            "signals: latency*: too little is found with 80 blocks of a baseline: raise "
            "baseline_observations to 2500 at least, or lower block to 20",
        ),
        (
            "signals: {'*': {baseline_observations: 400}, latency: {block: 5}}",
            "signals: latency: too little is found with 80 blocks",
        ),
        ("segments: {a=b: 3}", "segments: 'a=b' cannot be watched: a label has no = and no /"),
        ("segments: {task: 0}", "segments: task: 0 values; watch 1 to 1000"),
        ("actions: {remedies: [{name: x}]}", "actions.remedies.0.do: missing; add it"),
        (
            "actions: {remedies: [{name: retrain, do: scale}]}",
            "actions.remedies.0.name: 'retrain' is another action's name",
        ),
        (
            "actions: {remedies: [{name: a, do: shed, replicas: 2}]}",
            "actions.remedies.0: replicas is of scale: remove it from shed",
        ),
        (
            "actions: {remedies: [{name: a, do: rollback_route, for_s: 60}]}",
            "for_s is of scale and shed and restart_replica: remove it from rollback_route",
        ),
        (
            "actions: {remedies: [{name: a, do: shed, for_s: 90000}]}",
            "actions.remedies.0.for_s",
        ),
        (
            "actions: {remedies: [{name: a, do: shed}, {name: a, do: shed}]}",
            "actions.remedies: two remedies are named a: rename one",
        ),
        ("- 1", "no policy: write `field: value` lines"),
        ("a: [1", "no YAML: line 1: "),
        ("a: \x00", "no YAML: "),
    ],
)
def test_errors_name_field_and_remedy(document: str, expected: str) -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(document)
    assert expected in str(raised.value)


def test_every_error_has_a_line() -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy("alpha: 2\ntick_s: no\nextra: 1")
    assert len(str(raised.value).splitlines()) == 3


def test_a_later_rule_wins_field_by_field() -> None:
    policy = parse_policy(
        "signals:\n"
        "  '*': {min_effect: 0.5, block: 4}\n"
        "  'latency*': {min_effect: 0.3}\n"
        "  latency_s: {block: 2, severity: info}\n"
    )
    plain, family, one = (policy.for_signal(n) for n in ("cost", "latency_x", "latency_s"))
    assert (plain.min_effect, plain.block) == (0.5, 4)
    assert (family.min_effect, family.block) == (0.3, 4)
    assert (one.min_effect, one.block) == (0.3, 2)
    assert policy.severity(Kind.OPERATIONAL, "latency_s") is Severity.INFO
    assert policy.severity(Kind.OPERATIONAL, "cost") is Severity.PAGE


def test_rules_that_meet_at_a_signal_make_one_that_can_be_watched() -> None:
    # Each pattern is sound, and neither matches the other; `latency` is in both.
    policy = parse_policy(
        "signals:\n"
        "  'lat*': {detectors: [adwin], thresholds: {adwin: 0.01}, block: 20}\n"
        "  '*ncy': {detectors: [seed], baseline_observations: 200}\n"
    )
    met = policy.for_signal("latency")
    assert (met.detectors, met.thresholds) == (("seed",), {})
    assert (met.block, met.baseline_observations) == (20, 2000)


_RULES = st.fixed_dictionaries(
    {},
    optional={
        "block": st.integers(1, 30),
        "baseline_observations": st.integers(100, 4000),
        "detectors": st.lists(st.sampled_from(["adwin", "seed"]), unique=True),
        "thresholds": st.dictionaries(st.sampled_from(["adwin", "seed"]), st.just(0.01)),
    },
)


@given(
    st.dictionaries(st.sampled_from(["*", "a*", "*b", "*c*", "a?b", "ab"]), _RULES, max_size=4),
    st.text("abc", min_size=1, max_size=4),
)
def test_whatever_policy_is_accepted_every_signal_has_its_own(
    rules: dict[str, dict[str, object]], name: str
) -> None:
    with contextlib.suppress(ValueError):
        policy = Policy.model_validate({"signals": rules})
        met = policy.for_signal(name)
        assert met.baseline_observations >= 100 * met.block
        assert set(met.thresholds) <= set(met.detectors)


@pytest.mark.parametrize(
    ("finding", "action"),
    [
        (Finding(Kind.QUALITY, "triage", "feedback_error", worse=True), RETRAIN),
        (Finding(Kind.QUALITY, "triage", "feedback_error", worse=None), RETRAIN),
        (Finding(Kind.QUALITY, "triage", "feedback_error", worse=False), ""),
        (Finding(Kind.QUALITY, "other", "feedback_error", worse=True), ""),
        (Finding(Kind.QUALITY, "triage", "golden_loss", worse=True), ""),
        (Finding(Kind.INPUT, "triage", "feedback_error", worse=True), ""),
        (Finding(Kind.OUTPUT, "triage", "error", ("adapter",), worse=True), ""),
        (Finding(Kind.OPERATIONAL, "triage", "error", ("adapter",), worse=True), "back"),
        (Finding(Kind.OPERATIONAL, "triage", "error", ("upstream",), worse=True), ""),
        (Finding(Kind.OPERATIONAL, "triage", "latency_s", worse=True), "more"),
        (Finding(Kind.OPERATIONAL, "triage", "latency_s", worse=False), ""),
        (Finding(Kind.OPERATIONAL, "triage", "latency_s", worse=None), ""),
        (Finding(Kind.OPERATIONAL, SELF_TEST_MODEL, "latency_s", worse=True), ""),
    ],
)
def test_only_quality_retrains_and_only_operational_drift_has_remedies(
    finding: Finding, action: str
) -> None:
    assert parse_policy(REMEDIES).action_for(finding) == action


def test_remedies_are_dry_runs_unless_the_policy_says_otherwise() -> None:
    actions = parse_policy(REMEDIES).actions
    back, more = actions.remedy("back"), actions.remedy("more")
    assert back is not None
    assert more is not None
    assert (back.dry_run, more.dry_run) == (True, False)
    assert actions.remedy("none") is None


@pytest.mark.parametrize(
    ("more", "share"),
    [("", 0.2), (", priority_above: 0", 1.0), (", priority_above: 0, share: 0.5", 0.5)],
)
def test_a_shed_refuses_what_is_less_urgent_or_a_part_of_all(more: str, share: float) -> None:
    policy = parse_policy(f"actions: {{remedies: [{{name: a, do: shed{more}}}]}}")
    assert policy.actions.remedies[0].refused_share == share


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    with contextlib.suppress(PolicyError):
        assert isinstance(parse_policy(text), Policy)
