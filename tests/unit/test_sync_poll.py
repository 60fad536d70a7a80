"""A thread that looks for a reply before it sleeps: on a clock that only the test moves."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any, cast

import pytest

from grenache_py import ws
from grenache_py.errors import ArgumentError, ConnectionLost
from grenache_py.limits import BUSY_POLL_US_MAX
from grenache_py.transports.poll_budget import PollBudget
from grenache_py.transports.sync_poll import SyncPoll, sync_poll
from tests.unit.polls import set_processors
from tests.unit.test_ws_client import hold, read_call
from tests.ws_flavours import TEXT, RawPeer, SyncWs, frame

WINDOW_S = 50e-6
LOOK_S = 1e-6


class Machine:
    """What the clock says; ``others_s`` is how long those run to whom the processor is given."""

    def __init__(self):
        self.now = 1000.0
        self.others_s = 0.0
        self.looks = 0
        self.poll = SyncPoll(
            WINDOW_S,
            clock=lambda: self.now,
            give_way=self._give_way,
            budget=PollBudget(lambda: False),
        )

    def _give_way(self):
        self.now += self.others_s

    def find(self, after=None):
        """The look that finds something; ``None`` when that is not among those that were made."""
        self.looks = 0

        def look():
            self.now += LOOK_S
            self.looks += 1
            return self.looks if after is not None and self.looks > after else None

        return self.poll.find(look)


def test_it_finds_what_comes_within_the_window():
    machine = Machine()
    for after in range(40):
        assert machine.find(after) == after + 1


def test_it_looks_no_longer_than_it_was_told():
    machine = Machine()
    assert machine.find() is None
    assert machine.now == pytest.approx(1000.0 + WINDOW_S, abs=2 * LOOK_S)


def test_what_is_found_may_be_the_end_and_what_is_raised_comes_out():
    machine = Machine()
    assert machine.poll.find(lambda: b"") == b""
    with pytest.raises(ConnectionResetError):
        machine.poll.find(lambda: (_ for _ in ()).throw(ConnectionResetError()))


@pytest.mark.parametrize("every_s", [0.0001, 0.01])
def test_where_nothing_comes_in_time_it_hardly_looks(every_s):
    machine, looked_s = Machine(), 0.0
    while machine.now < 1060:
        started = machine.now
        machine.find()
        looked_s += machine.now - started
        machine.now += every_s
    assert looked_s / 60 < 0.02


def test_while_other_threads_have_the_interpreter_it_rests():
    machine = Machine()
    machine.others_s = 0.005
    assert machine.find() is None
    machine.others_s = 0.0
    assert machine.find(0) is None
    assert machine.looks == 0
    machine.now += 0.101
    assert machine.find(0) == 1


def test_what_cannot_win_does_not_look(monkeypatch):
    set_processors(monkeypatch, 1)
    assert sync_poll(50) is None
    set_processors(monkeypatch, 2)
    assert sync_poll(0) is None
    with pytest.raises(ArgumentError, match="busy_poll_us: must be a number of microseconds"):
        ws.PeerRPCClient(cast("Any", None), busy_poll_us=BUSY_POLL_US_MAX + 1)


class Eager:
    """Looks until there is something, and says so."""

    def __init__(self):
        self.finds = 0

    def find(self, look):
        self.finds += 1
        ends = time.monotonic() + 10
        while (found := look()) is None and time.monotonic() < ends:
            pass
        return found


@pytest.fixture
def sync_ws():
    made = SyncWs()
    yield made
    made.close()


def eager_client(sync_ws):
    client = sync_ws.client()
    client._transport._poll = Eager()
    return client, client._transport._poll


def test_a_reply_in_pieces_of_which_only_the_first_is_found(sync_ws):
    def serve(peer):
        while True:
            rid, _, payload = read_call(peer)
            reply = frame(TEXT, json.dumps([rid, None, payload]))
            peer.send(reply[:3])
            peer.send(reply[3:])

    with RawPeer(serve) as peer:
        client, eager = eager_client(sync_ws)
        for number in range(20):
            assert client.request_to(peer.destination, "k", number) == number
        assert eager.finds == 20


def test_an_end_that_is_found_loses_the_call(sync_ws):
    def serve(peer):
        read_call(peer)
        peer.conn.shutdown(socket.SHUT_WR)

    with RawPeer(serve) as peer:
        client, _ = eager_client(sync_ws)
        with pytest.raises(ConnectionLost) as caught:
            client.request_to(peer.destination, "k", 1)
        assert caught.value.in_doubt


def test_only_a_call_that_is_the_only_one_looks(sync_ws):
    first_asked, go_on = threading.Event(), threading.Event()

    def serve(peer):
        while True:
            rid, _, payload = read_call(peer)
            if payload == "first":
                first_asked.set()
                go_on.wait(10)
            peer.send(frame(TEXT, json.dumps([rid, None, payload])))
            if payload == "last":
                hold(peer)

    with RawPeer(serve) as peer:
        client, eager = eager_client(sync_ws)
        client._transport._poll, eager = None, eager
        first = threading.Thread(target=client.request_to, args=(peer.destination, "k", "first"))
        first.start()
        assert first_asked.wait(10)
        client._transport._poll = eager
        assert client.request_to(peer.destination, "k", "second") == "second"
        assert eager.finds == 0
        go_on.set()
        first.join()
        for number in range(3):
            client.request_to(peer.destination, "k", "last" if number == 2 else number)
        assert eager.finds == 3
