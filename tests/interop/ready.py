"""A Node Grape says that it is ready when its DHT is, which may be just before its HTTP API listens. The
fixture of the same name below stands in for the one of ``node_grapes.py`` in tests that use the API at once:
it waits for both.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness import eventually
from tests.node_grapes import NodeGrape


def takes_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def node_grape(node_grape: Callable[..., NodeGrape]) -> Callable[..., NodeGrape]:
    """Start a Node Grape whose HTTP API listens."""

    def start(*args: Any, **options: Any) -> NodeGrape:
        grape = node_grape(*args, **options)
        eventually(lambda: takes_connections(grape.api_port), what="the Grape's API")
        return grape

    return start
