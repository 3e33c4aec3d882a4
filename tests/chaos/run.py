"""Runs the stack under load and faults: `python -m tests.chaos.run --seed 1 --faults 17`.

Three Kafka nodes behind a proxy, ingest, cost, two pumps and two scripted engines; a generator and
a recorder of their own, which reach Kafka directly; a schedule of faults drawn from the seed. In
the end the load stops, everything that was asked gets time to be answered, the topics are read
once more from the beginning, and the checker judges the histories. Exit code 1: it found faults of
ours; 2: the run itself failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from penstock_native.kafka import Door
from penstock_native.ports import free_port
from penstock_native.settings import ROOT
from penstock_native.stack import Stack
from tests.chaos import faults, report
from tests.chaos.nemesis import Nemesis
from tests.chaos.proxy import Gate, Proxy
from tests.chaos.watch import Watch

BROKERS = 3
PARTITIONS = 4
REPLICAS = {"pump": 2, "engine": 2}
SERVICES = ("kafka", "ingest", "inference", "cost")
WARM_S = 5.0
ANSWERED_S = 180.0  # what was asked may take so long after the last fault
LEDGER_S = 60.0
LIVE = ("responses", "admitted", "usage", "dlq")
AUDITED = ("requests", *LIVE)
SETTINGS = {
    "PENSTOCK_INFERENCE_ENGINE": "scripted",
    # Long enough that a fault finds work under way.
    "PENSTOCK_INFERENCE_SCRIPTED_FIRST_TOKEN_S": "0.3",
    "PENSTOCK_INFERENCE_ENGINE_REPLICAS": str(REPLICAS["engine"]),
    "PENSTOCK_INFERENCE_PUMP_REPLICAS": str(REPLICAS["pump"]),
    "PENSTOCK_CLI_WORK_PARTITIONS": str(PARTITIONS),
}


def say(text: str) -> None:
    """Prints a line of progress."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


@asynccontextmanager
async def stack_behind_proxy() -> AsyncIterator[tuple[Stack, Proxy]]:
    """The stack, whose services reach Kafka through the proxy's gates."""
    doors = [Door(free_port(), advertised=free_port()) for _ in range(BROKERS)]
    gates = {
        f"kafka-{index}": Gate(listen=door.advertised, target=door.port)
        for index, door in enumerate(doors, 1)
    }
    async with Proxy(gates) as proxy:
        manager = Stack.ephemeral(SERVICES, SETTINGS, brokers=BROKERS, doors=doors)
        # In a thread: the proxy has to run while the stack comes up through it.
        stack = await asyncio.to_thread(manager.__enter__)
        try:
            yield stack, proxy
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)


