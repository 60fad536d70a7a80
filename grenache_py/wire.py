"""RPC frames, without any IO: what a client sends and accepts, what a server accepts and sends.

A request is ``[rid, key, payload]``, a reply ``[rid, error, result]``, each the JSON body of an HTTP
message. Mirrors grenache-nodejs-http 1.0.2 (lib/TransportRPCClient.js, lib/TransportRPCServer.js); where
this is stricter, it says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from . import limits
from .checks import check_name
from .codec import TooLargeError, compress, convert, decode_json, decompress, encode_json
from .errors import (
    ArgumentError,
    BadRequestError,
    RemoteError,
    ReplyEncodingError,
    ReplyError,
    ReplySizeError,
    StatusError,
    code_of,
)
from .rpc_frames import GzippedRequest, Request

# --- RPC, the client's side


class HttpReply(NamedTuple):
    """A whole HTTP response: status, the ``Content-Encoding`` header (lower case, may be empty), raw body,
    all headers as they came.
    """

    status: int
    content_encoding: str
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()


CLIENT_HEADERS = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "grenache-py"}
"""The headers that go with every request of a client, to peers and to Grapes."""

# Of nearly all requests, so they are encoded once.
_PLAIN: Mapping[str, str] = MappingProxyType(
    {"grc-compress": "none", "Content-Type": "text/plain;charset=UTF-8"}
)
_PLAIN_LINES = b"grc-compress: none\r\nContent-Type: text/plain;charset=UTF-8\r\n"

DEADLINE_HEADER = "grc-deadline-ms"
"""Ours: how many milliseconds the caller will still wait. Node servers pass it over."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What the transport sets itself, or must not be told to do.
_RESERVED = frozenset(
    {"_gr", "grc-compress", DEADLINE_HEADER, "host", "connection", "keep-alive", "upgrade", "expect"}
    | {"te", "trailer", "accept-encoding", "content-encoding", "content-length", "content-type"}
    | {"transfer-encoding"}
)


_THOUSAND = [f"{number:03d}" for number in range(1000)]


def rids(prefix: str) -> Iterator[str]:
    """Ids for requests, unlike each other; with the first 24 characters of a random UUID as ``prefix`` they
    have the shape that Node sends. Thread-safe.
    """
    return map("".join, product((prefix,), *4 * (_THOUSAND,)))


