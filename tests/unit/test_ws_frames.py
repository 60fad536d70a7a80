"""WebSocket frames and the messages in them, without IO."""

from __future__ import annotations

import itertools
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grenache_py import errors
from grenache_py.rpc_frames import Answer
from grenache_py.transports.ws_calls import decode_answer, encode_call, result_of
from grenache_py.transports.ws_frames import (
    BINARY,
    CONTINUATION,
    INVALID_TEXT,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    FrameError,
    Frames,
    Messages,
    check_handshake,
    encode_frame,
    masks,
)

# From RFC 6455 section 5.7, and the lengths around which the form of a frame changes.
FRAMES = [
    (TEXT, b"Hello", None, "810548656c6c6f"),
    (TEXT, b"Hello", bytes.fromhex("37fa213d"), "818537fa213d7f9f4d5158"),
    (TEXT, b"", None, "8100"),
    (BINARY, b"", bytes(4), "828000000000"),
    (BINARY, bytes(256), None, "827e0100" + "00" * 256),
    (BINARY, bytes(65536), None, "827f0000000000010000" + "00" * 65536),
    (TEXT, b"x" * 125, None, "817d" + "78" * 125),
    (TEXT, b"x" * 126, None, "817e007e" + "78" * 126),
    (TEXT, b"x" * 65535, None, "817effff" + "78" * 65535),
]


@pytest.mark.parametrize(("opcode", "payload", "mask", "expected"), FRAMES)
def test_frames(opcode, payload, mask, expected):
    assert encode_frame(opcode, payload, mask).hex() == expected


@given(st.binary(max_size=300) | st.binary(min_size=2040, max_size=2060), st.binary(min_size=4, max_size=4))
@example(bytes(range(256)) * 300 + b"abc", b"\x00\xff\x01\x80")
def test_payloads_of_all_sizes_are_masked_byte_by_byte(payload, mask):
    frame = encode_frame(BINARY, payload, mask)
    head = len(frame) - len(payload)
    assert frame[head - 4 : head] == mask
    assert frame[head:] == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert encode_frame(BINARY, payload)[2:] == frame[2 : head - 4] + payload


@given(
    st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), st.integers(0, 300) | st.just(70_000)), max_size=8),
    st.lists(st.integers(1, 500), min_size=1, max_size=20),
)
def test_frames_are_cut_out_of_whatever_pieces_come(made, sizes):
    sent = [(opcode, True, bytes(size)) for opcode, size in made]
    wire = b"".join(encode_frame(opcode, payload) for opcode, _, payload in sent)
    frames = Frames(70_000)
    got, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(wire):
            break
        got += frames.feed(wire[at : at + size])
        at += size
    assert got == sent
    assert frames.missing == 0


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        ("c10178", PROTOCOL_ERROR),  # a reserved bit
        ("81810000000078", PROTOCOL_ERROR),  # masked
        ("830178", PROTOCOL_ERROR),  # an opcode that does not exist
        ("897e007e", PROTOCOL_ERROR),  # a ping of more than 125 bytes
        ("0900", PROTOCOL_ERROR),  # a ping in parts
        ("817e000b", TOO_BIG),
        ("817f00000000000f4240", TOO_BIG),
    ],
)
def test_frames_that_no_server_may_send(wire, code):
    data = bytes.fromhex(wire)
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        frames = Frames(10)
        with pytest.raises(FrameError) as caught:
            deque(map(frames.feed, pieces), maxlen=0)
        assert caught.value.code == code


def test_what_is_missing_of_a_frame_is_known():
    frames = Frames(1000)
    assert frames.feed(bytes.fromhex("817e0200") + b"x" * 12) == []
    assert frames.missing == 500


