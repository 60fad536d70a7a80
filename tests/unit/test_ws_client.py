"""The RPC client over WebSocket, in both flavours: against peers that say exactly what they are told to."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import struct
import threading
import time
from typing import Any

import pytest

from grenache_py import errors, limits
from tests.harness import eventually
from tests.unit.test_peer import dead, echo, grape_with
from tests.unit.tls_files import make_ca
from tests.ws_flavours import BINARY, CLOSE, NOBODY, PING, PONG, TEXT, AioWs, RawPeer, RawWs, frame


@pytest.fixture
def aio_ws():
    """The flavour whose calls share connections, on a loop that looks after them."""
    made = AioWs()
    yield made
    made.close()


def read_call(peer: RawWs) -> list[Any]:
    """The next request, which must be masked text."""
    call = peer.read()
    if call is None:
        raise EOFError
    assert call[0] == TEXT
    return json.loads(call[1])


def replies(*made):
    """A peer that answers each request with frames, given as functions of its rid."""

    def serve(peer):
        while True:
            rid = read_call(peer)[0]
            for each in made:
                peer.send(each(rid))

    return serve


def says(message, opcode=TEXT):
    """A frame with ``message`` as JSON, with the rid in the place of "rid"."""
    return lambda rid: frame(opcode, json.dumps([rid if part == "rid" else part for part in message]))


def hold(peer):
    while peer.read() is not None:
        pass


# --- what goes out, and what is taken for a reply


def test_what_a_client_sends(ws_flavour):
    calls = []

    def serve(peer):
        calls.append(read_call(peer))
        peer.send(frame(TEXT, json.dumps([calls[0][0], None, "ok"])))
        hold(peer)

    with RawPeer(serve) as peer:
        client = ws_flavour.client()
        assert client.request_to(peer.destination, "rpc_test", {"a": "ž😀"}) == "ok"
        assert calls[0][1:] == ["rpc_test", {"a": "ž😀"}]
        assert len(calls[0][0]) == 36
        head = peer.heads[0]
        assert head[0] == "GET /ws HTTP/1.1"
        names = {line.split(": ")[0].lower() for line in head[1:]} - {"grc-headers"}
        # No extension is offered: a Node server must never be sent a compressed frame.
        assert names == {"host", "upgrade", "connection", "sec-websocket-version", "sec-websocket-key"}
        assert "grc-headers: 1" in head
        assert f"Host: {peer.destination}" in head
        assert len(peer.connections[0].masks) == 1


@pytest.mark.parametrize("size", [0, 100, 125, 126, 2000, 3000, 65535, 65536, 300_000])
def test_requests_of_all_sizes_are_masked(ws_flavour, size):
    def serve(peer):
        rid, _, payload = read_call(peer)
        peer.send(frame(TEXT, json.dumps([rid, None, len(payload)])))
        assert len(peer.masks) == 1
        hold(peer)

    with RawPeer(serve) as peer:
        assert ws_flavour.client().request_to(peer.destination, "k", "x" * size) == size


@pytest.mark.parametrize(
    "made",
    [
        [says(["rid", None, "world"])],
        [says(["rid", None, "world", "more"])],
        [says(["rid", "", "world"])],
        [says(["rid", 0, "world"])],
        [says(["rid", None, "world"], BINARY)],
        # All of these are passed over.
        [says(["another", None, "no"]), says(["rid", None, "world"])],
        [lambda rid: frame(TEXT, b"nonsense"), says(["rid", None, "world"])],
        [lambda rid: frame(TEXT, b'{"rid":1}') + frame(TEXT, b"null"), says(["rid", None, "world"])],
        [says([None, "ERR_REQUEST_PAYLOAD_INVALID", None]), says(["rid", None, "world"])],
        [lambda rid: frame(PONG, b"unasked"), says(["rid", None, "world"])],
        [lambda rid: frame(TEXT, f'["{rid}",nu', first=TEXT), lambda rid: frame(0, b'll,"world"]')],
        [says(["rid", None, "world"]), says(["rid", None, "twice"])],
    ],
)
def test_replies(ws_flavour, made):
    with RawPeer(replies(*made)) as peer:
        client = ws_flavour.client()
        for _ in range(2):
            assert client.request_to(peer.destination, "k", 1) == "world"
        assert len(peer.connections) == 1


@pytest.mark.parametrize(
    ("reply", "message", "result"),
    [
        (["rid", "ERR_X", None], "ERR_X", None),
        (["rid", "ERR_X", {"a": 1}], "ERR_X", {"a": 1}),
        (["rid", {"code": 1}, None], '{"code":1}', None),
        (["rid", True], "true", None),
    ],
)
def test_errors_of_a_handler(ws_flavour, reply, message, result):
    with RawPeer(replies(says(reply))) as peer, pytest.raises(errors.RemoteError) as caught:
        ws_flavour.client().request_to(peer.destination, "k", 1)
    assert (caught.value.message, caught.value.result) == (message, result)
    assert caught.value.destination == peer.destination


def test_a_ping_is_answered(ws_flavour):
    pongs = []

    def serve(peer):
        rid = read_call(peer)[0]
        peer.send(frame(PING, b"hello"))
        pongs.append(peer.read())
        peer.send(frame(TEXT, json.dumps([rid, None, 1])))
        hold(peer)

    with RawPeer(serve) as peer:
        assert ws_flavour.client().request_to(peer.destination, "k", 1) == 1
    assert pongs == [(PONG, b"hello")]


# --- connections


def test_many_calls_share_a_connection_and_may_overtake_each_other(aio_ws):
    def serve(peer):
        calls = [read_call(peer) for _ in range(20)]
        for rid, _, payload in reversed(calls):
            peer.send(frame(TEXT, json.dumps([rid, None, payload])))
        hold(peer)

    with RawPeer(serve) as peer:
        client = aio_ws.client()
        got = {}
        threads = [
            threading.Thread(target=lambda n=n: got.update({n: client.request_to(peer.destination, "k", n)}))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == {n: n for n in range(20)}
        assert len(peer.connections) == 1


def test_a_lost_connection_fails_its_calls_at_once_and_the_next_call_makes_another(ws_flavour):
    for end in ("close frame", "end", "reset", "spoiled"):

        def serve(peer, end=end):
            rid, _, payload = read_call(peer)
            if payload == "fine":
                peer.send(frame(TEXT, json.dumps([rid, None, "fine"])))
                hold(peer)
            elif end == "close frame":
                peer.send(frame(CLOSE, struct.pack(">H", 1001)))
                assert peer.read()[0] == CLOSE
            elif end == "spoiled":
                peer.send(frame(TEXT, b"x", first=0xC1))
                assert peer.read() == (
                    CLOSE,
                    struct.pack(">H", 1002) + b"a frame of an extension that nobody asked for",
                )
            elif end == "reset":
                peer.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()

        with RawPeer(serve) as peer, grape_with(peer) as grape:
            client = ws_flavour.client(ws_flavour.link(grape.url))
            started = time.monotonic()
            with pytest.raises(errors.ConnectionLost) as caught:
                client.request("k", "x", timeout=10)
            assert time.monotonic() - started < 2, end
            assert caught.value.in_doubt
            assert client.request("k", "fine") == "fine"
            assert len(grape.asked) == 2, end  # a peer that hung up is looked up anew


def test_closed_instead_of_answered_right_after_the_handshake(ws_flavour):
    def serve(peer):
        peer.send(frame(CLOSE, struct.pack(">H", 1008)))
        hold(peer)

    with RawPeer(serve) as peer, pytest.raises((errors.ConnectError, errors.ConnectionLost)):
        ws_flavour.client().request_to(peer.destination, "k", 1)


def test_no_connection(ws_flavour):
    client = ws_flavour.client()
    for destination in (dead(), "no-such-host.invalid:1"):
        with pytest.raises(errors.ConnectError) as caught:
            client.request_to(destination, "k", 1)
        assert not caught.value.in_doubt
        assert caught.value.destination == destination


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: wrong\r\n\r\n",
        "nonsense\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n" * 2000,
        "",
    ],
)
def test_what_is_no_websocket_server(ws_flavour, answer):
    def serve(peer):
        peer.head()
        peer.send(answer)
        peer.close()

    with RawPeer(serve, handshake=False) as peer, pytest.raises(errors.ConnectError) as caught:
        ws_flavour.client().request_to(peer.destination, "k", 1)
    assert not caught.value.in_doubt


def test_a_reply_that_is_too_large(ws_flavour, monkeypatch):
    def serve(peer):
        read_call(peer)
        peer.send(b"\x81\x7f" + struct.pack(">Q", limits.BODY_BYTES_MAX + 1))
        hold(peer)

    with RawPeer(serve) as peer, pytest.raises(errors.ReplySizeError) as caught:
        ws_flavour.client().request_to(peer.destination, "k", 1)
    assert caught.value.in_doubt


# --- time limits


def test_a_silent_peer(ws_flavour):
    with RawPeer(hold) as peer:
        client = ws_flavour.client()
        for timeout in (0.2, 0.1):  # without and with a connection
            started = time.monotonic()
            with pytest.raises(errors.RequestTimeout) as caught:
                client.request_to(peer.destination, "k", 1, timeout=timeout)
            assert timeout - 0.01 <= time.monotonic() - started < timeout + 0.5
            assert caught.value.in_doubt
        # What comes too late is passed over, or never read where nobody else reads from the connection.
        assert len(peer.connections) == (1 if ws_flavour.name == "aio" else 2)


def test_a_handshake_that_is_not_answered(ws_flavour):
    with RawPeer(hold, handshake=False) as peer:
        client = ws_flavour.client()
        started = time.monotonic()
        with pytest.raises(errors.ConnectTimeout) as caught:
            client.request_to(peer.destination, "k", 1, timeout=0.2)
        assert 0.19 < time.monotonic() - started < 1
        assert not caught.value.in_doubt


def test_an_impatient_call_takes_nothing_from_the_others(ws_flavour):
    begin, connected = threading.Event(), threading.Event()

    def serve(peer):
        connected.set()
        begin.wait(10)
        replies(says(["rid", None, "world"]))(peer)

    slow_handshake = threading.Event()

    def shake_late(peer):
        slow_handshake.wait(10)
        hold(peer)

    with RawPeer(serve) as peer, RawPeer(shake_late, handshake=False) as mute:
        client = ws_flavour.client()
        got = []
        patient = threading.Thread(
            target=lambda: got.append(client.request_to(peer.destination, "k", 1, timeout=10))
        )
        patient.start()
        assert connected.wait(10)
        with pytest.raises((errors.RequestTimeout, errors.ConnectTimeout)):
            client.request_to(peer.destination, "k", 1, timeout=0.1)
        with pytest.raises(errors.ConnectTimeout):
            client.request_to(mute.destination, "k", 1, timeout=0.1)
        begin.set()
        patient.join(10)
        slow_handshake.set()
        assert got == ["world"]


def test_a_peer_that_reads_nothing(ws_flavour):
    release = threading.Event()
    with RawPeer(lambda peer: release.wait(10)) as peer:
        client = ws_flavour.client()
        big = "x" * 3_000_000
        seen = set()
        for _ in range(limits.WS_CONNECTIONS_PER_DESTINATION + 5):
            started = time.monotonic()
            with pytest.raises(errors.PeerError) as caught:
                client.request_to(peer.destination, "k", big, timeout=0.3)
            assert time.monotonic() - started < 1
            seen.add(type(caught.value))
        if ws_flavour.name == "aio":
            # Further connections are tried; when all are full, nothing more is sent.
            assert len(peer.connections) == limits.WS_CONNECTIONS_PER_DESTINATION
            assert seen == {errors.RequestTimeout, errors.ConnectTimeout}
        else:
            assert seen == {errors.RequestTimeout}
        release.set()


# --- among several peers


def test_requests_by_name_and_broadcasts(ws_flavour):
    services = [ws_flavour.service(echo) for _ in range(3)]
    with grape_with(*services, dead()) as grape:
        client = ws_flavour.client(ws_flavour.link(grape.url))
        assert client.request("k", {"n": 1}, retry=4) == {"key": "k", "payload": {"n": 1}}
        outcomes = client.map("k", [1])
        assert [each.payload for each in outcomes if each.ok] == [{"key": "k", "payload": [1]}] * 3
        assert all(isinstance(each.error, errors.ConnectError) for each in outcomes if not each.ok)


def test_a_peer_that_comes_back_is_found_again(ws_flavour):
    service = ws_flavour.service(echo)
    port = service.port
    with grape_with(service) as grape:
        client = ws_flavour.client(ws_flavour.link(grape.url))
        client.request("k", 1)
        service.stop()
        with pytest.raises((errors.ConnectError, errors.ConnectionLost)):
            client.request("k", 1)
        eventually(lambda: service.listen(port, "127.0.0.1"))
        assert client.request("k", 1)["payload"] == 1


@pytest.mark.parametrize(
    ("arguments", "options", "field"),
    [
        (["", 1], {}, "key"),
        (["k", object()], {}, "payload"),
        (["k", 1], {"compress": True}, "compress"),
        (["k", 1], {"headers": {"a b": "c"}}, "headers"),
        (["k", 1], {"timeout": 0}, "timeout"),
    ],
)
def test_bad_arguments_are_named_and_reach_no_peer(ws_flavour, arguments, options, field):
    with RawPeer(hold) as peer:
        client = ws_flavour.client()
        with pytest.raises(errors.ArgumentError) as caught:
            client.request_to(peer.destination, *arguments, **options)
        assert caught.value.field == field
        assert not peer.connections


def test_streams_exist_only_over_http(ws_flavour):
    client = ws_flavour.client()
    for call in (client.stream, client.stream_to):
        with pytest.raises(errors.ArgumentError) as caught:
            call("k", "k")
        assert caught.value.field == "stream"


def test_a_service_that_drains_is_followed_by_another(ws_flavour):
    held = []
    leaving = ws_flavour.service(lambda rid, key, payload, handler: held.append(handler))
    service = ws_flavour.service(echo)
    with grape_with(leaving, service) as grape:
        link = ws_flavour.link(grape.url)
        client = ws_flavour.client(link)
        port = leaving.port
        # Two connected clients; the second one goes on while the request of the first is awaited.
        first = threading.Thread(target=lambda: client.request_to(f"127.0.0.1:{port}", "k", 1))
        first.start()
        eventually(lambda: held)
        stopper = threading.Thread(target=lambda: leaving.stop(drain=10))
        stopper.start()
        for number in range(8):  # either may be chosen first
            assert client.request("k", number)["payload"] == number
        held[0].reply(None, None)
        first.join(10)
        stopper.join(10)


# --- the end


def test_stopping_fails_what_is_under_way(ws_flavour):
    with RawPeer(hold) as peer, RawPeer(hold, handshake=False) as mute:
        client = ws_flavour.client()
        failed = []

        def call(destination):
            try:
                client.request_to(destination, "k", 1, timeout=10)
            except errors.GrenacheError as error:
                failed.append(type(error))

        threads = [threading.Thread(target=call, args=(each.destination,)) for each in (peer, mute)]
        for thread in threads:
            thread.start()
        eventually(lambda: peer.connections and peer.connections[0].masks and mute.connections)
        client.stop()
        for thread in threads:
            thread.join(10)
        assert failed == [errors.ClosedError] * 2
        with pytest.raises(errors.ClosedError):
            client.request_to(peer.destination, "k", 1)
        client.stop()


def test_a_client_is_polite_when_it_goes(ws_flavour):
    seen = []

    def serve(peer):
        rid = read_call(peer)[0]
        peer.send(frame(TEXT, json.dumps([rid, None, 1])))
        seen.append(peer.read())
        peer.send(frame(*seen[0]))
        peer.close()

    with RawPeer(serve) as peer:
        client = ws_flavour.client()
        client.request_to(peer.destination, "k", 1)
        started = time.monotonic()
        client.stop()
        assert time.monotonic() - started < limits.WS_CLOSE_S
        eventually(lambda: seen)
        assert seen[0] == (CLOSE, struct.pack(">H", 1000) + b"stopped")


def test_idle_connections_are_closed(aio_ws, monkeypatch):
    monkeypatch.setattr(limits, "WS_IDLE_CONNECTION_S", 0.1)
    service = aio_ws.service(echo)
    client = aio_ws.client()
    ended = []

    def serve(peer):
        rid = read_call(peer)[0]
        peer.send(frame(TEXT, json.dumps([rid, None, 1])))
        ended.append(peer.read())
        peer.close()

    with RawPeer(serve) as peer:
        for _ in range(2):
            assert client.request_to(peer.destination, "k", 1) == 1
            eventually(lambda: ended and ended.pop()[0] == CLOSE)
        assert len(peer.connections) == 2
    assert client.request_to(f"127.0.0.1:{service.port}", "k", 1)["payload"] == 1


def test_connections_have_an_upper_bound(ws_flavour, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 2)
    services = [ws_flavour.service(echo) for _ in range(4)]
    client = ws_flavour.client()
    for _ in range(2):
        for service in services:  # unused ones give way
            assert client.request_to(f"127.0.0.1:{service.port}", "k", 1)["payload"] == 1

    def wait_in_vain(peer):
        with pytest.raises(errors.RequestTimeout):
            client.request_to(peer.destination, "k", 1, timeout=1)

    with RawPeer(hold) as one, RawPeer(hold) as two:
        threads = [threading.Thread(target=wait_in_vain, args=(peer,)) for peer in (one, two)]
        for thread in threads:
            thread.start()
        eventually(lambda: all(each.connections and each.connections[0].masks for each in (one, two)))
        with pytest.raises(errors.ConnectError, match="connections are in use"):
            client.request_to(f"127.0.0.1:{services[0].port}", "k", 1)
        for thread in threads:
            thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_gets_connections_of_its_own():
    from grenache_py import Link, ws

    with Link(NOBODY) as link:
        service = ws.PeerRPCServer(link).transport()
        service.on("request", echo)
        service.listen(0, "127.0.0.1")
        client = ws.PeerRPCClient(link)
        destination = f"127.0.0.1:{service.port}"
        assert client.request_to(destination, "k", 1)["payload"] == 1
        child = os.fork()
        if not child:
            status = 1
            try:
                status = int(client.request_to(destination, "k", 2)["payload"] != 2)
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.request_to(destination, "k", 3)["payload"] == 3


# --- TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return make_ca(tmp_path_factory.mktemp("tls"))


def server_context(tls, verify=ssl.CERT_NONE):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca_file)
    context.load_cert_chain(tls.server_cert, tls.server_key)
    context.verify_mode = verify
    return context


def client_context(tls, with_certificate=True):
    context = ssl.create_default_context(cafile=tls.ca_file)
    if with_certificate:
        context.load_cert_chain(tls.client_cert, tls.client_key)
    return context


def test_wss_with_a_client_certificate(ws_flavour, tls):
    seen = []

    def verify(visitor):
        seen.append(visitor.certificate)
        return True

    def handle(rid, key, payload, handler):
        seen.append(handler.certificate)
        handler.reply(None, payload)

    service = ws_flavour.service(handle, ssl=server_context(tls, ssl.CERT_REQUIRED), verify_client=verify)
    client = ws_flavour.client(ssl=client_context(tls))
    destination = f"127.0.0.1:{service.port}"
    for payload in (1, "x" * 300_000):
        assert client.request_to(destination, "k", payload) == payload
    assert seen == [seen[0]] * 3  # of one connection and two requests
    assert seen[0].common_name == "client"
    assert ssl.DER_cert_to_PEM_cert(seen[0].der).strip() in tls.client_cert.read_text().strip()


def test_authorize_says_who_is_let_in(ws_flavour, tls):
    der = ssl.PEM_cert_to_DER_cert(tls.client_cert.read_text())
    known = hashlib.sha256(der).hexdigest()
    for allowed, welcome in ([known], True), (["00" * 32], False), (lambda certificate: 1 / 0, False):
        context = server_context(tls, ssl.CERT_REQUIRED)
        service = ws_flavour.service(echo, ssl=context, authorize=allowed)
        client = ws_flavour.client(ssl=client_context(tls))
        if welcome:
            assert client.request_to(f"127.0.0.1:{service.port}", "k", 1)["payload"] == 1
        else:
            with pytest.raises((errors.ConnectError, errors.ConnectionLost)):
                client.request_to(f"127.0.0.1:{service.port}", "k", 1)
    with pytest.raises(errors.ArgumentError):
        ws_flavour.server(ws_flavour.link(), authorize=[known])


def test_wss_without_what_is_asked_for(ws_flavour, tls):
    service = ws_flavour.service(echo, ssl=server_context(tls, ssl.CERT_REQUIRED))
    destination = f"127.0.0.1:{service.port}"
    for context in (client_context(tls, False), ssl.create_default_context(), None):
        with pytest.raises(errors.ConnectError):
            ws_flavour.client(ssl=context).request_to(destination, "k", 1, timeout=5)
    # And a TLS client at a server without.
    plain = ws_flavour.service(echo)
    with pytest.raises(errors.ConnectError):
        ws_flavour.client(ssl=client_context(tls)).request_to(f"127.0.0.1:{plain.port}", "k", 1, timeout=0.5)
    assert ws_flavour.client(ssl=client_context(tls)).request_to(destination, "k", 1)["payload"] == 1


def test_verify_client_sees_that_there_is_no_certificate(ws_flavour, tls):
    service = ws_flavour.service(
        echo,
        ssl=server_context(tls, ssl.CERT_OPTIONAL),
        verify_client=lambda visitor: visitor.certificate is not None,
    )
    destination = f"127.0.0.1:{service.port}"
    with pytest.raises((errors.ConnectionLost, errors.ConnectError)):
        ws_flavour.client(ssl=client_context(tls, False)).request_to(destination, "k", 1)
    assert ws_flavour.client(ssl=client_context(tls)).request_to(destination, "k", 1)["payload"] == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_sessions_are_used_again(ws_flavour, tls, version, monkeypatch):
    monkeypatch.setattr(limits, "WS_CLOSE_S", 0.1)  # the synchronous client does not read while it is idle
    context = server_context(tls, ssl.CERT_REQUIRED)
    context.minimum_version = context.maximum_version = version
    service = ws_flavour.service(lambda rid, key, payload, handler: handler.reply(None, payload), ssl=context)
    port = service.port
    client = ws_flavour.client(ssl=client_context(tls))
    for number in range(4):
        assert client.request_to(f"127.0.0.1:{port}", "k", number) == number
        service.stop()
        service.listen(port, "127.0.0.1")
    stats = context.session_stats()
    assert (stats["accept_good"], stats["hits"]) == (4, 3)
