"""Publishers and subscribers over WebSocket, in both flavours."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
from functools import partial
from typing import Any

import pytest

from grenache_py import errors, limits, tls
from grenache_py.transports.ws_pubsub import Subscriber
from tests.harness import eventually
from tests.scripted import ScriptedServer, reply
from tests.unit.test_peer import dead, grape_with
from tests.unit.tls_files import make_ca
from tests.ws_flavours import BINARY, CLOSE, TEXT, RawPeer, frame, raw_client


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Reconnecting without long pauses."""
    monkeypatch.setattr(limits, "SUB_RECONNECT_S", 0.05)


class Heard:
    """What a subscriber told its listeners."""

    def __init__(self, subscriber):
        self.messages: list[object] = []
        self.connected: list[str] = []
        self.disconnected: list[str] = []
        subscriber.on("message", lambda message, destination: self.messages.append(message))
        subscriber.on("connected", self.connected.append)
        subscriber.on("disconnected", self.disconnected.append)


class Grape:
    """A scripted Grape whose list of publishers can be changed."""

    def __init__(self, *ports):
        self.ports = list(ports)
        self.server = ScriptedServer(
            [lambda asked: reply(json.dumps([f"127.0.0.1:{p}" for p in self.ports]))]
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.server.close()

    @property
    def url(self):
        return self.server.url


def place(service) -> str:
    return f"127.0.0.1:{service.port}"


def test_messages_reach_all_subscribers_as_they_are(ws_flavour):
    service = ws_flavour.publisher()
    with grape_with(service) as grape:
        link = ws_flavour.link(grape.url)
        subscribers = [ws_flavour.subscriber(link) for _ in range(3)]
        heard = [Heard(subscriber) for subscriber in subscribers]
        assert [subscriber.sub("news") for subscriber in subscribers] == [1] * 3
        eventually(lambda: service.subscribers == 3)
        messages = ["text ž", "", b"\x00\xff", b"", "x" * 100_000, '{"a":1}']
        for message in messages:
            assert service.pub(message) == 3
        assert service.pub(bytearray(b"ab")) == 3
        eventually(lambda: all(len(each.messages) == 7 for each in heard))
        for each in heard:
            assert each.messages == [*messages, b"ab"]
            assert each.connected == [place(service)]


@pytest.mark.parametrize("message", [None, 5, {"a": 1}, "\ud800", b"x" * (limits.BODY_BYTES_MAX + 1)])
def test_what_cannot_be_published(ws_flavour, message):
    service = ws_flavour.publisher()
    with pytest.raises(errors.ArgumentError) as caught:
        service.pub(message)
    assert caught.value.field == "message"


def test_frames_of_a_publisher_are_node_s(ws_flavour):
    service = ws_flavour.publisher()
    with raw_client(service.port) as raw:
        eventually(lambda: service.subscribers == 1)
        raw.send(frame(TEXT, "what subscribers say is not listened to", masked=True))
        for message, expected in (("text", (TEXT, b"text")), (b"\x00\x01", (BINARY, b"\x00\x01"))):
            service.pub(message)
            assert raw.read() == expected


def test_all_publishers_are_reached_and_new_ones_found(ws_flavour):
    services = [ws_flavour.publisher() for _ in range(3)]
    with Grape(*[service.port for service in services[:2]]) as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url), interval=0.1)
        heard = Heard(subscriber)
        assert subscriber.sub("news") == 2
        grape.ports.append(services[2].port)
        eventually(lambda: len(heard.connected) == 3)
        for number, service in enumerate(services):
            service.pub(str(number))
        eventually(lambda: len(heard.messages) == 3)
        assert set(heard.messages) == {"0", "1", "2"}
        # Who is announced no more but is still there stays connected.
        grape.ports.remove(services[0].port)
        asked = len(grape.server.asked)
        eventually(lambda: len(grape.server.asked) > asked + 2)
        services[0].pub("still")
        eventually(lambda: heard.messages[-1] == "still")
        assert heard.disconnected == []


def test_nobody_publishes_yet_and_the_grape_is_away(ws_flavour):
    service = ws_flavour.publisher()
    with Grape() as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url), interval=0.1)
        heard = Heard(subscriber)
        assert subscriber.sub("news") == 0
        grape.ports.append(service.port)
        eventually(lambda: heard.connected)
    # Without the Grape everything stays as it is.
    service.pub("on")
    eventually(lambda: heard.messages == ["on"])
    lost = ws_flavour.subscriber(ws_flavour.link(f"http://{dead()}"), interval=0.1)
    assert lost.sub("news") == 0


