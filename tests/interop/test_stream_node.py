"""Streams between Node peers and ours, both ways and in both flavours, with and without TLS."""

from __future__ import annotations

import hashlib
import json
import threading

import pytest

from grenache_py import errors
from grenache_py.tls import client_context, server_context
from tests.node_grapes import VERSIONS
from tests.unit.test_streams import echo, read_all
from tests.unit.tls_files import make_ca

SIZES = [0, 10, 3_000_000]


def body(size: int) -> bytes:
    return (b"grenache" * (size // 8 + 1))[:size]


@pytest.fixture
def node_server(node_script, node_grapes):
    def start(conf: dict) -> int:
        conf = {"grape": node_grapes[1].url, "name": "rpc_test", **conf}
        return node_script("stream_server.js", conf)[1]["port"]

    return start


@pytest.fixture
def node_client(node_script, node_grapes):
    def start(conf: dict):
        process, _ = node_script("stream_client.js", {"grape": node_grapes[0].url, **conf})

        def call(key: str, size: int, headers: dict | None = None) -> dict:
            process.send_json({"key": key, "size": size, "headers": headers or {}})
            return process.next_json()

        return call

    return start


@pytest.fixture
def secure(tmp_path):
    """Certificates: Node's ``secure`` of the server and of the client, and our contexts for both."""
    pem = make_ca(tmp_path)
    names = {
        "server": (pem.server_key, pem.server_cert),
        "client": (pem.client_key, pem.client_cert),
    }
    node = {
        name: {"key": str(key), "cert": str(cert), "ca": str(pem.ca_file)}
        for name, (key, cert) in names.items()
    }
    node["server"].update(requestCert=True, rejectUnauthorized=True)
    ours = {
        "server": server_context(pem.server_cert, pem.server_key, pem.ca_file),
        "client": client_context(pem.ca_file, pem.client_cert, pem.client_key),
    }
    return node, ours


@pytest.mark.parametrize("version", VERSIONS)
def test_our_client_streams_to_a_node_server(flavour, node_grapes, node_server, version):
    node_server(version)
    client = flavour.client(flavour.link(node_grapes[0].url))
    for size in SIZES:
        data = body(size)
        stream = client.stream("rpc_test", headers={"_a": "echo"})
        sender = threading.Thread(target=lambda s=stream, d=data: (s.write(d), s.end()))
        sender.start()
        assert read_all(stream) == data
        sender.join()
        stream.close()

        stream = client.stream("rpc_test", headers={"_a": "sum", "_ar": {"n": size}})
        stream.write(data)
        stream.end()
        rid, error, result = json.loads(stream.read())
        assert (len(rid), error) == (36, None)
        assert result == {
            "key": "rpc_test",
            "size": size,
            "sha256": hashlib.sha256(data).hexdigest(),
            "isStream": True,
            "args": {"n": size},
        }
        stream.close()

    stream = client.stream("rpc_test", headers={"_a": "cut"})
    stream.write(b"x")
    with pytest.raises(errors.ConnectionLost):
        stream.read()
    stream.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_node_client_streams_to_our_server(flavour, node_grapes, node_client, version):
    async def serve(rid, key, stream, handler):
        if handler.action == "echo":
            await echo(rid, key, stream, handler)
        else:
            handler.reply(None, [key, len(await stream.read()), handler.args])

    link = flavour.link(node_grapes[1].url)
    service = flavour.streaming(serve, link)
    link.announce("rpc_test", service.port)
    call = node_client(version)
    for size in SIZES:
        answer = call("rpc_test", size, {"_a": "echo"})
        assert (answer["size"], answer["sha256"]) == (size, hashlib.sha256(body(size)).hexdigest())
        answer = call("rpc_test", size, {"_ar": {"n": size}})
        assert json.loads(answer["text"])[1:] == [None, ["rpc_test", size, {"n": size}]]


@pytest.mark.parametrize("version", VERSIONS)
def test_our_client_streams_to_a_node_server_over_tls(flavour, node_grapes, node_server, secure, version):
    node, ours = secure
    node_server({**version, "secure": node["server"]})
    client = flavour.client(flavour.link(node_grapes[0].url), ssl=ours["client"])
    stream = client.stream("rpc_test", headers={"_a": "echo"})
    stream.write(body(100_000))
    stream.end()
    assert read_all(stream) == body(100_000)
    stream.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_node_client_streams_to_our_server_over_tls(flavour, node_grapes, node_client, secure, version):
    node, ours = secure
    link = flavour.link(node_grapes[1].url)
    service = flavour.streaming(echo, link, ssl=ours["server"])
    link.announce("rpc_test", service.port)
    call = node_client({**version, "secure": node["client"]})
    assert call("rpc_test", 300_000)["size"] == 300_000
