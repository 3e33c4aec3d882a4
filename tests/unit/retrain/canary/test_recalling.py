"""A process that is killed finds what it knew, however much there was: each value counts once."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter

import pytest

from penstock.codec import encode
from penstock.v1 import common_pb2, feedback_pb2, response_pb2
from penstock_retrain.canary import folding as module
from penstock_retrain.canary.config import Arm
from penstock_retrain.canary.folding import Count, Finding, Folding, Observation, Pair
from penstock_retrain.canary.journal import Journal
from penstock_retrain.canary.observing import Observer
from penstock_retrain.canary.quantities import Reading
from tests.unit.retrain.canary.worlds import MemoryLog

FIRST = {name: {0: 0, 1: 0} for name in ("responses", "shadows", "feedback")}


class Watch:
    """One process that reads round by round, and what it keeps."""

    def __init__(self, log: MemoryLog, *, copies: bool) -> None:
        self.log, self.copies = log, copies
        self.journal = Journal("memory.1", "old", FIRST, FIRST, {}, 0, version=1)
        self.start()

    def start(self) -> None:
        settle_ms = None if self.copies else 1000
        self.folding = Folding(
            "old", "new", ["accuracy", "error"], Reading(), settle_ms, pairs=self.copies
        )
        self.folding.begin(1)
        where = self.log.where()
        self.observer = Observer(where, "triage", "new", self.folding, copies=self.copies)

    async def killed(self) -> None:
        self.start()
        await self.observer.recall(self.journal)

    async def round(self) -> list[Finding]:
        found = await self.observer.round(self.journal.positions)
        trims = self.journal.trims
        self.journal = dataclasses.replace(
            self.journal,
            positions=found.positions,
            watermark_ms=found.watermark_ms or self.journal.watermark_ms,
            trims=(*trims, found.positions) if found.trimmed else trims,
        )
        return found.findings


def client(log: MemoryLog, number: int, draw: random.Random) -> None:
    """An answer in a conversation, a copy of one, and what is said of it or of one before."""
    log.now_ms += 100
    said = f"r{draw.choice([number, number, max(0, number - draw.randrange(200))])}"
    made = response_pb2.GenerateResponse(
        request_id=f"r{number}",
        outcome=response_pb2.OUTCOME_ANSWERED,
        text=draw.choice(["right", "wrong"]),
        model="triage",
        variant=draw.choice(["old", "new"]),
        route_version=1,
        tenant="acme",
    )
    talk = f"talk-{draw.choice([number, draw.randrange(number + 1)])}"
    log.write(encode(made, topic="responses", key=talk, source="test"))
    copied = f"r{max(0, number - draw.randrange(60))}"
    made.variant, made.purpose = "new", common_pb2.PURPOSE_SHADOW
    made.request_id, made.origin_request_id = f"{copied}~new", copied
    log.write(encode(made, topic="shadows", key=copied, source="test"))
    opinion = feedback_pb2.Feedback(request_id=said, label="right")
    log.write(encode(opinion, topic="feedback", key=said, source="test"))


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_a_kill_changes_nothing_when_more_waited_than_is_kept(
    seed: int, copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ANSWERS", 50)
    draw, log = random.Random(seed), MemoryLog()
    whole, killed = Watch(log, copies=copies), Watch(log, copies=copies)
    found = Counter[str]()
    number = 0
    for _ in range(60):
        for _ in range(draw.randrange(1, 25)):
            client(log, number, draw)
            number += 1
        one, other = await whole.round(), await killed.round()
        assert one == other
        found.update(type(each).__name__ for each in one)
        if draw.random() < 0.3:
            await killed.killed()
    assert found[Observation.__name__] > 200
    assert found[(Pair if copies else Count).__name__] > 50
    assert whole.journal.trims
    assert whole.folding.late == killed.folding.late > 10


async def test_a_number_that_is_none_is_passed_over() -> None:
    watch = Watch(MemoryLog(100), copies=False)
    watch.folding = Folding("old", "new", ["score", "latency_s"], Reading(), 1000)
    watch.observer = Observer(watch.log.where(), "triage", "new", watch.folding, copies=False)
    for name, number in (("r1", math.nan), ("r2", math.inf), ("r3", 0.5)):
        made = response_pb2.GenerateResponse(
            request_id=name,
            outcome=response_pb2.OUTCOME_ANSWERED,
            model="triage",
            variant="new",
            timings=response_pb2.Timings(total_s=number),
        )
        watch.log.write(encode(made, topic="responses", key=name, source="test"))
    for score in (math.nan, 0.5):
        opinion = feedback_pb2.Feedback(request_id="r3", score=score)
        watch.log.write(encode(opinion, topic="feedback", key="r3", source="test"))
    worth = feedback_pb2.Feedback(request_id="r3", business_value=-math.inf)
    watch.log.write(encode(worth, topic="feedback", key="r3", source="test"))
    found = await watch.round()
    assert found == [
        Observation(Arm.CANDIDATE, {"latency_s": 0.5}),
        Observation(Arm.CANDIDATE, {"score": 0.5}),
    ]
