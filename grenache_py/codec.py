"""JSON and gzip as Node reads and writes them, without any IO."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from typing import Any, Final

import msgspec

from . import limits
from .errors import ArgumentError

# --- JSON

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()


def encode_json(value: Any, field: str = "payload") -> bytes:
    """JSON as compact as ``JSON.stringify`` makes it; takes what msgspec encodes.

    NaN and infinities become ``null``, as in JavaScript; bytes become base64 text. Raises
    ``ArgumentError``, naming ``field``, for what has no JSON form.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        raise ArgumentError(field, "must not contain half of a surrogate pair") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ArgumentError(field, f"must be encodable as JSON: {error}") from error


def decode_json(data: bytes) -> Any:
    """Parse what ``JSON.parse`` parses. Raises ``ValueError`` for anything else.

    Like Node, bytes that are not UTF-8 are read as U+FFFD. Ours: half a surrogate pair (``"\\ud800"``)
    becomes U+FFFD too, so that no text from the network fails to be printed, stored or sent on; numbers
    beyond a double are refused, where JavaScript would read Infinity; integers keep all digits.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _decode_json_leniently(data)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _decode_json_leniently(data: bytes) -> Any:
    try:
        text = data.decode("utf-8", "replace")
        return _well_formed(json.loads(text, parse_float=_finite, parse_constant=_no_constant))
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("number out of range")
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    return value


def convert(value: Any, type: Any) -> Any:
    """Parsed JSON as an instance of ``type``: a dataclass, a ``msgspec.Struct``, ``list[int]``, ….

    Raises ``ValueError`` that names the place where it does not fit.
    """
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


# --- gzip


def compress(data: bytes) -> bytes:
    """A gzip member without a time in it."""
    return gzip.compress(data, mtime=0)


class TooLargeError(ValueError):
    """Decompressed data would exceed the limit."""


def decompress(data: bytes, max_bytes: int = limits.BODY_BYTES_MAX) -> bytes:
    """Decompress gzip, holding at most ``max_bytes``.

    Raises ``TooLargeError`` beyond that, ``ValueError`` when the data is no gzip or ends early. Several
    members are joined, as Node's zlib does; what follows the last one and is no gzip is ignored, as Node
    does.
    """
    parts = []
    room = max_bytes
    while True:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            part = member.decompress(data, room + 1)
        except zlib.error as error:
            raise ValueError(f"not gzip: {error}") from None
        if len(part) > room:
            raise TooLargeError(f"more than {max_bytes} bytes after decompression")
        if not member.eof:
            raise ValueError("gzip data ends early")
        parts.append(part)
        room -= len(part)
        data = member.unused_data
        if not data.startswith(b"\x1f\x8b"):
            return b"".join(parts)
