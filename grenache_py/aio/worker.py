"""``Worker`` and ``ActionClient``: services of actions, as Bitfinex's workers are, with asyncio. Mirrors
bfx-facs-grc.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from ssl import SSLContext
from typing import TYPE_CHECKING, Any

from .. import limits
from ..access_log import AccessLog
from ..actions import Actions, check_names, check_request, check_stream, is_stream, sec_port_of
from ..checks import check_count, check_http_or_ws, check_listen_port, check_seconds
from ..discovery import MapResult
from ..dispatch import Dispatcher
from ..errors import ArgumentError
from ..middleware import IncomingCall, Middleware, check_middleware
from ..sec import PREFIX, Sec
from ..tls import FilePath
from ..transports.streams import Stream
from .link import Link
from .peer import PeerRPCClient, PeerRPCServer
from .service import Service, Serving

if TYPE_CHECKING:
    from . import ws


class Worker:
    """Serves ``actions`` under ``names`` and, with ``sec``, under ``sec:<name>`` on a TLS port as well.

    Use it as an async context manager or call ``start`` and ``stop``; stopping its Link does so too. Actions
    are coroutine functions, or plain ones that must not block. ``timeout``: seconds until an action without
    an answer is answered ``ERR_TIMEOUT``; ``interval``: mean seconds between announcements; ``access_log``: a
    file for a line about each call (``grenache_py.access_log``); ``transport``: ``http``, or ``ws`` for
    WebSocket.
    """

    def __init__(
        self,
        link: Link,
        names: str | Sequence[str],
        actions: Actions,
        *,
        sec: Sec | None = None,
        timeout: float = limits.WORKER_TIMEOUT_S,
        interval: float = limits.WORKER_ANNOUNCE_S,
        access_log: FilePath | None = None,
        transport: str = "http",
        concurrency: int = limits.REQUESTS_IN_FLIGHT_MAX,
        middleware: Iterable[Middleware[IncomingCall]] = (),
    ):
        self._link = link
        self._names = check_names(names)
        self._actions = actions
        self._sec = sec
        self._timeout_s = check_seconds(timeout)
        self._transport = check_http_or_ws(transport)
        self._interval_s = check_seconds(interval, "interval")
        self._concurrency = check_count(concurrency, "concurrency")
        self._middleware = check_middleware(middleware, coroutines=True)
        self._access_log = AccessLog(access_log)
        # By the prefix of their names.
        self._services: dict[str, Service] = {}
        self._servers: list[Serving[Service]] = []
        link.attach(self)

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``start``."""
        return self._port_of("")

    @property
    def sec_port(self) -> int:
        """The port of the ``sec:`` twin; raises RuntimeError before ``start`` and without ``sec``."""
        return self._port_of(PREFIX)

    def _port_of(self, prefix: str) -> int:
        if prefix not in self._services:
            raise RuntimeError("the worker does not listen there")
        return self._services[prefix].port

    async def start(self, port: int = 0, host: str | None = None, *, sec_port: int | None = None) -> Worker:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all) and announce all names.

        The twin listens on ``sec_port``, by default 2000 above ``port``, or any free one. Raises
        ``ListenError``, ``ArgumentError`` for streams over WebSocket; an announcement that fails is tried
        again.
        """
        if self._services:
            raise RuntimeError("the worker is started already")
        if self._transport == "ws" and self._actions.has_streams:
            raise ArgumentError("transport", "must be http for actions that are streams")
        sec_port = sec_port_of(check_listen_port(port), sec_port)
        try:
            await self._listen("", port, host, None)
            if self._sec is not None:
                await self._listen(PREFIX, sec_port, host, self._sec)
        except BaseException:
            await self._stop_services()
            raise
        for prefix, service in self._services.items():
            for name in self._names:
                await self._link.start_announcing(prefix + name, service.port, interval=self._interval_s)
        return self

    async def _listen(self, prefix: str, port: int, host: str | None, sec: Sec | None) -> None:
        server = self._server(None if sec is None else sec.ssl)
        service = server.transport("server")
        acl = None if sec is None else sec.acl
        dispatcher = Dispatcher(self._actions, acl, self._access_log, awaits=True)
        service.on("request", dispatcher.handle)
        if self._transport == "http":
            service.on("stream", dispatcher.handle_stream)
        self._services[prefix] = service
        self._servers.append(server)
        await service.listen(port, host)

    def _server(self, ssl: SSLContext | None) -> Serving[Service]:
        options: dict[str, Any] = {
            "timeout": self._timeout_s,
            "concurrency": self._concurrency,
            "middleware": self._middleware,
            "ssl": ssl,
        }
        if self._transport == "http":
            return PeerRPCServer(self._link, streams=is_stream, **options)
        from . import ws  # only who wants it needs picows

        return ws.PeerRPCServer(self._link, **options)

    async def stop(self, *, drain: float = limits.DRAIN_S) -> None:
        """Withdraw the announcements and accept no more; calls in hand have ``drain`` seconds to end."""
        self._link.detach(self)
        await self._stop_services(drain)
        self._access_log.close()

    async def _stop_services(self, drain_s: float = limits.DRAIN_S) -> None:
        while self._services:
            await self._services.popitem()[1].stop(drain=drain_s)
        while self._servers:
            await self._servers.pop().stop()


class ActionClient:
    """Calls actions of workers. ``client`` calls all names but those that begin with ``sec:``, which ``sec``
    calls: a client with a TLS context and a certificate. Either calls by HTTP or, from
    ``grenache_py.aio.ws``, by WebSocket, as the workers serve.

        client = ActionClient(PeerRPCClient(link), sec=PeerRPCClient(link, ssl=context))
        await client.request("rest:util:net", "getIpInfo", ["8.8.8.8"])
    """

    def __init__(
        self,
        client: PeerRPCClient | ws.PeerRPCClient,
        *,
        sec: PeerRPCClient | ws.PeerRPCClient | None = None,
    ):
        self._client = client
        self._sec = sec

    async def request(
        self,
        name: str,
        action: str,
        args: Sequence[Any] = (),
        *,
        timeout: float = limits.ACTION_TIMEOUT_S,
        retry: int = 1,
        idempotent: bool = False,
        type: Any = None,
    ) -> Any:
        """Call an action of one of the workers that announce ``name``; returns its result.

        As ``PeerRPCClient.request``. A worker's own ``RemoteError`` has a code such as ``ERR_API_AUTH`` or
        ``ERR_API_ACTION_NOTFOUND``.
        """
        client, payload = self._check(name, action, args)
        return await client.request(
            name, payload, timeout=timeout, retry=retry, idempotent=idempotent, type=type
        )

    async def map(
        self,
        name: str,
        action: str,
        args: Sequence[Any] = (),
        *,
        limit: int | None = None,
        timeout: float = limits.ACTION_TIMEOUT_S,
    ) -> list[MapResult]:
        """Call an action of all workers that announce ``name``, as ``PeerRPCClient.map``."""
        client, payload = self._check(name, action, args)
        return await client.map(name, payload, limit=limit, timeout=timeout)

    def map_stream(
        self,
        name: str,
        action: str,
        args: Sequence[Any] = (),
        *,
        limit: int | None = None,
        timeout: float = limits.ACTION_TIMEOUT_S,
    ) -> AsyncIterator[MapResult]:
        """As ``map``, but gives each result when it comes."""
        client, payload = self._check(name, action, args)
        return client.map_stream(name, payload, limit=limit, timeout=timeout)

    async def stream(
        self,
        name: str,
        action: str,
        args: Sequence[Any] = (),
        *,
        timeout: float = limits.ACTION_TIMEOUT_S,
    ) -> Stream:
        """Open a stream to an action of one of the workers that announce ``name``.

        As ``PeerRPCClient.stream``; the name of such an action ends in ``Stream``. When a worker of ours
        refuses, a read or write raises ``StatusError`` with a code such as ``ERR_API_AUTH``; one of Node
        writes its refusal where the answer would be.
        """
        client, _ = self._check(name, check_stream(action), args)
        return await client.stream(name, timeout=timeout, headers={"_a": action, "_ar": list(args)})

    def _check(
        self, name: str, action: str, args: Sequence[Any]
    ) -> tuple[PeerRPCClient | ws.PeerRPCClient, dict[str, Any]]:
        payload = check_request(name, action, args)
        if not name.startswith(PREFIX):
            return self._client, payload
        if self._sec is None:
            raise ArgumentError("sec", f"a client with a TLS context is needed to call {name!r}")
        return self._sec, payload
