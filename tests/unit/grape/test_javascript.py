"""What JavaScript makes of JSON, checked against what Node Grapes did."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bencode2 import bencode

from grenache_py.grape.javascript import (
    BadValue,
    bencodable,
    from_hex,
    parse_json,
    string_of,
    to_bytes,
    utf8,
    utf16_length,
)
from tests.unit.dht.vectors import VECTORS


@pytest.mark.parametrize(("text", "encoded"), VECTORS["bencode_encode"])
def test_bencoding_as_npm(text: str | None, encoded: str) -> None:
    if text is None:
        with pytest.raises(BadValue):
            bencodable(None)
    else:
        assert bencode(bencodable(json.loads(text))).hex() == encoded


@pytest.mark.parametrize("value", [2**53 + 1, -(2**60), 1e300, float("inf"), [[2**60]]])
def test_numbers_that_node_would_mangle_are_refused(value: Any) -> None:
    with pytest.raises(BadValue):
        bencodable(value)


def test_deep_nesting_is_refused() -> None:
    nested: Any = 1
    for _ in range(100):
        nested = [nested]
    with pytest.raises(BadValue, match="nested"):
        bencodable(nested)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b'"\xff"', "�"),
        (b'"\\ud800"', "\ud800"),
        (b"6001.0", 6001.0),
        (b"null", None),
        (b' {"a":1,"a":2} ', {"a": 2}),
    ],
)
def test_json_as_node_parses_it(body: bytes, value: Any) -> None:
    assert parse_json(body) == value


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xef\xbb\xbf{}", b"NaN", b"Infinity", b"[1,]", b"[" * 8000, b"'a'", b"{'a':1}", b"1 2"],
)
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(body)


@pytest.mark.parametrize(
    ("value", "hexadecimal", "expected"),
    [
        ("0aFF", True, b"\x0a\xff"),
        ("0aFFzz", True, b"\x0a\xff"),
        ("abc", True, b"\xab"),
        ("zz", True, b""),
        ("[1,2,300]", True, b"\x01\x02\x2c"),
        ('{"type":"Buffer","data":[1,2]}', True, b"\x01\x02"),
        ('"text"', True, b"text"),
        ("1111", True, b"\x11\x11"),
        ("null", False, b"null"),
        ("foo", False, b"foo"),
        ("123", False, b"123"),
        ("[1,2]", False, b"\x01\x02"),
        ("é", False, b"\xc3\xa9"),
        ([1, 2.9, -1], True, b"\x01\x02\xff"),
        ({"type": "Buffer", "data": [7]}, True, b"\x07"),
    ],
)
def test_bytes_as_node_reads_them(value: Any, hexadecimal: bool, expected: bytes) -> None:
    assert to_bytes(value, hexadecimal=hexadecimal) == expected


@pytest.mark.parametrize("value", [5, None, True, {}, ["a"], [True], {"type": "Buffer"}])
def test_what_is_no_bytes(value: Any) -> None:
    with pytest.raises(BadValue, match="must be a text or an array of bytes"):
        to_bytes(value, hexadecimal=True)


def test_text() -> None:
    assert utf8("ž😀") == "ž😀".encode()
    assert utf8("a\ud800b") == "a�b".encode()
    assert utf16_length("ž😀") == 3
    assert from_hex("+1") == b""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"hi", "hi"),
        (b"\xff", "�"),
        (5, "5"),
        ([b"a", 1, [2, b"c"]], "a,1,2,c"),
        ({b"a": 1}, "[object Object]"),
        ([], ""),
    ],
)
def test_values_as_texts(value: Any, text: str) -> None:
    assert string_of(value) == text
