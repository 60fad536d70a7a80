"""The synchronous WebSocket client's own: a connection for each call under way, kept for later ones."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
import time
from typing import Any

import pytest

from grenache_py import errors, limits
from grenache_py.transports.sync_socket import TimedSocket
from tests.harness import eventually
from tests.unit.test_peer import echo
from tests.unit.test_ws_client import hold, read_call, replies, says
from tests.ws_flavours import CLOSE, PING, PONG, TEXT, RawPeer, SyncWs, frame


@pytest.fixture
def sync_ws():
    made = SyncWs()
    yield made
    made.close()


def test_calls_under_way_have_connections_of_their_own_which_later_ones_use(sync_ws):
    under_way = threading.Barrier(5)

    def serve(peer):
        while True:
            rid = read_call(peer)[0]
            under_way.wait(10)
            peer.send(frame(TEXT, json.dumps([rid, None, "ok"])))

    with RawPeer(serve) as peer:
        client = sync_ws.client()
        for _ in range(3):
            got: list[Any] = []
            threads = [
                threading.Thread(
                    target=lambda got=got: got.append(client.request_to(peer.destination, "k", 1))
                )
                for _ in range(5)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert got == ["ok"] * 5
        assert len(peer.connections) == 5


@pytest.mark.parametrize("last_words", [frame(PING, b"?"), frame(CLOSE, struct.pack(">H", 1001)), b""])
def test_a_connection_on_which_something_came_is_not_used_again(sync_ws, last_words):
    def serve(peer):
        rid = read_call(peer)[0]
        peer.send(frame(TEXT, json.dumps([rid, None, len(peers.connections)])))
        hold(peer)

    with RawPeer(serve) as peers:
        client = sync_ws.client()
        assert client.request_to(peers.destination, "k", 1) == 1
        first = peers.connections[0]
        if last_words:
            first.send(last_words)
        else:
            first.conn.shutdown(socket.SHUT_WR)
        eventually(lambda: not idle(client))
        assert client.request_to(peers.destination, "k", 1) == 2


def idle(client):
    (conns,) = client._transport._idle.values()
    return conns[0].is_idle()


def test_idle_connections_leave_when_another_is_opened(sync_ws, monkeypatch):
    monkeypatch.setattr(limits, "WS_IDLE_CONNECTION_SYNC_S", 0.0)
    ended = []

    def serve(peer):
        rid = read_call(peer)[0]
        peer.send(frame(TEXT, json.dumps([rid, None, 1])))
        ended.append(peer.read())

    service = sync_ws.service(echo)
    with RawPeer(serve) as peer:
        client = sync_ws.client()
        assert client.request_to(peer.destination, "k", 1) == 1
        client.request_to(f"127.0.0.1:{service.port}", "k", 1)
        eventually(lambda: ended)
        assert ended == [(CLOSE, struct.pack(">H", 1000))]
        assert len(client._transport._open) == client._transport._idle_count == 1


def test_a_ping_amid_the_frames_of_a_reply(sync_ws):
    def serve(peer):
        rid = read_call(peer)[0]
        peer.send(frame(TEXT, f'["{rid}",null,', first=TEXT))
        peer.send(frame(PING, b"x"))
        assert peer.read() == (PONG, b"x")
        peer.send(frame(0, b"[1,2]]"))
        hold(peer)

    with RawPeer(serve) as peer:
        assert sync_ws.client().request_to(peer.destination, "k", 1) == [1, 2]


def test_large_replies_in_small_pieces(sync_ws):
    text = "x" * 500_000

    def serve(peer):
        rid = read_call(peer)[0]
        reply = frame(TEXT, json.dumps([rid, None, text]))
        for at in range(0, len(reply), 7000):
            peer.send(reply[at : at + 7000])
        hold(peer)

    with RawPeer(serve) as peer:
        assert sync_ws.client().request_to(peer.destination, "k", text) == text


def test_a_masked_reply_breaks_the_protocol(sync_ws):
    seen = []

    def serve(peer):
        rid = read_call(peer)[0]
        peer.send(frame(TEXT, json.dumps([rid, None, 1]), masked=True))
        seen.append(peer.read())

    with RawPeer(serve) as peer:
        with pytest.raises(errors.ConnectionLost) as caught:
            sync_ws.client().request_to(peer.destination, "k", 1)
        assert caught.value.in_doubt
        eventually(lambda: seen)
        assert seen[0] == (CLOSE, struct.pack(">H", 1002) + b"a masked frame from a server")


def test_a_reply_right_behind_the_handshake_is_nobodys(sync_ws):
    def serve(peer):
        peer.send(frame(TEXT, '["another",null,0]'))
        replies(says(["rid", None, "mine"]))(peer)

    with RawPeer(serve) as peer:
        assert sync_ws.client().request_to(peer.destination, "k", 1) == "mine"


@pytest.mark.parametrize("busy_poll_us", [0, 1000])
def test_an_interrupted_call_takes_its_connection_with_it(sync_ws, busy_poll_us):
    """Also when half of its reply has come: the next call is not answered with what is left of it."""

    def serve(peer):
        rid, _, payload = read_call(peer)
        reply = frame(TEXT, json.dumps([rid, None, payload]))
        if payload == "first":
            peer.send(reply[:10])
            os.kill(os.getpid(), signal.SIGINT)
            hold(peer)  # until the client has gone
            gone.set()
        else:
            peer.send(reply)
            hold(peer)

    gone = threading.Event()
    with RawPeer(serve) as peer:
        client = sync_ws.client(busy_poll_us=busy_poll_us)
        with pytest.raises(KeyboardInterrupt):
            client.request_to(peer.destination, "k", "first")
        assert gone.wait(10)
        assert client.request_to(peer.destination, "k", "second") == "second"
        assert len(peer.connections) == 2
        assert len(client._transport._open) == client._transport._idle_count == 1


def test_a_reply_that_comes_too_late_is_nobodys(sync_ws):
    late = threading.Event()

    def serve(peer):
        rid, _, payload = read_call(peer)
        if payload == "first":
            assert late.wait(10)
        peer.send(frame(TEXT, json.dumps([rid, None, payload])))
        hold(peer)

    with RawPeer(serve) as peer:
        client = sync_ws.client()
        with pytest.raises(errors.RequestTimeout):
            client.request_to(peer.destination, "k", "first", timeout=0.1)
        late.set()
        assert client.request_to(peer.destination, "k", "second") == "second"


def test_limits_of_all_sizes_are_taken_by_the_kernel():
    one, other = socket.socketpair()
    with one, other:
        timed = TimedSocket(one)
        for seconds in (1e-7, 0.001, 0.9999999, 1.0, 1.9999995, 10.0, 86400.0):
            timed.send(b"x", time.monotonic() + seconds + 0.5)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            timed.receive(1, started + 0.05)
        assert 0.04 < time.monotonic() - started < 0.5
        assert timed.is_idle()
        other.send(b"y")
        eventually(lambda: not timed.is_idle())
        assert timed.receive(1, time.monotonic() + 1) == b"y"
