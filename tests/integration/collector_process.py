"""A collector as a process that kills itself at a point of its own work."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

from penstock_retrain.dataset.buffer import Bounds
from penstock_retrain.dataset.collector import Collector, CollectorConfig
from penstock_retrain.dataset.store import FileStore

# Before a file, with half of one, with a whole one that has no name, with its name, and within
# the milliseconds in which its records end and their position commits.
POINTS = ("before", "half", "staged", "placed", "ending")


class DeadlyStore(FileStore):
    """Ends the process by SIGKILL at a point of its n-th file."""

    def __init__(self, url: str, point: str, count: int) -> None:
        super().__init__(url)
        self.point, self.left = point, count
        self.turn = threading.Lock()

    def die_at(self, point: str) -> None:
        if point == self.point and self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def stage(self, target: str, data: bytes) -> str:
        with self.turn:
            self.left -= 1
        self.die_at("before")
        if self.point == "half" and self.left <= 0:
            super().stage(target, data[: len(data) // 2])
            self.die_at("half")
        return super().stage(target, data)

    def place(self, temporary: str, target: str) -> None:
        self.die_at("staged")
        super().place(temporary, target)
        self.die_at("placed")
        if self.point == "ending" and self.left <= 0:
            threading.Timer(0.004, lambda: self.die_at("ending")).start()


async def main(bootstrap: str, prefix: str, url: str, point: str, count: str) -> None:
    config = CollectorConfig(bootstrap, prefix, url, file=Bounds(rows=25, age_s=0.4), held_rows=400)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    store = DeadlyStore(url, point, int(count)) if point else None
    collector = Collector(config, store)
    running = asyncio.create_task(collector.run(stop))
    settled = asyncio.create_task(collector.settle(120))
    settled.add_done_callback(lambda task: sys.stdout.write(f"settled {task.result()}\n"))
    settled.add_done_callback(lambda _: sys.stdout.flush())
    await running
    settled.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
