"""RPC between Node peers and ours over Node Grapes, both ways and in both flavours."""

from __future__ import annotations

import threading
import time

import pytest

from grenache_py import errors
from tests.node_grapes import OLD

REQUEST = ["rpc_test", {"hello": "wörld 😀", "n": [1, 2.5, None, True]}]


@pytest.fixture
def grape_url(node_grapes):
    return node_grapes[0].url


@pytest.fixture
def node_server(node_script, node_grapes):
    """Start a Node server announced under a name at the second Grape."""

    def start(name: str = "rpc_test") -> int:
        _, ready = node_script("rpc_server.js", {"grape": node_grapes[1].url, "name": name})
        return ready["port"]

    return start


@pytest.fixture
def node_client(node_script, grape_url):
    """Call the Node client: ``node_client("request", key, payload, options)`` → its error message and
    result.
    """
    process, _ = node_script("rpc_client.js", {"grape": grape_url})

    def call(name: str, *args: object) -> tuple[str | None, object]:
        process.send_json({"call": name, "args": args})
        answer = process.next_json()
        return answer["err"], answer["res"]

    return call


# --- a Node server, our client


def test_a_node_server_is_found_and_answers(flavour, grape_url, node_server):
    port = node_server()
    client = flavour.client(flavour.link(grape_url))
    for compress in (False, True):
        result = client.request(*REQUEST, compress=compress)
        assert result == {"key": "rpc_test", "payload": REQUEST[1], "from": port}
    assert client.request_to(f"127.0.0.1:{port}", "other", "x" * 300_000)["payload"] == "x" * 300_000


def test_errors_of_a_node_server(flavour, grape_url, node_server):
    node_server()
    client = flavour.client(flavour.link(grape_url))
    for compress in (False, True):
        with pytest.raises(errors.RemoteError) as caught:
            client.request("rpc_test", {"do": "error"}, compress=compress)
        assert (caught.value.message, caught.value.result) == ("ERR_MY_ERROR", None)
        with pytest.raises(errors.RemoteError) as caught:
            client.request("rpc_test", {"do": "error and result"}, compress=compress)
        assert (caught.value.code, caught.value.result) == ("ERR_MY_ERROR", {"some": "data"})
    assert client.request("rpc_test", {"do": "nothing"}) is None
    assert client.request("rpc_test", {"do": "no message"}) is None  # as a Node client sees it


def test_a_silent_node_handler(flavour, grape_url, node_server):
    node_server()
    client = flavour.client(flavour.link(grape_url))
    assert client.request("rpc_test", 1)["payload"] == 1  # looked up, and connected
    started = time.monotonic()
    with pytest.raises(errors.RequestTimeout):
        client.request("rpc_test", {"do": "silence"}, timeout=0.3)
    assert time.monotonic() - started < 2
    assert client.request("rpc_test", 1)["payload"] == 1


def test_map_over_node_servers(flavour, grape_url, node_server):
    ports = {node_server(), node_server()}
    results = flavour.client(flavour.link(grape_url)).map(*REQUEST)
    assert {result.payload["from"] for result in results} == ports
    assert all(result.payload["payload"] == REQUEST[1] for result in results)


def test_a_node_server_that_was_killed(flavour, grape_url, node_script, node_grapes, node_server):
    process, _ = node_script("rpc_server.js", {"grape": node_grapes[1].url, "name": "rpc_test"})
    alive = node_server()
    link = flavour.link(grape_url)
    client = flavour.client(link)
    assert len(client.map("rpc_test", 1)) == 2
    process.kill()
    # The Grapes go on returning it; each call is answered by the other one.
    for _ in range(10):
        assert client.request("rpc_test", 1, retry=2, timeout=5)["from"] == alive
    assert len(link.lookup("rpc_test", fresh=True)) <= 2


def test_many_calls_over_few_connections(flavour, grape_url, node_server):
    node_server()
    client = flavour.client(flavour.link(grape_url))
    seen: list[int] = []

    def work(worker: int) -> None:
        for number in range(25):
            seen.append(client.request("rpc_test", worker * 100 + number)["payload"])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(worker * 100 + number for worker in range(4) for number in range(25))


# --- our server, a Node client


def python_handler(rid, key, payload, handler):
    what = payload.get("do") if isinstance(payload, dict) else None
    if what == "error":
        handler.reply(ValueError("ERR_MY_ERROR"))
    elif what == "error and result":
        handler.reply("ERR_MY_ERROR", {"some": "data"})
    elif what == "raise":
        raise KeyError("broken")
    elif what == "nothing":
        handler.reply()
    elif what != "silence":
        handler.reply(None, {"key": key, "payload": payload})


