"""KRPC messages: bencoded dicts in UDP datagrams (BEP 5, BEP 44), as Node's k-rpc-socket speaks them.
IO-free.

A message is a dict with byte string keys: query ``{t, y: "q", q, a}``, reply ``{t, y: "r", r}``, error
``{t, y: "e", e: [code, text]}``. Compact addresses are 6 bytes (IPv4, port), compact nodes 26 (id, address).
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any

from bencode2 import BencodeDecodeError, bdecode, bencode

from .bounds import ID_BYTES, TRANSACTION_ID_BYTES_MAX, VALUES_READ_MAX

Address = tuple[str, int]

#: a compact node: id, IPv4 address, port
NODE_BYTES = ID_BYTES + 6
# More list and dict marks than a real message has: the decoder in C unwinds deep nesting very slowly.
_MARKS_MAX = 64
_DEPTH_MAX = 32
_DIGITS_MAX = 32


class ErrorCode(IntEnum):
    """KRPC error codes (BEP 5, BEP 44)."""

    GENERIC = 201
    SERVER = 202
    PROTOCOL = 203
    METHOD_UNKNOWN = 204
    VALUE_TOO_BIG = 205
    INVALID_SIGNATURE = 206
    SALT_TOO_BIG = 207
    CAS_MISMATCH = 301
    SEQ_TOO_OLD = 302


class Refusal(Exception):
    """A query that is answered with a KRPC error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class MalformedDatagram(ValueError):
    """Bytes that are not a KRPC message."""


def decode(datagram: bytes) -> dict[bytes, Any]:
    """The message in a datagram. Raises MalformedDatagram.

    What npm's bencode accepts and strict bencode does not (unsorted or repeated keys, trailing bytes, short
    strings, odd integers) is accepted here too, because Node accepts it.
    """
    if datagram.count(b"l") + datagram.count(b"d") > _MARKS_MAX:
        message = decode_tolerant(datagram)
    else:
        try:
            message = bdecode(datagram)
        except (BencodeDecodeError, ValueError):
            message = decode_tolerant(datagram)
    if type(message) is not dict:
        raise MalformedDatagram("a KRPC message is a dict")
    return message


def decode_tolerant(data: bytes) -> Any:
    """Decode as npm's bencode 2.0.3 does, in bounded depth and time. Raises MalformedDatagram.

    Two differences: a negative length, on which Node loops for ever, is refused; integers stay exact.
    """
    value, _ = _decode_at(data, 0, 0)
    return value


def _decode_at(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > _DEPTH_MAX:
        raise MalformedDatagram("nested too deeply")
    mark = data[at : at + 1]
    if mark == b"i":
        end = _find(data, b"e", at + 1)
        return _number(data[at + 1 : end]), end + 1
    if mark == b"l":
        items: list[Any] = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = _decode_at(data, at, depth + 1)
            items.append(item)
        return items, at + 1
    if mark == b"d":
        found: dict[bytes, Any] = {}
        at += 1
        while data[at : at + 1] != b"e":
            key, at = _string_at(data, at)
            found[key], at = _decode_at(data, at, depth + 1)
        return found, at + 1
    return _string_at(data, at)


def _string_at(data: bytes, at: int) -> tuple[bytes, int]:
    colon = _find(data, b":", at)
    length = _number(data[at:colon])
    if length < 0:
        raise MalformedDatagram("negative string length")
    end = colon + 1 + length
    return data[colon + 1 : end], end


def _find(data: bytes, byte: bytes, at: int) -> int:
    found = data.find(byte, at)
    if found < 0:
        raise MalformedDatagram(f"no {byte!r} where one is due")
    return found


def _number(text: bytes) -> int:
    digits, _, _ = text.partition(b".")
    sign, unsigned = (-1, digits[1:]) if digits[:1] == b"-" else (1, digits.removeprefix(b"+"))
    if len(unsigned) > _DIGITS_MAX or (unsigned and not unsigned.isdigit()):
        raise MalformedDatagram("not a number")
    return sign * int(unsigned or b"0")


def encode_query(transaction_id: bytes, method: bytes, args: dict[bytes, Any]) -> bytes:
    # The outer dict is written here, its keys in order: that takes half the time.
    return b"d1:a%b1:q%d:%b1:t%d:%b1:y1:qe" % (
        bencode(args),
        len(method),
        method,
        len(transaction_id),
        transaction_id,
    )


def encode_reply(transaction_id: Any, reply: dict[bytes, Any], ip: bytes | None = None) -> bytes:
    """``ip`` is the compact address that the query came from, for those who wonder (BEP 42)."""
    message = {b"t": transaction_id, b"y": b"r", b"r": reply}
    if ip is not None:
        message[b"ip"] = ip
    return bencode(message)


def encode_error(transaction_id: Any, code: int, text: str) -> bytes:
    return bencode({b"t": transaction_id, b"y": b"e", b"e": [int(code), text]})


def echoable(transaction_id: Any) -> bool:
    """Whether a sender's transaction id is given back: any short string, or an integer, as Node does."""
    if type(transaction_id) is bytes:
        return len(transaction_id) <= TRANSACTION_ID_BYTES_MAX
    return type(transaction_id) is int and -(2**63) <= transaction_id < 2**63


def node_id_of(fields: Any) -> bytes | None:
    """The ``id`` of query arguments or a reply, where it is one."""
    node_id = fields.get(b"id") if type(fields) is dict else None
    return node_id if type(node_id) is bytes and len(node_id) == ID_BYTES else None


def error_of(message: dict[bytes, Any]) -> tuple[int, str]:
    """Code and text of an error message; (0, "Unknown error") where they are missing, as k-rpc-socket."""
    told = message.get(b"e")
    if type(told) is not list or not told or type(told[0]) is not int:
        return 0, "Unknown error"
    parts = [part.decode("utf-8", "replace") for part in told[1:] if type(part) is bytes]
    return told[0], " ".join(parts)[:200]


@lru_cache(4096)
def pack_address(address: Address) -> bytes:
    """6 bytes. Raises ValueError for what is not a dotted quad and a port 0..65535."""
    host, port = address
    quad = bytes(map(int, host.split(".")))
    if len(quad) != 4 or not 0 <= port <= 0xFFFF:
        raise ValueError(f"{host}:{port} is not an IPv4 address and port")
    return quad + port.to_bytes(2, "big")


def unpack_address(compact: bytes) -> Address:
    a, b, c, d, high, low = compact[:6]
    return f"{a}.{b}.{c}.{d}", high << 8 | low


def unpack_values(values: Any) -> list[bytes]:
    """The compact peers in the ``values`` of a reply: port 0 skipped, the first short entry ends the list."""
    found: list[bytes] = []
    if type(values) is not list:
        return found
    for value in values[:VALUES_READ_MAX]:
        if type(value) is not bytes or len(value) < 6:
            break
        if value[4] or value[5]:
            found.append(value[:6])
    return found


def unpack_node(compact: bytes) -> tuple[bytes, Address]:
    return compact[:ID_BYTES], unpack_address(compact[ID_BYTES:])


def reachable(address: Address) -> bool:
    """Whether a datagram may be sent there: not port 0, not "this host", multicast or broadcast."""
    host, port = address
    first = int(host.partition(".")[0])
    return port != 0 and 0 < first < 224
