"""The simulation's modules lie outside of any package, as scripts do."""

import sys
from pathlib import Path

BENCH = str(Path(__file__).parents[4] / "bench")
if BENCH not in sys.path:
    sys.path.insert(0, BENCH)
