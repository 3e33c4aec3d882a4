"""The comparison of detectors: thresholds that match, delays that count what they should."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

from bench.drift import streams
from bench.drift.annotated import marked, series
from bench.drift.contestants import BANK, contestants, prepared
from bench.drift.fleet import fleet
from bench.drift.learners import LEARNERS
from bench.drift.matching import (
    Changed,
    Quiet,
    arl,
    arl_interval,
    compare,
    first_alarm,
    ratio_interval,
    tuned,
)
from bench.drift.standing import standings
from bench.drift.streams import SCENARIOS, Sizes


class Level:
    """Fires where a value reaches its threshold."""

    name, family, streams, runs = "level", "test", None, None

    def scores(self, baseline: Any, values: Any) -> Iterator[float]:
        yield from values.tolist()


class Dial:
    """The same, with a dial."""

    name, family, streams, runs = "dial", "test", None, None
    lenient, strict = 0.9, 1.0

    def fires(self, dial: float, baseline: Any, values: Any) -> Iterator[bool]:
        for value in values.tolist():
            yield value >= dial


def uniform(streams_: int = 200, length: int = 2000) -> Quiet:
    rng = np.random.default_rng(3)
    return Quiet(np.zeros((streams_, 4)), rng.random((streams_, length)))


@pytest.mark.parametrize("who", [Level(), Dial()])
def test_a_setting_has_the_mean_time_that_is_asked_for(who: Any) -> None:
    quiet = uniform()
    setting = tuned(who, quiet.half(second=False), 200)
    # A uniform value reaches 1 - 1 / 200 once in 200.
    assert setting == pytest.approx(0.995, abs=0.001)
    found = compare(who, quiet, {}, 200)
    assert found["arl_low"] < 200 < found["arl_high"]
    assert found["streams"] == 100


def test_what_never_is_quiet_has_no_setting() -> None:
    class Always(Dial):
        def fires(self, dial: float, baseline: Any, values: Any) -> Iterator[bool]:
            for _ in values:
                yield True

    assert compare(Always(), uniform(8, 50), {}, 200)["setting"] is None


def test_streams_without_an_alarm_count_with_their_whole_length() -> None:
    assert arl([100, None, 300], 1000) == 700.0
    assert arl([None, None], 1000) == math.inf
    low, high = arl_interval([None, None], 1000)
    assert low == pytest.approx(2000 / 3)
    assert high == math.inf


def test_a_delay_counts_from_the_change_and_an_alarm_before_it_is_none() -> None:
    values = np.zeros((4, 100))
    values[0, 50] = values[1, 59] = values[2, 20] = 1.0
    change = Changed(np.zeros((4, 4)), values, np.array([50, 50, 50, 50]))
    quiet = Quiet(np.zeros((4, 4)), np.zeros((4, 100)))

    class Fixed(Level):
        fixed = 1.0

    found = compare(Fixed(), quiet, {"c": change}, 200)["changes"]["c"]
    # The first value after the change is found after one; one of three is a miss.
    assert found == {"runs": 3, "early": 1, "missed": 1, "median": 10, "p95": None}


def test_a_ratio_of_the_same_runs_knows_that_they_are_the_same() -> None:
    rng = np.random.default_rng(2)
    theirs = rng.exponential(100.0, 200)
    low, high = ratio_interval(1.2 * theirs, theirs)
    # Whatever the runs vary by, it is the same for both.
    assert low == pytest.approx(1.2) == high
    low, high = ratio_interval(1.2 * rng.permutation(theirs), theirs)
    assert low < 1.1 < 1.3 < high


def test_runs_with_an_alarm_before_the_change_say_nothing_of_a_ratio_and_misses_are_long() -> None:
    ours = np.array([10.0, math.nan, 10.0, 10.0])
    theirs = np.array([5.0, 1.0, 5.0, math.nan])
    assert ratio_interval(ours, theirs) == (2.0, 2.0)
    missed = np.full(4, math.inf)
    assert ratio_interval(missed, theirs) == (math.inf, math.inf)
    assert ratio_interval(missed, missed) == (1.0, 1.0)
    assert ratio_interval(np.full(4, math.nan), theirs) == (0.0, math.inf)


def test_a_contestant_is_compared_with_another_on_its_runs() -> None:
    values = np.zeros((20, 100))
    values[:, 59] = 1.0
    change = Changed(np.zeros((20, 4)), values, np.full(20, 50))
    quiet = Quiet(np.zeros((4, 4)), np.zeros((4, 100)))

    class Fixed(Level):
        fixed, runs = 1.0, 10

    found = compare(Fixed(), quiet, {"c": change}, 200, {"c": np.full(20, 15.0)})
    assert found["changes"]["c"]["behind"] == [1.5, 1.5]


@pytest.mark.parametrize("name", [*SCENARIOS, "stagger"])
def test_streams_are_the_same_each_time_and_change_where_they_say(name: str) -> None:
    import dataclasses

    known = {**SCENARIOS, **LEARNERS}[name]
    scenario = dataclasses.replace(known, sizes=Sizes(2, 50, 2, 400))
    change = next(iter(scenario.changes))
    first, again = streams.changed(scenario, change, 5), streams.changed(scenario, change, 5)
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, streams.changed(scenario, change, 6).values)
    assert first.values.shape == (2, streams.LATEST + 400)
    assert ((first.places >= streams.EARLIEST) & (first.places <= streams.LATEST)).all()
    quiet = streams.quiet(scenario, 5)
    assert quiet.baseline.shape == (2, scenario.baseline)
    assert np.isfinite(quiet.values).all()


def test_the_bank_and_a_detector_alone_fire_where_they_should() -> None:
    scenario = SCENARIOS["refusals"]
    baseline = np.zeros(2000)
    baseline[::50] = 1.0
    values = np.concatenate([baseline[:300], np.tile([1.0, 0, 0, 0], 100)])
    who = contestants(scenario, 10_000)
    assert first_alarm(who[BANK], math.log(2000), baseline, values) == 321
    rows = prepared(scenario, baseline, values)
    assert first_alarm(who["Bernoulli"], math.log(2000), *rows) == 321
    assert first_alarm(who["ADWIN"], 0.002, *rows) == 368
    assert first_alarm(who["NoDrift"], 0.0, *rows) is None


def test_every_contestant_takes_every_kind_of_stream() -> None:
    rng = np.random.default_rng(1)
    for name in ("refusals", "gauss", "length", "score", "languages"):
        scenario = SCENARIOS[name]
        whole = scenario.draw(rng, 2200, 0, "")
        for who in contestants(scenario, 100).values():
            rows = (whole[:2000], whole[2000:])
            if who.name != BANK:
                rows = prepared(scenario, *rows)
            setting = getattr(who, "fixed", getattr(who, "strict", math.inf))
            time = first_alarm(who, setting, *rows)
            assert (time is not None) == (who.name == "fixed period"), (name, who.name)


@pytest.mark.parametrize("name", ["refusals", "gauss", "ar1", "length", "season", "score"])
def test_many_streams_together_give_the_evidence_of_each_alone(name: str) -> None:
    import dataclasses

    scenario = dataclasses.replace(SCENARIOS[name], sizes=Sizes(2, 10, 2, 900))
    change = streams.changed(scenario, next(iter(scenario.changes)), 2)
    for who in contestants(scenario, 100).values():
        rows = (change.baseline, change.values)
        if who.name != BANK:
            rows = prepared(scenario, *rows)
        found = who.together(*rows) if hasattr(who, "together") else None
        if found is not None:
            alone = [list(who.scores(*each)) for each in zip(*rows, strict=True)]
            assert np.allclose(found, np.array(alone), rtol=1e-6, atol=1e-6)
            assert found.max() > 5


def row(
    arl_: float | None, median: float | None, missed: int = 0, family: str = "penstock"
) -> dict[str, Any]:
    change = {"runs": 100, "early": 0, "missed": missed, "median": median, "p95": median}
    return {"setting": 1.0, "arl": arl_, "family": family, "changes": {"c": change}}


def test_the_best_single_detector_has_to_be_as_quiet_and_to_find_what_it_claims() -> None:
    table = {
        "s": {
            BANK: row(10_000, 50),
            "rash": row(2_000, 10),
            "lucky": row(10_000, 20, missed=30),
            "good": row(9_000, 40),
            "slow": row(None, 90, family="River"),
        }
    }
    (found,) = standings(table)
    assert (found.best, found.ratio) == ("good", 1.25)
    assert (found.interval, found.behind) == (None, ())
    (found,) = standings(table, "River")
    assert (found.best, found.best_arl) == ("slow", math.inf)


def test_the_bank_is_surely_behind_where_the_whole_interval_says_so() -> None:
    table = {"s": {BANK: row(10_000, 50), "best": row(9_000, 40), "other": row(9_000, 42)}}
    table["s"]["best"]["changes"]["c"]["behind"] = [1.05, 1.4]
    table["s"]["other"]["changes"]["c"]["behind"] = [1.12, None]
    (found,) = standings(table)
    assert (found.best, found.interval) == ("best", (1.05, 1.4))
    assert found.behind == ("other",)


def test_changes_are_those_that_half_of_the_annotators_marked() -> None:
    marks = {"a": [10, 50], "b": [12, 90], "c": [9], "d": []}
    assert marked(marks) == [10]
    assert len(series("UKCoalEmploy")) == 105


def test_a_small_fleet_finds_what_drifts_and_nothing_else() -> None:
    found = fleet(3, drifting=2, keys=4, responses=2900, change_at=2400)
    null, drifting = found["null"], found["drifting"]
    assert null["armed"] == drifting["armed"] == 40
    assert (null["found"], null["missed"], null["false"], null["incidents"]) == (0, 0, 0, 0)
    assert (drifting["found"], drifting["missed"], drifting["false"]) == (2, 0, 0)
    assert drifting["delays"] == [210, 360]
