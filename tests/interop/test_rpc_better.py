"""Where Node's RPC is weak and ours is not: the same is done to both, side by side."""

from __future__ import annotations

import http.client
import json

import pytest

from tests.harness import eventually, free_port

PATIENCE_S = 1.0


def post(port, body, timeout_s=PATIENCE_S):
    """What a server answers; ``None`` when it says nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", "/", body)
        return connection.getresponse().read()
    except TimeoutError:
        return None
    finally:
        connection.close()


@pytest.fixture
def node_call(node_script, node_grapes):
    """Call by a Node client; returns what it says."""
    process, _ = node_script("rpc_client.js", {"grape": node_grapes[0].url})

    def call(kind, *args):
        process.send_json({"call": kind, "args": args})
        return process.next_json()

    return call


def test_a_malformed_body_gets_a_reply(flavour, node_script, node_grapes):
    _, ready = node_script("rpc_server.js", {"grape": node_grapes[0].url, "name": "node"})
    ours = flavour.service(lambda rid, key, payload, handler: handler.reply(None, payload))
    for body in ("", "nonsense", "null", "[1,"):
        assert post(ready["port"], body) is None
        assert json.loads(post(ours.port, body)) == [None, "ERR_REQUEST_PAYLOAD_INVALID", None]


def test_a_dead_destination_is_forgotten_at_once(flavour, node_grapes, node_call):
    link = flavour.link(node_grapes[0].url)
    service = flavour.service(lambda rid, key, payload, handler: handler.reply(None, "alive"), link)
    link.announce("rpc_test", free_port())
    link.announce("rpc_test", service.port)
    eventually(lambda: len(link.lookup("rpc_test", fresh=True)) == 2)
    said = [node_call("request", "rpc_test", 1, {"timeout": 5000}) for _ in range(20)]
    assert any("ECONNREFUSED" in str(each["err"]) for each in said)
    assert any(each["res"] == "alive" for each in said)
    client = flavour.client(flavour.link(node_grapes[1].url))
    assert [client.request("rpc_test", 1, timeout=5) for _ in range(20)] == ["alive"] * 20


def test_a_broadcast_has_one_outcome_per_peer(flavour, node_grapes, node_call):
    link = flavour.link(node_grapes[0].url)
    service = flavour.service(lambda rid, key, payload, handler: handler.reply(None, "alive"), link)
    link.announce("rpc_test", free_port())
    link.announce("rpc_test", service.port)
    eventually(lambda: len(link.lookup("rpc_test", fresh=True)) == 2)
    said = node_call("map", "rpc_test", 1, {"timeout": 5000})
    assert "ECONNREFUSED" in said["err"]
    assert "alive" not in json.dumps(said["res"])
    results = flavour.client(flavour.link(node_grapes[1].url)).map("rpc_test", 1, timeout=5)
    assert sorted(result.payload if result.ok else type(result.error).__name__ for result in results) == [
        "ConnectError",
        "alive",
    ]
