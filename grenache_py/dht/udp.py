"""The socket under a DhtNode: an asyncio datagram endpoint, and the resolution of bootstrap addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import cast

from ..transports import descriptors
from ..transports.busy_poll import BusyPoll
from .krpc import Address

# A burst of replies must not be lost in the kernel; it grants what it is configured for.
_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024


class UdpSocket(asyncio.DatagramProtocol):
    """Sends and receives datagrams. What cannot be sent at once is dropped: UDP promises no more, and a queue
    here would grow without bound.

    After each one sent its loop stays awake for a moment (``poll``): for the answer, or for the next query of
    who has got one. Between nodes of one host that is sooner than a processor wakes up.
    """

    def __init__(self, poll: BusyPoll | None = None) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._receive: Callable[[bytes, Address], None] | None = None
        self._poll = poll
        self._closed: asyncio.Future[None] | None = None
        self._send_to: Callable[[bytes, Address], object] | None = None

    async def open(self, host: str, port: int) -> None:
        """Bind to an IPv4 address and a port (0: any free one). Raises OSError when it is taken."""
        loop = asyncio.get_running_loop()
        sock = descriptors.listens(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            sock.bind((host, port))
            self._closed = loop.create_future()
            await loop.create_datagram_endpoint(lambda: self, sock=sock)
            self._send_to = sock.sendto
        except BaseException:
            sock.close()
            raise

    def deliver_to(self, receive: Callable[[bytes, Address], None]) -> None:
        """Call ``receive`` for each datagram from now on; those that came before are lost."""
        self._receive = receive

    @property
    def address(self) -> Address:
        """Where it is bound; raises RuntimeError before ``open``."""
        if self._transport is None:
            raise RuntimeError("the socket is not open")
        return cast(Address, self._transport.get_extra_info("sockname"))

    def send(self, datagram: bytes, address: Address) -> None:
        # Past the transport, which would queue, and takes longer.
        if self._send_to is not None:
            try:
                self._send_to(datagram, address)
            except OSError:
                return
            if self._poll is not None:
                self._poll.expect()

    async def close(self) -> None:
        """Close, and wait until the port is free."""
        self._send_to = None
        if self._transport is not None and self._closed is not None:
            self._transport.abort()
            await self._closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if self._poll is not None:
            self._poll.came()
        if self._receive is not None:
            self._receive(data, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        self._send_to = None
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)


def parse_address(text: str) -> Address:
    """``"host:port"`` as Node Grapes take it. Raises ValueError."""
    host, _, port = text.strip().rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 0xFFFF:
        raise ValueError(f"bootstrap address {text!r} must be host:port with a port of 1..65535")
    return host, int(port)


async def resolve(addresses: Iterable[Address]) -> tuple[list[Address], list[str]]:
    """The IPv4 addresses behind host names, and what could not be resolved, in words."""
    loop = asyncio.get_running_loop()
    found: list[Address] = []
    failures: list[str] = []
    for host, port in addresses:
        try:
            answers = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
        except OSError as error:
            failures.append(f"{host}: {error}")
            continue
        address = cast(Address, answers[0][4])
        if address not in found:
            found.append(address)
    return found, failures