@pytest.mark.parametrize("change", ["status", "key", "extension"])
def test_handshakes(change):
    key = b"dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 section 1.3
    lines = [
        b"HTTP/1.1 200 OK" if change == "status" else b"HTTP/1.1 101 Switching Protocols",
        b"upgrade: websocket",
        b"Sec-WebSocket-Accept:s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ]
    check_handshake(b"\r\n".join([b"HTTP/1.1 101 Switching Protocols", *lines[1:]]), key)
    if change == "extension":
        lines.append(b"Sec-WebSocket-Extensions: permessage-deflate")
    with pytest.raises(FrameError):
        check_handshake(b"\r\n".join(lines), b"another" if change == "key" else key)


def test_masks_are_four_bytes_and_do_not_repeat():
    drawn = list(itertools.islice(masks(16), 100))
    assert {len(mask) for mask in drawn} == {4}
    assert len(set(drawn)) > 95


def test_a_message_in_one_frame_is_not_copied():
    payload = b"[1,2,3]"
    message = Messages(100).feed(TEXT, True, payload)
    assert message is not None
    opcode, content = message
    assert opcode == TEXT
    assert content is payload


def test_frames_are_joined():
    messages = Messages(100)
    assert messages.feed(TEXT, False, b"a") is None
    assert messages.feed(CONTINUATION, False, b"") is None
    assert messages.feed(CONTINUATION, True, b"b") == (TEXT, b"ab")
    assert messages.feed(BINARY, False, b"\xff") is None
    assert messages.feed(CONTINUATION, True, b"\xfe") == (BINARY, b"\xff\xfe")


def test_a_character_may_be_divided_between_frames():
    messages = Messages(100)
    one, two = "ž".encode()[:1], "ž".encode()[1:]
    assert messages.feed(TEXT, False, one) is None
    assert messages.feed(CONTINUATION, True, two) == (TEXT, "ž".encode())


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(CONTINUATION, True, b"x")], PROTOCOL_ERROR),
        ([(TEXT, False, b"x"), (TEXT, True, b"x")], PROTOCOL_ERROR),
        ([(TEXT, False, b"x"), (BINARY, True, b"x")], PROTOCOL_ERROR),
        ([(TEXT, True, b"\xff")], INVALID_TEXT),
        ([(TEXT, True, b"\xed\xa0\x80")], INVALID_TEXT),
        ([(TEXT, False, b"\xc5"), (CONTINUATION, True, b"x")], INVALID_TEXT),
        ([(TEXT, True, b"x" * 11)], TOO_BIG),
        ([(TEXT, False, b"x" * 6), (CONTINUATION, False, b"x" * 5)], TOO_BIG),
    ],
)
def test_frames_that_break_a_rule(frames, code):
    messages = Messages(10)
    *before, last = frames
    for frame in before:
        assert messages.feed(*frame) is None
    with pytest.raises(FrameError) as caught:
        messages.feed(*last)
    assert caught.value.code == code


def test_calls():
    assert encode_call("r", "k", {"a": "ž"}) == '["r","k",{"a":"ž"}]'.encode()
    for key, payload, field in (("", 1, "key"), ("k", object(), "payload"), ("k", "\ud800", "payload")):
        with pytest.raises(errors.ArgumentError) as caught:
            encode_call("r", key, payload)
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (b'["r",null,1]', Answer("r", None, 1)),
        (b'["r","ERR_X"]', Answer("r", "ERR_X")),
        (b'["r"]', Answer("r")),
        (b'["r",null,1,"more"]', Answer("r", None, 1)),
        *[(bad, None) for bad in (b"[", b"", b"null", b"{}", b"[]", b"5", b'"abc"', b"[1,null,1]", b"[[]]")],
    ],
)
def test_answers(message, answer):
    assert decode_answer(message) == answer


@pytest.mark.parametrize("error", [None, 0, "", False])
def test_results(error):
    assert result_of(Answer("r", error, {"a": 1}), "h:1") == {"a": 1}


@pytest.mark.parametrize(("error", "text"), [("ERR_X", "ERR_X"), (5, "5"), ({}, "{}"), ([], "[]")])
def test_errors(error, text):
    with pytest.raises(errors.RemoteError) as caught:
        result_of(Answer("r", error, {"a": 1}), "h:1")
    assert (caught.value.message, caught.value.result) == (text, {"a": 1})


def test_what_a_server_says_in_a_handlers_place():
    for error, status in (("ERR_BUSY", 503), ("ERR_TIMEOUT", 504)):
        with pytest.raises(errors.StatusError) as caught:
            result_of(Answer("r", error), "h:1")
        assert (caught.value.code, caught.value.status) == (error, status)
        # Who is busy has not begun.
        assert (caught.value.busy, caught.value.in_doubt) == (status == 503, status == 504)
