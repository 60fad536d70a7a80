"""The HTTP client of the synchronous flavour, on requests: pooled keep-alive connections, one bounded
exchange per call. Thread-safe. Everything above this seam sees ``call`` only; ``transports/aio_http.py`` is
its asyncio twin.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError

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


class HttpClient:
    """Posts bodies and returns whole replies, over connections that are kept for
    ``limits.IDLE_CONNECTION_S``.
    """

    def __init__(self, max_reply_bytes: int = limits.BODY_BYTES_MAX):
        self._max_reply_bytes = max_reply_bytes
        self._closed = False
        self._session = requests.Session()
        self._session.trust_env = False  # no proxies: peers are called where they are
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # keeps none
        adapter = _Adapter(
            pool_connections=limits.DESTINATION_POOLS, pool_maxsize=limits.CONNECTIONS_PER_DESTINATION
        )
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def call(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> HttpReply:
        """POST ``body`` to ``url``; the reply comes whole, undecoded, with any status; no redirect is
        followed.

        Raises ``ConnectError``, ``ConnectionLost``, ``RequestTimeout`` or ``ReplySizeError`` within
        ``timeout_s`` seconds; ``ClosedError`` after ``close``.
        """
        if self._closed:
            raise ClosedError("stopped before the call")
        request = requests.PreparedRequest()
        request.prepare(method="POST", url=url, headers={**CLIENT_HEADERS, **headers}, data=body)
        _deadline.at = ends = time.monotonic() + timeout_s
        # Connecting gets a little less than the whole time, as in the asyncio twin.
        timeouts = (min(limits.CONNECT_TIMEOUT_S, timeout_s * 0.9), timeout_s)
        try:
            response = self._session.send(
                request, stream=True, timeout=timeouts, allow_redirects=False, proxies={}
            )
            try:
                data: bytes = response.raw.read(self._max_reply_bytes + 1, decode_content=False)
                missing = response.raw.length_remaining
            finally:
                # Back to the pool when it was read to its end, closed otherwise.
                response.close()
        except requests.ConnectTimeout as error:
            raise ConnectTimeout(_place(url), "no connection within the time limit") from error
        except (requests.RequestException, HTTPError, OSError) as error:
            cause = _cause(error)
            if isinstance(cause, NewConnectionError):
                raise ConnectError(
                    _place(url), f"no connection: {reason(cause.__cause__ or cause)}"
                ) from error
            if time.monotonic() >= ends or isinstance(error, (requests.ReadTimeout, TimeoutError)):
                raise RequestTimeout(_place(url), f"no whole reply within {timeout_s:g} s") from error
            raise ConnectionLost(_place(url), f"connection lost: {_innermost(cause)}") from error
        if len(data) > self._max_reply_bytes:
            raise ReplySizeError(_place(url), f"a reply of more than {self._max_reply_bytes} bytes")
        if missing:
            raise ConnectionLost(_place(url), f"connection lost: {missing} bytes of the reply are missing")
        return HttpReply(response.status_code, response.headers.get("Content-Encoding", "").lower(), data)

    def close(self) -> None:
        """Close idle connections; calls under way in other threads end by themselves, within their limits."""
        self._closed = True
        self._session.close()


class _Deadline(threading.local):
    at = 0.0


_deadline = _Deadline()
"""When the call of this thread must have ended. requests only limits each single wait for data, so a peer
that sends a byte now and then could hold a call for ever; the socket below limits the sum of them.
"""


class _Socket(socket.socket):
    """A socket that waits no longer than its thread's deadline."""

    def recv_into(self, *args: Any) -> int:
        self._limit()
        return super().recv_into(*args)

    def sendall(self, *args: Any) -> None:
        self._limit()
        super().sendall(*args)

    def _limit(self) -> None:
        left_s = _deadline.at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left_s)


class _Limited(HTTPConnection):
    """A connection with such a socket, which is not used again after a long pause."""

    _used_at = 0.0

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        return _Socket(plain.family, plain.type, plain.proto, fileno=plain.detach())

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None and time.monotonic() - self._used_at > limits.IDLE_CONNECTION_S:
            self.close()  # the next line connects again
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        response = super().getresponse()
        self._used_at = time.monotonic()
        return response


class _LimitedTls(_Limited, HTTPSConnection):
    """The same over TLS, whose layer takes the socket over: here only each single wait is limited."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Limited


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _LimitedTls


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def _cause(error: BaseException) -> BaseException:
    """What requests wrapped: ``ConnectionError(MaxRetryError(reason=…))``,
    ``ConnectionError(ProtocolError(…))``.
    """
    if isinstance(error, requests.RequestException) and error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    return error


def _innermost(error: BaseException) -> str:
    """``ProtocolError("Connection aborted.", ConnectionResetError(…))`` → ``Connection reset by peer``."""
    inner = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], Exception) else error
    return reason(inner)


def _place(url: str) -> str:
    return urlsplit(url).netloc
