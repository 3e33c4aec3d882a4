"""vLLM's processes may use the processor's matrix tiles, or it dies at the first prompt."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from penstock_inference.engines.processor import processor_flags

# arch_prctl on x86-64, its request for what a process may use, and the tiles' bit in the answer.
ARCH_PRCTL, ARCH_GET_XCOMP_PERM, TILE_DATA = 158, 0x1022, 18
PROBE = """
import ctypes
import sys
from importlib.metadata import entry_points
(plugin,) = (e for e in entry_points(group="vllm.general_plugins") if e.name == "penstock_amx")
plugin.load()()
found = ctypes.c_uint64()
assert ctypes.CDLL(None).syscall({call}, {get}, ctypes.byref(found)) == 0
sys.exit(0 if found.value >> {bit} & 1 else 1)
"""


def test_it_is_a_plugin_that_vllm_finds() -> None:
    names = {each.name for each in entry_points(group="vllm.general_plugins")}
    assert "penstock_amx" in names


@pytest.mark.skipif("amx_tile" not in processor_flags(), reason="no AMX here")
def test_a_process_that_loads_it_may_use_tiles() -> None:
    source = PROBE.format(call=ARCH_PRCTL, get=ARCH_GET_XCOMP_PERM, bit=TILE_DATA)
    done = subprocess.run([sys.executable, "-c", source], check=False, env=dict(os.environ))
    assert done.returncode == 0
