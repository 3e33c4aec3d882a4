"""Who takes part in the throughput benchmark; each is up only while it is measured."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kafka_contender import ROUND_S, Figures, Round, kafka
from workload import (
    MAX_TOKENS,
    MODEL,
    NAME,
    OUTSTANDING,
    ROOT,
    SLOTS,
    dtype,
    quiet_environment,
    tickets,
)

from penstock_inference.engines.processor import thread_environment
from penstock_native.ports import free_port
from penstock_native.processes import end, tree

__all__ = ["CONTENDERS", "NOT_HERE", "Round"]

START_S = 300.0


class NotHereError(RuntimeError):
    """A contender cannot run on this machine; the message is its own account."""


NOT_HERE = NotHereError


@contextlib.contextmanager
def offline(model: Path, folder: Path) -> Iterator[Round]:
    """(A) `vllm bench throughput`: all prompts at once in a process that does nothing else.

    It draws at temperature 1, which it does not let one choose.
    """

    def measure(count: int) -> Figures:
        dataset, result = folder / "sharegpt.json", folder / f"{uuid.uuid4().hex}.json"
        dataset.write_text(
            json.dumps(
                [
                    {"conversations": [{"value": _rendered(text)}, {"value": "unused " * 8}]}
                    for text in tickets(count)
                ]
            )
        )
        command = [
            sys.executable,
            "bench/vllm_cli.py",
            "bench",
            "throughput",
            f"--model={model}",
            "--dataset-name=sharegpt",
            f"--dataset-path={dataset}",
            f"--output-len={MAX_TOKENS}",
            f"--num-prompts={count}",
            f"--num-warmups={count}",
            f"--max-num-seqs={SLOTS}",
            f"--dtype={dtype()}",
            "--enable-prefix-caching",
            "--seed=0",
            f"--output-json={result}",
        ]
        _run(command, folder / "offline.log")
        found = json.loads(result.read_text())
        tokens = found["num_requests"] * MAX_TOKENS
        return {"seconds": found["elapsed_time"], "tokens": tokens, "shortest": MAX_TOKENS}

    yield measure


@contextlib.contextmanager
def async_llm(model: Path, folder: Path) -> Iterator[Round]:
    """(B) AsyncLLM in a process."""
    with _Worker("async-llm", model, folder) as worker:
        yield lambda count: worker.ask({"count": count})


@contextlib.contextmanager
def async_llm_logprobs(model: Path, folder: Path) -> Iterator[Round]:
    """(B') The same with the log-probability of each token, which penstock asks for."""
    with _Worker("async-llm", model, folder) as worker:
        yield lambda count: worker.ask({"count": count, "logprobs": True})


@contextlib.contextmanager
def async_llm_arranged(model: Path, folder: Path) -> Iterator[Round]:
    """(B") B' with the processes and threads that penstock's engine gives vLLM on this machine."""
    cores = len(os.sched_getaffinity(0))
    arranged = thread_environment(os.environ, gpu=False, cores=cores)
    with _Worker("async-llm", model, folder, **arranged) as worker:
        yield lambda count: worker.ask({"count": count, "logprobs": True})


@contextlib.contextmanager
def ray_serve(model: Path, folder: Path) -> Iterator[Round]:
    """(C) AsyncLLM in Ray Serve, through a deployment's handle."""
    with _Worker("ray-serve", model, folder) as worker:
        yield lambda count: worker.ask({"count": count})


@contextlib.contextmanager
def vllm_serve(model: Path, folder: Path) -> Iterator[Round]:
    """(E) `vllm serve` under `vllm bench serve`."""
    port = free_port()
    command = [
        sys.executable,
        "bench/vllm_cli.py",
        "serve",
        str(model),
        f"--served-model-name={NAME}",
        "--host=127.0.0.1",
        f"--port={port}",
        f"--max-num-seqs={SLOTS}",
        f"--dtype={dtype()}",
        "--enable-prefix-caching",
        "--seed=0",
        "--disable-uvicorn-access-log",
    ]
    log = folder / "vllm-serve.log"
    with _process(command, log) as process:
        base = f"http://127.0.0.1:{port}"
        _wait_for(f"{base}/health", process, log)
        yield lambda count: _bench_serve(base, model, folder, count)


@contextlib.contextmanager
def ray_llm(model: Path, folder: Path) -> Iterator[Round]:
    """(F) `ray.serve.llm` under `vllm bench serve`."""
    port = free_port()
    with _Worker("ray-llm", model, folder, BENCH_PORT=str(port)):
        base = f"http://127.0.0.1:{port}"
        yield lambda count: _bench_serve(base, model, folder, count)


CONTENDERS = {
    "A": offline,
    "B": async_llm,
    "B'": async_llm_logprobs,
    'B"': async_llm_arranged,
    "C": ray_serve,
    "D": kafka,
    "E": vllm_serve,
    "F": ray_llm,
}


class _Worker:
    """`contender.py`, and what it says."""

    def __init__(self, kind: str, model: Path, folder: Path, **environment: str) -> None:
        self._log = folder / f"{kind}.log"
        self._errors = self._log.open("w")
        here = str(Path(__file__).parent)
        extras = Path(__file__).parent / ".extras"  # what ray.serve.llm wants beside our lock
        search = f"{here}{os.pathsep}{extras}" if kind == "ray-llm" else here
        self._process = subprocess.Popen(
            [sys.executable, str(Path(here) / "contender.py"), kind, str(model)],
            cwd=ROOT,
            env={**quiet_environment(), "PYTHONPATH": search, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> _Worker:
        try:
            self._next(START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        left = tree(self._process.pid)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        end(left, grace_s=5)
        self._process.wait()
        self._errors.close()

    def ask(self, what: object) -> Figures:
        """Has it run a round."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        figures: Figures = self._next(ROUND_S)
        return figures

    def _next(self, timeout_s: float) -> Any:
        assert self._process.stdout is not None
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        try:
            while line := self._process.stdout.readline():
                word, _, said = line.partition(" ")
                if word == "bench":
                    return json.loads(said)
                with self._log.open("a") as log:
                    log.write(line)
        finally:
            timer.cancel()
        raise NotHereError(self._log.read_text()[-4000:])


def _bench_serve(base: str, model: Path, folder: Path, count: int) -> Figures:
    dataset, result = folder / "prompts.jsonl", f"{uuid.uuid4().hex}.json"
    dataset.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in tickets(count)))
    command = [
        sys.executable,
        "bench/vllm_cli.py",
        "bench",
        "serve",
        f"--base-url={base}",
        "--backend=openai-chat",
        "--endpoint=/v1/chat/completions",
        f"--model={NAME}",
        f"--tokenizer={model}",
        "--dataset-name=custom",
        f"--dataset-path={dataset}",
        f"--custom-output-len={MAX_TOKENS}",
        "--skip-chat-template",
        "--disable-shuffle",
        f"--num-prompts={count}",
        f"--max-concurrency={OUTSTANDING}",
        "--temperature=0",
        "--save-result",
        "--save-detailed",
        f"--result-dir={folder}",
        f"--result-filename={result}",
    ]
    _run(command, folder / "bench-serve.log")
    found = json.loads((folder / result).read_text())
    if found["completed"] != count:
        raise RuntimeError(f"{found['completed']} of {count} completed: {found.get('errors')}")
    return {
        "seconds": found["duration"],
        "tokens": found["total_output_tokens"],
        "shortest": min(found["output_lens"]),
    }


def _rendered(text: str) -> str:
    """The chat of one turn as the model's own template writes it."""
    from transformers import AutoTokenizer

    tokenizer = _CACHE.setdefault("tokenizer", None) or AutoTokenizer.from_pretrained(MODEL)
    _CACHE["tokenizer"] = tokenizer
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )
    )


_CACHE: dict[str, Any] = {}


def _run(command: list[str], log: Path) -> None:
    with tempfile.TemporaryFile() as output:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=quiet_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=START_S + ROUND_S,
        )
        output.seek(0)
        log.write_bytes(output.read())
    if ended.returncode != 0:
        raise NotHereError(log.read_text(errors="replace")[-4000:])


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=quiet_environment(), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        left = tree(process.pid)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        end(left, grace_s=3)
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.5)
    raise NotHereError(log.read_text(errors="replace")[-4000:])
