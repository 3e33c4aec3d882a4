"""faust with safe defaults: the only module of penstock that imports it.

What is changed, and why (faust-streaming 0.15):
- It reads uncommitted records unless its own exactly-once is on; ours reads committed ones, and
  commits past the markers that transactions leave.
- It acknowledges an event whose handler raised or was cancelled, and so do its `take` methods:
  `consume` acknowledges by itself, in order, after the handler returned.
- Its web server listens on every interface without authentication: it is off.
- Its worker configures logging and the process's title: `run` does neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from pathlib import Path
from typing import Any, NoReturn

import faust
from faust.transport.drivers import aiokafka as driver

import penstock.kafka.tolerance  # noqa: F401 - one odd record must not stop every reader
from penstock.kafka.guard import DeadLetters, Guard, Handle
from penstock.records import Partition, Record
from penstock.settings import Settings
from penstock.telemetry import logger

__all__ = ["consume", "main", "make_app", "on_assignment", "read_to", "run"]

log = logger(__name__)

COMMIT_S = 1.0
SESSION_S = 10.0
HEARTBEAT_S = 3.0
REBALANCE_S = 30.0
STOP_S = 20.0

# faust logs in the name of a subclass's module unless it is told otherwise.
_FAUST_LOGGER = logging.getLogger("faust.penstock")


class _ReadCommittedThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    logger = _FAUST_LOGGER

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Read when the consumer starts, which is after this.
        consumer._isolation_level = "read_committed"
        return consumer


class _ReadCommittedConsumer(driver.Consumer):  # type: ignore[misc]
    logger = _FAUST_LOGGER

    def _new_consumer_thread(self) -> Any:
        return _ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Keeps no gaps: `_new_offset` needs none."""

    def _new_offset(self, tp: Any) -> int | None:
        # faust's own looks for the first run without a gap: every commit marker ends one, so a
        # commit passes one transaction at most, and none where the first record stands before an
        # aborted transaction. `consume` acknowledges in order: what is behind is done.
        acked = self._acked[tp]
        if not acked:
            return None
        offset: int = max(acked) + 1
        acked.clear()
        self._acked_index[tp].clear()
        return offset


class _ReadCommittedTransport(driver.Transport):  # type: ignore[misc]
    Consumer = _ReadCommittedConsumer


