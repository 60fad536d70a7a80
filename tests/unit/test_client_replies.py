"""What a client makes of any reply a peer may give, in both flavours: a result or a typed error, always in
time.

The replies are those that the Node client was confronted with (WIRE section 11, its outcome table).
"""

from __future__ import annotations

import gzip
import json
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from grenache_py import errors, limits
from tests.harness import free_port
from tests.scripted import Asked, ScriptedServer, Step, reply

NOBODY = "http://127.0.0.1:1"

MakeReply = Callable[[Asked], bytes]


def frame(*rest: object) -> MakeReply:
    """A step: a good reply ``[rid, *rest]`` to the request at hand."""
    return lambda asked: reply(json.dumps([asked.json[0], *rest]))


def gzipped(step: MakeReply, encoding: str = "") -> MakeReply:
    def make(asked: Asked) -> bytes:
        plain = Asked(
            asked.head, gzip.decompress(asked.body) if asked.body[:2] == b"\x1f\x8b" else asked.body
        )
        body = step(plain).split(b"\r\n\r\n", 1)[1]
        return reply(gzip.compress(body), headers=encoding)

    return make


def raw(status: str, headers: str, body: Callable[[str], bytes]) -> MakeReply:
    return lambda asked: f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body(asked.json[0])


def ok_body(rid: str) -> bytes:
    return f'["{rid}",null,"world"]'.encode()


def chunks(rid: str) -> bytes:
    body = ok_body(rid)
    return b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])


GOOD = [
    ("string", [frame(None, "world")]),
    ("chunked", [raw("200 OK", "Transfer-Encoding: chunked\r\n", chunks)]),
    ("ended by close", [raw("200 OK", "Connection: close\r\n", ok_body), "close"]),
    ("content-encoding gzip", [gzipped(frame(None, "world"), "Content-Encoding: gzip\r\n")]),
    ("201", [raw("201 Created", "Content-Length: 53\r\n", ok_body)]),
    ("HTTP/1.0", [lambda asked: b"HTTP/1.0 200 OK\r\n\r\n" + ok_body(asked.json[0]), "close"]),
    ("further elements", [frame(None, "world", 5, 6)]),
]


@pytest.mark.parametrize("script", [script for _, script in GOOD], ids=[name for name, _ in GOOD])
def test_good_replies(flavour, script):
    with ScriptedServer(script) as peer:
        client = flavour.client(flavour.link(NOBODY))
        assert client.request_to(peer.destination, "rpc_test", "hello", timeout=5) == "world"
        assert [asked.json[1:] for asked in peer.asked] == [["rpc_test", "hello"]]


