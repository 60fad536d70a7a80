"""Both flavours of WebSocket peers behind one face, and peers that speak WebSocket in raw bytes."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import grenache_py
import grenache_py.aio
import grenache_py.aio.ws
import grenache_py.ws
from tests.flavours import Aio, Sync

NOBODY = "http://127.0.0.1:1"


class _OverWs:
    """What both have in common; mixed into ``Sync`` and ``Aio``."""

    home: Any
    module: Any
    make: Callable[..., Any]

    def _make_at_home(self, cls_name: str, *args: Any, **options: Any) -> Any:
        over_ws, self.module = self.module, self.home
        try:
            return self.make(cls_name, *args, **options)
        finally:
            self.module = over_ws

    def link(self, grape: str = NOBODY, **options: Any) -> Any:
        return self._make_at_home("Link", grape, **options)

    def worker(self, link: Any, names: Any, actions: Any, **options: Any) -> Any:
        return self._make_at_home("Worker", link, names, actions, transport="ws", **options)

    def action_client(self, client: Any, **options: Any) -> Any:
        return self._make_at_home("ActionClient", client, **options)

    def client(self, link: Any = None, **options: Any) -> Any:
        return self.make("PeerRPCClient", link or self.link(), **options)

    def publisher(self, link: Any = None, **options: Any) -> Any:
        """A publishing service that listens on loopback."""
        service = self.make("PeerPub", link or self.link(), **options).transport("server")
        service.listen(0, "127.0.0.1")
        return service

    def subscriber(self, link: Any, **options: Any) -> Any:
        return self.make("PeerSub", link, **options)


class SyncWs(_OverWs, Sync):
    home = grenache_py
    module = grenache_py.ws


class AioWs(_OverWs, Aio):
    home = grenache_py.aio
    module = grenache_py.aio.ws


@pytest.fixture(params=[SyncWs, AioWs], ids=lambda cls: cls.name)
def ws_flavour(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Either flavour; what it made is stopped after the test."""
    made = request.param()
    yield made
    made.close()


# --- raw bytes

KEY = base64.b64encode(bytes(range(16))).decode()
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
Frame = tuple[int, bytes]


def accept_key(key: str) -> str:
    """RFC 6455 section 4.2.2."""
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    return base64.b64encode(digest).decode()


def frame(
    opcode: int, payload: bytes | str = b"", *, masked: bool = False, first: int | None = None
) -> bytes:
    """A frame, its first byte as told (FIN and the opcode, unless something must be wrong)."""
    data = payload.encode() if isinstance(payload, str) else payload
    bit = 0x80 if masked else 0
    head = bytes([0x80 | opcode if first is None else first])
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 65536:
        head += struct.pack(">BH", bit | 126, len(data))
    else:
        head += struct.pack(">BQ", bit | 127, len(data))
    if not masked:
        return head + data
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


class RawWs:
    """One end of a connection, in bytes."""

    def __init__(self, conn: socket.socket):
        self.conn = conn
        self.file = conn.makefile("rb")
        self.masks: list[bytes] = []

    def __enter__(self) -> RawWs:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.conn.close()

    def send(self, data: bytes | str) -> None:
        self.conn.sendall(data.encode() if isinstance(data, str) else data)

    def head(self) -> list[str]:
        """Lines of an HTTP head."""
        lines = []
        while line := self.file.readline().decode("latin-1").rstrip("\r\n"):
            lines.append(line)
        return lines

    def read(self) -> Frame | None:
        """The next frame; ``None`` at the end."""
        head = self._exactly(2)
        if head is None:
            return None
        size = head[1] & 127
        if size == 126:
            size = struct.unpack(">H", self.file.read(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.file.read(8))[0]
        mask = self.file.read(4) if head[1] & 128 else bytes(4)
        if head[1] & 128:
            self.masks.append(mask)
        data = self.file.read(size)
        return head[0] & 15, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def next_frame(self) -> Frame:
        """The next frame, which there must be."""
        seen = self.read()
        assert seen is not None, "the connection has ended"
        return seen

    def _exactly(self, size: int) -> bytes | None:
        try:
            data = self.file.read(size)
        except OSError:
            return None
        return data if len(data) == size else None


def raw_client(port: int, handshake: str = HANDSHAKE) -> RawWs:
    """Connected, and through the handshake."""
    client = RawWs(socket.create_connection(("127.0.0.1", port), timeout=10))
    client.send(handshake)
    answer = client.head()
    assert answer[0] == "HTTP/1.1 101 Switching Protocols", answer
    return client


class RawPeer:
    """Listens on loopback; ``serve(conn)`` plays the part of a peer for each connection, after the handshake
    unless told otherwise. Connections stay open until the test ends or ``serve`` closes them.
    """

    def __init__(
        self,
        serve: Callable[[RawWs], object],
        *,
        handshake: bool = True,
        headers: str = "",
        ssl_context: ssl.SSLContext | None = None,
    ):
        self.heads: list[list[str]] = []
        self.connections: list[RawWs] = []
        self._serve = serve
        self._handshake = handshake
        self._headers = headers
        self._ssl = ssl_context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def destination(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for each in self.connections:
            try:
                each.conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        for each in self.connections:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
                if self._ssl is not None:
                    conn = self._ssl.wrap_socket(conn, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            peer = RawWs(conn)
            self.connections.append(peer)
            thread = threading.Thread(target=self._play, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _play(self, peer: RawWs) -> None:
        try:
            if self._handshake:
                head = peer.head()
                self.heads.append(head)
                key = next(
                    line.split(": ")[1] for line in head if line.lower().startswith("sec-websocket-key")
                )
                peer.send(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Accept: {accept_key(key)}\r\n{self._headers}\r\n"
                )
            self._serve(peer)
        except (OSError, ValueError, EOFError):
            pass  # the client went away