def test_a_lost_publisher_is_come_back_to(ws_flavour):
    service = ws_flavour.publisher()
    port = service.port
    with grape_with(service) as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url), interval=60)
        heard = Heard(subscriber)
        assert subscriber.sub("news") == 1
        for number in range(2):
            service.stop()
            eventually(lambda: len(heard.disconnected) == number + 1)  # noqa: B023
            service.listen(port, "127.0.0.1")
            eventually(lambda: service.subscribers == 1)
            service.pub(f"back {number}")
            eventually(lambda: heard.messages[-1:] == [f"back {number}"])  # noqa: B023
        assert len(heard.connected) == 3


@pytest.mark.parametrize(
    "error", [errors.ClosedError("the link is stopped"), errors.GrapeError("http://g", "away")]
)
async def test_a_link_that_stops_while_it_is_asked_is_nothing_to_warn_of(caplog, error):
    async def lookup(name):
        raise error

    async def deliver(events):
        raise AssertionError(events)

    subscriber = Subscriber(lookup, deliver, ssl=None, interval_s=60)
    assert await subscriber.follow("news") == 0
    await subscriber.close()
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert bool(warned) is not isinstance(error, errors.ClosedError)


def test_a_publisher_that_moved_is_found(ws_flavour):
    first, second = ws_flavour.publisher(), ws_flavour.publisher()
    with Grape(first.port) as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url), interval=60)
        heard = Heard(subscriber)
        assert subscriber.sub("news") == 1
        grape.ports[:] = [second.port]
        first.stop()  # a loss makes it look up anew, long before its time
        eventually(lambda: place(second) in heard.connected)


def test_dead_publishers_do_not_hold_up_the_others(ws_flavour):
    service = ws_flavour.publisher()

    def slam(peer):
        peer.close()

    with RawPeer(slam, handshake=False) as rude, grape_with(service, dead(), rude) as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url), interval=0.1)
        heard = Heard(subscriber)
        assert subscriber.sub("news") == 1
        eventually(lambda: len(rude.connections) > 2)
        assert heard.connected == [place(service)]


def test_spoiled_frames_end_one_connection_only(ws_flavour):
    service = ws_flavour.publisher()

    def serve(peer):
        peer.send(frame(TEXT, b"good") + frame(TEXT, b"\xff"))
        assert peer.read()[0] == CLOSE

    with RawPeer(serve) as odd, grape_with(service, odd) as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url), interval=60)
        heard = Heard(subscriber)
        subscriber.sub("news")
        eventually(lambda: heard.disconnected)
        service.pub("here")
        eventually(lambda: {"good", "here"} <= set(heard.messages))


def test_messages_that_come_with_the_handshake_are_not_lost(ws_flavour):
    def serve(peer):
        head = peer.head()
        from tests.ws_flavours import accept_key

        key = next(line.split(": ")[1] for line in head if line.startswith("Sec-WebSocket-Key"))
        peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n" + frame(TEXT, "early")
        )
        peer.read()

    with RawPeer(serve, handshake=False) as peer, grape_with(peer) as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url))
        heard = Heard(subscriber)
        subscriber.sub("news")
        eventually(lambda: heard.messages == ["early"])


def test_unsubscribing_and_stopping(ws_flavour):
    one, two = ws_flavour.publisher(), ws_flavour.publisher()
    with grape_with(one, two) as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url))
        heard = Heard(subscriber)
        assert subscriber.sub("a") == 2
        assert subscriber.sub("a") == 2  # changes nothing
        eventually(lambda: (one.subscribers, two.subscribers) == (1, 1))
        assert subscriber.unsub("a") is True
        assert subscriber.unsub("a") is False
        eventually(lambda: (one.subscribers, two.subscribers) == (0, 0))
        eventually(lambda: len(heard.disconnected) == 2)
        assert subscriber.sub("a") == 2
        subscriber.stop()
        eventually(lambda: (one.subscribers, two.subscribers) == (0, 0))
        with pytest.raises(errors.ClosedError):
            subscriber.sub("a")
        subscriber.stop()


def test_a_listener_that_raises_misses_nothing(ws_flavour, caplog):
    service = ws_flavour.publisher()
    seen = []

    def listen(message, destination):
        seen.append(message)
        raise ValueError("in the listener")

    with grape_with(service) as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url))
        subscriber.on("message", listen)
        subscriber.sub("news")
        eventually(lambda: service.subscribers == 1)
        with caplog.at_level(logging.ERROR, "grenache_py"):
            for number in range(3):
                service.pub(str(number))
            eventually(lambda: len(seen) == 3)
    assert seen == ["0", "1", "2"]


