"""What the end-to-end tests share: the command, a ticket, where things are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
TICKET = "Hello, I was charged twice for my subscription this month. Please look into it."


def penstock(env: Mapping[str, str], *arguments: str, timeout_s: float = 240) -> str:
    """Runs the `penstock` command against a stack; its standard output. Fails with its error."""
    result = subprocess.run(
        [str(Path(sys.executable).with_name("penstock")), *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert result.returncode == 0, f"{arguments}: {result.stdout}\n{result.stderr}"
    return result.stdout
