"""Fixtures for all tests, and the event loops that they may ask for."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping

import pytest
from hypothesis import HealthCheck, settings

from tests.flavours import flavour
from tests.node_grapes import node_grape, node_grapes, node_script
from tests.open_connections import pytest_runtest_teardown
from tests.ws_flavours import ws_flavour

# On a busy machine an example, or to make it, may take long; what counts is that it passes.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

__all__ = ["flavour", "node_grape", "node_grapes", "node_script", "pytest_runtest_teardown", "ws_flavour"]


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell starts what runs in the background; nobody here, nor any child, would hear Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.version_info < (3, 11):
        # There a TLS connection that the other side has ended counts as open until it is closed here too.
        config.addinivalue_line(
            "filterwarnings", "ignore:unclosed transport <asyncio.sslproto:ResourceWarning"
        )


def pytest_asyncio_loop_factories(
    item: object,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The standard loop for every test; with ``loop_factories`` in its mark a test runs on uvloop as well."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    marker = item.get_closest_marker("asyncio")  # type: ignore[attr-defined]
    if marker is not None and "loop_factories" in marker.kwargs:
        try:
            import uvloop
        except ImportError:
            pass
        else:
            factories["uvloop"] = uvloop.new_event_loop
    return factories
