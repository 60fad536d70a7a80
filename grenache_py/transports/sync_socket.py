"""A connected socket for the synchronous clients: whole writes and single reads, each within a time.

Not among the compiled modules: the interpreter looks for signals whenever it begins a function, and a thread
that is about to wait for a socket must not miss Ctrl-C.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from typing import Any

from urllib3.util import wait_for_read

# A limit is set anew when it is further than this from what is left of the call's time: each setting is a
# system call.
_SLACK_S = 0.01


class TimedSocket:
    """Reads and writes until a point on the clock of ``time.monotonic``; raises TimeoutError then.

    A plain socket leaves the limit to the kernel (SO_RCVTIMEO), so that a read or a write is one system call.
    With a limit of Python's own it would be two, and that is the one for TLS and for Windows.
    """

    __slots__ = ("_by_kernel", "_events", "_receive_s", "_send_s", "fileno", "sock")

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self.fileno = sock.fileno()
        self._by_kernel = type(sock) is socket.socket and sys.platform != "win32"
        self._receive_s = self._send_s = -1.0  # the limits that are set
        self._events: Any = None
        if self._by_kernel:
            sock.settimeout(None)
            self._events = select.poll()
            self._events.register(sock, select.POLLIN)

    def send(self, data: bytes, ends: float) -> None:
        """Send all of it. How much has left is not known when this raises."""
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if self._by_kernel:
            # Nearly always there is room for all of it, and no limit is needed.
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            if not 0 <= self._send_s - left_s < _SLACK_S:
                self._send_s = left_s
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(left_s))
        else:
            self._limit(left_s)
        try:
            self.sock.sendall(data)
        except BlockingIOError:
            raise TimeoutError("timed out") from None

    def receive(self, size: int, ends: float) -> bytes:
        """At most ``size`` bytes, at least one unless the other side has ended."""
        while True:
            left_s = ends - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._limit(left_s)
            try:
                return self.sock.recv(size)
            except BlockingIOError:
                pass  # the time is over, or nearly so

    def look(self, size: int) -> bytes | None:
        """As ``receive``, without waiting: ``None`` when nothing has come, or that cannot be known."""
        if not self._by_kernel:
            return None
        try:
            return self.sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def is_idle(self) -> bool:
        """Whether it is open, and nothing has come."""
        return not (wait_for_read(self.sock, 0) if self._events is None else self._events.poll(0))

    def _limit(self, left_s: float) -> None:
        """The next read may take so long; one that the kernel limits a little less, since it is repeated."""
        beyond_s = self._receive_s - left_s
        if (-_SLACK_S if self._by_kernel else 0) <= beyond_s < _SLACK_S:
            return
        self._receive_s = left_s
        if self._by_kernel:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(left_s))
        else:
            self.sock.settimeout(left_s)


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", *divmod(int(seconds * 1e6) + 1, 1_000_000))


def connected(host: str, port: int, ends: float) -> socket.socket:
    """A TCP connection, by the first address that takes it. Raises OSError (TimeoutError), UnicodeError."""
    failure: OSError = OSError("the host has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(ends - time.monotonic(), 0.001))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure
