"""Fair sharing between tenants: weighted deficit round robin over what was read ahead. Pure.

M. Shreedhar and G. Varghese, Efficient Fair Queuing Using Deficit Round Robin, SIGCOMM 1995: every
queue in turn may send as much as its deficit counter allows, which grows by one quantum a round,
so a tenant with ten thousand requests waiting costs another's single request one round at most.
Costs are tokens. Within a tenant a lower priority value goes first, then the earlier arrival.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")

# About one answer: a larger one makes rounds coarse, a smaller one makes them many.
QUANTUM_TOKENS = 512


class _Tenant(Generic[T]):
    __slots__ = ("deficit", "items")

    def __init__(self) -> None:
        self.deficit = 0.0
        self.items: list[tuple[int, int, int, T]] = []  # priority, arrival, cost


class FairQueue(Generic[T]):
    """Items of many tenants, taken in a fair order. Items that are gone are skipped lazily.

    Args:
        weight_of: A tenant's share relative to the others'; 1 for all by default.
        gone: Whether an item need not be taken any more.
    """

    def __init__(
        self,
        *,
        weight_of: Callable[[str], float] = lambda _: 1.0,
        gone: Callable[[T], bool] = lambda _: False,
    ) -> None:
        self._weight_of = weight_of
        self._gone = gone
        self._tenants: OrderedDict[str, _Tenant[T]] = OrderedDict()
        self._arrivals = itertools.count()

    def __bool__(self) -> bool:
        return self.peek() is not None

    def push(self, tenant: str, item: T, *, cost: int, priority: int = 0) -> None:
        """Queues an item.

        Args:
            tenant: Whose it is.
            item: The item.
            cost: What it takes of the tenant's share, in tokens; at least 1.
            priority: Lower goes first among the tenant's own.
        """
        queue = self._tenants.get(tenant)
        if queue is None:
            queue = self._tenants[tenant] = _Tenant()
        heapq.heappush(queue.items, (priority, next(self._arrivals), max(1, cost), item))

    def peek(self) -> T | None:
        """The item that `pop` takes next; None when there is none."""
        while self._tenants:
            name, queue = next(iter(self._tenants.items()))
            while queue.items and self._gone(queue.items[0][3]):
                heapq.heappop(queue.items)
            if not queue.items:
                del self._tenants[name]
                continue
            cost = queue.items[0][2]
            if queue.deficit >= cost or len(self._tenants) == 1:
                return queue.items[0][3]
            queue.deficit += QUANTUM_TOKENS * self._weight_of(name)
            if queue.deficit < cost:
                self._tenants.move_to_end(name)
        return None

    def pop(self) -> T | None:
        """Takes the next item; None when there is none."""
        item = self.peek()
        if item is None:
            return None
        name, queue = next(iter(self._tenants.items()))
        cost = heapq.heappop(queue.items)[2]
        queue.deficit = max(0.0, queue.deficit - cost)
        if not queue.items:
            # An idle tenant saves nothing up.
            del self._tenants[name]
        elif queue.deficit < queue.items[0][2]:
            self._tenants.move_to_end(name)
        return item
