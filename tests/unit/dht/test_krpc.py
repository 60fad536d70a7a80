"""KRPC messages: one table of (object, bytes) for both directions, Node's own datagrams, and nonsense."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bencode2 import bdecode, bencode
from hypothesis import given
from hypothesis import strategies as st

from grenache_py.dht.krpc import (
    ErrorCode,
    MalformedDatagram,
    decode,
    decode_tolerant,
    echoable,
    encode_error,
    encode_query,
    encode_reply,
    error_of,
    node_id_of,
    pack_address,
    reachable,
    unpack_address,
    unpack_node,
    unpack_values,
)
from tests.unit.dht.vectors import VECTORS

ID = b"abcdefghij0123456789"

MESSAGES: list[tuple[bytes, dict[bytes, Any]]] = [
    (  # the examples of BEP 5
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
        {b"t": b"aa", b"y": b"q", b"q": b"ping", b"a": {b"id": ID}},
    ),
    (
        b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
        {b"t": b"aa", b"y": b"r", b"r": {b"id": b"mnopqrstuvwxyz123456"}},
    ),
    (
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
        {
            b"t": b"aa",
            b"y": b"q",
            b"q": b"find_node",
            b"a": {b"id": ID, b"target": b"mnopqrstuvwxyz123456"},
        },
    ),
    (
        b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
        {
            b"t": b"aa",
            b"y": b"r",
            b"r": {b"id": ID, b"token": b"aoeusnth", b"values": [b"axje.u", b"idhtnm"]},
        },
    ),
    (
        b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
        {b"t": b"aa", b"y": b"e", b"e": [201, b"A Generic Error Ocurred"]},
    ),
]


@pytest.mark.parametrize(("datagram", "message"), MESSAGES)
def test_messages_both_ways(datagram: bytes, message: dict[bytes, Any]) -> None:
    assert decode(datagram) == message
    transaction_id = message[b"t"]
    if message[b"y"] == b"q":
        assert encode_query(transaction_id, message[b"q"], message[b"a"]) == datagram
    elif message[b"y"] == b"r":
        assert encode_reply(transaction_id, message[b"r"]) == datagram
    else:
        assert encode_error(transaction_id, 201, "A Generic Error Ocurred") == datagram
        assert error_of(message) == (ErrorCode.GENERIC, "A Generic Error Ocurred")


@pytest.mark.parametrize("datagram", [bytes.fromhex(text) for text in VECTORS["datagrams"]])
def test_datagrams_of_node_grapes_survive_both_ways(datagram: bytes) -> None:
    assert bencode(decode(datagram)) == datagram
    assert decode_tolerant(datagram) == decode(datagram)


@pytest.mark.parametrize(("text", "result"), VECTORS["bencode_decode"])
def test_decodes_what_node_decodes(text: str, result: str) -> None:
    if result.startswith("error") or result == "null":
        with pytest.raises(MalformedDatagram):
            decode_tolerant(text.encode("latin-1"))
        return

    def jsonable(value: Any) -> Any:
        if isinstance(value, bytes):
            return f"bytes:{value.hex()}"
        if isinstance(value, dict):
            return {key.decode(): jsonable(item) for key, item in value.items()}
        return value

    decoded = decode_tolerant(text.encode("latin-1"))
    expected = json.loads(result)
    if isinstance(expected, int) and expected > 2**53:
        assert decoded == pytest.approx(expected, rel=1e-15)  # Node loses the last digits
    else:
        assert jsonable(decoded) == expected


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"x",
        b"i5e",
        b"3:abc",
        b"le",
        b"d1:ai1e",
        b"d-5:abc1:xe",
        b"d1:a-5:e",
        b"di5e1:xe",
        b"l" * 60_000,
        b"d1:a" * 15_000,
        b"d1:ali" + b"9" * 5000 + b"eee" + b"trailing",
        b"d1:a" + b"l" * 500 + b"e" * 500 + b"e",
        b"d1:a99999999999999999999999999999999999999:e",
    ],
    ids=lambda value: repr(value[:20]),
)
def test_nonsense_is_refused(datagram: bytes) -> None:
    with pytest.raises(MalformedDatagram):
        decode(datagram)


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_are_malformed(data: bytes) -> None:
    for candidate in (data, b"d1:t2:aa1:y1:q" + data):
        try:
            assert type(decode(candidate)) is dict
        except MalformedDatagram:
            pass


@given(
    st.sampled_from([bytes.fromhex(text) for text in VECTORS["datagrams"]]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
)
def test_damaged_datagrams_decode_or_are_malformed(datagram: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(datagram)
    for at, byte in damage:
        damaged[at % len(damaged)] = byte
    try:
        decode(bytes(damaged))
    except MalformedDatagram:
        pass


bencoded = st.recursive(
    st.integers(-(2**62), 2**62) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.binary(max_size=6), bencoded, max_size=5))
def test_the_tolerant_decoder_agrees_with_the_strict_one(message: dict[bytes, Any]) -> None:
    datagram = bencode(message)
    assert decode_tolerant(datagram) == bdecode(datagram) == message
    assert decode(datagram + b"trailing") == message


def test_addresses() -> None:
    assert pack_address(("10.1.2.3", 6001)) == bytes.fromhex("0a0102031771")
    assert unpack_address(bytes.fromhex("0a0102031771")) == ("10.1.2.3", 6001)
    assert unpack_node(ID + bytes.fromhex("0a0102031771")) == (ID, ("10.1.2.3", 6001))
    for bad in (("10.1.2", 1), ("10.1.2.3", 65536), ("10.1.2.300", 1), ("host", 1)):
        with pytest.raises(ValueError, match=r"."):
            pack_address(bad)


@given(st.binary(min_size=6, max_size=6))
def test_compact_addresses_both_ways(compact: bytes) -> None:
    assert pack_address(unpack_address(compact)) == compact


@pytest.mark.parametrize(
    ("values", "peers"),
    [
        ([b"\x0a\x01\x02\x03\x17\x71"], [b"\x0a\x01\x02\x03\x17\x71"]),
        ([b"\x0a\x01\x02\x03\x00\x00", b"\x0a\x01\x02\x04\x17\x72"], [b"\x0a\x01\x02\x04\x17\x72"]),
        ([b"abc", b"\x0a\x01\x02\x04\x17\x72"], []),
        ([b"\x00" * 16 + b"\x17\x71"], []),  # its port field is 0
        ([b"\x0a\x01\x02\x04\x17\x72extra"], [b"\x0a\x01\x02\x04\x17\x72"]),
        ([5, b"\x0a\x01\x02\x04\x17\x72"], []),
        (b"\x0a\x01\x02\x03\x17\x71", []),
        ({}, []),
    ],
)
def test_values_are_read_as_node_reads_them(values: Any, peers: list[bytes]) -> None:
    assert unpack_values(values) == peers


@pytest.mark.parametrize(
    ("address", "good"),
    [
        (("10.0.0.1", 1), True),
        (("223.255.255.255", 65535), True),
        (("10.0.0.1", 0), False),
        (("0.0.0.0", 5), False),
        (("224.0.0.1", 5), False),
        (("255.255.255.255", 5), False),
    ],
)
def test_no_datagram_goes_where_nobody_can_be(address: tuple[str, int], good: bool) -> None:
    assert reachable(address) is good


@pytest.mark.parametrize(
    ("transaction_id", "good"),
    [
        (b"", True),
        (b"x" * 32, True),
        (b"x" * 33, False),
        (7, True),
        (2**63, False),
        (None, False),
        ([], False),
    ],
)
def test_what_is_echoed_is_bounded(transaction_id: Any, good: bool) -> None:
    assert echoable(transaction_id) is good


def test_ids_and_errors_are_checked() -> None:
    assert node_id_of({b"id": ID}) == ID
    bad: Any
    for bad in (None, [], {}, {b"id": 5}, {b"id": b"short"}):
        assert node_id_of(bad) is None
    assert error_of({b"e": [203, b"bad ", b"\xff"]}) == (203, "bad  �")
    code, text = error_of({b"e": [201, *[b"x" * 1000] * 10]})
    assert (code, len(text)) == (201, 200)
    nameless: dict[bytes, Any]
    for nameless in ({}, {b"e": b"text"}, {b"e": []}, {b"e": [b"203", b"x"]}):
        assert error_of(nameless) == (0, "Unknown error")
