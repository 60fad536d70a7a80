"""JSON and gzip: what JSON.parse takes is taken, what it refuses is refused, nothing grows without bound."""

from __future__ import annotations

import gzip
import json
import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grenache_py.codec import TooLargeError, compress, decode_json, decompress, encode_json
from grenache_py.errors import ArgumentError

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_json_round_trip_and_agreement_with_the_standard_library(value):
    encoded = encode_json(value)
    assert decode_json(encoded) == value
    assert json.loads(encoded) == value


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_raise_value_error(data):
    try:
        value = decode_json(data)
    except ValueError:
        return
    encode_json(value)  # whatever came in can go out again


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'"w\xc3\xb6rld"', "wörld"),
        (b" \n[1] \n", [1]),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\ud800"', "\ufffd"),
        (b'{"\\udc00x":["a\\ud800b\\ud83d\\ude00"]}', {"\ufffdx": ["a\ufffdb😀"]}),
        (b'"\\\\ud800"', "\\ud800"),
        (b'"\xff"', "\ufffd"),
        (b"6001.0", 6001),
        (b"-0", 0),
    ],
)
def test_what_json_parse_takes(data, value):
    assert decode_json(data) == value


@pytest.mark.parametrize(
    "data",
    [
        b"", b"NaN", b"Infinity", b"-Infinity", b"[1,2", b"\xef\xbb\xbf[1]", b"01", b'"\t"', b"{'a':1}",
        b"[1,]", b"1 2", b"1e400", b'["\\ud800",1e400]', b'["\\ud800",NaN]', b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"1" * 5000,
    ],
    ids=lambda data: data[:16].decode("latin-1"),
)  # fmt: skip
def test_what_is_refused(data):
    with pytest.raises(ValueError, match=r"\w"):
        decode_json(data)


def test_what_is_sent_for_python_values():
    assert encode_json([math.nan, math.inf, -math.inf]) == b"[null,null,null]"
    assert encode_json({"a": (1, "ž")}) == '{"a":[1,"ž"]}'.encode()


def circular() -> list[object]:
    loop: list[object] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value",
    ["\ud800", {"a": object()}, {None: 1}, circular(), 10**5000],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_json_form_names_the_argument(value):
    with pytest.raises(ArgumentError) as caught:
        encode_json(value, "result")
    assert caught.value.field == "result"
    assert str(caught.value).startswith("result: must ")


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_gzip_members_are_joined_and_trailing_bytes_ignored(one, two):
    assert decompress(compress(one)) == one
    assert decompress(compress(one) + gzip.compress(two)) == one + two
    assert decompress(compress(one) + b"trailing") == one


def test_gzip_is_understood_by_others_and_has_no_time_in_it():
    assert gzip.decompress(compress(b"x" * 1000)) == b"x" * 1000
    assert compress(b"x") == compress(b"x")
    assert compress(b"x")[4:8] == b"\0\0\0\0"


def test_a_gzip_bomb_is_stopped_at_the_limit():
    bomb = compress(b"\0" * 10_000_000)
    assert len(bomb) < 20_000
    with pytest.raises(TooLargeError):
        decompress(bomb, 9_999_999)
    assert len(decompress(bomb, 10_000_000)) == 10_000_000
    with pytest.raises(TooLargeError):
        decompress(compress(b"a" * 60) + compress(b"b" * 60), 100)


@pytest.mark.parametrize(
    "data", [b"", b"plain", compress(b"hello")[:-1], compress(b"hello")[:5], zlib.compress(b"hello")]
)
def test_broken_gzip(data):
    with pytest.raises(ValueError, match="gzip"):
        decompress(data)
