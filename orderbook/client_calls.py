"""How the client reaches the API of a peer: calls, answers that do not end, and what errors say.

ClientError
├── RefusedError       the peer said no
├── NotYetError        an order has not closed or traded in time
└── PeerFailedError    it cannot be reached, does not answer in time, or not as this API does
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from . import limits
from .errors import InvalidFieldError
from .records import ErrorAnswer, Placed

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0
"""Time limit of one call. An order's way through the network takes a few seconds at the worst."""
RETRY_PAUSE_S = (0.1, 5.0)
"""First and longest mean pause before a peer that has failed is asked again (doubling, jittered): it takes a
second to start again, and has all its clients back then."""
CONNECTIONS = 100
"""Open connections of one client; further calls wait for one, within their time limit."""
ANSWER_BYTES = 64 * 1024 * 1024
"""Largest answer read: several times that of the longest page."""
FEED_LINE_BYTES = 1024 * 1024
"""Longest line of a feed: twice that of 250 trades with the longest names, of which each character of other
peers' takes six bytes of JSON."""
FEED_SILENCE_S = 2 * limits.FEED_IDLE_S
"""After how long without a line the connection of a feed counts as lost."""
WAIT_S = 25.0
"""For how long one question waits for an order: what stands between a client and its peer often cuts
connections that are silent for longer than 30 or 60 seconds."""
WAIT_LATE_S = 1.0
"""How late a wait that has a deadline may notice that its peer has ceased to answer."""
ERROR_TEXT = 300
"""Characters kept of an answer that we do not understand."""
TEMPORARY = ("busy", "journal")
"""Codes of refusals that end by themselves, or by what an operator does."""


class ClientError(Exception):
    """The common base: a call to a peer's client API did not do what it should.

    Attributes:
        api: URL of the peer's client API.
        in_doubt: Whether what was asked for may have been done all the same: ask again if that is safe (an
            order with its ``client_order_id``, a cancellation), else look.
    """

    def __init__(self, api: str, text: str, *, in_doubt: bool = False):
        super().__init__(text)
        self.api = api
        self.in_doubt = in_doubt


class RefusedError(ClientError):
    """The peer said no, and has changed nothing. It is ``in_doubt`` only where the client has asked several
    times: then an earlier attempt, which was not answered, may have changed something.

    Attributes:
        code: Why, for programs: ``invalid_field``, ``unknown_order``, ``order_closed``, ``busy``, …
        field: The field that broke a rule, or None.
    """

    def __init__(
        self, api: str, code: str, message: str, field: str | None = None, *, in_doubt: bool = False
    ):
        super().__init__(api, message, in_doubt=in_doubt)
        self.code = code
        self.field = field

    @property
    def temporary(self) -> bool:
        """Whether asking again later may help."""
        return self.code in TEMPORARY


class NotYetError(ClientError):
    """What was waited for has not come in time.

    Attributes:
        placed: The order and its trades, as they were then.
    """

    def __init__(self, api: str, text: str, placed: Placed):
        super().__init__(api, text)
        self.placed = placed


class PeerFailedError(ClientError):
    """The peer cannot be reached, does not answer in time, or not as this API does."""

    def __init__(self, api: str, reason: str, *, in_doubt: bool = False):
        super().__init__(api, f"{api}: {reason}", in_doubt=in_doubt)


Answer = TypeVar("Answer", bound=Struct)
Record = TypeVar("Record")