# name, script, the error, its code, whether the peer may have done the work
BAD = [
    ("error", [frame("ERR_X")], errors.RemoteError, "ERR_X", False),
    ("error and result", [frame("ERR_X", {"a": 1})], errors.RemoteError, "ERR_X", False),
    ("error is an object", [frame({"a": 1}, "res")], errors.RemoteError, "ERR_REMOTE", False),
    ("empty body", [reply("")], errors.ReplyError, "ERR_REPLY_EMPTY", True),
    ("bad JSON", [reply('["x')], errors.ReplyError, "ERR_REPLY_EMPTY", True),
    ("null", [reply("null")], errors.ReplyError, "ERR_REPLY_EMPTY", True),
    ("object", [reply('{"a":1}')], errors.ReplyError, "ERR_REPLY_EMPTY", True),
    ("number", [reply("5")], errors.ReplyError, "ERR_REPLY_EMPTY", True),
    ("foreign rid", [reply('["other-rid",null,"world"]')], errors.ReplyError, "ERR_REPLY_EMPTY", True),
    ("204", [b"HTTP/1.1 204 No Content\r\n\r\n"], errors.ReplyError, "ERR_REPLY_EMPTY", True),
    ("500", [reply("oops", "500 Internal Server Error")], errors.StatusError, "ERR_REQUEST_GENERIC", True),
    ("404", [reply("", "404 Not Found")], errors.StatusError, "ERR_REQUEST_GENERIC", False),
    ("302", [reply("", "302 Found", "Location: http://127.0.0.1:1/\r\n")], errors.StatusError,
     "ERR_REQUEST_GENERIC", True),
    ("broken content-encoding", [reply("[1]", headers="Content-Encoding: gzip\r\n")],
     errors.ReplyEncodingError, "ERR_REPLY_ENCODING_COMPRESSION", True),
    ("closed without a byte", ["close"], errors.ConnectionLost, "ERR_REQUEST_GENERIC", True),
    ("reset", ["reset"], errors.ConnectionLost, "ERR_REQUEST_GENERIC", True),
    ("cut in a body with length", [reply('["', length=500), "close"], errors.ConnectionLost,
     "ERR_REQUEST_GENERIC", True),
    ("cut in a chunk", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[\"a", "close"],
     errors.ConnectionLost, "ERR_REQUEST_GENERIC", True),
    ("cut between chunks", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[\"\r\n", "close"],
     errors.ConnectionLost, "ERR_REQUEST_GENERIC", True),
    ("broken chunk size", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "close"],
     errors.ConnectionLost, "ERR_REQUEST_GENERIC", True),
    ("not HTTP", [b"hello there\r\n\r\n", "close"], errors.ConnectionLost, "ERR_REQUEST_GENERIC", True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "error", "code", "in_doubt"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_replies(flavour, script, error, code, in_doubt):
    with ScriptedServer(script) as peer:
        client = flavour.client(flavour.link(NOBODY))
        started = time.monotonic()
        with pytest.raises(error) as caught:
            client.request_to(peer.destination, "rpc_test", "hello", timeout=10)
        assert type(caught.value) is error
        assert caught.value.code == code
        assert caught.value.in_doubt is in_doubt
        assert caught.value.destination == peer.destination
        assert time.monotonic() - started < 5  # known at once, not at the time limit
        assert len(peer.asked) == 1  # and not repeated behind the caller's back


def test_an_error_keeps_the_result_that_came_with_it(flavour):
    with ScriptedServer([frame("ERR_X", {"some": "data"})]) as peer:
        client = flavour.client(flavour.link(NOBODY))
        with pytest.raises(errors.RemoteError) as caught:
            client.request_to(peer.destination, "rpc_test", "hello")
        assert caught.value.message == "ERR_X"
        assert caught.value.result == {"some": "data"}


def test_a_reply_cut_in_its_headers(flavour):
    # requests takes the end for the end of the headers, and what follows for an empty body.
    with ScriptedServer([b"HTTP/1.1 200 OK\r\nContent-Le", "close"]) as peer:
        client = flavour.client(flavour.link(NOBODY))
        with pytest.raises((errors.ConnectionLost, errors.ReplyError)) as caught:
            client.request_to(peer.destination, "rpc_test", "hello")
        assert caught.value.in_doubt


SILENT = [
    ("no answer", ["hold"]),
    ("headers, then silence", [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[", "hold"]),
    ("half the headers", [b"HTTP/1.1 200 OK\r\nContent-", "hold"]),
    ("a drip of body", [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", "drip"]),
    ("a drip of endless body", [b"HTTP/1.1 200 OK\r\n\r\n", "drip"]),
    ("a drip of headers", [b"HTTP/1.1 200 OK\r\nX-A: ", "drip"]),
]


@pytest.mark.parametrize("script", [script for _, script in SILENT], ids=[name for name, _ in SILENT])
def test_silence_ends_at_the_time_limit(flavour, script):
    with ScriptedServer(script) as peer:
        client = flavour.client(flavour.link(NOBODY))
        started = time.monotonic()
        with pytest.raises(errors.RequestTimeout) as caught:
            client.request_to(peer.destination, "rpc_test", "hello", timeout=0.3)
        assert 0.25 < time.monotonic() - started < 2
        assert caught.value.code == "ERR_TIMEOUT"
        assert caught.value.in_doubt
        assert isinstance(caught.value, TimeoutError)


def test_any_bytes_end_in_a_result_or_a_peer_error(flavour):
    """Good replies with a few bytes changed, cut or doubled, from a fixed seed."""
    random_source = random.Random(20260)
    templates = [
        b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n["r",null,"01234567"]',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5\r\n["r",\r\n6\r\nnull,1\r\n1\r\n]\r\n0\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"[1,2]"),
    ]

    def spoiled() -> bytes:
        data = bytearray(random_source.choice(templates))
        for _ in range(random_source.randrange(1, 6)):
            place = random_source.randrange(len(data))
            change = random_source.randrange(4)
            if change == 0:
                data[place] = random_source.randrange(256)
            elif change == 1:
                del data[place : place + random_source.randrange(1, 9)]
            elif change == 2:
                data[place:place] = data[place : place + random_source.randrange(1, 20)]
            else:
                data[place:place] = random_source.choice([b"\r\n", b"\n", b"\0", b"-1", b"9" * 30, b":"])
            data = data or bytearray(b"x")
        return bytes(data)

    scripts: list[list[Any]] = [[spoiled(), "close"] for _ in range(150)]
    sent = [script[0] for script in scripts]
    with ScriptedServer(*scripts) as peer:
        client = flavour.client(flavour.link(NOBODY))
        for data in sent:
            try:
                client.request_to(peer.destination, "rpc_test", "hello", timeout=5)
            except errors.RequestTimeout:
                pytest.fail(f"waited for more after the connection had ended: {data!r}")
            except errors.PeerError:
                pass


def test_a_refused_connection(flavour):
    client = flavour.client(flavour.link(NOBODY))
    destination = f"127.0.0.1:{free_port()}"
    with pytest.raises(errors.ConnectError) as caught:
        client.request_to(destination, "rpc_test", "hello")
    assert type(caught.value) is errors.ConnectError
    assert not caught.value.in_doubt
    assert caught.value.destination == destination
    assert "refused" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_unknown_host(flavour):
    client = flavour.client(flavour.link(NOBODY))
    with pytest.raises(errors.ConnectError) as caught:
        client.request_to("no-such-host.invalid:80", "rpc_test", "hello")
    assert not caught.value.in_doubt


def test_a_host_that_takes_no_connections(flavour):
    # A listener whose queue is full: further connections are neither taken nor refused.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = []
        try:
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(address)
                fillers.append(filler)
            client = flavour.client(flavour.link(NOBODY))
            started = time.monotonic()
            with pytest.raises(errors.ConnectTimeout) as caught:
                client.request_to(f"127.0.0.1:{address[1]}", "rpc_test", "hello", timeout=0.5)
            assert time.monotonic() - started < 2
            assert not caught.value.in_doubt
            assert caught.value.code == "ERR_TIMEOUT"
        finally:
            for filler in fillers:
                filler.close()


def test_a_reply_that_is_too_large(flavour, monkeypatch):
    monkeypatch.setattr(limits, "GRAPE_REPLY_BYTES_MAX", 1000)
    scripts: list[list[Step]] = [
        [reply('["' + "x" * 2000 + '"]')],
        [b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2000, "close"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b" " * 2000 + b"\r\n0\r\n\r\n"],
    ]
    for script in scripts:
        with ScriptedServer(script) as grape:
            with pytest.raises(errors.GrapeUnreachableError) as caught:
                flavour.link(grape.url, tries=1).lookup("svc")
            assert caught.value.code == "ERR_REPLY_SIZE"
            assert isinstance(caught.value.__cause__, errors.ReplySizeError)


def test_compression_in_both_directions(flavour):
    with ScriptedServer([gzipped(frame(None, "world"))]) as peer:
        client = flavour.client(flavour.link(NOBODY))
        assert client.request_to(peer.destination, "rpc_test", "hello" * 100, compress=True) == "world"
        asked = peer.asked[0]
        assert asked.headers["grc-compress"] == "gzip"
        assert "content-type" not in asked.headers
        assert json.loads(gzip.decompress(asked.body))[1:] == ["rpc_test", "hello" * 100]


def test_compression_that_the_peer_does_not_do(flavour):
    with ScriptedServer([reply('["rid",null,"world"]')]) as peer:
        client = flavour.client(flavour.link(NOBODY))
        with pytest.raises(errors.ReplyEncodingError) as caught:
            client.request_to(peer.destination, "rpc_test", "hello", compress=True)
        assert caught.value.code == "ERR_REPLY_ENCODING_COMPRESSION"


def test_what_a_request_looks_like(flavour):
    with ScriptedServer([frame(None, "world")]) as peer:
        client = flavour.client(flavour.link(NOBODY))
        payload = {"hello": "wörld 😀", "n": [1, 2.5, None, True]}
        client.request_to(peer.destination, "rpc_test", payload, headers={"_ar": {"a": 1}, "x-a": "b"})
        asked = peer.asked[0]
        rid = asked.json[0]
        assert asked.head.split("\r\n")[0] == "POST / HTTP/1.1"
        assert asked.body == f'["{rid}","rpc_test",{{"hello":"wörld 😀","n":[1,2.5,null,true]}}]'.encode()
        wanted = {
            "host": peer.destination,
            "grc-compress": "none",
            "content-type": "text/plain;charset=UTF-8",
            "content-length": str(len(asked.body)),
            "accept": "*/*",
            "accept-encoding": "gzip",
            "user-agent": "grenache-py",
            "_ar": '{"a":1}',
            "x-a": "b",
        }
        assert {name: value for name, value in asked.headers.items() if name != "connection"} == wanted
        assert asked.headers.get("connection", "keep-alive") == "keep-alive"


def test_every_request_has_its_own_rid(flavour):
    with ScriptedServer([frame(None, "world")]) as peer:
        client = flavour.client(flavour.link(NOBODY))
        for _ in range(3):
            client.request_to(peer.destination, "rpc_test", "hello")
        rids = [asked.json[0] for asked in peer.asked]
        assert len(set(rids)) == 3
        assert all(len(rid) == 36 and rid[14] == "4" for rid in rids)


def test_a_connection_is_used_again_but_not_after_a_long_pause(flavour, monkeypatch):
    monkeypatch.setattr(limits, "IDLE_CONNECTION_S", 0.4)
    with ScriptedServer([frame(None, "world")]) as peer:
        client = flavour.client(flavour.link(NOBODY))
        for _ in range(3):
            client.request_to(peer.destination, "rpc_test", "hello")
        assert peer.connections == 1
        paused = time.monotonic()
        while time.monotonic() - paused < 0.6:  # the pause itself is what is tested
            time.sleep(0.05)
        client.request_to(peer.destination, "rpc_test", "hello")
        assert peer.connections == 2


def test_a_large_request_and_a_large_reply(flavour):
    text = "x" * 3_000_000
    with ScriptedServer([lambda asked: reply(json.dumps([asked.json[0], None, asked.json[2]]))]) as peer:
        client = flavour.client(flavour.link(NOBODY))
        assert client.request_to(peer.destination, "rpc_test", text) == text


def test_proxies_cookies_and_credentials_of_the_environment_are_not_used(flavour, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, NOBODY)
    with ScriptedServer(
        [lambda asked: reply(json.dumps([asked.json[0], None, 1]), headers="Set-Cookie: a=b\r\n")]
    ) as peer:
        client = flavour.client(flavour.link(NOBODY))
        client.request_to(peer.destination, "rpc_test", "hello")
        client.request_to(peer.destination, "rpc_test", "hello")
        assert all("cookie" not in asked.headers for asked in peer.asked)


@pytest.mark.parametrize(
    ("arguments", "options", "field"),
    [
        (("nonsense", "k", 1), {}, "destination"),
        (("127.0.0.1:80", "", 1), {}, "key"),
        (("127.0.0.1:80", "k", object()), {}, "payload"),
        (("127.0.0.1:80", "k", 1), {"timeout": 0}, "timeout"),
        (("127.0.0.1:80", "k", 1), {"timeout": None}, "timeout"),
        (("127.0.0.1:80", "k", 1), {"headers": {"Host": "x"}}, "headers"),
    ],
)
def test_bad_arguments_are_named(flavour, arguments, options, field):
    client = flavour.client(flavour.link(NOBODY))
    with pytest.raises(errors.ArgumentError) as caught:
        client.request_to(*arguments, **options)
    assert caught.value.field == field


def test_a_stopped_client_refuses(flavour):
    client = flavour.client(flavour.link(NOBODY))
    client.stop()
    client.stop()
    with pytest.raises(errors.ClosedError):
        client.request_to("127.0.0.1:80", "k", 1)
