"""Fixtures with real Node Grapes and peers; each test gets its own network on free loopback ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness import Process, start_node

OLD = {"package": "grenache-nodejs-http-0.7", "linkPackage": "grenache-nodejs-link-0.7"}
VERSIONS = [pytest.param({}, id="1.0.2"), pytest.param(OLD, id="0.7.13")]
"""Of the Node packages: what their scripts are told."""


@dataclass(frozen=True)
class NodeGrape:
    """A running Node Grape and its ports."""

    process: Process
    dht_port: int
    api_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def dht_address(self) -> str:
        return f"127.0.0.1:{self.dht_port}"


@pytest.fixture
def node_script() -> Iterator[Callable[..., tuple[Process, Any]]]:
    """Start ``js/<script>`` with a JSON argument; all that were started end with the test."""
    started: list[Process] = []

    def start(script: str, conf: Any = None) -> tuple[Process, Any]:
        process, ready = start_node(script, conf)
        started.append(process)
        return process, ready

    yield start
    for process in reversed(started):
        process.stop()


@pytest.fixture
def node_grape(node_script: Callable[..., tuple[Process, Any]]) -> Callable[..., NodeGrape]:
    """Start a Node Grape: ``node_grape(bootstrap=["127.0.0.1:20001"], dht_peer_maxAge=3000)``."""

    def start(bootstrap: list[str] | None = None, **options: Any) -> NodeGrape:
        process, ready = node_script("grape.js", {"dht_bootstrap": bootstrap or [], **options})
        return NodeGrape(process, ready["dht_port"], ready["api_port"])

    return start


@pytest.fixture
def node_grapes(node_grape: Callable[..., NodeGrape]) -> tuple[NodeGrape, NodeGrape]:
    """Two Node Grapes that know each other, as in Grenache's own examples."""
    first = node_grape()
    return first, node_grape(bootstrap=[first.dht_address])
