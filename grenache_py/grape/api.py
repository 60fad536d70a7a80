"""The Grape's HTTP API: ``POST /{lookup,announce,put,get}`` with a body ``{"rid": …, "data": …}``.

The replies are those of grenache-grape/lib/Grape.js, errors as JSON strings with status 200 included,
because Links depend on them. Where a Node Grape dies or tells an internal message of V8, this answers with
an ``ERR_GRAPE_…`` and lives on. A Grape that is alone keeps what it is given and says so, where a Node
Grape reports an error.

Node Grapes do not have ``POST /withdraw``, the end of an announce (they answer ``"ERR_REQ_NOTFOUND"``), nor
``GET /healthz`` and ``GET /metrics``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..dht.items import Item, check_value
from ..dht.krpc import Refusal, unpack_address
from ..dht.node import Busy, DhtNode
from ..dht.storing import StoreReport
from ..dht.transactions import Reply
from ..prometheus import CONTENT_TYPE
from ..put_report import PUT_REPORT_HEADER, PutReport
from ..transports.http1_exchange import Exchange
from . import metrics
from .crowd import CROWDED_WALKS, Crowd, Request
from .javascript import (
    BadValue,
    bencodable,
    from_hex,
    parse_json,
    string_of,
    to_bytes,
    utf8,
    utf16_length,
)

#: ``check_maxPayloadSize`` of grenache-grape/lib/Grape.js
PAYLOAD_BYTES_MAX = 8192

ALL_FAILED = "All queries failed"

_encode_json = msgspec.json.Encoder().encode
_WORD_STARTS = re.compile(r"^\w|[A-Z]|\b\w|-\w|_\w", re.ASCII)
_SEPARATORS = re.compile(r"[\s_-]+")
_UNSET = object()


class _Rejected(Exception):
    """A request that is answered with a text: JSON with status 200, or plain with another."""

    def __init__(self, text: str, status: int = 200) -> None:
        super().__init__(text, status)
        self.text = text
        self.status = status


class Api:
    """Answers the requests to one node. ``dht_port`` is what port 0 means in an announce; ``clock`` is in
    seconds, ``connections`` tells how many are open.
    """

    def __init__(
        self,
        node: DhtNode,
        dht_port: int,
        clock: Callable[[], float] = lambda: 0.0,
        connections: Callable[[], int] = lambda: 0,
    ) -> None:
        self._node = node
        self._clock = clock
        self._began = clock()
        self._connections = connections
        self._errors = 0
        self._dht_port = dht_port
        # Who asks for a name at the same time gets the same list, which is written as JSON once.
        self._listing: tuple[list[bytes], bytes] = ([], b"[]")
        self._crowd = Crowd()
        self._handlers: dict[str, Callable[[Request, Any], None]] = {
            "Lookup": self._lookup,
            "Announce": self._announce,
            "Put": self._put,
            "Get": self._get,
            "Withdraw": self._withdraw,
        }
        self._requests = dict.fromkeys(map(str.lower, self._handlers), 0)
        self._pages = {"/healthz": self._healthz, "/metrics": self._metrics}
        self._paths = {f"/{name.lower()}": handler for name, handler in self._handlers.items()}

    def handle(self, exchange: Exchange) -> None:
        """Answer an exchange, now or when the DHT has."""
        if not exchange.body and exchange.method in ("GET", "HEAD"):
            page = self._pages.get(exchange.target)
            if page is not None:
                page(exchange)
                return
        request: Request = exchange
        try:
            try:
                body = parse_json(exchange.body)
            except ValueError:
                raise _Rejected("ERR_GRAPE_PAYLOAD_INVALID", 500) from None
            if body is None:
                raise _Rejected("ERR_GRAPE_PAYLOAD_INVALID", 500)
            handler = self._paths.get(exchange.target) or self._handlers.get(method_of(exchange.target[1:]))
            if handler is None:
                raise _Rejected("ERR_REQ_NOTFOUND")
            if self._node.walks_under_way >= CROWDED_WALKS:
                request = self._crowd.enter(exchange)
            handler(request, body.get("data", _UNSET) if type(body) is dict else _UNSET)
        except _Rejected as rejected:
            self._errors += 1
            text = rejected.text
            request.reply(rejected.status, _encode_json(text) if rejected.status == 200 else text.encode())
        except Busy:
            self._errors += 1
            request.reply(503, b"ERR_GRAPE_BUSY")

    def _healthz(self, exchange: Exchange) -> None:
        """200 once the bootstrap is over, 503 before."""
        ready = self._node.ready
        body = {
            "status": "ok" if ready else "starting",
            "id": self._node.node_id.hex(),
            "contacts": len(self._node.routing),
            "uptime_s": round(self._clock() - self._began, 3),
        }
        exchange.reply(200 if ready else 503, _encode_json(body), [("Content-Type", "application/json")])

    def _metrics(self, exchange: Exchange) -> None:
        page = metrics.render(
            self._node, self._requests, self._errors, self._connections(), self._clock() - self._began
        )
        exchange.reply(200, page, [("Content-Type", CONTENT_TYPE)])

    def _lookup(self, exchange: Request, name: Any) -> None:
        self._requests["lookup"] += 1
        if type(name) is not str or not name:
            raise _Rejected("ERR_GRAPE_LOOKUP")

        def found(peers: list[bytes]) -> None:
            if self._listing[0] is not peers:
                self._listing = peers, _encode_json([address_text(peer) for peer in peers])
            exchange.reply(200, self._listing[1])

        try:
            self._node.lookup(utf8(name), found)
        except ValueError:
            raise _Rejected("ERR_GRAPE_LOOKUP") from None

    def _announce(self, exchange: Request, data: Any) -> None:
        self._requests["announce"] += 1
        name, port = self._service_of(data)

        def announced(report: StoreReport) -> None:
            # Alone, this Grape keeps it, and tells those who join.
            count = report.stored if report.asked else 1
            _reply_stored(exchange, report, count)

        try:
            self._node.announce(name, port, announced)
        except ValueError:
            raise _Rejected("ERR_GRAPE_ANNOUNCE") from None

    def _withdraw(self, exchange: Request, data: Any) -> None:
        """How many announces that ended: 1, or 0 when there was none."""
        self._requests["withdraw"] += 1
        name, port = self._service_of(data)
        exchange.reply(200, b"1" if self._node.withdraw(name, port) else b"0")

    def _service_of(self, data: Any) -> tuple[bytes, int]:
        """Name and port in the data of an announce."""
        if type(data) is not list:
            raise _Rejected("ERR_GRAPE_ANNOUNCE")
        name, port = (*data, _UNSET, _UNSET)[:2]
        if type(port) is float and port.is_integer():
            port = int(port)
        if type(port) is not int or not 0 <= port <= 0xFFFF:
            raise _Rejected("ERR_GRAPE_SERVICE_PORT")
        if type(name) is not str:
            name = _bytes(name, "ERR_GRAPE_ANNOUNCE: the name", hexadecimal=False)
        else:
            name = utf8(name)
        return name, port or self._dht_port

    def _put(self, exchange: Request, data: Any) -> None:
        self._requests["put"] += 1
        if data is None or data is _UNSET:
            raise _Rejected("ERR_GRAPE_PUT: data must be a text or an object", 500)
        fields = {"v": data} if type(data) is str else data if type(data) is dict else {}
        item, cas = item_of(fields)
        target = item.target

        def stored(report: StoreReport) -> None:
            _reply_stored(exchange, report, target.hex(), [(PUT_REPORT_HEADER, str(outcome(report)))])

        self._node.put(item, cas, stored)

    def _get(self, exchange: Request, data: Any) -> None:
        self._requests["get"] += 1
        if data is None or data is _UNSET:
            raise _Rejected("ERR_GRAPE_GET: data must be a hash or an object", 500)
        salt, cache = None, True
        if type(data) is str:
            target = to_bytes(data, hexadecimal=True)
        else:
            fields = data if type(data) is dict else {}
            if fields.get("salt"):
                salt = _bytes(fields["salt"], "ERR_GRAPE_GET: the salt", hexadecimal=False)
            cache = fields.get("cache") is not False
            if type(fields.get("hash")) is not str:
                raise _Rejected("ERR_GRAPE_GENERIC")
            target = from_hex(fields["hash"])
        if len(target) != 20:
            # No item has such a key, and an empty one kills a Node Grape.
            exchange.reply(200, b"")
            return

        def found(item: Item | None, reply: Reply | None) -> None:
            if item is None:
                exchange.reply(200, b"")
            else:
                exchange.reply(200, _encode_json(item_fields(item, reply, salt, self._node.node_id)))

        self._node.get(target, found, salt=salt, cache=cache)


def method_of(path: str) -> str:
    """The name in a path, camel-cased as grenache-grape/lib/utils.js does: ``-lookup`` and ``Lookup`` are
    one.
    """
    marked = _WORD_STARTS.sub(
        lambda match: match[0].upper() if match.start() else match[0].lower(), "-" + path
    )
    joined = _SEPARATORS.sub("", marked)
    return joined[:1].upper() + joined[1:]


def address_text(peer: bytes) -> str:
    host, port = unpack_address(peer)
    return f"{host}:{port}"


def item_of(fields: dict[str, Any]) -> tuple[Item, int | None]:
    """The item, and ``cas``, in the data of a ``put``; checked in the order of bittorrent-dht/client.js.

    Raises _Rejected.
    """
    k, sig, salt = fields.get("k"), fields.get("sig"), fields.get("salt")
    if k:
        k = _bytes(k, "ERR_GRAPE_PUT: k", hexadecimal=True)
        sig = _bytes(sig, "ERR_GRAPE_PUT: sig", hexadecimal=True) if sig else None
        salt = _bytes(salt, "ERR_GRAPE_PUT: salt", hexadecimal=False) if salt else None
    v = _value_of(fields.get("v", _UNSET))
    if not k and type(k) is not bytes:
        item, cas = Item(v), None
    else:
        cas, seq = fields.get("cas", _UNSET), fields.get("seq", _UNSET)
        if cas is not _UNSET and not _is_number(cas):
            raise _Rejected("opts.cas must be an integer if provided")
        if len(k) != 32:
            raise _Rejected("opts.k ed25519 public key must be 32 bytes")
        if sig is None:
            raise _Rejected("opts.sign function or options.sig signature is required for mutable put")
        if salt is not None and len(salt) > 64:
            raise _Rejected("opts.salt is > 64 bytes long")
        if seq is _UNSET:
            raise _Rejected("opts.seq not provided for a mutable update")
        if not _is_number(seq) or not 0 <= seq < 2**53:
            raise _Rejected("opts.seq not an integer")
        item, cas = Item(v, k, sig, int(seq), salt or None), None if cas is _UNSET else int(cas)
        # What no node would store is not sent: a signature of the wrong length may even kill a Node Grape.
        if not item.signature_valid():
            raise _Rejected(ALL_FAILED)
    if not v and type(v) is int:
        raise _Rejected(ALL_FAILED)
    return item, cas


def _value_of(value: Any) -> Any:
    if value is _UNSET:
        raise _Rejected("opts.v not given")
    if value is None:
        raise _Rejected("opts.v must not be null")
    length = utf16_length(value) if type(value) is str else len(value) if type(value) is list else 0
    if length >= 1000:
        raise _Rejected("v must be less than 1000 bytes in put()")
    try:
        v = bencodable(value)
        check_value(v)
    except BadValue as error:
        raise _Rejected(f"opts.v {error}") from None
    except Refusal as refusal:
        raise _Rejected(ALL_FAILED if refusal.code == 205 else refusal.text) from None
    return v


def item_fields(item: Item, reply: Reply | None, salt: bytes | None, own_id: bytes) -> dict[str, Any]:
    """The answer to a ``get``, with the keys in Node's order: local ones differ from those of a reply."""
    v = string_of(item.v)
    if reply is None:
        fields: dict[str, Any] = {"id": own_id.hex(), "token": None, "v": v}
        if item.k is not None and item.sig is not None:
            fields |= {"sig": item.sig.hex(), "k": item.k.hex(), "seq": item.seq}
        return fields
    token = reply.get(b"token")
    fields = {"id": reply[b"id"].hex()}
    if item.k is not None and item.sig is not None:
        fields |= {"k": item.k.hex(), "seq": item.seq, "sig": item.sig.hex()}
    if type(token) is bytes:
        fields["token"] = token.hex()
    fields["v"] = v
    if salt is not None:
        fields["salt"] = salt.decode("utf-8", "replace")
    return fields


def outcome(report: StoreReport) -> PutReport:
    """What the caller of a put is told of it."""
    refused = tuple(code for code, _ in report.refusals)
    return PutReport(report.asked, report.stored, report.silent, refused)


def _reply_stored(
    exchange: Request, report: StoreReport, result: Any, headers: Iterable[tuple[str, str]] = ()
) -> None:
    """The result, or of the refusals one of 300..399, which Node makes the HTTP status."""
    if report.taken or not report.asked:
        exchange.reply(200, _encode_json(result), headers)
        return
    told = [refusal for refusal in report.refusals if 300 <= refusal[0] < 400]
    if told:
        code, text = told[-1]
        exchange.reply(code, _encode_json(f"{code} {text}"), headers)
    else:
        exchange.reply(200, _encode_json(ALL_FAILED), headers)


def _bytes(value: Any, field: str, *, hexadecimal: bool) -> bytes:
    try:
        return to_bytes(value, hexadecimal=hexadecimal)
    except BadValue as error:
        raise _Rejected(f"{field} {error}" if value is not _UNSET else f"{field} is missing", 500) from None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
