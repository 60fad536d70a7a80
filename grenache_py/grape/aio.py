"""The Grape on asyncio: a DHT node on a UDP socket, and its HTTP API."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import random
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from ..dht.bounds import CONCURRENCY, ITEMS_MAX, PEER_MAX_AGE_S, TABLES_MAX
from ..dht.node import DhtNode, DhtSettings
from ..dht.udp import UdpSocket, parse_address, resolve
from ..transports.http1 import HttpServer
from .api import PAYLOAD_BYTES_MAX, Api, address_text
from .events import Callback, Events

log = logging.getLogger(__name__)

NODE_LIVENESS_S = 300.0
# Names are resolved again this often: containers come back with another address.
_RESOLVE_S = 15.0
# Requests that the DHT has not answered yet when the Grape stops.
_DRAIN_S = 1.0


class Grape:
    """A Grape on the running loop. It joins the DHT of Node Grapes and serves their HTTP API.

    ``dht_port`` (UDP) and ``api_port`` (TCP): 0 takes any free one, the same again after ``stop`` and
    ``start``. ``host`` is where the API listens (``None``: everywhere); an IPv4 address there is also the
    one under which announces made here are stored here. ``bootstrap`` are ``"host:port"`` texts. Times are
    in seconds: ``peer_max_age`` is how long an announce is good for, ``node_liveness`` after which silence
    a node is pinged. Raises ValueError, naming the argument, for what cannot be.

    Mirrors the Grape class of grenache-grape/lib/Grape.js. The node id lasts as long as the object.
    """

    def __init__(
        self,
        dht_port: int = 0,
        api_port: int = 0,
        host: str | None = None,
        bootstrap: Iterable[str] = (),
        *,
        peer_max_age: float = PEER_MAX_AGE_S,
        dht_max_tables: int = TABLES_MAX,
        dht_max_values: int = ITEMS_MAX,
        dht_concurrency: int = CONCURRENCY,
        node_liveness: float = NODE_LIVENESS_S,
        max_payload_size: int = PAYLOAD_BYTES_MAX,
        node_id: bytes | None = None,
    ) -> None:
        for name, port in (("dht_port", dht_port), ("api_port", api_port)):
            if type(port) is not int or not 0 <= port <= 0xFFFF:
                raise ValueError(f"{name} must be an integer of 0..65535, not {port!r}")
        for name, number in (
            ("peer_max_age", peer_max_age),
            ("dht_max_tables", dht_max_tables),
            ("dht_max_values", dht_max_values),
            ("dht_concurrency", dht_concurrency),
            ("node_liveness", node_liveness),
            ("max_payload_size", max_payload_size),
        ):
            if not isinstance(number, (int, float)) or not number > 0:
                raise ValueError(f"{name} must be a number above 0, not {number!r}")
        if node_id is not None and len(node_id) != 20:
            raise ValueError("node_id must be 20 bytes")
        if isinstance(bootstrap, str):
            raise ValueError("bootstrap must be a list of host:port texts, not one text")
        self.host = host
        self.node_id = node_id or os.urandom(20)
        self._bootstrap = [parse_address(text) for text in bootstrap]
        self._dht_port = dht_port
        self._api_port = api_port
        self._peer_max_age_s = float(peer_max_age)
        self._max_tables = dht_max_tables
        self._max_items = dht_max_values
        self._concurrency = dht_concurrency
        self._node_liveness_s = float(node_liveness)
        self._max_payload_size = max_payload_size
        self._events = Events()
        self._node: DhtNode | None = None
        self._socket: UdpSocket | None = None
        self._server: HttpServer | None = None
        self._resolving: asyncio.Task[None] | None = None
        # What could not be resolved the last time, and has been logged.
        self._told: list[str] = []

    def on(self, event: str, callback: Callback) -> None:
        """Call ``callback`` at an event, on the Grape's loop; the events are listed in ``grape.events``.

        Raises ValueError for an event that does not exist.
        """
        self._events.on(event, callback)

    def off(self, event: str, callback: Callback) -> None:
        """Call it no more."""
        self._events.off(event, callback)

    @property
    def node(self) -> DhtNode:
        """The DHT node; raises RuntimeError while the Grape is stopped."""
        if self._node is None:
            raise RuntimeError("the Grape is not running")
        return self._node

    @property
    def running(self) -> bool:
        return self._node is not None

    @property
    def dht_port(self) -> int:
        """The UDP port; 0 before the first start when any was asked for."""
        return self._dht_port

    @property
    def api_port(self) -> int:
        """The TCP port of the HTTP API; 0 before the first start when any was asked for."""
        return self._api_port

    @property
    def url(self) -> str:
        """Where a Link on this machine finds the API: ``http://127.0.0.1:30001``."""
        return f"http://{self._reachable_host()}:{self._api_port}"

    @property
    def dht_address(self) -> str:
        """For the ``bootstrap`` of another Grape on this machine: ``127.0.0.1:20001``."""
        host = self._reachable_host()
        return f"{host if ':' not in host else '127.0.0.1'}:{self._dht_port}"

    def _reachable_host(self) -> str:
        host = self.host or "0.0.0.0"
        if host in ("0.0.0.0", "::"):
            return "127.0.0.1"
        return f"[{host}]" if ":" in host else host

    async def start(self) -> None:
        """Open both ports and join the DHT; with bootstrap addresses that are all dead this takes 2 to 2.5 s.

        Raises OSError when a port is taken. Does nothing when it is running.
        """
        if self._node is not None:
            return
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def emit(event: str, argument: Any) -> None:
            if event == "ready" and not ready.done():
                ready.set_result(None)
            self._emit(event, argument)

        udp = UdpSocket(lambda datagram, address: node.receive(datagram, address))
        node = DhtNode(
            send=udp.send,
            clock=loop.time,
            call_later=loop.call_later,
            random=random.Random(os.urandom(32)),
            random_bytes=os.urandom,
            node_id=self.node_id,
            settings=DhtSettings(
                host=await self._own_address(),
                peer_max_age_s=self._peer_max_age_s,
                node_liveness_s=self._node_liveness_s,
                max_tables=self._max_tables,
                max_items=self._max_items,
                concurrency=self._concurrency,
            ),
            emit=emit,
        )
        self._node, self._socket = node, udp
        try:
            await udp.open("0.0.0.0", self._dht_port)
            dht_port = udp.address[1]
            server = HttpServer(
                Api(node, dht_port).handle,
                max_body=self._max_payload_size,
                on_too_large=(413, b"ERR_GRAPE_PAYLOAD_SIZE"),
                on_handler_error=(500, b"ERR_GRAPE_GENERIC"),
            )
            await server.listen(self._api_port, self.host)
            self._server = server
            self._dht_port, self._api_port = dht_port, server.port
            self._emit("listening", None)
            node.start(await self._resolve())
            if any(not _is_address(host) for host, _ in self._bootstrap):
                self._resolving = loop.create_task(self._keep_resolving())
            await ready
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Answer what is under way, leave the DHT, close both ports. Does nothing when it is not running."""
        node, udp, server = self._node, self._socket, self._server
        self._node = self._socket = self._server = None
        resolving, self._resolving = self._resolving, None
        if resolving is not None:
            resolving.cancel()
            await asyncio.gather(resolving, return_exceptions=True)
        if node is not None:
            node.stop()
        if server is not None:
            await server.close(_DRAIN_S)
        if udp is not None:
            await udp.close()

    async def __aenter__(self) -> Grape:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<Grape {self.node_id.hex()[:8]} dht={self._dht_port} api={self._api_port} {state}>"

    def _emit(self, event: str, argument: Any) -> None:
        if not self._events.wanted(event):
            return
        if event in ("ready", "listening"):
            self._events.emit(event)
        elif event == "node":
            self._events.emit(event, "{}:{}".format(*argument.address))
        elif event == "peer":
            self._events.emit(event, address_text(argument))
        elif event == "announce":
            self._events.emit(event, argument.decode("utf-8", "replace"))
        else:
            self._events.emit(event, argument)

    async def _own_address(self) -> str | None:
        """The IPv4 address that ``host`` stands for, when it stands for one."""
        if self.host is None:
            return None
        found = await asyncio.get_running_loop().getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in found]
        usable = [str(address) for address in addresses if address.version == 4 and int(address)]
        return usable[0] if usable else None

    async def _resolve(self) -> list[tuple[str, int]]:
        found, failures = await resolve(self._bootstrap)
        for failure in failures:
            self._emit("warning", f"bootstrap: {failure}")
            if failure not in self._told:
                log.warning("bootstrap: %s", failure)
        self._told = failures
        return found

    async def _keep_resolving(self) -> None:
        while self._node is not None:
            await asyncio.sleep(_RESOLVE_S)
            addresses = await self._resolve()
            if self._node is not None and addresses:
                self._node.bootstrap_addresses = addresses


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