@contextmanager
def process(module: str, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the harness; ended in order afterwards."""
    command = [sys.executable, "-m", f"tests.chaos.{module}", *arguments]
    with log.open("ab") as output:
        running = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(timeout=330)
            except subprocess.TimeoutExpired:
                running.kill()


async def attack(options: argparse.Namespace, home: Path) -> None:
    """Brings the stack up, runs load and schedule, and leaves the histories in `home`."""
    say(f"seed {options.seed}, {options.faults} faults, {options.rate:g} requests/s; {home}")
    async with stack_behind_proxy() as (stack, proxy):
        say("the stack answers")
        prefix = stack.env.get("PENSTOCK_TOPIC_PREFIX", "penstock")
        reach = ("--bootstrap", stack.kafka_bootstrap)
        record = (*reach, "--prefix", prefix)
        sent, seen = home / "sent.jsonl", home / "seen.jsonl"
        load = (*reach, "--topic", f"{prefix}.requests", "--out", str(sent))
        load += ("--run", home.name, "--seed", str(options.seed), "--rate", str(options.rate))
        watch = Watch(sent, seen)
        live = (*record, "--topics", ",".join(LIVE), "--out", str(seen))
        try:
            with process("record", home / "record.log", *live):
                with process("load", home / "load.log", *load) as generator:
                    await strike(options, home, stack, proxy, watch, generator)
                say("the load has ended")
                await drained(watch)
            say("reading the topics once more")
            audit = (*record, "--topics", ",".join(AUDITED), "--to-end")
            audit += ("--out", str(home / "audit.jsonl"), "--ends", str(home / "ends.jsonl"))
            with process("record", home / "record.log", *audit) as auditor:
                await asyncio.to_thread(auditor.wait, 600)
            await ledger(stack, home)
        finally:
            shutil.copytree(stack.state_dir / "log", home / "log", dirs_exist_ok=True)


async def strike(
    options: argparse.Namespace,
    home: Path,
    stack: Stack,
    proxy: Proxy,
    watch: Watch,
    generator: subprocess.Popen[bytes],
) -> None:
    """Runs the schedule, and the load until there were enough requests."""
    await until(watch, lambda: watch.recovered(0, PARTITIONS), 60)
    await asyncio.sleep(WARM_S)
    # What came while everything was still warming up is not the first fault's.
    await until(watch, lambda: watch.open < options.rate, 60)
    schedule = faults.plan(
        options.seed, options.faults, overlap=options.overlap, only=options.only.split(",")
    )
    started = time.monotonic()

    def progress(text: str) -> None:
        if text.startswith("#"):
            passed = time.monotonic() - started
            text = f"{text} [{passed:.0f} s, {watch.sent} sent, {watch.open} open]"
        say(text)

    with (home / "faults.jsonl").open("w") as out:
        nemesis = Nemesis(
            stack,
            proxy,
            watch,
            out=out,
            replicas=dict(REPLICAS),
            partitions=PARTITIONS,
            report=progress,
        )
        went = await nemesis.run(schedule)
    while went and watch.sent < options.requests and generator.poll() is None:
        await asyncio.sleep(1)
        watch.refresh()
    if generator.poll() is not None:
        raise RuntimeError(f"the generator ended by itself: see {home / 'load.log'}")


async def until(watch: Watch, condition: Callable[[], bool], seconds: float) -> bool:
    """Waits for a condition on what was seen; False when the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        watch.refresh()
        if condition():
            return True
        await asyncio.sleep(0.25)
    return False


async def drained(watch: Watch) -> None:
    """Waits until everything is answered, or nothing has come for long."""
    if await until(watch, lambda: watch.open == 0, ANSWERED_S):
        say(f"all {watch.sent} requests are answered")
    else:
        say(f"{watch.open} of {watch.sent} requests have no answer after {ANSWERED_S:g} s")


async def ledger(stack: Stack, home: Path) -> None:
    """Copies the ledger once it has every line of `usage`, or no more come."""
    path = Path(stack.env["PENSTOCK_COST_DATABASE_URL"].removeprefix("sqlite:///"))
    wanted = 0
    with (home / "audit.jsonl").open() as file:
        wanted = sum(json.loads(line)["topic"] == "usage" for line in file)
    deadline = time.monotonic() + LEDGER_S
    while True:
        with contextlib.closing(sqlite3.connect(path)) as source:
            lines = source.execute("SELECT count(*) FROM ledger_lines").fetchone()[0]
            if lines >= wanted or time.monotonic() > deadline:
                with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as copy:
                    source.backup(copy)
                break
        await asyncio.sleep(1)
    say(f"the ledger has {lines} lines, usage has {wanted}")


def main() -> None:
    """Runs, judges, reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=len(faults.KINDS))
    parser.add_argument("--requests", type=int, default=0, help="go on until there are so many")
    parser.add_argument("--rate", type=float, default=30.0, help="requests per second")
    parser.add_argument("--overlap", type=float, default=faults.OVERLAP)
    parser.add_argument("--only", default=",".join(faults.KINDS), help="kinds, by commas")
    parser.add_argument("--out", type=Path, help="where the report goes, too")
    parser.add_argument("--home", type=Path, default=ROOT / ".penstock" / "chaos")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    home = options.home / time.strftime(f"%m%d-%H%M%S-{options.seed}")
    home.mkdir(parents=True)
    try:
        asyncio.run(attack(options, home))
    except Exception:
        logging.exception("the run failed; its histories are in %s", home)
        sys.exit(2)
    sys.exit(report.judge(home, seed=options.seed, rate=options.rate, out=options.out))


if __name__ == "__main__":
    main()
