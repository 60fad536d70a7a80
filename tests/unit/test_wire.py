"""RPC frames against what the real Node client and server sent and accepted (WIRE: grenache-nodejs-http
1.0.2).
"""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grenache_py.codec import compress
from grenache_py.errors import (
    ArgumentError,
    BadRequestError,
    PeerError,
    RemoteError,
    ReplyEncodingError,
    ReplyError,
    ReplySizeError,
    StatusError,
)
from grenache_py.wire import (
    HttpReply,
    decode_reply,
    decode_request,
    encode_bad_request_reply,
    encode_reply,
    encode_request,
    error_text,
)
from tests.unit.test_codec import JSON_VALUES

RID = "656f5ed4-ea57-4edb-a913-86ef47f74001"


# --- requests


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        ("hello", f'["{RID}","rpc_test","hello"]'),
        ({"hello": "wörld 😀", "n": [1, 2.5, None, True]},
         f'["{RID}","rpc_test",{{"hello":"wörld 😀","n":[1,2.5,null,true]}}]'),
        (None, f'["{RID}","rpc_test",null]'),
    ],
)  # fmt: skip
def test_requests_are_those_of_the_node_client(payload, body):
    headers, sent = encode_request(RID, "rpc_test", payload)
    assert sent == body.encode()
    assert headers == {"grc-compress": "none", "Content-Type": "text/plain;charset=UTF-8"}
    headers, sent = encode_request(RID, "rpc_test", payload, gzipped=True)
    assert gzip.decompress(sent) == body.encode()
    assert headers == {"grc-compress": "gzip"}


def test_further_headers():
    headers, _ = encode_request(RID, "k", 1, extra={"x-a": "text", "_ar": {"a": [1]}})
    assert headers["x-a"] == "text"
    assert headers["_ar"] == '{"a":[1]}'


@pytest.mark.parametrize(
    "extra",
    [
        {"Content-Length": "1"},
        {"GRC-Compress": "gzip"},
        {"a b": "x"},
        {"": "x"},
        {5: "x"},
        {"x": "a\r\nb: c"},
        {"x": "é"},
    ],
)
def test_headers_that_would_break_the_request_are_refused(extra):
    with pytest.raises(ArgumentError) as caught:
        encode_request(RID, "k", 1, extra=extra)
    assert caught.value.field == "headers"


@pytest.mark.parametrize(
    ("key", "payload", "field"), [("", 1, "key"), (5, 1, "key"), ("k", object(), "payload")]
)
def test_bad_requests_are_refused_before_they_are_sent(key, payload, field):
    with pytest.raises(ArgumentError) as caught:
        encode_request(RID, key, payload)
    assert caught.value.field == field


# --- replies, as a client reads them


def ok(body: str | bytes, status: int = 200, encoding: str = "") -> HttpReply:
    return HttpReply(status, encoding, body if isinstance(body, bytes) else body.encode())


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (ok(f'["{RID}",null,"world"]'), "world"),
        (ok(f'["{RID}",null,{{"a":[1,"ž"]}}]'), {"a": [1, "ž"]}),
        (ok(f'["{RID}","","res"]'), "res"),
        (ok(f'["{RID}",0,"res"]'), "res"),
        (ok(f'["{RID}",false,"res"]'), "res"),
        (ok(f'["{RID}"]'), None),
        (ok(f'["{RID}",null,"world",5,6]'), "world"),
        (ok(f'\n ["{RID}",null,"world"]\n'), "world"),
        (ok(f'["{RID}",null,"world"]', 201), "world"),
        (ok(gzip.compress(f'["{RID}",null,"world"]'.encode()), encoding="gzip"), "world"),
    ],
)
def test_results(reply, result):
    assert decode_reply(reply, RID, "h:1") == result


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ('"ERR_X"', "ERR_X"),
        ("5", "5"),
        ("true", "true"),
        ('["a","b"]', '["a","b"]'),
        ('{"a":1}', '{"a":1}'),
        ("[]", "[]"),
    ],
)
def test_whatever_javascript_takes_for_true_is_an_error(error, text):
    with pytest.raises(RemoteError) as caught:
        decode_reply(ok(f'["{RID}",{error},{{"some":"data"}}]'), RID, "h:1")
    assert caught.value.message == text
    assert caught.value.result == {"some": "data"}
    assert not caught.value.in_doubt


