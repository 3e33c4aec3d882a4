"""What the story adds up: phases, times, claims, and what records tell it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path

import pytest
import yaml

from examples.triage.generate import Rule, prioritise
from examples.triage.story.account import AFTER, BEFORE, UNNOTICED, account, claims
from examples.triage.story.chronicle import Chronicle
from examples.triage.story.faults import due
from examples.triage.story.plot import RAY, Plot
from examples.triage.story.recorded import ADAPTED, BASE, WORSE, recording
from examples.triage.story.surroundings import surroundings
from examples.triage.story.traffic import Asked
from penstock.codec import encode
from penstock.pricing import PriceTable
from penstock.records import Partition, Record
from penstock.v1 import alert_pb2, drift_pb2, job_pb2, route_pb2
from penstock_retrain.jobs.policy import parse_policy
from penstock_retrain.training.policy import TrainingPolicy

PLOT = Plot(rate=10)


def asked(sent_s: float, *, right: bool = True, answers: int = 1) -> Asked:
    question = PLOT.question(int(sent_s * 10), changed=False)
    return Asked(question, sent_s, sent_s + 0.1, answers, right, "triage-base")


def record(message: object, at_s: float) -> Record:
    made = encode(message, topic="t", key="k", source="test")  # type: ignore[arg-type]
    return Record(Partition("t", 0), 0, made.key, made.value, made.headers, round(at_s * 1000))


def alert(state: alert_pb2.AlertState.ValueType, **more: object) -> alert_pb2.Alert:
    made = alert_pb2.Alert(incident_id="i", state=state, title="worse")
    made.drift.model = "triage"
    made.drift.kind = drift_pb2.DRIFT_KIND_QUALITY
    for name, value in more.items():
        setattr(made.drift, name, value)
    return made


def moved(to: str, reason: str = "", step: int = 0) -> job_pb2.JobUpdate:
    made = job_pb2.JobUpdate(job_id="job-1", model="triage")
    made.transition.to = job_pb2.JobState.Value(f"JOB_STATE_{to}")
    made.transition.reason, made.transition.step = reason, step
    return made


def told(end: str = "PROMOTED", reason: str = "") -> Chronicle:
    """An incident 12 s after a change at 60, a job of 100 s, and its end."""
    found = Chronicle("triage")
    route = route_pb2.Route(model="triage", version=1)
    winner = "triage-v1" if end == "PROMOTED" else "triage-base"
    route.variants.add(name=winner, weight=100, stage=route_pb2.STAGE_CHAMPION)
    route.variants.add(name="copied", weight=50, stage=route_pb2.STAGE_SHADOW)
    found.take_route(record(route, 0))
    found.take_alert(record(alert(alert_pb2.ALERT_STATE_OPENED), 72))
    for name, at_s in {"DATASET": 73, "TRAINING": 100, "EVALUATING": 130, "SHADOW": 150}.items():
        found.take_job(record(moved(name), at_s))
    found.take_job(record(moved("CANARY", step=1), 160))
    found.take_job(record(moved("CANARY", step=2), 165))
    found.take_job(record(moved(end, reason), 173))
    if end == "PROMOTED":
        found.take_alert(record(alert(alert_pb2.ALERT_STATE_RESOLVED), 200))
    return found


def whole(chronicle: Chronicle, *, after: float = 1.0, changed_s: float | None = 60.0) -> object:
    """Half of the answers are wrong between the change and the end."""
    tickets = [asked(float(second), right=second < 60 or second % 2 == 0) for second in range(173)]
    tickets += [asked(173 + n, right=n / 100 < after) for n in range(100)]
    return account(
        tickets,
        chronicle,
        begun_s=0,
        changed_s=changed_s,
        ended_s=280,
        judged=200,
        usd="0.1",
        unbilled_usd="0",
        versions=int(bool(chronicle.end)),
        adapters=["triage-v1"] if chronicle.end in ("promoted", "inconclusive") else [],
        champion="triage-base",
    )


def test_a_story_that_goes_well() -> None:
    chronicle = told()
    found = whole(chronicle)
    assert [(each.name, each.seconds) for each in found.phases] == [
        ("before the change", 60),
        ("unnoticed", 12),
        ("learning", 78),
        ("shadow", 10),
        ("canary", 13),
        ("after", 107),
    ]
    assert (found.accuracy(BEFORE), found.accuracy(UNNOTICED), found.accuracy(AFTER)) == (1, 0.5, 1)
    assert found.times_s["from the change to the incident"] == 12
    assert found.times_s["to train"] == 30
    assert found.times_s["from the change to the end"] == 113
    assert found.times_s["from the end to the incident's"] == 27
    assert (found.lost, found.doubled, found.version) == (0, 0, "triage-v1")
    assert all(claim.holds for claim in claims(PLOT, found, chronicle))
    assert [moment.what for moment in chronicle.moments[-3:]] == [
        "the job: canary, step 2",
        "the job: promoted",
        "the incident is resolved",
    ]


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"lost": 1}, "every ticket has an answer"),
        ({"doubled": 1}, "no ticket has two"),
        ({"end": "rejected", "adapters": ()}, "a new version is promoted"),
        ({"versions": 2}, "a job makes one version, and no adapter is left over"),
        ({"adapters": ["v1", "v2"]}, "a job makes one version, and no adapter is left over"),
    ],
)
def test_what_went_wrong_is_said(changes: dict[str, object], claim: str) -> None:
    chronicle = told()
    found = dataclasses.replace(whole(chronicle), **changes)
    assert [each.name for each in claims(PLOT, found, chronicle) if not each.holds] == [claim]


def test_accuracy_has_to_come_back() -> None:
    chronicle = told()
    almost, less = (claims(PLOT, whole(chronicle, after=x), chronicle) for x in (0.98, 0.96))
    assert all(claim.holds for claim in almost)
    (missed,) = (claim for claim in less if not claim.holds)
    assert missed.found == "100.0% before, 96.0% after"


def test_a_bad_candidate_has_to_go() -> None:
    plot, chronicle = dataclasses.replace(PLOT, bad=True), told("ROLLED_BACK", "worse")
    found = claims(plot, whole(chronicle), chronicle)
    assert all(claim.holds for claim in found)
    assert found[-2].found == "rolled_back: worse"
    promoted = told()
    assert not claims(plot, whole(promoted), promoted)[-2].holds


@pytest.mark.parametrize(("answered_s", "holds"), [(174.5, True), (175.5, False)])
def test_a_rollback_has_to_be_quick(answered_s: float, holds: bool) -> None:
    plot, chronicle = dataclasses.replace(PLOT, bad=True), told("ROLLED_BACK", "worse")
    late = dataclasses.replace(asked(172.0), variant="triage-v1", answered_s=answered_s)
    found = account(
        [late],
        chronicle,
        begun_s=0,
        changed_s=60,
        ended_s=280,
        judged=0,
        usd="0",
        unbilled_usd="0",
        versions=int(bool(chronicle.end)),
        adapters=["triage-v1"] if chronicle.end in ("promoted", "inconclusive") else [],
        champion="triage-base",
    )
    assert claims(plot, found, chronicle)[-1].holds is holds


def test_where_nothing_changed_nothing_may_happen() -> None:
    plot = dataclasses.replace(PLOT, changes=False)
    quiet = Chronicle("triage")
    assert all(each.holds for each in claims(plot, whole(quiet, changed_s=None), quiet))
    assert not claims(plot, whole(told(), changed_s=None), told())[-1].holds


def test_rays_head_dies_in_the_middle_of_a_training_and_not_of_another_stage() -> None:
    chronicle = Chronicle("triage")
    progress = job_pb2.JobUpdate(job_id="job-1", model="triage")
    for state, steps in (("DATASET", 3), ("TRAINING", 0)):
        chronicle.take_job(record(moved(state), 1))
        progress.progress.step = steps
        chronicle.take_job(record(progress, 2))
        assert not due(RAY, chronicle)
    assert due("training", chronicle)
    progress.progress.step = 1
    chronicle.take_job(record(progress, 3))
    assert due(RAY, chronicle)


def test_other_models_and_other_kinds_are_no_part_of_it() -> None:
    found = Chronicle("triage")
    opened = alert_pb2.ALERT_STATE_OPENED
    found.take_alert(record(alert(opened, model="other"), 1))
    found.take_alert(record(alert(opened, kind=drift_pb2.DRIFT_KIND_INPUT), 1))
    found.take_route(record(route_pb2.Route(model="other", version=1), 1))
    found.take_job(record(job_pb2.JobUpdate(job_id="job-2", model="other"), 1))
    assert found.jobs == set()
    assert (found.moments, found.opened_s, dict(found.shares)) == ([], None, {})


def test_the_change_turns_the_rule_and_nothing_else() -> None:
    pairs = [
        (PLOT.question(number, changed=False), PLOT.question(number, changed=True))
        for number in range(200)
    ]
    assert all(before.ticket["text"] == after.ticket["text"] for before, after in pairs)
    moved_ = sum(before.ticket["expected"] != after.ticket["expected"] for before, after in pairs)
    assert 60 < moved_ < 160
    assert 90 < sum(before.judged for before, _ in pairs) < 150
    assert prioritise("everyone", "none", Rule.CHANGED) == "urgent"


def recorded(*, bad: bool = False) -> tuple[float, float, float]:
    """Shares of right answers: before, and after the change of base model and adapter."""
    plot = Plot(bad=bad, rate=20, limit_s=150, adapter=Path("adapters/some"))
    before = during = after = 0
    for number, line in enumerate(recording(plot)):
        said = json.loads(line)
        old, new = (plot.question(number, changed=each).ticket for each in (False, True))
        assert said["prompt"] == old["text"] == new["text"]
        before += json.loads(said["answer"]) == old["expected"]
        during += json.loads(said["answer"]) == new["expected"]
        after += json.loads(said["adapted"]) == new["expected"]
    return before / 3000, during / 3000, after / 3000


def test_what_is_played_back_is_right_as_often_as_it_was() -> None:
    before, during, after = recorded()
    assert before == pytest.approx(BASE, abs=0.01)
    assert after == pytest.approx(ADAPTED, abs=0.01)
    assert 0.5 < during < 0.7


def test_a_bad_candidate_is_five_points_worse() -> None:
    _, during, after = recorded(bad=True)
    assert during - after == pytest.approx(WORSE, abs=0.01)


@pytest.mark.parametrize("bad", [False, True])
def test_the_policies_are_valid_ones(bad: bool) -> None:
    for adapter in (None, Path("adapters/some")):
        written = Plot(bad=bad, adapter=adapter).policy
        policy = parse_policy(yaml.safe_dump(written))
        training = TrainingPolicy.of(policy.training)
        assert training.method == ("lora" if adapter is None else "imported")
        assert policy.canary.max_s == 600


def test_of_five_points_fewer_the_canary_may_be_in_doubt() -> None:
    doubt = told("INCONCLUSIVE", "too few values")
    ended = whole(doubt)
    made_badly, played_back = Plot(bad=True), Plot(bad=True, adapter=Path("adapters/some"))
    assert not all(each.holds for each in claims(made_badly, ended, doubt))
    assert all(each.holds for each in claims(played_back, ended, doubt))


def test_stories_at_once_have_a_model_each(tmp_path: Path) -> None:
    plots = [
        Plot(seed=seed, model=f"triage-{seed}", rate=1, limit_s=20, adapter=Path("adapters/some"))
        for seed in (1, 2)
    ]
    env = surroundings(plots, tmp_path)
    routes = json.loads(Path(env["PENSTOCK_NATIVE_ROUTES"]).read_text())
    assert [(route["model"], route["variants"][0]["name"]) for route in routes] == [
        ("triage-1", "triage-1-base"),
        ("triage-2", "triage-2-base"),
    ]
    assert {route["variants"][0]["base_model"] for route in routes} == {"triage"}
    prices = PriceTable.parse(Path(env["PENSTOCK_COST_PRICES"]).read_text())
    assert all(prices.at(plot.model, dt.datetime.now(dt.UTC)).training_usd for plot in plots)
    assert env["PENSTOCK_RETRAIN_CONCURRENT_JOBS"] == "2"
    answers = Path(env["PENSTOCK_INFERENCE_SCRIPTED_RECORDING"]).read_text().splitlines()
    assert len(answers) == 40