class Calls:
    """Calls of one peer's API.

    Args:
        retry_s: For how long a call that failed is made again, if that is safe.
    """

    def __init__(self, api: str, timeout_s: float, retry_s: float, connections: int):
        self.api = check_api(api)
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._lasting: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        for session in (self._session, self._lasting):
            if session is not None:
                await session.close()

    async def call(
        self,
        method: str,
        path: str,
        kind: type[Answer],
        query: Mapping[str, str | int | None] | None = None,
        body: bytes | None = None,
        *,
        repeatable: bool = True,
    ) -> Answer:
        """Ask for something, again and again for ``retry_s`` seconds while the peer fails.

        Args:
            repeatable: To do it twice is to do it once; else it is not asked for again where it may have been
                done.

        Raises:
            RefusedError: The peer said no.
            PeerFailedError: It did not answer, or not as it should.
        """
        loop = asyncio.get_running_loop()
        ends, tries, in_doubt = loop.time() + self._retry_s, 0, False
        while True:
            try:
                return await self._ask(method, path, kind, query, body)
            except PeerFailedError as error:
                in_doubt = error.in_doubt = error.in_doubt or in_doubt
                failure: ClientError = error
            except RefusedError as error:
                error.in_doubt = in_doubt
                failure = error
                if not error.temporary:
                    raise
            pause = pause_s(tries)
            if loop.time() + pause > ends or (in_doubt and not repeatable):
                raise failure
            tries += 1
            await asyncio.sleep(pause)

    async def wait(
        self,
        path: str,
        kind: type[Answer],
        query: Mapping[str, str | int | None],
        over: Callable[[Answer], bool],
        timeout_s: float | None,
    ) -> Answer:
        """Ask for something that the peer answers when it is ``over``, or late, until it is or ``timeout_s``
        seconds have passed. While the peer fails it is asked again, for ``retry_s`` seconds each time.

        Raises:
            RefusedError: The peer said no.
            PeerFailedError: It did not answer, or not as it should.
        """
        loop = asyncio.get_running_loop()
        ends = math.inf if timeout_s is None else loop.time() + timeout_s
        gives_up: float | None = None
        tries = 0
        while True:
            began = loop.time()
            left = max(0.0, ends - began)
            wait_s = min(WAIT_S, left)
            limit_s = min(wait_s + self._timeout_s, left + WAIT_LATE_S)
            try:
                asked = {**query, "wait_ms": math.ceil(1000 * wait_s)}
                answer = await self._ask("GET", path, kind, asked, None, limit_s)
            except (PeerFailedError, RefusedError) as error:
                if isinstance(error, RefusedError) and not error.temporary:
                    raise
                if gives_up is None:
                    gives_up = min(ends, loop.time() + self._retry_s)
                pause = pause_s(tries)
                if loop.time() + pause > gives_up:
                    raise
            else:
                if over(answer) or loop.time() >= ends:
                    return answer
                if loop.time() - began > wait_s / 2:
                    gives_up, tries = None, 0
                    continue
                # A peer that does not wait, since it is of an older version, is not asked all the time.
                pause = min(pause_s(tries), max(0.0, ends - loop.time()))
                gives_up = None
            tries += 1
            await asyncio.sleep(pause)

    async def follow(
        self, begin: Callable[[], AsyncGenerator[Record, None]]
    ) -> AsyncGenerator[Record | ClientError, None]:
        """The records of an answer that does not end, and each time that it did why. Then it begins again.

        Raises:
            RefusedError: The peer said no, and will not say yes by itself.
            PeerFailedError: There was not even a first record.
        """
        loop = asyncio.get_running_loop()
        tries, first = 0, True
        while True:
            began = loop.time()
            try:
                async with aclosing(begin()) as records:
                    async for record in records:
                        first = False
                        yield record
            except ClientError as error:
                if first or (isinstance(error, RefusedError) and not error.temporary):
                    raise
                failure = error
            yield failure
            if loop.time() - began > RETRY_PAUSE_S[1]:
                tries = 0
            await asyncio.sleep(pause_s(tries))
            tries += 1

    async def lines(self, path: str, query: Mapping[str, str | int]) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that does not end. Raises RefusedError, or PeerFailedError in the end."""
        silence = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=FEED_SILENCE_S)
        try:
            async with self._opened(lasting=True).get(
                self.api + path,
                params=query,
                timeout=silence,
                allow_redirects=False,
                read_bufsize=FEED_LINE_BYTES,
            ) as response:
                if response.status != 200:
                    self._understand(response.status, await _read(response) or b"", Struct, False)
                async for line in response.content:
                    yield line
        except asyncio.TimeoutError as error:
            raise PeerFailedError(self.api, f"nothing came for {FEED_SILENCE_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._failed(error, changes=False) from error
        except ValueError as error:
            reason = f"its feed is broken: a line of more than {FEED_LINE_BYTES} bytes"
            raise PeerFailedError(self.api, reason) from error
        raise PeerFailedError(self.api, "the feed has ended; the peer stops, or its log says why")

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[Answer],
        query: Mapping[str, str | int | None] | None,
        body: bytes | None,
        limit_s: float | None = None,
    ) -> Answer:
        """Ask once; ``limit_s``: how long the answer may take, where that is longer than others do."""
        changes = method != "GET"
        within_s = self._timeout_s if limit_s is None else limit_s
        try:
            async with self._opened(lasting=limit_s is not None).request(
                method,
                self.api + path,
                params={name: value for name, value in (query or {}).items() if value is not None},
                data=body,
                headers={"Content-Type": "application/json"} if body is not None else None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=within_s),
            ) as response:
                content = await _read(response)
        except asyncio.TimeoutError as error:
            reason = f"no answer within {within_s:.3g} s"
            raise PeerFailedError(self.api, reason, in_doubt=changes) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._failed(error, changes) from error
        if content is None:
            reason = f"an answer of more than {ANSWER_BYTES} bytes"
            raise PeerFailedError(self.api, reason, in_doubt=changes)
        return self._understand(response.status, content, kind, changes)

    def _failed(self, error: Exception, changes: bool) -> PeerFailedError:
        """``error`` of the connection, in our words."""
        if isinstance(error, aiohttp.ClientConnectorError):
            cause = getattr(error, "certificate_error", None) or error.os_error
            reason = f"cannot be reached: {_system_text(cause)}"
            return PeerFailedError(self.api, f"{reason}; does a peer run with this --api?")
        if isinstance(error, OSError):
            text = _system_text(error)
        else:
            text = "the peer has closed it before it had said all; has it stopped?"
        return PeerFailedError(self.api, f"the connection broke: {text}", in_doubt=changes)

    def _opened(self, *, lasting: bool = False) -> aiohttp.ClientSession:
        """``lasting``: for what takes long, so that no other call waits for its connection."""
        # Made here, because aiohttp wants a running loop.
        if lasting:
            if self._lasting is None:
                self._lasting = _session(0)
            return self._lasting
        if self._session is None:
            self._session = _session(self._connections)
        return self._session

    def _understand(self, status: int, content: bytes, kind: type[Answer], changes: bool) -> Answer:
        try:
            if status < 300:
                return msgspec.json.decode(content, type=kind)
            error = msgspec.json.decode(content, type=ErrorAnswer).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = content[:ERROR_TEXT].decode(errors="replace")
            reason = f"is this the client API of a peer? Status {status}, {said!r}"
            raise PeerFailedError(self.api, reason, in_doubt=changes) from None
        if status == 500:
            raise PeerFailedError(self.api, error.message, in_doubt=changes)
        raise RefusedError(self.api, error.code, error.message, error.field)


def _session(connections: int) -> aiohttp.ClientSession:
    """0 ``connections``: any number."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections), cookie_jar=aiohttp.DummyCookieJar()
    )
    # aiohttp has no other way to say it: what changes something it must not send again unasked.
    session._retry_connection = False
    return session


def pause_s(tries: int) -> float:
    """How long to wait before the next attempt after so many."""
    shortest, longest = RETRY_PAUSE_S
    return min(longest, shortest * 2.0 ** min(tries, 16)) * random.uniform(0.5, 1.5)


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole answer, or None when it is too long."""
    content = bytearray()
    while part := await response.content.readany():
        content += part
        if len(content) > ANSWER_BYTES:
            return None
    return bytes(content)


def _system_text(error: OSError) -> str:
    """What the system says of it, without the addresses that asyncio adds."""
    if error.errno and not isinstance(error, (socket.gaierror, ssl.SSLError)):
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def check_api(api: str) -> str:
    """``api`` as a URL without a path: ``http://127.0.0.1:8081``. Raises InvalidFieldError."""
    url = api if "://" in api else f"http://{api}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.path not in ("", "/") or parts.query or parts.fragment or not url.isprintable():
        raise InvalidFieldError("api", "must be a URL such as http://127.0.0.1:8081")
    return f"{parts.scheme}://{parts.netloc}"
