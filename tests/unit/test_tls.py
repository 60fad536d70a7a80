"""RPC over TLS, in both flavours: certificates, who is let in, connections and sessions used again."""

from __future__ import annotations

import pickle
import socket
import ssl
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives import serialization

from grenache_py import errors, limits
from grenache_py.tls import Certificate, Sessions, client_context, server_context
from tests.unit.tls_files import make_ca

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    return make_ca(tmp_path_factory.mktemp("pem"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Certificates of an authority that nobody trusts."""
    return make_ca(tmp_path_factory.mktemp("foreign"))


def serving(pem, **options):
    return server_context(pem.server_cert, pem.server_key, pem.ca_file, **options)


def calling(pem):
    return client_context(pem.ca_file, pem.client_cert, pem.client_key)


def fingerprint(cert) -> str:
    der = ssl.PEM_cert_to_DER_cert(cert.read_text())
    return Certificate(der, {}).fingerprint


def who(rid, key, payload, handler):
    certificate = handler.certificate
    handler.reply(None, certificate and [certificate.common_name, certificate.fingerprint, payload])


def start(flavour, handler=who, **options):
    service = flavour.service(handler, **options)
    return f"127.0.0.1:{service.port}"


def test_a_call_with_certificates_on_both_sides(flavour, pem):
    place = start(flavour, ssl=serving(pem))
    client = flavour.client(flavour.link(NOBODY), ssl=calling(pem))
    mine = fingerprint(pem.client_cert)
    for payload in (1, "x" * 500_000):
        for compress in (False, True):
            got = client.request_to(place, "k", payload, compress=compress)
            assert got == ["client", mine, payload]


def test_a_server_that_asks_for_no_certificate(flavour, pem):
    place = start(flavour, ssl=server_context(pem.server_cert, pem.server_key))
    client = flavour.client(flavour.link(NOBODY), ssl=client_context(pem.ca_file))
    assert client.request_to(place, "k", 1) is None


def test_without_tls_there_is_no_certificate(flavour):
    assert flavour.client(flavour.link(NOBODY)).request_to(start(flavour), "k", 1) is None


def test_a_certificate_that_is_asked_for_but_not_needed(flavour, pem):
    place = start(flavour, ssl=serving(pem, require_cert=False))
    link = flavour.link(NOBODY)
    assert flavour.client(link, ssl=client_context(pem.ca_file)).request_to(place, "k", 1) is None
    assert flavour.client(link, ssl=calling(pem)).request_to(place, "k", 1)[0] == "client"


def test_callers_without_the_right_certificate_get_no_connection(flavour, pem, foreign):
    asked = []
    place = start(flavour, lambda *request: asked.append(request), ssl=serving(pem))
    link = flavour.link(NOBODY)
    stranger = client_context(pem.ca_file, foreign.client_cert, foreign.client_key)
    for context in (client_context(pem.ca_file), stranger):
        with pytest.raises((errors.ConnectError, errors.ConnectionLost)) as caught:
            flavour.client(link, ssl=context).request_to(place, "k", 1)
        assert "it may want a certificate, or one of another authority" in str(caught.value)
    assert asked == []


def test_a_server_that_is_not_trusted_is_told_nothing(flavour, pem, foreign):
    asked = []
    place = start(flavour, lambda *request: asked.append(request), ssl=serving(pem))
    client = flavour.client(flavour.link(NOBODY), ssl=calling(foreign))
    with pytest.raises(errors.ConnectError) as caught:
        client.request_to(place, "k", 1)
    assert "certificate" in str(caught.value)
    assert not caught.value.in_doubt
    assert asked == []


def test_the_certificate_must_name_the_host(flavour, pem):
    place = start(flavour, ssl=serving(pem)).replace("127.0.0.1", "localhost")
    link = flavour.link(NOBODY)
    with pytest.raises(errors.ConnectError):
        flavour.client(link, ssl=calling(pem)).request_to(place, "k", 1)
    relaxed = client_context(pem.ca_file, pem.client_cert, pem.client_key, check_hostname=False)
    assert flavour.client(link, ssl=relaxed).request_to(place, "k", 1)[0] == "client"


def test_plain_http_and_tls_do_not_mix(flavour, pem):
    place = start(flavour, ssl=serving(pem))
    link = flavour.link(NOBODY)
    with pytest.raises(errors.ConnectionLost):
        flavour.client(link).request_to(place, "k", 1, timeout=5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # never answers the handshake
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(errors.ConnectTimeout):
            flavour.client(link, ssl=calling(pem)).request_to(place, "k", 1, timeout=0.3)


@pytest.mark.parametrize(
    "write", [str.upper, lambda text: ":".join(text[i : i + 2] for i in range(0, 64, 2))]
)
def test_known_fingerprints_are_let_in(flavour, pem, write):
    asked = []

    def handle(rid, key, payload, handler):
        asked.append(payload)
        handler.reply(None, payload)

    known = fingerprint(pem.client_cert)
    link = flavour.link(NOBODY)
    client = flavour.client(link, ssl=calling(pem))
    open_place = start(flavour, handle, ssl=serving(pem), authorize={write(known)})
    assert client.request_to(open_place, "k", 1) == 1
    shut_place = start(flavour, handle, ssl=serving(pem), authorize=["0" * 64])
    with pytest.raises(errors.StatusError) as caught:
        client.request_to(shut_place, "k", 2)
    assert (caught.value.status, caught.value.code) == (403, "ERR_FORBIDDEN")
    assert not caught.value.in_doubt
    assert asked == [1]


def test_a_function_decides_who_is_let_in(flavour, pem):
    seen = []

    def authorize(certificate):
        seen.append(certificate)
        if len(seen) == 3:
            raise KeyError("it broke")
        return len(seen) == 1

    place = start(flavour, ssl=serving(pem), authorize=authorize)
    client = flavour.client(flavour.link(NOBODY), ssl=calling(pem))
    assert client.request_to(place, "k", 1)[0] == "client"
    for _ in range(2):
        with pytest.raises(errors.StatusError):
            client.request_to(place, "k", 1)
    assert {each.common_name for each in seen} == {"client"}
    assert {each.fingerprint for each in seen} == {fingerprint(pem.client_cert)}
    assert pickle.loads(pickle.dumps(seen[0])) == seen[0]


def test_who_shows_no_certificate_is_not_let_in(flavour, pem):
    place = start(flavour, ssl=serving(pem, require_cert=False), authorize=lambda certificate: True)
    with pytest.raises(errors.StatusError):
        flavour.client(flavour.link(NOBODY), ssl=client_context(pem.ca_file)).request_to(place, "k", 1)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"ssl": "x"}, "ssl"),
        ({"authorize": {"0" * 64}}, "authorize"),
        ({"authorize": {"nonsense"}, "ssl": True}, "authorize"),
        ({"authorize": "0" * 64, "ssl": True}, "authorize"),
        ({"authorize": [5], "ssl": True}, "authorize"),
    ],
)
def test_bad_options_are_named(flavour, pem, options, field):
    if options.get("ssl") is True:
        options = {**options, "ssl": serving(pem)}
    with pytest.raises(errors.ArgumentError) as caught:
        flavour.server(flavour.link(NOBODY), **options)
    assert caught.value.field == field


def test_authorizing_needs_certificates(flavour, pem):
    asks_for_none = server_context(pem.server_cert, pem.server_key)
    with pytest.raises(errors.ArgumentError):
        flavour.server(flavour.link(NOBODY), ssl=asks_for_none, authorize={"0" * 64})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_connections_and_sessions_are_used_again(flavour, pem, monkeypatch, version):
    context = serving(pem)
    context.minimum_version = context.maximum_version = version
    place = start(flavour, ssl=context)
    client = flavour.client(flavour.link(NOBODY), ssl=calling(pem))
    for _ in range(3):
        client.request_to(place, "k", 1)
    assert (context.session_stats()["accept_good"], context.session_stats()["hits"]) == (1, 0)
    # Connections that are given up after each call: the handshakes that follow are short ones.
    monkeypatch.setattr(limits, "IDLE_CONNECTION_S", 0.0)
    for _ in range(5):
        assert client.request_to(place, "k", 1)[0] == "client"
    stats = context.session_stats()
    assert stats["hits"] >= 2
    assert stats["hits"] == stats["accept_good"] - 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_streams_use_sessions_again(flavour, pem, version):
    async def answer(rid, key, stream, handler):
        handler.reply(None, "ok")

    context = serving(pem)
    context.minimum_version = context.maximum_version = version
    place = f"127.0.0.1:{flavour.streaming(answer, ssl=context).port}"
    client = flavour.client(flavour.link(NOBODY), ssl=calling(pem))
    for _ in range(3):
        stream = client.stream_to(place, "k")
        assert stream.read().endswith(b'null,"ok"]')
        stream.close()
    stats = context.session_stats()
    assert (stats["accept_good"], stats["hits"]) == (3, 2)


@pytest.mark.parametrize(
    ("spoil", "field", "rule"),
    [
        (lambda pem: pem.ca_file.unlink(), "ca", r"ca-crt\.pem: No such file"),
        (lambda pem: pem.ca_file.write_text("x"), "ca", r"ca-crt\.pem must hold certificates as PEM"),
        (lambda pem: pem.server_cert.unlink(), "cert", r"server-crt\.pem: No such file"),
        (lambda pem: pem.server_key.unlink(), "key", r"server-key\.pem: No such file"),
        (lambda pem: pem.server_cert.write_text("x"), "cert", r"server-crt\.pem must hold a certificate"),
        (lambda pem: pem.server_key.write_text("x"), "cert", r"server-key\.pem its key"),
        (
            lambda pem: pem.server_key.write_bytes(pem.client_key.read_bytes()),
            "key",
            r"server-key\.pem is not the key of .*server-crt\.pem",
        ),
        (lambda pem: encrypt(pem.server_key), "key", r"server-key\.pem is encrypted"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, spoil, field, rule):
    files = make_ca(tmp_path)
    spoil(files)
    for make in (
        lambda: server_context(files.server_cert, files.server_key, files.ca_file),
        lambda: client_context(files.ca_file, files.server_cert, files.server_key),
    ):
        with pytest.raises(errors.ArgumentError, match=rule) as caught:
            make()
        assert caught.value.field == field


def encrypt(key):
    """Write a private key anew, under a password."""
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    key.write_bytes(loaded.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))


@pytest.mark.parametrize("over_tls", [True, False])
def test_the_errors_of_a_handshake_speak_of_tls(flavour, pem, tmp_path, over_tls):
    place = start(flavour, ssl=serving(pem) if over_tls else None)
    stranger = client_context(make_ca(tmp_path).ca_file)
    with pytest.raises(errors.ConnectError) as caught:
        flavour.client(flavour.link(NOBODY), ssl=stranger).request_to(place, "k", 1)
    said = "TLS: self-signed certificate" if over_tls else "TLS: the other side does not speak it"
    assert f"no connection: {said}" in str(caught.value).replace("self signed", "self-signed")


def test_sessions_are_kept_for_so_many_destinations(pem, monkeypatch):
    monkeypatch.setattr(limits, "DESTINATION_POOLS", 2)
    sessions = Sessions(calling(pem))
    made = [sessions.to(f"127.0.0.1:{port}") for port in (1, 2, 1, 3, 1, 2)]
    assert made[0] is made[2] is made[4]  # used of late
    assert made[1] is not made[5]
    assert Sessions(None).to("127.0.0.1:1") is None


def test_the_time_limit_holds_over_tls(flavour, pem):
    place = start(flavour, lambda *request: None, ssl=serving(pem))
    client = flavour.client(flavour.link(NOBODY), ssl=calling(pem))
    with pytest.raises(errors.RequestTimeout):
        client.request_to(place, "k", 1, timeout=0.3)


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "begun"])
def test_a_handshake_has_a_time_limit(flavour, pem, monkeypatch, begun):
    monkeypatch.setattr(limits, "HANDSHAKE_S", 0.3)
    service = flavour.service(who, ssl=server_context(pem.server_cert, pem.server_key))
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as caller:
        caller.sendall(begun)
        with suppress(ConnectionError):
            assert caller.recv(100) == b""
    service.stop()  # nothing is left to wait for
