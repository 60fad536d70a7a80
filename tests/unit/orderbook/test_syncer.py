"""A file is made durable beside the loop, by the kernel or by a thread; a failure is told."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orderbook.journal import syncer
from orderbook.journal.syncer import Syncer, ThreadSyncer, UringSyncer, best_syncer

uring: Any = vars(syncer)["uring"]

Make = Callable[[int, asyncio.AbstractEventLoop], Syncer]

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


def allowed() -> bool:
    """Whether the system lets us use io_uring."""
    if uring is None:
        return False
    try:
        uring.Context(max_requests=1, sqpoll=False)
    except (OSError, SystemError):
        return False
    return True


@pytest.fixture(params=[UringSyncer, ThreadSyncer])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param is UringSyncer and not allowed():
        pytest.skip("no io_uring here, or it is forbidden")
    chosen: Make = request.param
    return chosen


async def result_of(start: Callable[[syncer.Synced], None]) -> OSError | None:
    """What a sync says in the end."""
    result: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    start(result.set_result)
    return await asyncio.wait_for(result, 10.0)


async def test_what_was_written_is_synced_again_and_again(make: Make, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    one = make(descriptor, asyncio.get_running_loop())
    for n in range(100):
        os.write(descriptor, b"%d" % n)
        assert await result_of(one.start) is None
    one.sync()
    one.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


async def test_the_loop_goes_on_meanwhile(make: Make, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    one = make(descriptor, asyncio.get_running_loop())
    turns, result = 0, asyncio.get_running_loop().create_future()
    os.write(descriptor, bytes(10_000_000))
    one.start(result.set_result)
    while not result.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 1
    one.close()


async def test_a_failure_is_told(make: Make) -> None:
    """A pipe can't be synced."""
    reading, writing = os.pipe()
    one = make(writing, asyncio.get_running_loop())
    error = await result_of(one.start)
    assert error is not None
    assert error.errno == errno.EINVAL
    with pytest.raises(OSError, match="Invalid argument"):
        one.sync()
    one.close()
    os.close(reading)


@pytest.mark.skipif(uring is None, reason="no io_uring here")
async def test_a_kernel_that_does_not_take_it_is_a_failure(tmp_path: Path) -> None:
    class Full:
        def __init__(self, ring: object):
            self._ring = ring

        def __getattr__(self, name: str) -> object:
            return getattr(self._ring, name)

        def flush(self) -> None:
            raise SystemError("Cannot allocate memory")

    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    one = UringSyncer(descriptor, asyncio.get_running_loop())
    ring, one._ring = one._ring, Full(one._ring)
    error = await result_of(one.start)
    assert str(error) == "Cannot allocate memory"
    one._ring = ring  # takes both of them now
    assert await result_of(one.start) is None
    one.close()


@pytest.mark.parametrize("forbidden", [True, False], ids=["forbidden", "missing"])
async def test_a_thread_does_it_where_there_is_no_io_uring(
    forbidden: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Forbidden:
        def __init__(self, **_: object):
            raise SystemError("Operation not permitted")

    class Module:
        Context = Forbidden

    monkeypatch.setattr(syncer, "uring", Module if forbidden else None)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    one = best_syncer(descriptor, asyncio.get_running_loop())
    assert isinstance(one, ThreadSyncer)
    assert await result_of(one.start) is None
    one.close()
