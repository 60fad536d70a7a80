"""What a process of ``benchmarks/rpc.py`` is told, and what it says: lines of JSON.

It says ``{"ready": …}`` first, a server with its port. A client is then given orders, ``{"call", "name",
"port", "in_flight", "size", "seconds"}``, and answers each with ``{"calls", "seconds"}``. To
``{"cpu": true}`` every process answers ``{"cpu_s": …}``, its processor time so far. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

PEERS = 50


def payload(size: int, number: int) -> dict[str, Any]:
    """An object of about ``size`` bytes of JSON."""
    return {"hello": "world", "n": number, "pad": "x" * max(0, size - 40)}


def say(message: Any) -> None:
    print(json.dumps(message), flush=True)


def orders() -> Iterator[dict[str, Any]]:
    """Orders, from standard input."""
    for line in sys.stdin:
        order = json.loads(line)
        if "cpu" in order:
            say({"cpu_s": time.process_time()})
        else:
            yield order


async def orders_aio() -> AsyncIterator[dict[str, Any]]:
    """The same on a loop, which goes on meanwhile."""
    lines = orders()
    while (order := await asyncio.to_thread(next, lines, None)) is not None:
        yield order


def report(calls: int, started: float) -> None:
    """Answer an order that was begun when ``time.perf_counter`` said ``started``."""
    say({"calls": calls, "seconds": time.perf_counter() - started})
