"""Headers and deadlines of single calls over WebSocket, in both flavours."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grenache_py import errors, limits
from grenache_py.transports.ws_calls import add_headers, decode_headers, encode_call, encode_headers
from grenache_py.wire import decode_message
from tests.harness import eventually
from tests.ws_flavours import HANDSHAKE, NOBODY, TEXT, RawPeer, frame, raw_client

OFFER = "grc-headers: 1\r\n"


def place_of(service):
    return f"127.0.0.1:{service.port}"


def said(message):
    return decode_headers(decode_message(message).extra)


# --- as they stand in a message


def test_what_is_added_to_a_request():
    request = encode_call("r", "k", {"a": "ž"})
    headers = encode_headers({"X-User": "ann", "_ar": {"n": "ž"}}, 1.5)
    whole = add_headers(request, headers)
    assert json.loads(whole) == [
        "r",
        "k",
        {"a": "ž"},
        {"x-user": "ann", "_ar": '{"n":"\\u017e"}', "grc-deadline-ms": "1500"},
    ]
    decoded = decode_message(whole)
    assert (decoded.rid, decoded.key, decoded.payload) == ("r", "k", {"a": "ž"})
    assert encode_headers(None, None) == encode_headers({}, None) == b""


@given(
    st.dictionaries(
        st.from_regex(r"\Ax-[a-z0-9-]{0,20}\Z"),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50),
        max_size=20,
    )
)
def test_what_one_side_says_the_other_side_reads(headers):
    assert said(add_headers(b'["r","k",1]', encode_headers(headers, None) or b"{}")) == headers


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_whatever_comes_is_made_of_plain_text_or_passed_over(extra):
    for name, value in decode_headers(extra).items():
        assert name == name.lower()
        assert name.isascii()
        assert (name + value).isprintable()
        assert value.isascii()


@pytest.mark.parametrize(
    "extra",
    [
        {"x": 1},
        {"x": "y", "z": None},
        {"x": "a\nb"},
        {"x": "ž"},
        {"": "x"},
        {"x y": "z"},
        {"x": "y" * limits.MESSAGE_HEADERS_BYTES},
        {f"x{number}": "" for number in range(limits.MESSAGE_HEADERS_MAX + 1)},
    ],
)
def test_what_breaks_a_rule_is_passed_over_as_a_whole(extra):
    assert decode_headers(extra) == {}


def test_what_only_has_a_meaning_over_http_is_left_out():
    assert decode_headers({"_gr": "[1,2]", "grc-compress": "gzip", "X": "y"}) == {"x": "y"}


# --- from a client


@pytest.mark.parametrize("offer", [OFFER, "GRC-Headers: anything\r\n", ""])
def test_headers_go_only_to_who_takes_them(ws_flavour, offer):
    seen = []

    def serve(peer):
        while (got := peer.read()) is not None and got[0] == TEXT:
            seen.append(json.loads(got[1]))
            peer.send(frame(TEXT, json.dumps([seen[-1][0], None, "ok"])))

    with RawPeer(serve, headers=offer) as peer:
        client = ws_flavour.client(deadlines=True)
        plain = ws_flavour.client()
        for _ in range(2):  # over a new connection, and over one that was kept
            assert client.request_to(peer.destination, "k", 1, headers={"x-a": "b"}, timeout=5) == "ok"
        assert client.request_to(peer.destination, "k", 2, timeout=5) == "ok"
        assert plain.request_to(peer.destination, "k", 3) == "ok"
    sent = [{"x-a": "b", "grc-deadline-ms": "5000"}] * 2 + [{"grc-deadline-ms": "5000"}]
    assert [message[3:] for message in seen] == [*([headers] if offer else [] for headers in sent), []]


@pytest.mark.parametrize(
    "headers",
    [
        {"x y": "z"},
        {"grc-deadline-ms": "1"},
        {"x": "ž"},
        {"x": "y" * limits.MESSAGE_HEADERS_BYTES},
        {f"x{number}": "" for number in range(limits.MESSAGE_HEADERS_MAX + 1)},
    ],
)
def test_headers_that_break_a_rule(ws_flavour, headers):
    with RawPeer(lambda peer: None) as peer:
        with pytest.raises(errors.ArgumentError) as caught:
            ws_flavour.client().request_to(peer.destination, "k", 1, headers=headers)
        assert caught.value.field == "headers"
        assert not peer.heads


def test_a_map_says_them_to_all(ws_flavour):
    from grenache_py import Grape

    def tell(rid, key, payload, handler):
        handler.reply(None, [handler.headers.get("x-a"), 0 < (handler.remaining_s or 0) <= 5])

    with Grape(host="127.0.0.1") as grape:
        link = ws_flavour.link(grape.url)
        for _ in range(2):
            link.announce("rpc_test", ws_flavour.service(tell, link).port)
        client = ws_flavour.client(link, deadlines=True)
        for _ in range(2):
            outcomes = client.map("rpc_test", 1, headers={"x-a": "b"}, timeout=5)
            assert [outcome.payload for outcome in outcomes] == [["b", True]] * 2


# --- at a service


def test_a_handler_finds_them(ws_flavour):
    def tell(rid, key, payload, handler):
        handler.reply(None, [handler.headers.get("x-a"), handler.action, handler.args])

    service = ws_flavour.service(tell)
    client = ws_flavour.client()
    headers = {"X-A": "b", "_a": "upload", "_ar": {"n": ["ž"]}}
    assert client.request_to(place_of(service), "k", 1, headers=headers) == ["b", "upload", {"n": ["ž"]}]
    assert client.request_to(place_of(service), "k", 1) == [None, None, {}]  # they stay with their call


def test_what_the_handshake_has_said_stands(ws_flavour):
    """A proxy in front may have said it."""

    def tell(rid, key, payload, handler):
        names = ("x-user", "x-a", "traceparent", "grc-deadline-ms")
        handler.reply(None, [handler.headers.get(name) for name in names])

    service = ws_flavour.service(tell)
    extra = "X-User: the proxy's\r\ntraceparent: of the connection\r\ngrc-deadline-ms: 1\r\n\r\n"
    with raw_client(service.port, HANDSHAKE[:-2] + OFFER + extra) as client:
        own = {"X-User": "mine", "x-a": "b", "traceparent": "of the call"}
        for headers, answer in (
            ([own], ["the proxy's", "b", "of the call", None]),
            ([], ["the proxy's", None, None, None]),
        ):
            client.send(frame(TEXT, json.dumps(["r", "k", 1, *headers]), masked=True))
            assert json.loads(client.next_frame()[1]) == ["r", None, answer]


@pytest.mark.parametrize("extra", [1, "x", None, ["x"], {"grc-deadline-ms": 1}, {"grc-deadline-ms": "-1"}])
def test_a_fourth_element_of_another_kind_is_passed_over(ws_flavour, extra):
    service = ws_flavour.service(lambda rid, key, payload, handler: handler.reply(None, handler.remaining_s))
    with raw_client(service.port) as client:
        client.send(frame(TEXT, json.dumps(["r", "k", 1, extra, "more"]), masked=True))
        assert json.loads(client.next_frame()[1]) == ["r", None, None]


def test_work_ends_when_its_caller_has_given_up(ws_flavour):
    service = ws_flavour.service(lambda rid, key, payload, handler: None)
    with raw_client(service.port) as client:
        started = time.monotonic()
        client.send(frame(TEXT, '["r","k",1,{"grc-deadline-ms":"100"}]', masked=True))
        assert json.loads(client.next_frame()[1]) == ["r", "ERR_TIMEOUT", None]
        assert 0.05 < time.monotonic() - started < 2


async def test_a_coroutine_is_cancelled_when_its_caller_has_given_up():
    from grenache_py.aio import Link
    from grenache_py.aio.ws import PeerRPCClient, PeerRPCServer

    cancelled = asyncio.Event()

    async def handle(rid, key, payload, handler):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with Link(NOBODY) as link:
        service = PeerRPCServer(link).transport()
        service.on("request", handle)
        await service.listen(0, "127.0.0.1")
        client = PeerRPCClient(link, deadlines=True)
        with pytest.raises(errors.PeerError) as caught:
            await client.request_to(place_of(service), "k", 1, timeout=0.2)
        assert (caught.value.code, caught.value.in_doubt) == ("ERR_TIMEOUT", True)
        await asyncio.wait_for(cancelled.wait(), 5)


def test_a_request_whose_caller_has_gone_is_not_begun():
    from grenache_py import Link
    from grenache_py.ws import PeerRPCClient, PeerRPCServer

    begun, release = [], threading.Event()

    def handle(rid, key, payload, handler):
        begun.append(payload)
        release.wait(10)
        handler.reply(None, payload)

    with Link(NOBODY) as link:
        service = PeerRPCServer(link, threads=1).transport()
        service.on("request", handle)
        service.listen(0, "127.0.0.1")
        patient, hasty = PeerRPCClient(link), PeerRPCClient(link, deadlines=True)
        first = threading.Thread(target=patient.request_to, args=(place_of(service), "k", 1))
        first.start()
        eventually(lambda: begun)
        with pytest.raises(errors.PeerError) as caught:
            hasty.request_to(place_of(service), "k", 2, timeout=0.1)
        assert caught.value.code == "ERR_TIMEOUT"
        # Its own answer comes first, or that of the service, whose clock began a moment later.
        server: Any = service._server
        eventually(lambda: not server._deadlines)
        release.set()
        first.join()
        assert patient.request_to(place_of(service), "k", 3) == 3
    assert begun == [1, 3]
