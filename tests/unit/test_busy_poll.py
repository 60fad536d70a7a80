"""A loop that stays awake while it expects a message: on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

import pytest

from grenache_py import limits
from grenache_py.aio import ws
from grenache_py.errors import ArgumentError
from grenache_py.transports import poll_budget
from grenache_py.transports.busy_poll import BusyPoll, busy_poll
from grenache_py.transports.poll_budget import PollBudget
from grenache_py.transports.ws import all_gone
from grenache_py.transports.ws_client import connect
from grenache_py.transports.ws_server import WsServer
from tests.unit.polls import set_processors, still_poll

WINDOW_S = 50e-6
TURN_S = 1e-6


class Loop:
    """What a loop does with ``call_soon``, and what the clock says; ``others_s`` is how long those run to
    whom the processor is given.
    """

    def __init__(self):
        self.now = 1000.0
        self.others_s = 0.0
        self.crowded = False
        self.ready: list[Any] = []
        self.poll = BusyPoll(
            self.ready.append,
            WINDOW_S,
            clock=lambda: self.now,
            give_way=self._give_way,
            budget=PollBudget(lambda: self.crowded),
        )

    def _give_way(self):
        self.now += self.others_s

    def turn(self):
        """One turn; returns whether there was anything to do, so that the loop did not sleep."""
        ready, self.ready[:] = list(self.ready), []
        for function in ready:
            function()
        self.now += TURN_S
        return bool(ready)

    def stays_awake_s(self):
        started = self.now
        while self.turn():
            pass
        return self.now - started

    def is_disturbed(self):
        """Gives way once while a message is expected; returns whether it polls on."""
        self.poll.expect()
        self.turn()
        self.turn()
        self.poll.came()
        return self.turn()

    def polls(self):
        """Whether it stays awake for a message, which comes at once then."""
        self.poll.expect()
        self.poll.came()
        return self.turn()


def test_it_stays_awake_until_the_message_has_come():
    loop = Loop()
    loop.poll.expect()
    for _ in range(10):
        assert loop.turn()
    loop.poll.came()
    assert loop.turn()
    assert not loop.turn()


def test_it_does_not_stay_awake_for_longer_than_it_was_told():
    loop = Loop()
    loop.poll.expect()
    assert WINDOW_S <= loop.stays_awake_s() <= WINDOW_S + 3 * TURN_S


def test_a_message_that_comes_while_the_next_one_is_expected_does_not_end_it():
    loop = Loop()
    for _ in range(100):
        loop.poll.expect()
        assert len(loop.ready) == 1  # one turn is under way, however many are expected
        assert loop.turn()
        assert loop.turn()
        loop.poll.came()
    assert loop.polls()


def test_a_loop_that_never_waits_is_not_kept_awake():
    loop, gave_way = Loop(), []
    loop.poll._give_way = lambda: gave_way.append(loop.now)
    loop.poll.expect()
    while loop.turn():
        loop.poll.came()
        loop.poll.expect()
    assert loop.now < 1000 + 20 * TURN_S
    assert not gave_way
    assert not loop.polls()
    loop.now += 0.0051
    assert loop.polls()


def test_as_many_messages_are_waited_for_as_are_expected():
    loop = Loop()
    for _ in range(3):
        loop.poll.expect()
    for _ in range(2):
        # Each is waited for as long as the first one.
        for _ in range(int(WINDOW_S / TURN_S / 2) + 1):
            assert loop.turn()
        loop.poll.came()
    assert WINDOW_S <= loop.stays_awake_s() <= WINDOW_S + 3 * TURN_S
    # What has not come by then is not expected any more.
    loop.poll.came()
    assert not loop.turn()
    assert loop.polls()
    assert not loop.turn()


def awake_share(loop, seconds, every_s):
    """Which part of some seconds it does not sleep, when what it expects never comes in time."""
    awake_s, ends = 0.0, loop.now + seconds
    while loop.now < ends:
        loop.poll.expect()
        awake_s += loop.stays_awake_s()
        loop.poll.came()
        loop.now += every_s
    return awake_s / seconds


@pytest.mark.parametrize("every_s", [0.0001, 0.001, 0.01, 1.0])
def test_where_nothing_comes_in_time_it_hardly_stays_awake(every_s):
    assert awake_share(Loop(), 60, every_s) < 0.02


def test_where_others_want_the_processor_it_leaves_it_to_them():
    loop, waited_s = Loop(), 0.0
    loop.others_s = 0.003
    ends = loop.now + 60
    while loop.now < ends:
        loop.poll.expect()
        waited_s += loop.stays_awake_s()
        loop.poll.came()
        loop.now += 0.0001
    assert waited_s / 60 < 0.02


def test_it_does_not_begin_while_many_more_want_to_run_than_there_are_processors():
    loop = Loop()
    loop.crowded = True
    for _ in range(3):
        loop.now += 0.101
        assert not loop.polls()
    loop.crowded = False
    assert not loop.polls()  # it does not ask each time
    loop.now += 0.101
    assert loop.polls()


def test_whether_it_is_crowded(monkeypatch, tmp_path):
    assert poll_budget.crowded() in (True, False)
    said = tmp_path / "loadavg"
    monkeypatch.setattr("builtins.open", lambda path, real=open: real(said))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for text, crowded in (("0.1 0.2 0.3 3/99 7", False), ("0.1 0.2 0.3 4/99 7", True), ("", False)):
        said.write_text(text)
        assert poll_budget.crowded() is crowded
    said.unlink()
    assert poll_budget.crowded() is False


def test_the_other_end_may_be_on_the_same_core():
    loop = Loop()
    loop.others_s = 90e-6
    started = loop.now
    while loop.now < started + 1:
        assert loop.is_disturbed()


def test_others_may_come_between_for_a_while():
    loop = Loop()
    loop.others_s = 110e-6
    started = loop.now
    while loop.is_disturbed():
        assert loop.now < started + 1
    assert 0.01 < loop.now - started < 0.02


@pytest.mark.parametrize(("others_s", "rests_s"), [(110e-6, [0.02, 0.04, 0.08]), (0.02, [0.1, 0.2, 0.4])])
def test_it_begins_again_after_a_rest_and_rests_shortly_after_a_long_calm(others_s, rests_s):
    loop = Loop()

    def disturb():
        """Others come until it rests."""
        loop.others_s = others_s
        while loop.is_disturbed():
            pass
        loop.others_s = 0.0

    def rest_s():
        started = loop.now
        while not loop.polls():
            loop.now += 0.001
        return loop.now - started

    for expected_s in rests_s:
        disturb()
        assert rest_s() == pytest.approx(expected_s, abs=0.002)
    for _ in range(10):
        disturb()
        longest_s = rest_s()
    assert longest_s == pytest.approx(2.0, abs=0.002)
    loop.now += 30
    disturb()
    assert rest_s() == pytest.approx(rests_s[0], abs=0.002)


def test_what_cannot_win_does_not_poll(monkeypatch):
    loop = asyncio.new_event_loop()
    try:
        set_processors(monkeypatch, 2)
        if hasattr(os, "sched_yield"):
            assert busy_poll(loop, limits.BUSY_POLL_US) is not None
        assert busy_poll(loop, 0) is None
        set_processors(monkeypatch, 1)
        assert busy_poll(loop, limits.BUSY_POLL_US) is None
        set_processors(monkeypatch, 2)
        monkeypatch.delattr(os, "sched_yield", raising=False)
        assert busy_poll(loop, limits.BUSY_POLL_US) is None
    finally:
        loop.close()


@pytest.mark.parametrize("wrong", [-1, limits.BUSY_POLL_US_MAX + 1, float("nan"), True, "50", None])
def test_microseconds_that_are_none(wrong):
    for made in (ws.PeerRPCClient, ws.PeerRPCServer):
        with pytest.raises(ArgumentError, match="busy_poll_us: must be a number of microseconds"):
            made(cast("Any", None), busy_poll_us=wrong)


async def test_an_answer_is_expected_by_who_has_sent_nothing_else():
    def greet(channel, visitor):
        channel.on_message = lambda opcode, content: channel.send(content, alone=True)

    server = WsServer(greet, max_message=1000)
    await server.listen(0, "127.0.0.1")
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    poll = still_poll()
    channel = await connect(f"127.0.0.1:{server.port}", max_message=1000, poll=poll)
    channel.on_message = lambda opcode, content: answers.put_nowait(content)
    channel.send(b"one", alone=True)
    assert poll.expected == 1
    assert await answers.get() == b"one"
    assert poll.expected == 0
    for each in (b"two", b"three"):
        channel.send(each)
        assert poll.expected == 0
    assert [await answers.get(), await answers.get()] == [b"two", b"three"]
    await all_gone([channel])
    await server.close()
