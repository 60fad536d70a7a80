"""What JavaScript makes of JSON where a Node Grape's answers depend on it. IO-free.

Mirrors ``str2buf`` in grenache-grape/lib/Grape.js, ``Buffer.from`` and ``String()`` of Node, and the
bencoding of npm's bencode 2.0.3.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

_SAFE_INTEGER = 2**53
_DEPTH_MAX = 32


class BadValue(ValueError):
    """A value that Node's ``Buffer.from`` or bencode does not take."""


def parse_json(body: bytes) -> Any:
    """``JSON.parse(buffer.toString())``: bytes that are not UTF-8 become U+FFFD. Raises ValueError."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # lone surrogates and bad UTF-8, which JSON.parse lets through
    try:
        return json.loads(body.decode("utf-8", "replace"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def utf8(text: str) -> bytes:
    """``Buffer.from(text)``: a lone surrogate becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def utf16_length(text: str) -> int:
    """``text.length``: code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def from_hex(text: str) -> bytes:
    """``Buffer.from(text, "hex")``: up to the first two characters that are no byte."""
    found = bytearray()
    for at in range(0, len(text) - 1, 2):
        pair = text[at : at + 2]
        if not (pair.isascii() and pair.isalnum()):
            break
        try:
            found.append(int(pair, 16))
        except ValueError:
            break
    return bytes(found)


def to_bytes(value: Any, *, hexadecimal: bool) -> bytes:
    """``str2buf``: a string is tried as JSON (of bytes) first, then taken as hex or as text.

    Raises BadValue where Node throws.
    """
    if type(value) is not str:
        return _buffer_from(value)
    try:
        return _buffer_from(parse_json(utf8(value)))
    except ValueError:
        return from_hex(value) if hexadecimal else utf8(value)


def _buffer_from(value: Any) -> bytes:
    """``Buffer.from`` of a string, an array of numbers, or what ``JSON.stringify`` makes of a Buffer."""
    if type(value) is str:
        return utf8(value)
    if type(value) is dict and value.get("type") == "Buffer":
        value = value.get("data")
    if type(value) is list and all(type(element) in (int, float) for element in value):
        return bytes(int(element) & 0xFF for element in value)
    raise BadValue(f"must be a text or an array of bytes, not {kind(value)}")


def bencodable(value: Any, depth: int = 0) -> Any:
    """A JSON value as npm's bencode sees it: text as UTF-8, true as 1, floats cut, nulls left out.

    Raises BadValue for what cannot be encoded without loss.
    """
    if depth > _DEPTH_MAX:
        raise BadValue("is nested too deeply")
    if type(value) is str:
        return utf8(value)
    if type(value) is bool:
        return int(value)
    if type(value) in (int, float):
        if not -_SAFE_INTEGER <= value <= _SAFE_INTEGER:
            raise BadValue("has a number beyond 2^53")
        return int(value)
    if type(value) is list:
        return [bencodable(element, depth + 1) for element in value if element is not None]
    if type(value) is dict:
        return {
            utf8(key): bencodable(element, depth + 1) for key, element in value.items() if element is not None
        }
    raise BadValue(f"must not be {kind(value)}")


def string_of(value: Any) -> str:
    """``String()`` of a value that was bencoded: arrays are joined by commas, objects are not told."""
    if type(value) is bytes:
        return value.decode("utf-8", "replace")
    if type(value) is list:
        return ",".join(map(string_of, value))
    if type(value) is dict:
        return "[object Object]"
    return str(value)


def kind(value: Any) -> str:
    """The name of a JSON type, for error messages."""
    if value is None:
        return "null"
    names = {str: "a text", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    return names.get(type(value), "an object")
