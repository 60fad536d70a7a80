"""One request to the HTTP/1.1 server, and its reply. HTTP semantics: RFC 9110."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from ..tls import Certificate, certificate_of
from .http1_head import NO_BODY, ReplyHeads, encode_headers, join_headers


class Carrier(Protocol):
    """What an exchange needs of its connection."""

    peer: tuple[str, int]
    closed: bool
    ssl_object: Any

    @property
    def leaves(self) -> bool:
        """Whether the client has gone or will say no more."""

    @property
    def heads(self) -> ReplyHeads:
        """The heads of replies."""

    def deliver(self, exchange: Exchange, wire: bytes) -> None:
        """Take a reply."""


class Exchange:
    """One request, and the means to answer it once, now or from a later callback on the loop."""

    __slots__ = (
        "_conn",
        "_replied",
        "body",
        "fields",
        "gone",
        "header_map",
        "keep_alive",
        "method",
        "refusal",
        "target",
        "wire",
    )

    def __init__(
        self,
        conn: Carrier,
        method: str,
        target: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        keep_alive: bool,
        header_map: Mapping[str, str] | None = None,
    ) -> None:
        self.method = method
        #: as it was sent: path and query, not decoded
        self.target = target
        self.body = body
        self._conn = conn
        self._replied = False
        # What follows is for its connection.
        #: the headers as they were sent
        self.fields = headers
        self.header_map = header_map
        self.keep_alive = keep_alive
        #: a reply that is ready but must wait for those before it on the same connection
        self.wire: bytes | None = None
        #: whom to tell when the client has gone
        self.gone: Callable[[], object] | None = None
        #: the server's own answer, given in the handler's place
        self.refusal: tuple[int, bytes] | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; the values of a repeated one joined by ``", "`` (RFC 9110 section 5.3)."""
        if self.header_map is None:
            self.header_map = MappingProxyType(join_headers(self.fields))
        return self.header_map

    @property
    def peer(self) -> tuple[str, int]:
        """The address and port of the client."""
        return self._conn.peer

    @property
    def closed(self) -> bool:
        """Whether the client is gone; a reply would go nowhere."""
        return self._conn.closed

    @property
    def replied(self) -> bool:
        return self._replied

    def when_gone(self, tell: Callable[[], object]) -> None:
        """Call ``tell`` on the loop when the client has gone, or will say no more, before it is answered.
        From here both look the same; clients that close their half and wait for the answer are rare.
        """
        if self._conn.leaves:
            tell()
        else:
            self.gone = tell

    @property
    def secure(self) -> bool:
        """Whether the request came over TLS."""
        return self._conn.ssl_object is not None

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that the client has shown; ``None`` without TLS or certificate."""
        return certificate_of(self._conn.ssl_object)

    def reply(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer with a status, a body and further headers; a no-op when the client is gone.

        Raises RuntimeError on a second reply, ValueError for a header that would break the framing.
        """
        if self._replied:
            raise RuntimeError("this request has already been answered")
        conn = self._conn
        extra = encode_headers(headers) if headers else b""
        self._replied = True
        if conn.closed:
            return
        head = conn.heads.head(status, self.keep_alive)
        if status in NO_BODY:
            wire = b"%b%b\r\n" % (head, extra)
        else:
            sent = b"" if self.method == "HEAD" else body
            wire = b"%b%bContent-Length: %d\r\n\r\n%b" % (head, extra, len(body), sent)
        conn.deliver(self, wire)
