"""RPC and pub/sub over WebSocket between Node peers and ours, both ways and in both flavours."""

from __future__ import annotations

import json
import struct
import threading
import time

import pytest

from grenache_py import errors, tls
from tests.harness import eventually, free_port
from tests.unit.tls_files import make_ca
from tests.ws_flavours import CLOSE, TEXT, frame, raw_client

REQUEST = {"hello": "wörld 😀", "n": [1, 2.5, None, True]}


@pytest.fixture
def grape(node_grapes):
    return node_grapes[0]


@pytest.fixture
def node(node_script, grape):
    """Start a Node peer; returns its process and what it said first."""

    def start(role, name="rpc_test", **conf):
        return node_script("ws.js", {"role": role, "grape": grape.url, "name": name, **conf})

    return start


@pytest.fixture
def node_client(node):
    """Call with a Node client; returns its error message and result."""

    def start(**conf):
        process, _ = node("client", **conf)

        def call(key, payload, **options):
            process.send_json({"args": [key, payload, options]})
            answer = process.next_json()
            return answer["err"], answer["res"]

        return call

    return start


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    return make_ca(tmp_path_factory.mktemp("tls"))


# --- a Node server, our client


def test_a_node_server_answers(ws_flavour, grape, node):
    process, ready = node("server")
    client = ws_flavour.client(ws_flavour.link(grape.url))
    assert client.request("rpc_test", REQUEST) == {"key": "rpc_test", "payload": REQUEST, "cn": None}
    # Every form of a frame's length.
    for size in (0, 90, 1000, 70_000, 1_000_000):
        assert client.request("rpc_test", "ž" * size)["payload"] == "ž" * size
    with pytest.raises(errors.RemoteError) as caught:
        client.request("rpc_test", {"do": "error"})
    assert (caught.value.message, caught.value.result) == ("ERR_MY_ERROR", {"some": "data"})
    assert client.request("rpc_test", {"do": "twice"}) == 1
    started = time.monotonic()
    with pytest.raises(errors.RequestTimeout):
        client.request("rpc_test", {"do": "silence"}, timeout=0.2)
    assert time.monotonic() - started < 1
    assert client.map("rpc_test", 1)[0].payload["payload"] == 1
    client.stop()
    # Nothing that we sent, to the last frame, was more than it can bear.
    again = ws_flavour.client(ws_flavour.link(grape.url))
    assert again.request_to(f"127.0.0.1:{ready['port']}", "k", 1)["key"] == "k"
    assert process.returncode is None


def test_a_node_server_is_told_nothing_that_it_does_not_know(ws_flavour, grape, node):
    process, _ = node("server")
    client = ws_flavour.client(ws_flavour.link(grape.url), deadlines=True)
    for _ in range(2):
        assert client.request("rpc_test", REQUEST, headers={"x-user": "ann"})["payload"] == REQUEST
    assert process.returncode is None


def test_many_calls_to_a_node_server_at_once(ws_flavour, grape, node):
    node("server")
    client = ws_flavour.client(ws_flavour.link(grape.url))
    seen: list[int] = []

    def work(worker):
        for number in range(25):
            seen.append(client.request("rpc_test", worker * 100 + number)["payload"])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(worker * 100 + number for worker in range(4) for number in range(25))


def test_a_node_server_that_dies_fails_its_calls_at_once(ws_flavour, grape, node):
    node("server")
    client = ws_flavour.client(ws_flavour.link(grape.url))
    client.request("rpc_test", 1)
    started = time.monotonic()
    with pytest.raises(errors.ConnectionLost):
        client.request("rpc_test", {"do": "end"}, timeout=10)
    assert time.monotonic() - started < 5


def test_a_secure_node_server(ws_flavour, node, pem):
    port = free_port()
    secure = {"key": str(pem.server_key), "cert": str(pem.server_cert), "ca": str(pem.ca_file)}
    node("server", secure=secure, port=port)
    context = tls.client_context(pem.ca_file, pem.client_cert, pem.client_key)
    client = ws_flavour.client(ssl=context)
    result = client.request_to(f"127.0.0.1:{port}", "rpc_test", REQUEST)
    assert result == {"key": "rpc_test", "payload": REQUEST, "cn": "client"}
    stranger = ws_flavour.client(ssl=tls.client_context(pem.ca_file))
    with pytest.raises(errors.ConnectError):
        stranger.request_to(f"127.0.0.1:{port}", "rpc_test", 1)


# --- our server, a Node client


def answer(rid, key, payload, handler):
    if payload == "error":
        handler.reply(ValueError("ERR_MY_ERROR"), {"some": "data"})
    elif payload == "raise":
        raise ValueError("it broke")
    elif payload == "nothing":
        handler.reply()
    else:
        handler.reply(None, {"key": key, "payload": payload})


def announced(ws_flavour, grape, handler=answer, name="rpc_test", **options):
    link = ws_flavour.link(grape.url)
    service = ws_flavour.service(handler, link, **options)
    link.announce(name, service.port)
    return service


