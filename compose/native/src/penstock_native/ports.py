"""Loopback ports: choosing free ones and waiting for what listens on them."""

import random
import socket
import struct
import time
from collections.abc import Callable

LOOPBACK = "127.0.0.1"

# Below Linux's range for outgoing connections (32768 and up), so that no client socket
# takes a chosen port before the server that it was chosen for has bound it.
_FIRST, _LAST = 20_000, 32_000
_chosen: set[int] = set()

_METADATA_KEY, _METADATA_VERSION = 3, 4


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether a server could bind the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def listens(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether a server takes connections on the port now."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port that nothing listened on when it was looked at; see `free_ports`.

    Raises:
        OSError: There is none.
    """
    return free_ports(1)[0]


def free_ports(count: int) -> range:
    """Return so many ports in a row that nothing listened on when they were looked at.

    None of them is returned twice: what one was chosen for may not listen yet.

    Raises:
        OSError: None were found in a thousand draws.
    """
    draw = random.SystemRandom()
    for _ in range(1000):
        first = draw.randint(_FIRST, _LAST - count)
        wanted = range(first, first + count)
        if _chosen.isdisjoint(wanted) and all(is_free(port) for port in wanted):
            _chosen.update(wanted)
            return wanted
    raise OSError("no free loopback ports found: close other servers and try again")


def wait_until(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.1) -> bool:
    """Poll until the condition holds; False when the time is over. Blocks."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
    return True


def kafka_answers(port: int, host: str = LOOPBACK, nodes: int = 1) -> bool:
    """Tell whether a Kafka broker on the port lists so many live brokers in its metadata.

    An open port is not enough: a broker listens before it takes part in its cluster, and
    creating a topic fails until then.
    """
    client = b"penstock"
    body = struct.pack(">hhih", _METADATA_KEY, _METADATA_VERSION, 1, len(client)) + client
    body += struct.pack(">ib", 0, 0)  # no topics asked for; create none
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            # size, correlation id, throttle time, count of brokers: four bytes each
            answer = connection.makefile("rb").read(16)
    except OSError:
        return False
    return len(answer) == 16 and struct.unpack(">i", answer[12:])[0] >= nodes
