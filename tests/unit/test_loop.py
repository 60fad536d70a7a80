"""The loop thread that synchronous services share."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from grenache_py.transports.loop import LoopThread
from tests.harness import eventually
from tests.unit.test_rpc_server import node_like, post


def loop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "grenache-loop"]


async def current_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_it_is_shared_and_ends_with_its_last_borrower():
    assert loop_threads() == []
    one, two = LoopThread.borrow(), LoopThread.borrow()
    assert one is two
    assert one.run(current_loop()) is one.loop
    assert len(loop_threads()) == 1
    LoopThread.give_back()
    assert one.run(current_loop()) is one.loop
    LoopThread.give_back()
    assert loop_threads() == []
    assert one.loop.is_closed()
    fresh = LoopThread.borrow()
    assert fresh is not one
    LoopThread.give_back()


def test_what_a_coroutine_raises_comes_out():
    async def fail() -> None:
        raise KeyError("inside")

    thread = LoopThread.borrow()
    try:
        with pytest.raises(KeyError):
            thread.run(fail())
    finally:
        LoopThread.give_back()


def test_services_share_it_and_leave_nothing_behind():
    from tests.flavours import Sync

    flavour = Sync()
    services = [flavour.service(node_like) for _ in range(3)]
    assert len(loop_threads()) == 1
    for service in services:
        assert post(service, '["r","k",1]')[0] == 200
    flavour.close()
    assert loop_threads() == []
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("grenache-")])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # Python 3.12 warns of forks with threads: that is the test
def test_a_forked_child_starts_its_own():
    LoopThread.borrow()
    try:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                thread = LoopThread.borrow()
                if thread.run(current_loop()) is thread.loop:
                    LoopThread.give_back()
                    status = 0
            finally:
                os._exit(status)
        deadline = time.monotonic() + 10
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                pytest.fail("the child hangs")
            time.sleep(0.01)
        assert os.waitstatus_to_exitcode(done[1]) == 0
    finally:
        LoopThread.give_back()
