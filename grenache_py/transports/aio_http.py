"""The HTTP client of the asyncio flavour, on aiohttp: pooled keep-alive connections, one bounded exchange
per call.

Everything above this seam sees ``call`` only; ``transports/http.py`` is its synchronous twin.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from .. import limits
from ..errors import (
    ClosedError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    ReplySizeError,
    RequestTimeout,
    reason,
)
from ..wire import CLIENT_HEADERS, HttpReply

# aiohttp warns about larger ones given as bytes: it would write them in one piece.
_WHOLE_BODY_BYTES = 256 * 1024


class HttpClient:
    """Posts bodies and returns whole replies, over connections that are kept for
    ``limits.IDLE_CONNECTION_S``.
    """

    def __init__(self, max_reply_bytes: int = limits.BODY_BYTES_MAX):
        self._max_reply_bytes = max_reply_bytes
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def call(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> HttpReply:
        """POST ``body`` to ``url``; the reply comes whole, undecoded, with any status; no redirect is
        followed.

        Raises ``ConnectError``, ``ConnectionLost``, ``RequestTimeout`` or ``ReplySizeError`` within
        ``timeout_s`` seconds; ``ClosedError`` after ``close``.
        """
        session = self._open()
        # Connecting gets a little less than the whole time, so that its own limit fires and says that nothing
        # was sent.
        timeout = aiohttp.ClientTimeout(
            total=timeout_s,
            sock_connect=min(limits.CONNECT_TIMEOUT_S, timeout_s * 0.9),
            ceil_threshold=math.inf,  # else times above 5 s are rounded up to whole seconds
        )
        data = body if len(body) <= _WHOLE_BODY_BYTES else io.BytesIO(body)
        try:
            async with session.post(
                url, data=data, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                encoding = response.headers.get("Content-Encoding", "").lower()
                return HttpReply(response.status, encoding, await self._read(response, url))
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectTimeout(_place(url), "no connection within the time limit") from error
        except aiohttp.ClientConnectorError as error:
            raise ConnectError(_place(url), f"no connection: {reason(error.os_error)}") from error
        except asyncio.TimeoutError as error:
            raise RequestTimeout(_place(url), f"no whole reply within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            if self._closed:
                raise ClosedError("stopped during the call") from error
            raise ConnectionLost(_place(url), f"connection lost: {reason(error)}") from error

    async def _read(self, response: aiohttp.ClientResponse, url: str) -> bytes:
        parts = []
        size = 0
        while part := await response.content.readany():
            parts.append(part)
            size += len(part)
            if size > self._max_reply_bytes:
                raise ReplySizeError(_place(url), f"a reply of more than {self._max_reply_bytes} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ClosedError("stopped before the call")
        if self._session is None:
            # Made at the first call, because aiohttp wants a running loop.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=limits.CONNECTIONS_MAX, keepalive_timeout=limits.IDLE_CONNECTION_S
                ),
                headers=CLIENT_HEADERS,
                skip_auto_headers=["Content-Type"],
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    async def close(self) -> None:
        """Close all connections; calls under way fail with ``ClosedError`` or ``ConnectionLost``."""
        self._closed = True
        if self._session is not None:
            await self._session.close()


def _place(url: str) -> str:
    return urlsplit(url).netloc