@pytest.fixture
def python_service(flavour, node_grapes):
    """A service of ours, announced at the second Grape."""
    link = flavour.link(node_grapes[1].url)
    service = flavour.service(python_handler, link)
    assert link.start_announcing("rpc_test", service.port)
    return service


@pytest.mark.parametrize("options", [{"timeout": 5000}, {"timeout": 5000, "compress": True}])
def test_a_node_client_finds_and_calls_our_server(python_service, node_client, options):
    for _ in range(3):
        err, res = node_client("request", *REQUEST, options)
        assert (err, res) == (None, {"key": "rpc_test", "payload": REQUEST[1]})
    assert node_client("request", "rpc_test", None, options) == (None, {"key": "rpc_test", "payload": None})
    assert node_client("request", "rpc_test", "x" * 300_000, options)[1]["payload"] == "x" * 300_000
    assert node_client("request", "rpc_test", {"do": "error"}, options) == ("ERR_MY_ERROR", None)
    assert node_client("request", "rpc_test", {"do": "error and result"}, options) == (
        "ERR_MY_ERROR",
        {"some": "data"},
    )
    assert node_client("request", "rpc_test", {"do": "raise"}, options) == ("KeyError: 'broken'", None)
    assert node_client("request", "rpc_test", {"do": "nothing"}, options) == (None, None)


def test_a_node_client_maps_over_our_servers(flavour, node_grapes, python_service, node_client):
    other_link = flavour.link(node_grapes[0].url)
    other = flavour.service(python_handler, other_link)
    other_link.announce("rpc_test", other.port)
    err, res = node_client("map", *REQUEST, {"timeout": 5000})
    assert err is None
    assert res == [{"key": "rpc_test", "payload": REQUEST[1]}] * 2


def test_a_node_client_gives_up_on_a_silent_handler_of_ours(python_service, node_client):
    err, _ = node_client("request", "rpc_test", {"do": "silence"}, {"timeout": 300})
    assert err.startswith("ERR_REQUEST_GENERIC: network timeout at: http://127.0.0.1:")
    assert node_client("request", "rpc_test", 1, {"timeout": 5000})[1]["payload"] == 1


def test_a_node_client_is_told_at_once_when_time_is_over(flavour, node_grapes, node_client):
    link = flavour.link(node_grapes[1].url)
    service = flavour.service(python_handler, link, timeout=0.2)
    link.announce("rpc_test", service.port)
    err, _ = node_client("request", "rpc_test", {"do": "silence"}, {"timeout": 20000})
    assert err.startswith("ERR_REQUEST_GENERIC: [")
    assert "ERR_TIMEOUT" in err


# --- all together


def test_node_and_python_servers_under_one_name(flavour, grape_url, node_server, python_service, node_client):
    port = node_server()
    results = flavour.client(flavour.link(grape_url)).map(*REQUEST)
    assert {result.destination for result in results} == {
        f"127.0.0.1:{port}",
        f"127.0.0.1:{python_service.port}",
    }
    assert all(result.payload["payload"] == REQUEST[1] for result in results)
    err, res = node_client("map", *REQUEST, {"timeout": 5000})
    assert err is None
    assert sorted(item.get("from", 0) for item in res) == [0, port]


# --- the older packages


def test_our_client_calls_a_server_of_0_7_13(flavour, grape_url, node_grapes, node_script):
    _, ready = node_script("rpc_server.js", {"grape": node_grapes[1].url, "name": "rpc_test", **OLD})
    client = flavour.client(flavour.link(grape_url))
    for compress in (False, True):
        result = client.request(*REQUEST, compress=compress)
        assert result == {"key": "rpc_test", "payload": REQUEST[1], "from": ready["port"]}
        with pytest.raises(errors.RemoteError) as caught:
            client.request("rpc_test", {"do": "error and result"}, compress=compress)
        assert (caught.value.code, caught.value.result) == ("ERR_MY_ERROR", {"some": "data"})
    assert [result.payload["payload"] for result in client.map("rpc_test", 1)] == [1]


def test_a_client_of_0_7_13_calls_our_server(flavour, grape_url, python_service, node_script):
    process, _ = node_script("rpc_client.js", {"grape": grape_url, **OLD})
    for call, options, expected in (
        ("request", {"timeout": 5000}, {"key": "rpc_test", "payload": REQUEST[1]}),
        ("request", {"timeout": 5000, "compress": True}, {"key": "rpc_test", "payload": REQUEST[1]}),
        ("map", {"timeout": 5000}, [{"key": "rpc_test", "payload": REQUEST[1]}]),
    ):
        process.send_json({"call": call, "args": [*REQUEST, options]})
        assert process.next_json() == {"err": None, "res": expected}
    process.send_json({"call": "request", "args": ["rpc_test", {"do": "error"}, {"timeout": 5000}]})
    assert process.next_json()["err"] == "ERR_MY_ERROR"
