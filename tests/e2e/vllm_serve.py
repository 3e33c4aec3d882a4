"""`vllm serve` as somebody else would run it: the upstream of the tests of hosted models."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock_native.ports import free_port
from penstock_native.scrape import total
from tests.e2e.support import ROOT

__all__ = ["KEY", "MODEL", "VllmServe", "vllm_serve"]

KEY = "sk-a-key-for-this-test"
MODEL = "large-2"
START_S = 400.0  # of a machine that has other things to do


@dataclasses.dataclass(frozen=True)
class VllmServe:
    """A running server."""

    port: int
    log: Path

    @property
    def base_url(self) -> str:
        """What an entry of the models' file names."""
        return f"http://127.0.0.1:{self.port}/v1"

    def metric(self, name: str) -> float:
        """The sum of one of its own metrics."""
        return total(self.port, name)

    def chat(self, text: str) -> dict[str, Any]:
        """What it answers to one who asks it without penstock between, greedily."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 64,
            "temperature": 0,
        }
        request = urllib.request.Request(
            f"{self.base_url}/chat/completions",
            json.dumps(body).encode(),
            {"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answered: dict[str, Any] = json.load(answer)
        return answered

    def tokens(self) -> tuple[int, int]:
        """Tokens of prompts and of answers that it has counted so far."""
        return (
            int(self.metric("vllm:prompt_tokens_total")),
            int(self.metric("vllm:generation_tokens_total")),
        )


@contextlib.contextmanager
def vllm_serve(directory: Path) -> Iterator[VllmServe]:
    """Runs the server with the triage model, until the block ends."""
    server = VllmServe(free_port(), directory / "vllm_serve.log")
    command = [
        *(sys.executable, str(ROOT / "bench" / "vllm_cli.py"), "serve"),
        str(ROOT / "examples" / "triage" / "model"),
        *("--host", "127.0.0.1", "--port", str(server.port), "--served-model-name", MODEL),
        *("--enforce-eager", "--dtype", "float32", "--api-key", KEY),
        # Where a schema allows any whitespace, a weak model writes nothing else.
        "--structured-outputs-config",
        '{"backend": "xgrammar", "disable_any_whitespace": true}',
    ]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with (
        server.log.open("wb") as log,
        subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            _await_up(server, process)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _await_up(server: VllmServe, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError):
            url = f"http://127.0.0.1:{server.port}/health"
            with urllib.request.urlopen(url, timeout=5):
                return
        time.sleep(0.5)
    raise AssertionError(f"vllm serve did not come up:\n{server.log.read_text()[-3000:]}")
