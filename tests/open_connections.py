"""Connections that are open when their event loop is closed, laid at the door of the test that left them.

Python tells of such a connection only when the collector comes by, in whatever test runs then.
"""

from __future__ import annotations

import weakref
from asyncio import selector_events
from collections.abc import Generator
from typing import Any

import pytest

_made: weakref.WeakSet[Any] = weakref.WeakSet()
_Transport: Any = selector_events._SelectorTransport  # type: ignore[attr-defined]
_init = _Transport.__init__


def _noted(transport: Any, *arguments: Any, **options: Any) -> None:
    try:
        _init(transport, *arguments, **options)
    except BaseException:
        # Its server was closed after it had accepted the connection. CPython leaves the socket to the
        # collector (gh-109564, gh-155934); newer ones close it.
        transport._sock.close()
        transport._sock = None
        raise
    _made.add(transport)


_Transport.__init__ = _noted


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fails the test whose loops are closed and whose connections are not."""
    result = yield
    left = [each for each in list(_made) if each._sock is not None and each._loop.is_closed()]
    for transport in left:
        _made.discard(transport)
        transport._sock.close()
        transport._sock = None
    if left:
        told = ", ".join(sorted({type(each._protocol).__qualname__ for each in left}))
        pytest.fail(f"{len(left)} connections were open when their loop was closed: {told}; {left[0]!r}")
    return result