def encode_request(
    rid: str,
    key: object,
    payload: Any,
    gzipped: object = False,
    extra: Mapping[str, Any] | None = None,
    deadline_s: float | None = None,
) -> tuple[Mapping[str, str], bytes]:
    """The headers and the body of one request; ``deadline_s`` is what the server is told of the time.

    Body: ``[rid, key, payload]`` as JSON, gzip if asked. ``extra`` headers that are no text are sent as
    JSON, as Node does. Raises ``ArgumentError``.
    """
    body = encode_json([rid, check_name(key, "key"), payload])
    if gzipped:
        # Node sends no Content-Type with a compressed body.
        headers: Mapping[str, str] = {"grc-compress": "gzip"}
        body = compress(body)
    else:
        headers = _PLAIN
    if extra:
        headers = {**headers, **dict(extra_headers(extra))}
    if deadline_s is not None:
        headers = {**headers, DEADLINE_HEADER: encode_deadline(deadline_s)}
    return headers, body


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they travel."""
    if headers is _PLAIN:
        return _PLAIN_LINES
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")


def encode_deadline(seconds: float) -> str:
    """What a caller that waits for so long says in the header ``DEADLINE_HEADER``."""
    return str(max(1, round(seconds * 1000)))


def extra_headers(extra: Mapping[Any, Any]) -> Iterable[tuple[str, str]]:
    """The headers that go with one call, as texts. Raises ``ArgumentError``."""
    for name, value in extra.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ArgumentError("headers", f"{name!r} is no header name")
        if name.lower() in _RESERVED:
            raise ArgumentError("headers", f"{name} is set by the transport")
        text = value if isinstance(value, str) else _ascii(encode_json(value, "headers").decode())
        if not text.isprintable() or not text.isascii():
            raise ArgumentError("headers", f"{name} must be printable ASCII")
        yield name, text


def _ascii(text: str) -> str:
    """JSON whose characters beyond ASCII, which stand in strings only, are escaped."""
    return "".join(char if char.isascii() else json.dumps(char)[1:-1] for char in text)


def decode_reply(reply: HttpReply, rid: str, destination: str, gzipped: object = False) -> Any:
    """The result in a reply ``[rid, error, result]``.

    Raises ``RemoteError`` when ``error`` is truthy in the sense of JavaScript, otherwise ``ReplyError`` and
    its subclasses. Ours: a reply that is no array, or has another ``rid``, is an error at once; Node ends
    its process for the former and waits for the time limit with the latter.
    """
    try:
        body = plain_body(reply, gzipped)
    except TooLargeError as too_large:
        raise ReplySizeError(destination, str(too_large)) from None
    except ValueError as error:
        raise ReplyEncodingError(destination, str(error)) from None
    if not 200 <= reply.status < 300:
        raise status_error(reply.status, body, destination)
    try:
        frame = decode_json(body)
    except ValueError as error:
        raise ReplyError(destination, f"the reply is not JSON: {error}") from None
    if not isinstance(frame, list) or not frame:
        raise ReplyError(destination, "the reply is not an array [rid, error, result]")
    if frame[0] != rid:
        raise ReplyError(destination, "the reply belongs to another request (its rid differs)")
    remote_error = frame[1] if len(frame) > 1 else None
    result = frame[2] if len(frame) > 2 else None
    if _truthy(remote_error):
        text = remote_error if isinstance(remote_error, str) else encode_json(remote_error).decode()
        raise RemoteError(destination, text, result)
    return result


def typed(result: Any, type: Any, destination: str) -> Any:
    """A result as an instance of ``type`` (``None``: as it is). Raises ``ReplyError`` if it does not fit."""
    if type is None:
        return result
    try:
        return convert(result, type)
    except ValueError as error:
        failure = ReplyError(destination, f"the result is not what was asked for: {error}")
        failure.code = "ERR_REPLY_TYPE"
        raise failure from None


def plain_body(reply: HttpReply, gzipped: object = False) -> bytes:
    """The body without ``Content-Encoding: gzip`` and, if ``gzipped``, without Grenache's own gzip.

    Raises ``ValueError`` or ``TooLargeError``. Error replies (not 2xx) need not be gzip.
    """
    body = reply.body
    if reply.content_encoding in ("gzip", "x-gzip"):
        body = decompress(body)
    if gzipped:
        try:
            body = decompress(body)
        except TooLargeError:
            raise
        except ValueError:
            if 200 <= reply.status < 300:
                raise
    return body


def status_error(status: int, body: bytes, destination: str) -> StatusError:
    """What a reply of another status than 2xx means, by the beginning of its body."""
    text = body[: 4 * limits.ERROR_TEXT_MAX].decode("utf-8", "replace")[: limits.ERROR_TEXT_MAX]
    error = StatusError(destination, status, text)
    # Our own server puts its reason into a frame.
    try:
        frame = decode_json(body)
    except ValueError:
        return error
    if isinstance(frame, list) and len(frame) > 1 and isinstance(frame[1], str):
        error.code = code_of(frame[1], error.code)
        error.in_doubt = error.in_doubt and not error.busy
    return error


def _truthy(value: Any) -> bool:
    """Whether JavaScript takes it for true: arrays and objects always are."""
    return isinstance(value, (list, dict)) or bool(value)


# --- RPC, the server's side


_requests: Final = msgspec.json.Decoder(Request)
_gzipped_requests: Final = msgspec.json.Decoder(GzippedRequest)


def decode_request(
    headers: Mapping[str, str], body: bytes, max_bytes: int = limits.BODY_BYTES_MAX
) -> Request:
    """Read a request from its headers (names in lower case) and body.

    As Node does: the header ``_gr``, JSON ``[rid, key]``, wins over the body where it is truthy;
    ``grc-compress`` containing ``gzip`` means a gzip body (used as it is when it is not) and a gzip reply;
    missing elements are ``None`` and further ones ignored; JSON that is no array is a request without rid,
    key and payload.

    Raises ``BadRequestError`` for a body that is no JSON or a falsy one, where Node never replies at all,
    for a broken ``_gr``, and for a body larger than ``max_bytes`` after decompression.
    """
    gzipped = "gzip" in headers.get("grc-compress", "")
    if gzipped:
        try:
            body = decompress(body, max_bytes)
        except TooLargeError as error:
            raise BadRequestError("ERR_REQUEST_PAYLOAD_SIZE", 413, str(error)) from None
        except ValueError:
            pass  # Node goes on with the body as it came
    header = headers.get("_gr")
    if not header:
        return decode_message(body, gzipped)
    rid, key = _gr(header)
    request = decode_message(body, gzipped)
    request.rid, request.key = rid or request.rid, key or request.key
    return request


def decode_message(body: bytes, gzipped: bool = False) -> Request:
    """Read a request from its JSON alone, as ``decode_request`` does."""
    try:
        return (_gzipped_requests if gzipped else _requests).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # no array, or what only decode_json takes
    try:
        frame = decode_json(body)
    except ValueError as error:
        raise BadRequestError("ERR_REQUEST_PAYLOAD_INVALID", 400, f"the body is not JSON: {error}") from None
    if not _truthy(frame):
        raise BadRequestError("ERR_REQUEST_PAYLOAD_INVALID", 400, f"the body is {body[:5].decode('ascii')}")
    fields = frame[:4] if isinstance(frame, (list, str)) else ()
    return (GzippedRequest if gzipped else Request)(*fields)


def encode_stream_head(rid: str, key: object, extra: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The headers of a stream, whose body is raw bytes. Raises ``ArgumentError``."""
    headers = {
        # Whatever the key is made of, a header is ASCII.
        "_gr": json.dumps([rid, check_name(key, "key")], separators=(",", ":")),
        "User-Agent": CLIENT_HEADERS["User-Agent"],
        "Connection": "close",
        "Transfer-Encoding": "chunked",
    }
    headers.update(extra_headers(extra or {}))
    return headers