def test_a_subscriber_that_does_not_keep_up_is_disconnected(ws_flavour):
    service = ws_flavour.publisher(max_queue=5_000_000)
    with raw_client(service.port) as slow, raw_client(service.port) as quick:
        eventually(lambda: service.subscribers == 2)
        got: list[Any] = []
        reader = threading.Thread(target=lambda: got.extend(iter(quick.read, None)))
        reader.start()
        message = "x" * 500_000

        for count in range(1, 101):  # the quick one keeps up, since each message waits for it
            service.pub(message)
            eventually(lambda: len(got) == count, what="the quick one has got it")  # noqa: B023
            if service.subscribers == 1:
                break
        assert service.subscribers == 1
        service.pub("last")
        eventually(lambda: got[-1] == (TEXT, b"last"))
        service.stop()
        reader.join(10)
        assert slow.conn.fileno() >= 0


def test_while_a_listener_is_slow_no_more_is_read(ws_flavour, monkeypatch):
    monkeypatch.setattr(limits, "SUB_QUEUE_MESSAGES", 10)
    service = ws_flavour.publisher(max_queue=1_000_000)
    go_on = threading.Event()
    seen = []

    def listen(message, destination):
        go_on.wait(20)
        seen.append(len(message))

    async def listen_async(message, destination):
        await asyncio.to_thread(listen, message, destination)

    with grape_with(service) as grape:
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url))
        subscriber.on("message", listen if ws_flavour.name == "sync" else listen_async)
        subscriber.sub("news")
        eventually(lambda: service.subscribers == 1)
        count = 0

        def published():
            nonlocal count
            count += sum(service.pub("x" * 100_000) for _ in range(10))
            return not service.subscribers

        # What the queue, the system and the publisher hold is bounded; then it is disconnected.
        eventually(published, what="back-pressure reaches the publisher")
        assert count < 1000
        go_on.set()
        eventually(lambda: len(seen) > 10)


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    return make_ca(tmp_path_factory.mktemp("tls"))


def test_tls(ws_flavour, pem):
    service = ws_flavour.publisher(
        ssl=tls.server_context(pem.server_cert, pem.server_key, pem.ca_file),
        authorize=[tls.Certificate(ssl.PEM_cert_to_DER_cert(pem.client_cert.read_text()), {}).fingerprint],
    )
    with grape_with(service) as grape:
        link = ws_flavour.link(grape.url)
        context = tls.client_context(pem.ca_file, pem.client_cert, pem.client_key)
        subscriber = ws_flavour.subscriber(link, ssl=context)
        heard = Heard(subscriber)
        assert subscriber.sub("news") == 1
        eventually(lambda: service.subscribers == 1)
        service.pub("secret")
        eventually(lambda: heard.messages == ["secret"])
        stranger = ws_flavour.subscriber(link, ssl=tls.client_context(pem.ca_file))
        assert stranger.sub("news") == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_who_comes_back_uses_its_session_again(ws_flavour, pem, version):
    context = tls.server_context(pem.server_cert, pem.server_key, pem.ca_file)
    context.minimum_version = context.maximum_version = version
    service = ws_flavour.publisher(ssl=context)
    port = service.port
    with grape_with(service) as grape:
        calling = tls.client_context(pem.ca_file, pem.client_cert, pem.client_key)
        subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url), ssl=calling, interval=0.1)
        heard = Heard(subscriber)

        def connected(times):
            return len(heard.connected) == times

        assert subscriber.sub("news") == 1
        for connections in (2, 3):
            service.stop()
            service.listen(port, "127.0.0.1")
            eventually(partial(connected, connections))
    stats = context.session_stats()
    assert (stats["accept_good"], stats["hits"]) == (3, 2)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda subscriber: subscriber.sub(""), "name"),
        (lambda subscriber: subscriber.on("request", print), "event"),
        (lambda subscriber: [subscriber.on("message", print) for _ in range(2)], "event"),
    ],
)
def test_bad_arguments_are_named(ws_flavour, call, field):
    subscriber = ws_flavour.subscriber(ws_flavour.link())
    with pytest.raises(errors.ArgumentError) as caught:
        call(subscriber)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("cls_name", "options", "field"),
    [
        ("PeerSub", {"interval": 0}, "interval"),
        ("PeerSub", {"ssl": True}, "ssl"),
        ("PeerPub", {"max_queue": 0}, "max_queue"),
        ("PeerPub", {"authorize": []}, "authorize"),
    ],
)
def test_bad_options_are_named(ws_flavour, cls_name, options, field):
    with pytest.raises(errors.ArgumentError) as caught:
        ws_flavour.make(cls_name, ws_flavour.link(), **options)
    assert caught.value.field == field
