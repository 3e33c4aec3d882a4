"""Does what the schedule says to the running stack, and writes down what it did."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

from confluent_kafka import KafkaException

from penstock_native.errors import NativeError
from penstock_native.processes import alive, identify
from penstock_native.settings import ROOT
from penstock_native.stack import Stack
from tests.chaos import targets
from tests.chaos.faults import Fault
from tests.chaos.proxy import Proxy
from tests.chaos.watch import Watch

RECOVER_S = 120.0  # after that the system counts as stuck
WHOLE_S = 90.0  # until what was killed has come back
SCALE_S = 60.0
GIVE_UP_AFTER = 2  # faults in a row without recovery


class ScaleError(Exception):
    """Serve did not take the number of replicas."""


@dataclass(frozen=True)
class Strike:
    """A fault that has found its target: what to do, and what ends it."""

    target: str
    what: str
    act: Callable[[], Awaitable[None]]
    undo: Callable[[], None] | None = None


class Nemesis:
    """Runs a schedule.

    Args:
        stack: What is hit.
        proxy: The gates, named as Kafka's nodes are.
        watch: Tells when the stack has recovered.
        out: The history of faults.
        replicas: How many replicas of each deployment there shall be; follows pumps that come and
            go.
        partitions: Those of `responses`.
        report: Told one line for each fault.
    """

    def __init__(
        self,
        stack: Stack,
        proxy: Proxy,
        watch: Watch,
        *,
        out: TextIO,
        replicas: dict[str, int],
        partitions: int,
        report: Callable[[str], None],
    ) -> None:
        self._stack = stack
        self._proxy = proxy
        self._watch = watch
        self._out = out
        self._replicas = replicas
        self._partitions = partitions
        self._report = report
        self._brokers = targets.Brokers(stack)
        self._undoing: set[asyncio.Task[None]] = set()

    async def run(self, schedule: Sequence[Fault]) -> bool:
        """False if the system stopped answering for good, and the rest was left out."""
        stuck = 0
        for index, fault in enumerate(schedule):
            await asyncio.sleep(fault.gap_s)
            began = await self._inject(fault)
            if index + 1 < len(schedule) and schedule[index + 1].overlaps:
                continue
            stuck = 0 if await self._settled(began) else stuck + 1
            if stuck == GIVE_UP_AFTER:
                self._report(f"no recovery after {stuck} faults in a row: the rest is left out")
                return False
        return True

    async def _inject(self, fault: Fault) -> float:
        try:
            strike = await self._aim(fault)
        except (LookupError, OSError, NativeError, KafkaException) as error:
            # On top of another fault its target may be away: one fault less, no end of the run.
            self._report(f"#{fault.number} {fault.kind} left out: {error}")
            return time.time()
        lasts = f" for {fault.lasts_s:g} s" if fault.lasts_s else ""
        overlaps = " (overlapping)" if fault.overlaps else ""
        self._report(
            f"#{fault.number} {fault.kind}: {strike.target} {strike.what}{lasts}{overlaps}"
        )
        line: dict[str, object] = {**asdict(fault), "target": strike.target, "what": strike.what}
        began = line["begin"] = time.time()
        try:
            await strike.act()
        except (ScaleError, OSError) as error:
            self._report(f"#{fault.number} {fault.kind} failed: {error}")
            return began
        if strike.undo is None or not fault.lasts_s:
            self._write(line)
            return began
        task = asyncio.create_task(self._undo_later(fault.lasts_s, strike.undo, line))
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)
        return began

    async def _undo_later(
        self, seconds: float, undo: Callable[[], None], line: dict[str, object]
    ) -> None:
        await asyncio.sleep(seconds)
        undo()
        self._write(line)

    def _write(self, line: dict[str, object]) -> None:
        self._out.write(json.dumps({**line, "end": time.time()}) + "\n")
        self._out.flush()

    async def _settled(self, began: float) -> bool:
        """Waits until everything that was done is undone and answers come again."""
        await asyncio.gather(*self._undoing)
        ended = time.time()
        recovered = await self._until(
            lambda: self._watch.recovered(ended, self._partitions), RECOVER_S
        )
        if not recovered:
            self._report(f"NOT RECOVERED {time.time() - began:.0f} s after the fault began")
        if not await self._until(self._whole, WHOLE_S, every_s=1.0):
            self._report(f"not whole again after {WHOLE_S:g} s: {self._missing()}")
        return recovered

    async def _until(
        self, condition: Callable[[], bool], seconds: float, every_s: float = 0.25
    ) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._watch.refresh()
            if await asyncio.to_thread(condition):
                return True
            await asyncio.sleep(every_s)
        return False

    def _whole(self) -> bool:
        return not self._missing()

    def _missing(self) -> list[str]:
        missing = [
            name
            for name, count in self._replicas.items()
            if len(targets.replicas(self._stack, name)) != count
        ]
        return missing if self._brokers.whole() else [*missing, "kafka"]

    async def _aim(self, fault: Fault) -> Strike:
        name, verb = fault.kind.rsplit(" ", 1)
        draw = random.Random(fault.pick)
        if name == "network":
            return self._network(verb, fault, draw)
        if verb in ("add", "remove"):
            return self._scaling(1 if verb == "add" else -1)
        if name == "ingest":
            return _strike(verb, "ingest", "", self._stack.pid("ingest"))
        if name in ("pump", "engine"):
            found = await self._replica(name)
            pid = draw.choice(found)
            return _strike(
                verb, f"{name} {found.index(pid) + 1} of {len(found)}", f"pid {pid}", pid
            )
        find = {
            "leader": self._brokers.leader,
            "group coordinator": self._brokers.group_coordinator,
            "transaction coordinator": self._brokers.transaction_coordinator,
        }[name]
        node, of = await asyncio.to_thread(find, draw)
        return _strike(verb, node, f"of {of}", self._stack.pid(node))

    async def _replica(self, deployment: str) -> list[int]:
        # On top of another fault there may be none for a moment.
        for _ in range(100):
            if found := targets.replicas(self._stack, deployment):
                return found
            await asyncio.sleep(0.2)
        raise LookupError(f"no replica of {deployment} runs")

    def _scaling(self, by: int) -> Strike:
        count = self._replicas["pump"] + by

        async def act() -> None:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.scale", "pump", str(count)),
                cwd=ROOT,
                env={**self._stack.env, **targets.ray_environment(self._stack)},
                stdout=asyncio.subprocess.DEVNULL,
            )
            try:
                code = await asyncio.wait_for(process.wait(), SCALE_S)
            except TimeoutError:
                process.kill()
                code = await process.wait()
            if code != 0:
                raise ScaleError(f"the pumps could not be scaled to {count} ({code})")
            self._replicas["pump"] = count

        return Strike("pumps", f"to {count}", act)

    def _network(self, verb: str, fault: Fault, draw: random.Random) -> Strike:
        names = sorted(self._stack.kafka_ports)
        gates = names if draw.random() < 0.5 else [draw.choice(names)]

        async def act() -> None:
            for gate in gates:
                if verb == "cut":
                    self._proxy.cut(gate, refuse=True)
                elif verb == "stall":
                    self._proxy.stall(gate, fault.detail)  # type: ignore[arg-type]
                else:
                    self._proxy.half_close(gate, fault.detail)  # type: ignore[arg-type]

        def undo() -> None:
            for gate in gates:
                self._proxy.heal(gate)

        return Strike(" ".join(gates), fault.detail, act, undo)


def _strike(verb: str, target: str, what: str, pid: int) -> Strike:
    """Kills a process, or stops it so that it goes on when the strike is undone."""
    process = identify(pid)

    async def act() -> None:
        os.kill(pid, signal.SIGKILL if verb == "kill" else signal.SIGSTOP)

    def undo() -> None:
        if process is not None and alive(process):
            os.kill(pid, signal.SIGCONT)

    return Strike(target, what, act, undo)
