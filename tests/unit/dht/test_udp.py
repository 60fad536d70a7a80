"""The socket under a node, on loopback."""

from __future__ import annotations

import asyncio

import pytest

from grenache_py.dht.krpc import Address
from grenache_py.dht.udp import UdpSocket, parse_address, resolve
from tests.unit.polls import still_poll


async def test_datagrams_both_ways_and_the_port_is_free_again_at_once() -> None:
    received: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()
    one = UdpSocket()
    one.deliver_to(lambda datagram, address: received.put_nowait((datagram, address)))
    with pytest.raises(RuntimeError, match="not open"):
        assert one.address
    one.send(b"before it is open: dropped", ("127.0.0.1", 1))
    await one.open("127.0.0.1", 0)
    two = UdpSocket()
    await two.open("127.0.0.1", 0)
    two.deliver_to(lambda datagram, address: two.send(datagram.upper(), address))
    one.send(b"hello", two.address)
    assert await asyncio.wait_for(received.get(), 10) == (b"HELLO", two.address)
    address = one.address
    await one.close()
    one.send(b"after it is closed: dropped", two.address)
    again = UdpSocket()
    await again.open(*address)
    assert again.address == address
    with pytest.raises(OSError, match="in use"):
        await UdpSocket().open(*address)
    await again.close()
    await two.close()


async def test_after_each_datagram_sent_another_one_is_looked_for() -> None:
    poll = still_poll()
    one, received = UdpSocket(poll), asyncio.Event()
    await one.open("127.0.0.1", 0)
    one.deliver_to(lambda datagram, address: received.set())
    one.send(b"x" * 70_000, one.address)
    assert poll.expected == 0, "it could not be sent"
    one.send(b"to itself", one.address)
    assert poll.expected == 1
    await asyncio.wait_for(received.wait(), 10)
    assert poll.expected == 0
    await one.close()


async def test_what_cannot_be_sent_is_dropped() -> None:
    sender = UdpSocket()
    await sender.open("127.0.0.1", 0)
    sender.send(b"x" * 70_000, ("127.0.0.1", 9))
    sender.send(b"x", ("203.0.113.1", 9))  # not reachable from loopback
    await sender.close()
    await sender.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:20001", ("127.0.0.1", 20001)), (" grape-1.local:1 ", ("grape-1.local", 1))],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:1x", "host:-1", "host:١"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="bootstrap address"):
        parse_address(text)


async def test_names_are_resolved_and_failures_told() -> None:
    found, failures = await resolve(
        [("localhost", 1), ("127.0.0.1", 1), ("name.invalid", 2), ("127.0.0.1", 3)]
    )
    assert found == [("127.0.0.1", 1), ("127.0.0.1", 3)]
    assert len(failures) == 1
    assert "name.invalid" in failures[0]
