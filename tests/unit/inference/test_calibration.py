"""The semantic cache's threshold: exact bounds, an honest search, and the command around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from examples.triage.repeats import stream
from penstock.cli.app import app
from penstock_inference.caching.calibration import calibrate, fewest_hits, nearest, upper_bound


@pytest.mark.parametrize(
    ("false_hits", "hits"), [(0, 1), (0, 299), (1, 299), (7, 500), (500, 500), (30_000, 60_000)]
)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_bound_is_clopper_and_pearsons(false_hits: int, hits: int, confidence: float) -> None:
    exact = 1.0
    if false_hits < hits:
        exact = float(stats.beta.ppf(confidence, false_hits + 1, hits - false_hits))
    assert upper_bound(false_hits, hits, confidence) == pytest.approx(exact, rel=1e-6)


def test_the_fewest_hits_are_just_enough() -> None:
    needed = fewest_hits(0.01, 0.95)
    assert needed == 299
    assert upper_bound(0, needed, 0.95) <= 0.01 < upper_bound(0, needed - 1, 0.95)


def test_the_search_ends_at_the_first_threshold_that_fails() -> None:
    # False from 0.8 down to 0.6, and right again below: the right ones below must not count.
    cosines = np.linspace(1, 0.2, 4000)
    same = ~((cosines < 0.8) & (cosines > 0.6))
    found = calibrate(cosines, same, 0.05)
    assert found.threshold is not None
    assert 0.75 < found.threshold < 0.82
    holds = [trial.holds for trial in found.trials]
    assert holds == sorted(holds, reverse=True)
    assert found.trials[-1].false_hits / found.trials[-1].hits > 0.05
    assert (found.pairs, found.needed) == (4000, 59)


def test_pairs_as_similar_as_the_last_belong_to_it() -> None:
    cosines = np.array([0.9] * 400)
    same = np.ones(400, dtype=bool)
    (trial,) = calibrate(cosines, same, 0.01).trials
    assert (trial.threshold, trial.hits, trial.found) == (0.9, 400, 1.0)


def test_too_few_pairs_show_nothing() -> None:
    found = calibrate(np.full(298, 0.9), np.ones(298, dtype=bool), 0.01)
    assert (found.threshold, found.trials) == (None, [])


def test_the_rate_is_exceeded_no_more_often_than_promised() -> None:
    # The chance of a false hit rises as similarity falls: at a threshold t, the hits' rate is the
    # mean of (1 - s)^2 / 2 over s in [t, 1], which is (1 - t)^2 / 6.
    rng = np.random.default_rng(5)
    runs, exceeded = 400, 0
    for _ in range(runs):
        cosines = rng.uniform(0, 1, 3000)
        same = rng.uniform(size=3000) >= (1 - cosines) ** 2 / 2
        threshold = calibrate(cosines, same, 0.02).threshold
        exceeded += threshold is not None and (1 - threshold) ** 2 / 6 > 0.02
    # 5 % promised: 20 of 400, and 32 would be seen once in 200 such tests.
    assert exceeded <= 32


def test_the_nearest_is_looked_for_among_earlier_texts_only() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(1100, 8)).astype(np.float32)
    offers = list(nearest(vectors))
    assert [offer.text for offer in offers] == list(range(1, 1100))
    for offer in (offers[0], offers[510], offers[511], offers[1098]):
        cosines = vectors[: offer.text] @ vectors[offer.text]
        assert offer.earlier == int(cosines.argmax())
        assert offer.similarity == pytest.approx(float(cosines.max()), rel=1e-5)


def test_the_stream_of_tickets_is_labelled_by_its_answers() -> None:
    arrived = list(stream(300, retyped=0.4, near=0.2, seed=3))
    assert arrived == list(stream(300, retyped=0.4, near=0.2, seed=3))
    assert {kind for _, kind in arrived} == {"fresh", "retyped", "near"}
    for ticket, kind in arrived:
        product = ticket["expected"]["product"]
        if kind == "near":
            assert product in ticket["text"].lower()
    retyped = [ticket for ticket, kind in arrived if kind == "retyped"]
    originals = {json.dumps(ticket["expected"]) for ticket, kind in arrived if kind != "retyped"}
    assert {json.dumps(ticket["expected"]) for ticket in retyped} <= originals


def lines(path: Path, made: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in made))
    return str(path)


def test_a_text_may_hold_what_ends_lines_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    texts = ["one\u2028line", "another\x85one"]
    file.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts))
    offered = CliRunner().invoke(app, ["cache", "pairs", str(file)])
    assert (json.loads(offered.stdout)["a"], json.loads(offered.stdout)["b"]) == (*texts[::-1],)


def test_pairs_and_a_threshold_come_from_texts_with_answers(tmp_path: Path) -> None:
    texts = [dict(ticket) for ticket, _ in stream(1200, retyped=0.5, near=0, seed=4)]
    file = lines(tmp_path / "texts.jsonl", texts)
    run = CliRunner()
    offered = run.invoke(app, ["cache", "pairs", file, "--answer-field", "expected"])
    assert offered.exit_code == 0
    pairs = [json.loads(line) for line in offered.stdout.splitlines()]
    assert len(pairs) == 1199
    assert pairs[-1]["a"] == texts[-1]["text"]
    (tmp_path / "pairs.jsonl").write_text(offered.stdout)
    arguments = ["cache", "calibrate", "--pairs", str(tmp_path / "pairs.jsonl")]
    shown = run.invoke(app, arguments)
    assert shown.exit_code == 0
    assert "PENSTOCK_INFERENCE_SEMANTIC_CACHE_THRESHOLD=0." in shown.stdout
    assert "pairs of equal texts" in shown.stderr
    found = json.loads(run.invoke(app, [*arguments, "--json"]).stdout)
    assert 0.7 < found["threshold"] < 1
    assert f"{found['threshold']:.4f}" in shown.stdout
    assert found["trials"][0]["upper_bound"] <= 0.01


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([{"a": "x", "b": "y", "same": True}], "takes 299 hits"),
        ([{"a": "x", "b": "y"}], "pair 1 needs"),
        ([{"a": "x", "b": "x", "same": True}], "no pairs"),
        ([{"a": f"it {n}", "b": f"it {n + 1}", "same": False} for n in range(400)], "leave the"),
    ],
)
def test_what_shows_no_threshold_is_refused(
    tmp_path: Path, made: list[dict[str, object]], message: str
) -> None:
    file = lines(tmp_path / "pairs.jsonl", made)
    result = CliRunner().invoke(app, ["cache", "calibrate", "--pairs", file])
    assert result.exit_code == 1
    assert message in result.stderr
