"""RPC over TLS with certificates on both sides, between Node peers and ours, both ways, both flavours."""

from __future__ import annotations

import ssl

import pytest

from grenache_py import errors
from grenache_py.tls import Certificate, client_context, server_context
from tests.node_grapes import VERSIONS
from tests.unit.tls_files import make_ca

REQUEST = ["rpc_test", {"hello": "wörld 😀"}]


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    return make_ca(tmp_path_factory.mktemp("pem"))


def secure(key, cert, pem, **more) -> dict:
    """What Node calls ``secure``."""
    return {"key": str(key), "cert": str(cert), "ca": str(pem.ca_file), **more}


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def node_server(node_script, node_grapes, pem, version):
    options = secure(pem.server_key, pem.server_cert, pem, requestCert=True, rejectUnauthorized=True)
    conf = {"grape": node_grapes[1].url, "name": "rpc_test", "secure": options, **version}
    return node_script("rpc_server.js", conf)[1]["port"]


def test_our_client_calls_a_node_server(flavour, node_grapes, node_server, pem):
    context = client_context(pem.ca_file, pem.client_cert, pem.client_key)
    link = flavour.link(node_grapes[0].url)
    client = flavour.client(link, ssl=context)
    for compress in (False, True, False):
        result = client.request(*REQUEST, compress=compress)
        assert result == {"key": "rpc_test", "payload": REQUEST[1], "from": node_server}
    without = flavour.client(link, ssl=client_context(pem.ca_file))
    with pytest.raises((errors.ConnectError, errors.ConnectionLost)):
        without.request(*REQUEST)


def test_a_node_client_calls_our_server(flavour, node_grapes, node_script, pem, version):
    seen = []

    def handle(rid, key, payload, handler):
        seen.append(handler.certificate)
        handler.reply(None, payload)

    mine = Certificate(ssl.PEM_cert_to_DER_cert(pem.client_cert.read_text()), {}).fingerprint
    link = flavour.link(node_grapes[1].url)
    context = server_context(pem.server_cert, pem.server_key, pem.ca_file)
    service = flavour.service(handle, link, ssl=context, authorize={mine})
    link.announce("rpc_test", service.port)

    conf = {"grape": node_grapes[0].url, "secure": secure(pem.client_key, pem.client_cert, pem), **version}
    process, _ = node_script("rpc_client.js", conf)
    for options in ({"timeout": 5000}, {"timeout": 5000, "compress": True}):
        process.send_json({"call": "request", "args": [*REQUEST, options]})
        assert process.next_json() == {"err": None, "res": REQUEST[1]}
    assert [(each.common_name, each.fingerprint) for each in seen] == [("client", mine)] * 2

    wrong = flavour.service(handle, link, ssl=context, authorize={"0" * 64})
    link.announce("rpc_shut", wrong.port)
    process.send_json({"call": "request", "args": ["rpc_shut", 1, {"timeout": 1000}]})
    # 0.7.13 does not look at the status, and waits for a reply that names its request.
    refused = "ERR_TIMEOUT" if version else 'ERR_REQUEST_GENERIC: [null, "ERR_FORBIDDEN", null]'
    assert process.next_json()["err"] == refused
    assert len(seen) == 2