def test_a_node_client_is_answered(ws_flavour, grape, node_client):
    service = announced(ws_flavour, grape)
    call = node_client()
    for payload in (REQUEST, "x" * 70_000, None):
        assert call("rpc_test", payload, timeout=5000) == (None, {"key": "rpc_test", "payload": payload})
    assert call("rpc_test", "error", timeout=5000) == ("ERR_MY_ERROR", {"some": "data"})
    assert call("rpc_test", "raise", timeout=5000) == ("ValueError: it broke", None)
    assert call("rpc_test", "nothing", timeout=5000) == (None, None)
    # It opens three connections and goes on with them.
    for number in range(10):
        assert call("rpc_test", number, timeout=5000)[1]["payload"] == number
    service.stop()


def test_a_node_client_survives_the_end_of_our_service(ws_flavour, grape, node_client):
    service = announced(ws_flavour, grape)
    call = node_client()
    assert call("rpc_test", 1, timeout=5000)[0] is None
    port = service.port
    service.stop()
    eventually(lambda: service.listen(port, "127.0.0.1"))
    assert call("rpc_test", 2, timeout=5000) == (None, {"key": "rpc_test", "payload": 2})


def test_a_node_client_with_a_certificate(ws_flavour, grape, node_client, pem):
    seen = []
    announced(
        ws_flavour,
        grape,
        ssl=tls.server_context(pem.server_cert, pem.server_key, pem.ca_file),
        verify_client=lambda visitor: seen.append(visitor.certificate.common_name) or True,
    )
    secure = {"key": str(pem.client_key), "cert": str(pem.client_cert), "ca": str(pem.ca_file)}
    assert node_client(secure=secure)("rpc_test", 1, timeout=5000)[1]["payload"] == 1
    assert seen == ["client"]


# --- pub/sub


def test_a_node_subscriber_gets_what_we_publish(ws_flavour, grape, node):
    link = ws_flavour.link(grape.url)
    service = ws_flavour.publisher(link)
    link.announce("pub_test", service.port)
    process, _ = node("sub", "pub_test")
    assert process.next_json() == {"connected": True}
    eventually(lambda: service.subscribers == 1)
    for message in ("plain ž", '{"json":1}', "", b"\x00\x01\xff", b"", "x" * 100_000):
        assert service.pub(message) == 1
        expected = {"text": message} if isinstance(message, str) else {"hex": message.hex()}
        assert process.next_json() == expected
    service.stop()
    assert process.next_json() == {"disconnected": True}
    assert process.returncode is None


def test_our_subscriber_gets_what_node_publishes_from_all_publishers(ws_flavour, grape, node):
    publishers = [node("pub", "pub_test") for _ in range(2)]
    got = []
    subscriber = ws_flavour.subscriber(ws_flavour.link(grape.url), interval=0.3)
    subscriber.on("message", lambda message, destination: got.append((message, destination)))
    assert subscriber.sub("pub_test") == 2
    for message, sent in (("text", {"pub": "ž"}), ("bytes", {"pub_hex": "0001ff"})):
        for process, ready in publishers:
            process.send_json(sent)
            assert process.next_json() == {"sent": True}
            expected = "ž" if message == "text" else b"\x00\x01\xff"
            eventually(lambda: got)
            assert got.pop() == (expected, f"127.0.0.1:{ready['port']}")
    # One that comes later is found.
    process, ready = node("pub", "pub_test")
    eventually(lambda: subscriber.sub("pub_test") == 3)
    process.send_json({"pub": "late"})
    eventually(lambda: got == [("late", f"127.0.0.1:{ready['port']}")])
    subscriber.unsub("pub_test")
    assert all(each.returncode is None for each, _ in publishers)


# --- side by side


@pytest.mark.parametrize(
    "message",
    [
        '["r","k",{"b":1,"a":[1,2.5,"ž"]}]',
        '["r","k"]',
        "[]",
        '"abc"',
        "5",
        "{}",
        '["r","k",null,4]',
        '[{"x":1},2,3]',
    ],
)
def test_both_servers_answer_with_the_same_bytes(ws_flavour, node, message):
    def echo(rid, key, payload, handler):
        handler.reply(None, {"key": key, "payload": payload, "cn": None})

    _, ready = node("server")
    replies = []
    for port in (ready["port"], ws_flavour.service(echo).port):
        with raw_client(port) as client:
            client.send(frame(TEXT, message, masked=True))
            opcode, data = client.read()
            assert opcode == TEXT
            replies.append(json.loads(data))
            client.send(frame(CLOSE, struct.pack(">H", 1000), masked=True))
            assert client.read() == (CLOSE, struct.pack(">H", 1000))
            assert client.read() is None
    theirs, ours = replies
    # JavaScript leaves out what is undefined, where Python has None.
    assert {"key": None, "payload": None} | theirs.pop() == ours.pop()
    assert theirs == ours
