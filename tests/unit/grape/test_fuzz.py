"""Whatever comes in at the HTTP API or the DHT port, the Grape answers or ignores it, and lives on."""

from __future__ import annotations

import json
import socket
from random import Random
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from grenache_py.grape.api import Api
from grenache_py.testing import Grapes
from grenache_py.transports.http1_exchange import Exchange
from tests.unit.dht.test_node import STRANGER, Lone, node_id
from tests.unit.grape.test_grape import call


class Asked:
    """As much of an Exchange as the API uses."""

    method = "POST"

    def __init__(self, target: str, body: bytes) -> None:
        self.target = target
        self.body = body
        self.replies: list[tuple[int, bytes]] = []

    def reply(self, status: int, body: bytes, headers: Any = ()) -> None:
        self.replies.append((status, body))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
fields = st.dictionaries(
    st.sampled_from(["v", "k", "sig", "seq", "salt", "cas", "hash", "cache"]),
    json_values | st.sampled_from(["00" * 32, "00" * 64, "0" * 40, 1, {"type": "Buffer", "data": [1]}]),
)
paths = st.sampled_from(["/lookup", "/announce", "/put", "/get", "/withdraw", "/-Lookup", "/x", "/", ""])

LONE = Lone()
LONE.query(STRANGER, b"ping", id=node_id(STRANGER))
LONE.answer_all()
API = Api(LONE.node, 20001)


def ask(target: str, body: bytes) -> tuple[int, bytes]:
    """The one answer to a request, once the DHT has answered too."""
    asked = Asked(target, body)
    API.handle(cast("Exchange", asked))
    for _ in range(3):
        LONE.answer_all(token=b"token", nodes=b"")
    LONE.network.run(3.0)
    assert len(asked.replies) == 1
    return asked.replies[0]


@given(paths, json_values | fields | st.tuples(st.text(max_size=5), json_values))
def test_any_json_is_answered_once(target: str, data: Any) -> None:
    status, body = ask(target, json.dumps({"rid": "r", "data": data}).encode())
    assert status in (200, 301, 302, 500, 503)
    if status == 200 and body:
        json.loads(body)
    LONE.node.peers.check()


@given(paths, st.binary(max_size=60))
def test_any_bytes_are_answered_once(target: str, body: bytes) -> None:
    status, _ = ask(target, body)
    assert status in (200, 500)


def test_random_datagrams_and_connections_do_not_disturb_a_running_grape() -> None:
    random = Random(1)
    with Grapes() as (first, second):
        call(second, "announce", ["svc", 6001])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for number in range(2000):
                piece = random.randbytes(random.randrange(100))
                framed = b"d1:ad2:id20:" + random.randbytes(20) + piece + b"e1:q4:ping1:t2:aa1:y1:qe"
                stranger.sendto(framed if number % 2 else piece, ("127.0.0.1", first.dht_port))
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", first.api_port), timeout=10) as client:
                client.sendall(b"POST /lookup HTTP/1.1\r\n" * random.randrange(2) + random.randbytes(200))
        assert call(first, "lookup", "svc") == ["127.0.0.1:6001"]
        assert call(second, "lookup", "svc") == ["127.0.0.1:6001"]
