"""Load on a service, on a clock of its own: what is counted, and from when calls are timed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from grenache_py import limits
from grenache_py.commands.bench import report
from grenache_py.commands.load import Load
from grenache_py.commands.status import ExitStatus
from grenache_py.errors import ConnectError, LookupEmptyError, RemoteError, RequestTimeout


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes only while everybody sleeps, and then at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        selector: Any = vars(self)["_selector"]
        select = selector.select
        selector.select = lambda timeout=None: self._jump(select, timeout)

    def _jump(self, select: Callable[[float], Any], timeout: float | None) -> Any:
        assert timeout is not None, "everybody waits for nothing"
        self.now += timeout
        return select(0)

    def time(self) -> float:
        return self.now


def measured(
    service: Callable[[int], Awaitable[Any]], *, cancel_at: float | None = None, **plan: Any
) -> Load:
    """What is measured of ``service``, called with 0, 1, 2, … in the order of its calls."""
    loop = VirtualLoop()
    numbers = iter(range(10**9))
    plan = {"concurrency": 1, "duration_s": 10.0, "count": None, "rate": None, **plan}

    async def run() -> Load:
        load = Load(lambda: service(next(numbers)), clock=loop.time, **plan)
        running = asyncio.ensure_future(load.run())
        if cancel_at is not None:
            loop.call_later(cancel_at, running.cancel)
        await asyncio.wait({running})
        if not running.cancelled():
            running.result()
        return load

    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


def taking(seconds: float) -> Callable[[int], Awaitable[Any]]:
    return lambda number: asyncio.sleep(seconds)


def test_a_closed_loop_keeps_so_many_under_way_for_so_long():
    load = measured(taking(0.1), concurrency=4, duration_s=10)
    assert load.calls == load.answered == pytest.approx(4 * 100, abs=4)
    assert load.elapsed_s == pytest.approx(10, abs=0.11)
    assert load.latency.quantile(0.99) == pytest.approx(0.1, rel=0.02)
    assert load.as_object()["calls_per_s"] == pytest.approx(40, rel=0.02)


def test_so_many_calls_and_no_more():
    load = measured(taking(0.5), concurrency=8, count=20)
    assert load.calls == 20
    assert load.elapsed_s == pytest.approx(1.5)


def test_an_open_loop_calls_at_the_rate_whatever_the_service_does():
    load = measured(taking(0.01), concurrency=10, rate=50, duration_s=4)
    assert load.calls == 200
    assert load.never_begun == 0
    assert load.latency.maximum_s == pytest.approx(0.01)


async def stalls_once(number: int) -> None:
    """A service that answers at once, but for one call that holds up the next ones for two seconds."""
    await asyncio.sleep(2.0 if number == 100 else 0.001)


def test_a_stall_shows_in_all_the_calls_that_it_would_have_hit():
    closed = measured(stalls_once, duration_s=10)
    assert closed.latency.quantile(0.99) < 0.01, "one slow call among thousands: that's the omission"

    opened = measured(stalls_once, duration_s=10, rate=100)
    assert opened.calls == 1000
    # Those that were due within the stall, a fifth of all, waited for what was left of it.
    assert opened.latency.quantile(0.5) < 0.01
    assert opened.latency.quantile(0.9) == pytest.approx(1.1, abs=0.15)
    assert opened.latency.quantile(0.99) > 1.8
    # The service itself was slow once.
    assert opened.service.quantile(0.99) < 0.01


def test_what_was_due_and_never_began_counts_with_the_time_it_has_waited():
    load = measured(taking(1.0), rate=10, duration_s=10)
    assert load.calls == 10
    assert load.never_begun == 90
    assert load.latency.count == 100
    # Call n of this queue would begin n seconds in and is due at n/10.
    assert load.latency.quantile(0.5) > 4
    assert load.service.maximum_s == pytest.approx(1.0)


def test_its_own_part_in_the_figures_is_told():
    spent = iter([1.0, 10.0])
    load = measured(taking(0.1), cpu_clock=lambda: next(spent), count=100)
    assert load.cpu_share == pytest.approx(0.9)
    assert any("busy 90% of the time" in line for line in report(load))
    spent = iter([1.0, 2.0])
    assert not any("busy" in line for line in report(measured(taking(0.1), cpu_clock=lambda: next(spent))))


def test_interrupted_it_tells_what_it_has():
    load = measured(taking(0.1), concurrency=2, duration_s=10, cancel_at=1.05)
    assert load.calls == 20
    assert load.elapsed_s == pytest.approx(1.05)


async def failing(number: int) -> None:
    if number % 5 == 0:
        raise RemoteError("127.0.0.1:1", "ERR_NO: never")
    if number % 5 == 1:
        await asyncio.sleep(1)
        raise RequestTimeout("127.0.0.1:1", "no reply")
    if number % 5 == 2:
        raise ConnectError("127.0.0.1:1", "refused")
    if number % 5 == 3:
        raise LookupEmptyError("http://127.0.0.1:1", "svc")
    await asyncio.sleep(0.1)


def test_errors_are_counted_by_code_and_those_without_an_answer_are_no_fast_ones():
    load = measured(failing, count=50)
    assert (load.calls, load.answered) == (50, 20)
    assert load.errors == {
        "ERR_NO": 10,
        "ERR_TIMEOUT": 10,
        "ERR_REQUEST_GENERIC": 10,
        "ERR_GRAPE_LOOKUP_EMPTY": 10,
    }
    assert set(load.statuses) == {
        ExitStatus.REMOTE_ERROR,
        ExitStatus.TIMEOUT,
        ExitStatus.PEER_UNREACHABLE,
        ExitStatus.NOT_FOUND,
    }
    # Answers, also with an error, and those that ran out of time.
    assert load.latency.count == 30


def test_peers_cannot_fill_the_memory_with_codes():
    async def inventive(number: int) -> None:
        raise RemoteError("127.0.0.1:1", f"ERR_{number}")

    load = measured(inventive, count=1000)
    assert len(load.errors) == limits.BENCH_CODES_MAX + 1
    assert load.errors["others"] == 1000 - limits.BENCH_CODES_MAX


def test_an_error_that_is_none_of_the_network_ends_it():
    async def broken(number: int) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        measured(broken, concurrency=3)