@pytest.mark.parametrize(
    "body",
    ["", "[", '["x', "null", "false", "0", "[]", "{}", '{"a":1}', "5", "true", '"abc"',
     f'\ufeff["{RID}",null,1]', '["other-rid",null,"world"]', '[null,null,"world"]'],
)  # fmt: skip
def test_what_is_no_reply_is_an_error_at_once(body):
    with pytest.raises(ReplyError) as caught:
        decode_reply(ok(body), RID, "h:1")
    assert caught.value.code == "ERR_REPLY_EMPTY"
    assert caught.value.destination == "h:1"
    assert caught.value.in_doubt


@pytest.mark.parametrize("status", [199, 300, 302, 404, 500])
def test_other_statuses(status):
    with pytest.raises(StatusError) as caught:
        decode_reply(ok(f'["{RID}",null,"world"]', status), RID, "h:1")
    assert caught.value.status == status
    assert caught.value.code == "ERR_REQUEST_GENERIC"
    assert "world" in str(caught.value)


def test_the_reason_in_a_refusal_of_ours_becomes_the_code():
    with pytest.raises(StatusError) as caught:
        decode_reply(ok('[null, "ERR_REQUEST_PAYLOAD_SIZE", null]', 413), RID, "h:1", gzipped=True)
    assert caught.value.code == "ERR_REQUEST_PAYLOAD_SIZE"
    assert not caught.value.in_doubt


def test_a_status_error_keeps_only_the_beginning_of_a_long_body():
    with pytest.raises(StatusError) as caught:
        decode_reply(ok("é" * 100_000, 500), RID, "h:1")
    assert caught.value.text == "é" * 500


def test_gzip_replies():
    frame = f'["{RID}",null,"world"]'.encode()
    assert decode_reply(ok(compress(frame)), RID, "h:1", gzipped=True) == "world"
    for body in (frame, compress(frame)[:-9], b""):
        with pytest.raises(ReplyEncodingError) as caught:
            decode_reply(ok(body), RID, "h:1", gzipped=True)
        assert caught.value.code == "ERR_REPLY_ENCODING_COMPRESSION"


@pytest.mark.parametrize("content_encoding", ["", "gzip"])
def test_a_gzip_bomb_in_a_reply(content_encoding):
    bomb = compress(b"[" + b" " * (17 * 1024 * 1024))
    with pytest.raises(ReplySizeError):
        decode_reply(ok(bomb, encoding=content_encoding), RID, "h:1", gzipped=not content_encoding)


@given(
    st.binary(max_size=80),
    st.sampled_from([200, 204, 302, 500]),
    st.sampled_from(["", "gzip"]),
    st.booleans(),
)
def test_any_reply_is_a_result_or_a_peer_error(body, status, encoding, gzipped):
    try:
        decode_reply(HttpReply(status, encoding, body), RID, "h:1", gzipped)
    except PeerError:
        pass


# --- requests, as a server reads them


@given(JSON_VALUES, st.booleans())
def test_a_server_reads_what_a_client_sends(payload, gzipped):
    headers, body = encode_request(RID, "k", payload, gzipped)
    request = decode_request({name.lower(): value for name, value in headers.items()}, body)
    assert (request.rid, request.key, request.payload, request.gzipped) == (RID, "k", payload, gzipped)


