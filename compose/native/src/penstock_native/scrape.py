"""Reads what a process on this machine shows at /metrics, for tests and benchmarks."""

import urllib.request
from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from penstock_native.ports import LOOPBACK

__all__ = ["samples", "total"]

_TIMEOUT_S = 20.0


def samples(port: int) -> Sequence[Sample]:
    """Everything that a port shows.

    Raises:
        OSError: Nobody answers there.
    """
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=_TIMEOUT_S) as page:
        text = page.read().decode()
    return [each for family in text_string_to_metric_families(text) for each in family.samples]


def total(port: int, name: str, **labels: str) -> float:
    """A metric's sum over all labels but those that are named; 0 where it shows none.

    Example:
        total(9121, "penstock_cost_lines_total", outcome="priced")

    Raises:
        OSError: Nobody answers there.
    """
    return sum(
        each.value
        for each in samples(port)
        if each.name == name and labels.items() <= each.labels.items()
    )
