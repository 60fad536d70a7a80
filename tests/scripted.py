"""A peer that answers with exactly the bytes it is told to, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Asked:
    """One request as it came."""

    head: str
    body: bytes
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        lines = self.head.split("\r\n")[1:]
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Step = bytes | str | Callable[[Asked], bytes]


def reply(body: bytes | str, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    """A response with Content-Length that leaves the connection open."""
    data = body.encode() if isinstance(body, str) else body
    size = len(data) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{headers}\r\n".encode() + data


class ScriptedServer:
    """Listens on loopback. Each request takes the next script (the last one again and again): a list of
    steps.

    A step is bytes to send, a function of the request that makes them, or ``"close"``, ``"reset"``,
    ``"hold"`` (say nothing until the server is closed) or ``"drip"`` (a space now and then, for ever).
    """

    def __init__(self, *scripts: Sequence[Step]):
        self.scripts = list(scripts)
        self.asked: list[Asked] = []
        self.connections = 0
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def destination(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.destination}"

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        # Wakes accept(), which close() alone does not on Linux.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for conn in list(self._open):
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed by its own script
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(conn)
            thread = threading.Thread(target=self._serve, args=(conn,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket) -> None:
        with conn:
            try:
                while (asked := self._read(conn)) is not None:
                    self.asked.append(asked)
                    script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                    if not all(self._do(step, conn, asked) for step in script):
                        return
            except OSError:
                return  # the client went away

    def _read(self, conn: socket.socket) -> Asked | None:
        data = b""
        while b"\r\n\r\n" not in data:
            part = conn.recv(65536)
            if not part:
                return None
            data += part
        head, body = data.split(b"\r\n\r\n", 1)
        asked = Asked(head.decode("latin-1"), b"")
        while len(body) < int(asked.headers["content-length"]):
            part = conn.recv(65536)
            if not part:
                return None
            body += part
        asked.body = body
        return asked

    def _do(self, step: Step, conn: socket.socket, asked: Asked) -> bool:
        """Whether the connection goes on after it."""
        if callable(step):
            step = step(asked)
        if isinstance(step, bytes):
            conn.sendall(step)
        elif step == "hold":
            self._ended.wait()
            return False
        elif step == "drip":
            while not self._ended.wait(0.02):
                conn.sendall(b" ")
            return False
        elif step == "reset":
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        else:
            assert step == "close", step
            return False
        return True