@pytest.mark.parametrize(
    ("headers", "body", "fields"),
    [
        ({}, '["r","k"]', ("r", "k", None)),
        ({}, "[]", (None, None, None)),
        ({}, '{"rid":1}', (None, None, None)),
        ({}, "5", (None, None, None)),
        ({}, "true", (None, None, None)),
        ({}, '"abc"', ("a", "b", "c")),
        ({}, '[5,"k",1,{"x":1}]', (5, "k", 1)),
        ({"_gr": '["gr-rid","gr_key"]'}, '["r","k",1]', ("gr-rid", "gr_key", 1)),
        ({"_gr": '["gr-rid","gr_key"]'}, "5", ("gr-rid", "gr_key", None)),
        ({"_gr": '["","gr_key"]'}, '["r","k",1]', ("r", "gr_key", 1)),
        ({"_gr": "null"}, '["r","k",1]', ("r", "k", 1)),
        ({"_gr": "5"}, '["r","k",1]', ("r", "k", 1)),
        ({"_gr": ""}, '["r","k",1]', ("r", "k", 1)),
    ],
)
def test_a_server_is_as_tolerant_as_node(headers, body, fields):
    request = decode_request(headers, body.encode())
    assert (request.rid, request.key, request.payload) == fields


@pytest.mark.parametrize(
    ("header", "gzipped"), [("gzip", True), ("xgzipx", True), ("GZIP", False), ("none", False), (None, False)]
)
def test_which_headers_mean_gzip(header, gzipped):
    headers = {} if header is None else {"grc-compress": header}
    frame = b'["r","k",1]'
    assert decode_request(headers, frame).gzipped is gzipped  # a plain body is taken as it is, as Node does
    if gzipped:
        assert decode_request(headers, compress(frame)).payload == 1
    else:
        with pytest.raises(BadRequestError):
            decode_request(headers, compress(frame))


@pytest.mark.parametrize("body", ["", "null", "false", "0", '""', "[", "{bad", "hello"])
def test_what_is_no_request(body):
    with pytest.raises(BadRequestError) as caught:
        decode_request({}, body.encode())
    assert (caught.value.status, caught.value.code) == (400, "ERR_REQUEST_PAYLOAD_INVALID")
    assert encode_bad_request_reply(caught.value) == b'[null, "ERR_REQUEST_PAYLOAD_INVALID", null]'


def test_a_broken_header_is_answered_as_by_node():
    with pytest.raises(BadRequestError) as caught:
        decode_request({"_gr": "{bad"}, b'["r","k",1]')
    assert caught.value.status == 500
    assert encode_bad_request_reply(caught.value) == b'[null, "ERR_HEADER_PARSE_GR", null]'


def test_a_request_that_unpacks_too_large():
    with pytest.raises(BadRequestError) as caught:
        decode_request(
            {"grc-compress": "gzip"}, compress(b'["r","k","' + b"x" * 1000 + b'"]'), max_bytes=1000
        )
    assert (caught.value.status, caught.value.code) == (413, "ERR_REQUEST_PAYLOAD_SIZE")


@given(
    st.binary(max_size=80), st.dictionaries(st.sampled_from(["_gr", "grc-compress"]), st.text(max_size=12))
)
def test_any_request_is_read_or_refused(body, headers):
    try:
        request = decode_request(headers, body)
    except BadRequestError:
        return
    json.loads(encode_reply(request.rid, None, None))


# --- replies, as a server writes them


@given(JSON_VALUES, st.booleans())
def test_a_client_reads_what_a_server_replies(result, gzipped):
    body = encode_reply(RID, None, result, gzipped)
    assert decode_reply(HttpReply(200, "", body), RID, "h:1", gzipped) == result


def test_replies_are_those_of_a_node_server():
    assert encode_reply("r", None, {"n": [1, 2.5, None, True]}) == b'["r",null,{"n":[1,2.5,null,true]}]'
    assert encode_reply("r", "ERR_X", {"some": "data"}) == b'["r","ERR_X",{"some":"data"}]'
    assert encode_reply(None, None, None) == b"[null,null,null]"
    with pytest.raises(ArgumentError) as caught:
        encode_reply("r", None, object())
    assert caught.value.field == "result"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, None),
        ("ERR_X", "ERR_X"),
        ("", None),
        (ValueError("broken"), "broken"),
        (ValueError(), "ValueError"),
    ],
)
def test_what_is_sent_for_an_error(error, text):
    assert error_text(error) == text
