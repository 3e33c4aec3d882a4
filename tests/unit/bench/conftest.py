"""The benchmark's modules lie outside of any package, as scripts do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
