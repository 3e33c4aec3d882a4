"""Whatever happens in whatever order, each record gets one result and no owner loses one.

A model of one partition: a log with records and gaps, what the broker keeps for the group, and
owners that come, work, commit, are fenced and die. A commit is atomic at the broker, and its owner
may not learn how it went.
"""

from __future__ import annotations

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from penstock.kafka.tracker import Batch, Delivered, Tracker


@dataclasses.dataclass
class Owner:
    tracker: Tracker[str]
    epoch: int
    next_fetch: int
    parked: bool = False


class Partition(RuleBasedStateMachine):
    """One partition of the input, its group's state, and everybody who ever owned it."""

    @initialize()
    def begin(self) -> None:
        self.log: list[bool] = []  # True is a record, False an offset that is never delivered
        self.position, self.metadata, self.epoch = 0, "", 0
        self.answers: dict[int, str] = {}
        self.owner: Owner | None = None
        self.zombies: list[Owner] = []

    # --- the log

    @rule(records=st.integers(1, 5))
    def produce(self, records: int) -> None:
        self.log += [True] * records

    @rule(offsets=st.integers(1, 3))
    def gap(self, offsets: int) -> None:
        self.log += [False] * offsets

    # --- owners

    @precondition(lambda self: self.owner is None)
    @rule(who=st.integers(0, 3))
    def take(self, who: int) -> None:
        self.epoch += 1
        tracker: Tracker[str] = Tracker(self.position, self.metadata, owner=who)
        self.owner = Owner(tracker, self.epoch, self.position)
        assert self.commit(self.owner)

    @precondition(lambda self: self.owner is not None)
    @rule(who=st.integers(0, 3))
    def stopped_while_another_takes_over(self, who: int) -> None:
        assert self.owner is not None
        self.zombies.append(self.owner)
        self.owner = None
        self.take(who)

    @precondition(lambda self: self.owner is not None)
    @rule()
    def crash(self) -> None:
        self.owner = None

    @precondition(lambda self: self.owner is not None and not self.owner.parked)
    @rule()
    def revoke(self) -> None:
        assert self.owner is not None
        assert self.commit(self.owner, clean=True)
        self.owner.parked = True

    @precondition(lambda self: self.owner is not None and self.owner.parked)
    @rule()
    def come_back(self) -> None:
        assert self.owner is not None
        self.owner.tracker.touch()
        assert self.commit(self.owner)
        self.owner.parked = False
        self.owner.next_fetch = self.owner.tracker.delivered_to

    # --- work

    @precondition(lambda self: self.owner is not None and not self.owner.parked)
    @rule(offsets=st.integers(1, 6), refetched=st.integers(0, 3))
    def poll(self, offsets: int, refetched: int) -> None:
        assert self.owner is not None
        tracker = self.owner.tracker
        start = max(0, self.owner.next_fetch - refetched)
        for offset in range(start, min(len(self.log), self.owner.next_fetch + offsets)):
            if self.log[offset]:
                state = tracker.deliver(offset)
                assert state is not Delivered.NEW or offset not in self.answers
                assert state is not Delivered.DONE or offset in self.answers
                self.owner.next_fetch = max(self.owner.next_fetch, offset + 1)

    @precondition(lambda self: self.owner is not None and self.owner.tracker.open)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        self.end_one(self.owner, data)

    @precondition(lambda self: any(z.tracker.open for z in self.zombies))
    @rule(data=st.data())
    def complete_at_a_zombie(self, data: st.DataObject) -> None:
        self.end_one(next(z for z in self.zombies if z.tracker.open), data)

    @precondition(lambda self: self.owner is not None and self.owner.tracker.open)
    @rule(data=st.data())
    def an_engine_dies(self, data: st.DataObject) -> None:
        assert self.owner is not None
        offset = data.draw(st.sampled_from(sorted(self.owner.tracker._open)))
        self.owner.tracker.begin(offset)
        before = self.owner.tracker.deaths(offset)
        assert self.owner.tracker.died(offset) == before + 1

    # --- commits

    @precondition(lambda self: self.owner is not None and not self.owner.parked)
    @rule(limit=st.integers(1, 4))
    def commits(self, limit: int) -> None:
        assert self.owner is not None
        assert self.commit(self.owner, limit=limit)

    @precondition(lambda self: self.owner is not None and not self.owner.parked)
    @rule(written=st.booleans())
    def commit_whose_end_is_unknown(self, written: bool) -> None:
        assert self.owner is not None
        batch = self.owner.tracker.ready(100)
        if batch is not None and written:
            self.write(batch)
        self.owner = None  # it must be taken anew

    @precondition(lambda self: self.zombies)
    @rule(data=st.data())
    def a_fenced_owner_wakes(self, data: st.DataObject) -> None:
        zombie = data.draw(st.sampled_from(self.zombies))
        zombie.tracker.touch()
        assert not self.commit(zombie)
        self.zombies.remove(zombie)

    # --- how the broker and the model do it

    def end_one(self, owner: Owner | None, data: st.DataObject) -> None:
        assert owner is not None
        offset = data.draw(st.sampled_from(sorted(owner.tracker._open)))
        owner.tracker.complete(offset, f"by the owner of epoch {owner.epoch}")

    def commit(self, owner: Owner, *, limit: int = 100, clean: bool = False) -> bool:
        batch = owner.tracker.ready(limit, clean=clean)
        if batch is None:
            return True
        if owner.epoch != self.epoch:
            return False
        self.write(batch)
        owner.tracker.committed(batch)
        return True

    def write(self, batch: Batch[str]) -> None:
        assert batch.next_offset >= self.position
        for offset, result in zip(batch.offsets, batch.results, strict=True):
            assert self.log[offset]
            assert offset not in self.answers, f"a second answer for {offset}"
            self.answers[offset] = result
        self.position, self.metadata = batch.next_offset, batch.metadata

    @invariant()
    def the_position_never_passes_work_that_has_not_ended(self) -> None:
        passed = (o for o in range(min(self.position, len(self.log))) if self.log[o])
        assert all(offset in self.answers for offset in passed)

    @invariant()
    def the_next_owner_would_run_exactly_what_was_not_committed(self) -> None:
        heir: Tracker[str] = Tracker(self.position, self.metadata)
        runs = {
            offset
            for offset in range(self.position, len(self.log))
            if self.log[offset] and heir.deliver(offset) is Delivered.NEW
        }
        records = {offset for offset, record in enumerate(self.log) if record}
        assert runs == records - self.answers.keys()

    def teardown(self) -> None:
        """In the end an owner that lives answers everything that is left, once."""
        if not hasattr(self, "log"):
            return
        self.owner = None
        self.take(who=0)
        assert self.owner is not None
        tracker = self.owner.tracker
        for offset in range(self.position, len(self.log)):
            if self.log[offset] and tracker.deliver(offset) is Delivered.NEW:
                tracker.complete(offset, "in the end")
        assert self.commit(self.owner, limit=len(self.log) + 1)
        assert set(self.answers) == {o for o, record in enumerate(self.log) if record}


TestPartition = Partition.TestCase
TestPartition.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
