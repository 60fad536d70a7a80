"""RPC and pub/sub over WebSocket, with asyncio. Mirrors grenache-nodejs-ws 1.0.0."""

from __future__ import annotations

from collections.abc import Mapping
from ssl import SSLContext
from typing import Any

from .. import limits
from ..checks import check_transport
from ..errors import ArgumentError, ConnectError, ConnectionLost
from ..transports.rpc_server import Handler
from ..transports.ws_client import WsClient
from ..transports.ws_frames import encode_call, result_of
from ..transports.ws_server import VerifyClient, Visitor, WsRpcServer
from . import peer
from .link import Link

__all__ = ["Handler", "PeerRPCClient", "PeerRPCServer", "Service", "Visitor"]


class PeerRPCClient(peer.PeerRPCClient):
    """Calls the peers that announce a name, over WebSocket: ``ws://``, or ``wss://`` with ``ssl``.

    As ``grenache_py.aio.PeerRPCClient``, but ``compress`` and ``headers`` do not exist here. All calls to one
    destination share a connection; one that is lost fails the calls under way on it at once.
    """

    def __init__(self, link: Link, *, ssl: SSLContext | None = None):
        super().__init__(link)
        self._ws = WsClient(ssl=ssl)

    async def stop(self) -> None:
        """Close the connections; calls under way fail. Doing it again changes nothing."""
        await super().stop()
        await self._ws.close()

    async def _call(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Any:
        if compress or headers:
            raise ArgumentError("compress" if compress else "headers", "exists only over HTTP")
        rid = self._ws.new_rid()
        request = encode_call(rid, key, payload)
        try:
            answer = await self._ws.call(destination, rid, request, timeout_s)
        except (ConnectError, ConnectionLost):
            self._link.forget(key, destination)
            raise
        return result_of(answer, destination)


class PeerRPCServer(peer.PeerRPCServer):
    """Serves requests over WebSocket: ``ws://``, or ``wss://`` with ``ssl``.

    As ``grenache_py.aio.PeerRPCServer``. ``verify_client(visitor)``, a plain function, says whether who
    connects is welcome: a ``Visitor`` has ``peer``, ``headers``, ``target`` and ``peer_certificate()``.
    Others are closed with code 1008. Whether clients must show a certificate is up to ``ssl.verify_mode``.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout: float = limits.HANDLER_TIMEOUT_S,
        max_body: int = limits.BODY_BYTES_MAX,
        ssl: SSLContext | None = None,
        verify_client: VerifyClient | None = None,
    ):
        super().__init__(link, timeout=timeout, max_body=max_body)
        self._ssl = ssl
        self._verify_client = verify_client

    def transport(self, name: str = "server") -> Service:
        """A new service, not listening yet. ``name`` is ``"server"``, the only kind there is."""
        check_transport(name)
        service = Service(self._timeout_s, self._max_body, self._ssl, self._verify_client)
        self._services.append(service)
        return service


class Service(peer.Service):
    """One listening port whose requests go to a handler; made by ``PeerRPCServer.transport``. As
    ``grenache_py.aio.Service``.
    """

    def __init__(
        self,
        timeout_s: float,
        max_body: int,
        ssl: SSLContext | None = None,
        verify_client: VerifyClient | None = None,
    ):
        super().__init__(timeout_s, max_body)
        self._server = WsRpcServer(
            self._handle,
            self._bad_request,
            self._expired,
            timeout_s=timeout_s,
            max_body=max_body,
            ssl=ssl,
            verify_client=verify_client,
        )
