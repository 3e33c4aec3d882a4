"""What a tenant has queued is counted exactly, and no count stays behind."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from penstock.errors import Code
from penstock.v1 import admitted_pb2
from penstock_ingest.admission.quota import GRACE_S, TenantQuota
from penstock_ingest.errors import Overloaded


def admitted(
    request_id: str, tenant: str = "acme", deadline_s: int = 600
) -> admitted_pb2.AdmittedRequest:
    made = admitted_pb2.AdmittedRequest(request_id=request_id)
    made.request.tenant = tenant
    made.deadline.seconds = deadline_s
    return made


def test_the_bound_holds_per_tenant_and_an_end_makes_room() -> None:
    quota = TenantQuota(2)
    quota.reserve(admitted("a"), 0)
    quota.reserve(admitted("b"), 0)
    with pytest.raises(Overloaded, match="tenant acme has 2 requests queued") as caught:
        quota.reserve(admitted("c"), 0)
    assert (caught.value.code, caught.value.field) == (Code.ERROR_CODE_OVERLOADED, "tenant")
    assert caught.value.retryable
    assert "PENSTOCK_INGEST_MAX_QUEUED_PER_TENANT" in caught.value.message
    quota.reserve(admitted("d", tenant="rival"), 0)
    quota.end("a", 1)
    quota.reserve(admitted("c"), 1)
    assert quota.queued("acme", 1) == 2


def test_a_record_that_is_handled_again_is_counted_once() -> None:
    quota = TenantQuota(1)
    for _ in range(3):
        quota.reserve(admitted("a"), 0)
        quota.confirm(admitted("a"), 0)
    assert quota.queued("acme", 0) == 1


def test_what_other_instances_admit_counts_and_is_never_refused() -> None:
    quota = TenantQuota(1)
    for name in "abc":
        quota.confirm(admitted(name), 0)
    assert quota.queued("acme", 0) == 3
    with pytest.raises(Overloaded):
        quota.reserve(admitted("d"), 0)


def test_what_was_not_written_is_given_back_unless_the_log_has_it() -> None:
    quota = TenantQuota(2)
    quota.reserve(admitted("a"), 0)
    quota.release("a")
    assert quota.queued("acme", 0) == 0
    quota.reserve(admitted("a"), 0)
    quota.confirm(admitted("a"), 0)
    quota.release("a")
    assert quota.queued("acme", 0) == 1
    quota.release("never")


def test_an_end_that_is_read_before_its_beginning_counts() -> None:
    quota = TenantQuota(2)
    quota.end("a", 0)
    quota.confirm(admitted("a"), 1)
    assert quota.queued("acme", 1) == 0
    quota.reserve(admitted("b"), 1)
    quota.end("b", 1)
    quota.confirm(admitted("b"), 2)  # read back after its response
    assert quota.queued("acme", 2) == 0


def test_a_request_that_nobody_ends_counts_until_its_deadline_and_the_grace() -> None:
    quota = TenantQuota(1)
    quota.reserve(admitted("a"), 0)
    assert quota.queued("acme", 600 + GRACE_S - 1) == 1
    quota.reserve(admitted("b", deadline_s=2000), 600 + GRACE_S)
    assert quota.queued("acme", 600 + GRACE_S) == 1
    quota.confirm(admitted("old", tenant="rival"), 600 + GRACE_S)
    assert quota.queued("rival", 600 + GRACE_S) == 0


def test_without_a_bound_nothing_is_counted() -> None:
    quota = TenantQuota(0)
    for n in range(100):
        quota.reserve(admitted(f"r{n}"), 0)
        quota.confirm(admitted(f"other{n}"), 0)
        quota.end(f"gone{n}", 0)
    assert (len(quota), quota.queued("acme", 0)) == (0, 0)


def test_memory_follows_what_is_queued_and_not_what_was() -> None:
    quota = TenantQuota(1000)

    def churn(start: int) -> None:
        for n in range(start, start + 20_000):
            name, now_s = f"req-{n:032}", n / 1000
            quota.reserve(admitted(name, deadline_s=int(now_s) + 600), now_s)
            quota.confirm(admitted(name, deadline_s=int(now_s) + 600), now_s)
            quota.end(name, now_s)

    churn(0)
    tracemalloc.start()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    churn(20_000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(quota) == 0
    assert grown < 40_000  # a set for each second of deadlines that were used


class QuotaMachine(RuleBasedStateMachine):
    """Several instances' requests, written or not, read in any order between two topics.

    The model knows what is on the log; the quota hears of it late, twice, and in the wrong order.
    """

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.quota = TenantQuota(3)
        self.now_s = 0.0
        self.requests: dict[str, admitted_pb2.AdmittedRequest] = {}
        self.open: dict[str, int] = {}  # what the quota has to count, with deadline and grace
        self.ended: set[str] = set()
        self.confirmed: set[str] = set()

    @rule(target=names, tenant=st.sampled_from("ab"), left_s=st.integers(1, 200))
    def arrive(self, tenant: str, left_s: int) -> str:
        name = f"r{len(self.requests)}"
        self.requests[name] = admitted(name, tenant, int(self.now_s) + left_s)
        return name

    @rule(name=names)
    def reserve(self, name: str) -> None:
        if name in self.ended or name in self.confirmed:
            return
        tenant = self.requests[name].request.tenant
        full = self.counts()[tenant] >= 3 and name not in self.live()
        try:
            self.quota.reserve(self.requests[name], self.now_s)
        except Overloaded:
            assert full
        else:
            assert not full
            self.open[name] = self.requests[name].deadline.seconds

    @rule(name=names)
    def release(self, name: str) -> None:
        self.quota.release(name)
        if name not in self.confirmed:
            self.open.pop(name, None)

    @rule(name=names)
    def read_admitted(self, name: str) -> None:
        if name in self.ended and name in self.confirmed:
            return  # it is read once
        self.quota.confirm(self.requests[name], self.now_s)
        self.confirmed.add(name)
        if name not in self.ended:
            self.open[name] = self.requests[name].deadline.seconds

    @rule(name=names)
    def read_response(self, name: str) -> None:
        if name in self.ended:
            return
        self.quota.end(name, self.now_s)
        self.ended.add(name)
        self.open.pop(name, None)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        # Readers of the two topics are less apart than the time for which an end is remembered.
        unread = self.ended - self.confirmed
        if not unread:
            self.now_s += seconds

    def live(self) -> dict[str, int]:
        return {n: d for n, d in self.open.items() if d + GRACE_S > self.now_s}

    def counts(self) -> Counter[str]:
        return Counter(self.requests[name].request.tenant for name in self.live())

    @invariant()
    def counts_are_exact(self) -> None:
        for tenant in "ab":
            assert self.quota.queued(tenant, self.now_s) == self.counts()[tenant]
        assert len(self.quota) == len(self.live())

    def teardown(self) -> None:
        # Whatever happened, nothing stays: not a count, not an id, not a slot of time.
        latest_s = max((r.deadline.seconds for r in self.requests.values()), default=0)
        end_s = max(latest_s, self.now_s) + GRACE_S + 121
        for tenant in "ab":
            assert self.quota.queued(tenant, end_s) == 0
        left = {name: value for name, value in vars(self.quota).items() if hasattr(value, "clear")}
        assert left
        assert not any(left.values()), left


TestQuota = QuotaMachine.TestCase
TestQuota.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
