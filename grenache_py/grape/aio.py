"""The Grape on asyncio: a DHT node on a UDP socket, and its HTTP API."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import random
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from ..dht import snapshot
from ..dht.bounds import BUSY_POLL_US, CONCURRENCY, ITEMS_MAX, NODE_LIVENESS_S, PEER_MAX_AGE_S, TABLES_MAX
from ..dht.identity import id_fits, make_id
from ..dht.node import DhtNode
from ..dht.settings import DhtSettings
from ..dht.udp import UdpSocket, parse_address, resolve
from ..tasks import end_tasks
from ..transports.busy_poll import busy_poll
from ..transports.http1 import HttpServer
from ..transports.ports import listen_error
from . import state as state_file
from .api import PAYLOAD_BYTES_MAX, Api, address_text
from .events import Callback, Events

log = logging.getLogger(__name__)

# Names are resolved again this often: containers come back with another address.
_RESOLVE_S = 15.0
# Requests that the DHT has not answered yet when the Grape stops.
_DRAIN_S = 1.0
# How long a request may take to arrive, and its reply to be taken.
_REQUEST_TIMEOUT_S = 10.0
# Or half of the files that the process may open: the state must still be saved, and names be resolved.
_CONNECTIONS_MAX = 10_000
# A crash loses what was learned since the state was saved the last time.
_SAVE_S = 60.0


class Grape:
    """A Grape on the running loop. It joins the DHT of Node Grapes and serves their HTTP API.

    ``dht_port`` (UDP) and ``api_port`` (TCP): 0 takes any free one, the same again after ``stop`` and
    ``start``. ``host`` is where the API listens (``None``: everywhere); an IPv4 address there is also the
    one under which announces made here are stored here. ``api_host`` is where the API listens if it is to
    mean that alone, such as 127.0.0.1 for callers on this machine. ``bootstrap`` are ``"host:port"`` texts.
    Times are in seconds: ``peer_max_age`` is how long an announce is good for, ``node_liveness`` after which
    silence a node is pinged. ``state`` is a file that keeps id, tokens, contacts, peers and values over
    restarts; it is written every minute and at the end. Raises ValueError, naming the argument, for what
    cannot be.

    Mirrors the Grape class of grenache-grape/lib/Grape.js. The node id lasts as long as the object, except
    that one which was not given makes way for one that fits our public address (BEP 42).
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
        state: str | os.PathLike[str] | None = None,
        api_host: str | None = None,
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
        self._api_host = host if api_host is None else api_host
        self._node_id = node_id or os.urandom(20)
        self._id_given = node_id is not None
        self._state = None if state is None else Path(state)
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
        self._tasks: list[asyncio.Task[None]] = []
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
    def node_id(self) -> bytes:
        """20 bytes."""
        return self._node_id if self._node is None else self._node.node_id

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
        return f"http://{_reachable(self._api_host)}:{self._api_port}"

    @property
    def dht_address(self) -> str:
        """For the ``bootstrap`` of another Grape on this machine: ``127.0.0.1:20001``."""
        host = _reachable(self.host)
        return f"{host if ':' not in host else '127.0.0.1'}:{self._dht_port}"

    async def start(self) -> None:
        """Open both ports and join the DHT; with bootstrap addresses that are all dead this takes 2 to 2.5 s.

        Raises ListenError when a port is taken, OSError when the state file cannot be read and written. Does
        nothing when it is running.
        """
        if self._node is not None:
            return
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def emit(event: str, argument: Any) -> None:
            if event == "ready" and not ready.done():
                ready.set_result(None)
            self._emit(event, argument)

        host = await self._own_address()
        bootstrap = await self._resolve()
        poll = busy_poll(loop, BUSY_POLL_US)
        udp = UdpSocket(poll)
        try:
            await udp.open("0.0.0.0", self._dht_port)
        except OSError as error:
            raise listen_error(error, self._dht_port, None, "UDP ") from None
        # From here to the node there is no pause in which a datagram could come.
        dht_port = udp.address[1]
        try:
            saved = self._load_state(dht_port, host)
            node = DhtNode(
                send=udp.send,
                clock=loop.time,
                call_later=loop.call_later,
                random=random.Random(os.urandom(32)),
                random_bytes=os.urandom,
                node_id=self._node_id,
                settings=DhtSettings(
                    host=host,
                    peer_max_age_s=self._peer_max_age_s,
                    node_liveness_s=self._node_liveness_s,
                    max_tables=self._max_tables,
                    max_items=self._max_items,
                    concurrency=self._concurrency,
                    secure_id=not self._id_given,
                ),
                emit=emit,
            )
            contacts = (
                [] if saved is None else snapshot.restore(node, saved, dht_port, loop.time(), time.time())
            )
        except BaseException:
            await udp.close()
            raise
        udp.deliver_to(node.receive)
        node.own_hosts.update(_source_addresses(bootstrap))
        self._node, self._socket = node, udp
        try:
            server = HttpServer(
                Api(node, dht_port, loop.time, lambda: len(server.connections)).handle,
                max_body=self._max_payload_size,
                request_timeout_s=_REQUEST_TIMEOUT_S,
                max_connections=_CONNECTIONS_MAX,
                on_too_large=(413, b"ERR_GRAPE_PAYLOAD_SIZE"),
                on_handler_error=(500, b"ERR_GRAPE_GENERIC"),
                poll=poll,
            )
            try:
                await server.listen(self._api_port, self._api_host)
            except OSError as error:
                raise listen_error(error, self._api_port, self._api_host) from None
            self._server = server
            self._dht_port, self._api_port = dht_port, server.port
            if self._state is not None:
                state_file.save(self._state, self._take(node))
                self._tasks.append(loop.create_task(self._keep_saving(self._state)))
            self._emit("listening", None)
            node.start(bootstrap, contacts)
            if any(not _is_address(name) for name, _ in self._bootstrap):
                self._tasks.append(loop.create_task(self._keep_resolving()))
            await ready
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Answer what is under way, leave the DHT, close both ports. Does nothing when it is not running."""
        node, udp, server = self._node, self._socket, self._server
        if node is not None:
            self._node_id = node.node_id
        self._node = self._socket = self._server = None
        tasks, self._tasks = self._tasks, []
        await end_tasks(tasks)
        if node is not None:
            if self._state is not None and server is not None:
                self._save(self._state, self._take(node))
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

    def _load_state(self, dht_port: int, host: str | None) -> snapshot.Snapshot | None:
        """The state of an earlier life, and the id that goes with it: an id belongs to a port."""
        saved = None if self._state is None else state_file.load(self._state)
        if self._id_given:
            return saved
        if saved is not None and saved.dht_port == dht_port:
            self._node_id = saved.node_id
        if host is not None and not id_fits(self._node_id, host):
            self._node_id = make_id(host, os.urandom)
        return saved

    def _take(self, node: DhtNode) -> snapshot.Snapshot:
        return snapshot.take(node, self._dht_port, asyncio.get_running_loop().time(), time.time())

    def _save(self, path: Path, taken: snapshot.Snapshot) -> None:
        try:
            state_file.save(path, taken)
        except OSError as error:
            log.warning("cannot save the state: %s", error)
            self._emit("warning", f"cannot save the state: {error}")

    async def _keep_saving(self, path: Path) -> None:
        while self._node is not None:
            await asyncio.sleep(_SAVE_S)
            if self._node is not None:
                # The disk may be slow; a task that is cancelled here waits for the thread before it ends.
                writing = asyncio.ensure_future(asyncio.to_thread(self._save, path, self._take(self._node)))
                try:
                    await asyncio.shield(writing)
                finally:
                    await asyncio.wait([writing])

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
                self._node.bootstrap.addresses = addresses


def _reachable(host: str | None) -> str:
    """Where a listener on ``host`` is found from this machine, as in a URL."""
    if host in (None, "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _source_addresses(addresses: Iterable[tuple[str, int]]) -> set[str]:
    """The own IPv4 addresses from which datagrams to these leave; nothing is sent to find out."""
    found = set()
    for address in addresses:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(address)
            except OSError:
                continue  # no route
            found.add(probe.getsockname()[0])
    return found
