"""Error rates and power of the canary's tests, by simulation: `make bench-canary`.

Goes on where it was stopped: a cell that results/canary.json has is not run again (--again does).
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from canary_cells import CELLS, RUNS
from canary_page import page

RESULTS = Path(__file__).parent / "results" / "canary.json"
SEED = 2
PAGE = Path(__file__).parent / "CANARY.md"


def main() -> None:
    """Runs cells and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cells whose name begins so")
    parser.add_argument("--again", action="store_true", help="also those that have results")
    parser.add_argument("--limit-s", type=float, default=1e9, help="begin no cell after that")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    start = time.monotonic()
    for name, cell in CELLS.items():
        known = name in results and not options.again
        if known or not name.startswith(options.only):
            continue
        if time.monotonic() - start > options.limit_s:
            break
        began = time.process_time()
        # A seed of the name's own: cells can be added without changing the others. SEED was
        # raised when the bets had been chosen by the runs of the one before.
        figures = cell(np.random.default_rng([SEED, zlib.crc32(name.encode())]), RUNS)
        results[name] = {"runs": RUNS} | figures
        ordered = {each: results[each] for each in CELLS if each in results}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
        print(f"{name}: {time.process_time() - began:.0f} s of CPU", flush=True)
    PAGE.write_text(page(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
