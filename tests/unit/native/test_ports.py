"""Free ports: in a row, never chosen twice, and none that somebody listens on."""

from __future__ import annotations

import socket
from itertools import chain

import pytest

from penstock_native import ports
from penstock_native.ports import LOOPBACK, free_port, free_ports


def test_ports_come_in_a_row_and_once() -> None:
    rows = [free_ports(5) for _ in range(50)]
    assert all(len(row) == 5 and row.step == 1 for row in rows)
    taken = list(chain(*rows))
    assert len(set(taken)) == len(taken)
    assert free_port() not in taken


def test_a_row_with_a_listener_in_it_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(8)[0]
    monkeypatch.setattr(ports, "_chosen", set())
    monkeypatch.setattr(ports, "_FIRST", first)
    monkeypatch.setattr(ports, "_LAST", first + 7)
    with socket.create_server((LOOPBACK, first + 2)):
        assert set(free_ports(3)) & set(range(first, first + 3)) == set()
        with pytest.raises(OSError, match="no free loopback ports"):
            free_ports(6)