def make_app(group: str, settings: Settings) -> Any:
    """A faust app that reads committed records from the earliest on, and serves nothing.

    It keeps no tables and makes no topics. Call it inside the loop that will run it.

    Args:
        group: The consumer group.
        settings: Where Kafka is.
    """
    brokers = ";".join(f"kafka://{address}" for address in settings.kafka_bootstrap.split(","))
    app = faust.App(
        group,
        broker=brokers,
        autodiscover=False,
        broker_client_id=group,
        broker_commit_interval=COMMIT_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_rebalance_timeout=REBALANCE_S,
        broker_session_timeout=SESSION_S,
        consumer_auto_offset_reset="earliest",
        # faust wants one, and nothing is kept there: `run` removes it.
        datadir=Path(tempfile.mkdtemp(prefix="penstock-faust-")),
        key_serializer="raw",
        reply_create_topic=False,
        store="memory://",
        # A handler that hangs would hold the stop, and every rebalance, for ever.
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        value_serializer="raw",
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    app.transport = _ReadCommittedTransport(app.conf.broker_consumer, app, loop=app.loop)
    return app


def consume(
    app: Any,
    topic: str,
    handle: Handle,
    *,
    dead_letters: DeadLetters,
    max_batch: int = 500,
    kept_to: Callable[[], Mapping[Partition, int]] | None = None,
) -> None:
    """Registers a handler for a topic: at least once, in order per partition, one batch at a time.

    A batch is what has arrived while the last one was handled; it may hold several partitions. It
    is acknowledged whole, when every record was handled or lies on the dlq. Where neither can be
    had the app crashes, nothing of the batch is committed, and `run` raises.

    A handler whose effect is kept later says with `kept_to` how far it is: of what was handled only
    records below these offsets are acknowledged, in order; the others once they are passed.

    Args:
        app: From `make_app`.
        topic: The topic's full name on the broker.
        handle: Handles a batch; idempotent.
        dead_letters: Where records go that it cannot handle.
        max_batch: Records in a batch at most.
        kept_to: Asked after each batch; a partition that it does not name is not acknowledged.
    """
    guard = Guard(handle, dead_letters)
    source = app.topic(topic, key_type=bytes, value_type=bytes)

    # faust loses messages with more than one concurrent actor (its issue 606).
    @app.agent(source, name=topic, concurrency=1)  # type: ignore[untyped-decorator]
    async def agent(stream: Any) -> None:
        events: asyncio.Queue[Any] = asyncio.Queue(max_batch)
        worker = asyncio.create_task(_work(app, events, guard, max_batch, _Held(kept_to)))
        try:
            # Acknowledged by the worker: faust's own would count a cancelled event as handled.
            async for event in stream.noack().events():
                await events.put(event)
        finally:
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker


def on_assignment(app: Any, changed: Callable[[Collection[Partition]], None]) -> None:
    """Has a function called when the group's partitions were dealt anew, before any is read.

    It is called with none when they are taken away, and with those that this member has then.

    Args:
        app: From `make_app`.
        changed: Called in the app's loop; must not block.
    """

    async def revoked(_: Any, revoked: Any, **__: Any) -> None:
        changed(())

    async def assigned(_: Any, assigned: Any, **__: Any) -> None:
        changed([Partition(tp.topic, tp.partition) for tp in assigned])

    app.on_partitions_revoked.connect(revoked)
    app.on_partitions_assigned.connect(assigned)


def read_to(app: Any, topic: str) -> dict[int, int]:
    """By partition that this member has, the next offset that the client will look at.

    Markers and aborted records before it count as read. Partitions without a position are absent.

    Args:
        app: From `make_app`.
        topic: The topic's full name on the broker.
    """
    client = getattr(getattr(app.consumer, "_thread", None), "_consumer", None)
    if client is None or client._subscription.subscription is None:
        return {}
    # Plain attributes of another thread's client, read for a watchdog: stale at worst.
    assignment = client._subscription.subscription.assignment
    found = {}
    for tp in assignment.tps if assignment is not None else ():
        state = assignment.state_value(tp)
        if tp.topic == topic and state is not None and state.has_valid_position:
            found[tp.partition] = int(state.position)
    return found


class _Held:
    """Events that were handled and are not acknowledged yet.

    Args:
        kept_to: See `consume`.
    """

    def __init__(self, kept_to: Callable[[], Mapping[Partition, int]] | None) -> None:
        self._kept_to = kept_to
        self._generation: int | None = None
        self._events: dict[Partition, deque[Any]] = defaultdict(deque)

    def handled(self, events: list[Any], generation: int) -> None:
        """Takes handled events in their order, and acknowledges what is kept."""
        if generation != self._generation:
            # What an earlier generation left is delivered again.
            self._generation = generation
            self._events.clear()
        if self._kept_to is None:
            # In order: an acknowledgement commits past earlier events that have none.
            for event in events:
                event.ack()
            return
        for event in events:
            self._events[Partition(event.message.topic, event.message.partition)].append(event)
        kept = self._kept_to()
        for partition, held in self._events.items():
            while held and held[0].message.offset < kept.get(partition, 0):
                held.popleft().ack()


async def _work(
    app: Any, events: asyncio.Queue[Any], guard: Guard, max_batch: int, held: _Held
) -> None:
    async for batch in _batches(events, max_batch):
        # What an earlier generation of the group delivered is delivered again.
        current = [e for e in batch if e.message.generation_id == app.consumer_generation_id]
        if not current:
            continue
        try:
            await guard.handle([_record_of(event.message) for event in current])
        except Exception as error:  # noqa: BLE001 - raised again by `run`
            await app.crash(error)
            return
        held.handled(current, current[0].message.generation_id)


async def _batches(events: asyncio.Queue[Any], max_batch: int) -> AsyncIterator[list[Any]]:
    while True:
        batch = [await events.get()]
        while len(batch) < max_batch and not events.empty():
            batch.append(events.get_nowait())
        yield batch


def _record_of(message: Any) -> Record:
    headers = message.headers or ()
    return Record(
        partition=Partition(message.topic, message.partition),
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=tuple(headers.items() if isinstance(headers, dict) else headers),
        timestamp_ms=round((message.timestamp or 0) * 1000),
    )


async def run(app: Any, *, started: Callable[[], Awaitable[None]] | None = None) -> None:
    """Runs the app until SIGTERM or SIGINT, then stops it in order; call it from the main thread.

    Args:
        app: From `make_app`.
        started: Awaited when the app has its first assignment.

    Raises:
        Exception: What the app crashed with. Let it end the process with a non-zero code: the
            supervisor starts it again and what was not committed is delivered again.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [
        asyncio.create_task(_start(app, started)),
        asyncio.create_task(app._crashed.wait()),
        asyncio.create_task(stop.wait()),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await _stop(app)
    if app.crash_reason is not None:
        raise app.crash_reason
    for task in done:
        task.result()


def main(service: Coroutine[Any, Any, None]) -> NoReturn:
    """Runs a service's coroutine and ends the process: 0 when it returned, 1 when it raised.

    The end is at once: a thread of faust's that hangs would keep the process alive for ever, and
    its supervisor from starting it again.
    """
    code = 1
    try:
        asyncio.run(service)
        code = 0
    except Exception:
        log.exception("the service crashed")
    finally:
        logging.shutdown()
        os._exit(code)


async def _start(app: Any, started: Callable[[], Awaitable[None]] | None) -> None:
    await app.start()
    if started is not None:
        await started()
    await asyncio.Event().wait()


async def _stop(app: Any) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await app.stop()
    except TimeoutError:
        log.warning("faust did not stop in time", bound_s=STOP_S)
    finally:
        shutil.rmtree(app.conf.datadir, ignore_errors=True)
