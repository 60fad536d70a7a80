"""The HTTP API, request by request, against what Node Grapes replied to the same bytes."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from grenache_py.grape import Grape

VECTORS = json.loads((Path(__file__).parent / "data" / "http_api.json").read_text())
SETUPS = list(dict.fromkeys(case["setup"] for case in VECTORS["cases"]))

# Where ours differs on purpose: (setup or None for all, name) -> status and body, or a part of the body.
DIFFERENT: dict[tuple[str | None, str], tuple[int, str]] = {
    # A Grape that is alone keeps what it is given and says so.
    (None, "announce port 0"): (200, "1"),
    ("isolated, host 127.0.0.1", "announce"): (200, "1"),
    ("isolated, no host", "announce"): (200, "1"),
    ("isolated, no host", "lookup after that announce"): (200, '["127.0.0.1:6001"]'),
    ("isolated, host 127.0.0.1", "put immutable"): (200, '"e28910ea0adb94dd45ced75fbff3e135c01bc437"'),
    # The address that a host name or "all interfaces" stands for, not 0.0.0.0.
    ("isolated, host 0.0.0.0", "announce (host 0.0.0.0)"): (200, "1"),
    ("isolated, host 0.0.0.0", "lookup (host 0.0.0.0)"): (200, '["127.0.0.1:6001"]'),
    ("isolated, host localhost", "announce (host localhost)"): (200, "1"),
    ("isolated, host localhost", "lookup (host localhost)"): (200, '["127.0.0.1:6001"]'),
    # It is one of the nodes that hold a signed value, too; and a salt belongs to the key of such a value.
    ("two grapes with verify", "get mutable"): (200, '{"id":"'),
    ("two grapes with verify", "get with salt"): (200, '{"id":"'),
    ("two grapes with verify", "get without salt at the storing grape"): (200, ""),
    # Its signature is none, which is seen before anybody is asked.
    ("isolated, host 127.0.0.1", "put mutable"): (200, '"All queries failed"'),
    # Our words where Node's are those of V8.
    (None, "announce number name"): (500, "ERR_GRAPE_ANNOUNCE: the name must be a text"),
    (None, "announce null name"): (500, "ERR_GRAPE_ANNOUNCE: the name must be a text"),
    (None, "announce missing name but port"): (500, "ERR_GRAPE_ANNOUNCE: the name must be a text"),
    (None, "announce object name"): (500, "ERR_GRAPE_ANNOUNCE: the name must be a text"),
    (None, "put null v"): (200, '"opts.v must not be null"'),
    (None, "put missing data"): (500, "ERR_GRAPE_PUT: data must be"),
    (None, "put null data"): (500, "ERR_GRAPE_PUT: data must be"),
    (None, "put mutable k number"): (500, "ERR_GRAPE_PUT: k must be a text"),
    (None, "put mutable sig number"): (500, "ERR_GRAPE_PUT: sig must be a text"),
    (None, "put salt number"): (500, "ERR_GRAPE_PUT: salt must be a text"),
    (None, "get null"): (500, "ERR_GRAPE_GET: data must be"),
    (None, "get missing data"): (500, "ERR_GRAPE_GET: data must be"),
    (None, "get {salt:number}"): (500, "ERR_GRAPE_GET: the salt must be a text"),
    (None, "JSON null"): (500, "ERR_GRAPE_PAYLOAD_INVALID"),
    # An empty name breaks a Node Grape, and a port that is none kills it.
    (None, "announce empty name"): (200, '"ERR_GRAPE_ANNOUNCE"'),
    (None, "announce empty name again"): (200, '"ERR_GRAPE_ANNOUNCE"'),
    (None, "get non-hex string again"): (200, ""),
    (None, "announce port 70000"): (200, '"ERR_GRAPE_SERVICE_PORT"'),
    (None, "announce port -1"): (200, '"ERR_GRAPE_SERVICE_PORT"'),
}
IDS_AND_TOKENS = re.compile(r'"(id|token)":"[0-9a-f]+"')


@contextmanager
def grapes(setup: str) -> Iterator[dict[int, Grape]]:
    """The Grapes of a setup, by the port that they had when it was recorded."""
    ports = sorted(
        {
            int(port)
            for case in VECTORS["cases"]
            if case["setup"] == setup
            for port in re.findall(r"Host: 127\.0\.0\.1:(\d+)", case["request"])
        }
    )
    host = setup.rpartition("host ")[2] if setup.startswith("isolated, host") else None
    if setup.startswith(("two", "empty", "crash probes, host")):
        host = "127.0.0.1"
    alone = setup.startswith("isolated") or setup == "crash probes, host set"
    if not alone and len(ports) == 1:
        ports.append(0)
    with Grape(host=host) as first:
        if alone:
            yield dict.fromkeys(ports, first)
            return
        with Grape(host=host, bootstrap=[first.dht_address]) as second:
            # The Grape of the last port put, and the other one stored.
            yield {ports[0]: first if ports[1] else second, ports[1]: second}


def exchange(grape: Grape, request: bytes) -> bytes:
    """Send bytes, and read until the Grape closes or, where it need not, has answered."""
    expected = request.count(b" HTTP/1.") if b"onnection: close" not in request else 0
    with socket.create_connection(("127.0.0.1", grape.api_port), timeout=10) as connection:
        connection.sendall(request)
        said = b""
        while chunk := connection.recv(65536):
            said += chunk
            if expected and said.count(b"HTTP/1.1 ") == expected and b"HTTP/1.0" not in request:
                break
    return said


def parts(response: bytes) -> list[tuple[int, dict[str, str], str]]:
    """Status, headers and body of each final response in a row.

    Node says ``100 Continue`` even to a body that it has already received; that makes no difference.
    """
    found = []
    for text in re.split(r"(?=HTTP/1\.1 [2-5])", response.decode())[1:]:
        head, _, body = text.partition("\r\n\r\n")
        lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        found.append((int(lines[0].split()[1]), headers, body))
    return found


@pytest.mark.parametrize("setup", SETUPS)
def test_as_node(setup: str) -> None:
    with grapes(setup) as by_port:
        for case in VECTORS["cases"]:
            if case["setup"] != setup or case["name"].startswith("Content-Length 9000"):
                continue
            name = case["name"]
            request = case["request"].encode(case["encoding"])
            port = re.search(r"Host: 127\.0\.0\.1:(\d+)", case["request"])
            grape = by_port[int(port[1])] if port else next(iter(by_port.values()))
            ours = parts(exchange(grape, request))
            recorded = case["response"].replace("127.0.0.1:21101", f"127.0.0.1:{grape.dht_port}")
            theirs = parts(recorded.encode())
            different = DIFFERENT.get((setup, name)) or DIFFERENT.get((None, name))
            if different is not None:
                ((status, _, body),) = ours
                assert status == different[0], name
                assert body.startswith(different[1]), name
                assert bool(body) == bool(different[1]), name
                continue
            compare(name, ours, theirs)


def compare(name: str, ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs), name
    for (status, headers, body), (their_status, their_headers, their_body) in zip(ours, theirs, strict=True):
        assert status == their_status, (name, body)
        if "Transfer-Encoding" not in their_headers:  # Node's own error replies
            assert IDS_AND_TOKENS.sub("", body) == IDS_AND_TOKENS.sub("", their_body), name
            assert _keys(body) == _keys(their_body), name
        assert headers.get("Connection") == their_headers.get("Connection"), name
        assert headers.get("Keep-Alive") == their_headers.get("Keep-Alive"), name
        if "Content-Length" in their_headers and not IDS_AND_TOKENS.search(body):
            assert headers["Content-Length"] == their_headers["Content-Length"], name


def _keys(body: str) -> list[str]:
    try:
        value = json.loads(body)
    except ValueError:
        return []
    return list(value) if isinstance(value, dict) else []


@pytest.mark.parametrize("size", [8192, 8193, 70_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_limit_of_the_payload(size: int, chunked: bool) -> None:
    frame = b'{"rid":"r1","data":"nobody","x":"%b"}'
    body = frame % (b"x" * (size - len(frame) + 2))
    with Grape(host="127.0.0.1") as grape:
        head = b"POST /lookup HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        if chunked:
            request = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        else:
            request = head + b"Content-Length: %d\r\n\r\n%b" % (size, body)
        ((status, _, text),) = parts(exchange(grape, request))
    assert (status, text) == ((200, "[]") if size <= 8192 else (413, "ERR_GRAPE_PAYLOAD_SIZE"))


def test_the_connection_stays_usable_after_too_large_a_payload() -> None:
    post = b"POST /lookup HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b"
    large = post % (b"", 9000, b"x" * 9000)
    small = post % (b"Connection: close\r\n", 28, b'{"rid":"r1","data":"nobody"}')
    with Grape(host="127.0.0.1") as grape:
        first, second = parts(exchange(grape, large + small))
    assert (first[0], first[1]["Connection"]) == (413, "keep-alive")
    assert second[0::2] == (200, "[]")
