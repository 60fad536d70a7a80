"""What tests of the client API share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from grenache_py.aio import Link
from grenache_py.aio.testing import Grapes
from orderbook.api import Api
from orderbook.model import Instrument
from orderbook.worker import Worker


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """A peer with the market SIM on a network of its own."""
    async with (
        Grapes() as grapes,
        Link(grapes.grapes[0].url) as link,
        Worker(link, "alice", [Instrument("SIM", tick="1", lot="1")], host="127.0.0.1") as worker,
        Api(worker) as api,
    ):
        yield api