def decode_stream_head(headers: Mapping[str, str]) -> Request:
    """Rid and key of a stream. Raises ``BadRequestError`` for a broken ``_gr``."""
    rid, key = _gr(headers.get("_gr"))
    return Request(rid, key)


def decode_action(headers: Mapping[str, str]) -> tuple[str | None, Any]:
    """The headers ``_a`` and ``_ar``, which a Node handler finds as ``meta.action`` and ``meta.args``.

    The action is ``None`` when there is none; the arguments, any JSON, are ``{}`` when there are none or they
    are broken.
    """
    try:
        arguments = decode_json(headers["_ar"].encode("utf-8", "replace"))
    except (KeyError, ValueError):
        arguments = {}
    return headers.get("_a") or None, arguments


def decode_deadline(headers: Mapping[str, str]) -> float | None:
    """For how many seconds the caller will still wait; ``None`` when it does not say so, or nonsense."""
    text = headers.get(DEADLINE_HEADER)
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 12:
        return None
    return int(text) / 1000


def _gr(header: str | None) -> tuple[Any, Any]:
    if not header:
        return None, None
    try:
        value = decode_json(header.encode("utf-8", "replace"))
    except ValueError as error:
        raise BadRequestError("ERR_HEADER_PARSE_GR", 500, f"the header _gr is not JSON: {error}") from None
    fields = value if isinstance(value, list) else []
    return (fields[0] if fields else None), (fields[1] if len(fields) > 1 else None)


def encode_reply(rid: Any, error: str | None, result: Any, gzipped: bool = False) -> bytes:
    """The body of a reply, ``[rid, error, result]``, gzip exactly when the request was. Raises
    ``ArgumentError``.
    """
    body = encode_json([rid, error, result], "result")
    return compress(body) if gzipped else body


def encode_bad_request_reply(error: BadRequestError) -> bytes:
    """The body that answers a ``BadRequestError``; the one for ``_gr`` is Node's to the byte."""
    return f'[null, "{error.code}", null]'.encode()


def error_text(error: BaseException | str | None) -> str | None:
    """What ``reply(error, …)`` sends: an exception's message, or its class name when it has none.

    Ours: a text is sent as it is. Node sends null for a text, which its callers take for success.
    """
    if error is None or isinstance(error, str):
        return error or None
    return str(error) or type(error).__name__
