"""Clients at several addresses: turns, and room for connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grenache_py.transports.connections import Connections
from grenache_py.transports.turns import TURN_REQUESTS, Source, Turns, source_of


class Loop:
    """Runs what was called for soon, a turn at a time."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.turns = Turns(self.soon.append)
        #: whose requests were handled, in order
        self.handled: list[str] = []

    def run(self) -> None:
        due, self.soon[:] = list(self.soon), []
        assert len(due) <= 1
        for callback in due:
            callback()


class Client:
    def __init__(self, loop: Loop, name: str, source: Source) -> None:
        self.loop = loop
        self.name = name
        self.source = source
        self.waiting = 0

    def ask(self, requests: int) -> None:
        self.waiting += requests
        self.proceed()

    def proceed(self) -> None:
        while self.waiting and self.loop.turns.take(self.source, self):
            self.waiting -= 1
            self.loop.handled.append(self.name)


def test_a_source_with_many_requests_does_not_hold_up_another_one() -> None:
    loop = Loop()
    flood, quiet = Source(), Source()
    crowd = [Client(loop, f"f{number}", flood) for number in range(10)]
    for client in crowd:
        client.ask(100)
    other = Client(loop, "quiet", quiet)
    other.ask(1)
    assert loop.handled.index("quiet") == TURN_REQUESTS
    while loop.soon:
        before = len(loop.handled)
        if not other.waiting:
            other.ask(1)
        loop.run()
        assert len(loop.handled) - before <= TURN_REQUESTS + 1
    # All of the flood is handled, too, and its clients in turn.
    assert [client.waiting for client in crowd] == [0] * 10
    named = [name for name in loop.handled if name != "quiet"]
    assert sorted(named) == sorted(client.name for client in crowd for _ in range(100))
    last = [len(named) - named[::-1].index(client.name) for client in crowd]
    assert min(last) > len(named) / 2


def test_two_floods_have_the_same() -> None:
    loop = Loop()
    one, two = Client(loop, "one", Source()), Client(loop, "two", Source())
    one.ask(1000)
    two.ask(1000)
    for _ in range(10):
        loop.run()
    assert loop.handled.count("one") == loop.handled.count("two") == 11 * TURN_REQUESTS


def test_a_client_that_has_gone_takes_no_turn() -> None:
    loop = Loop()
    source = Source()
    gone, here = Client(loop, "gone", source), Client(loop, "here", source)
    gone.ask(100)
    here.ask(10)
    gone.waiting = 0
    loop.run()
    assert loop.handled[TURN_REQUESTS:] == ["here"] * 10
    assert loop.soon == []


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::1", "::"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_what_is_counted_together(host: str, source: str) -> None:
    assert source_of(host) == source


class Conn:
    """A connection, and its transport, from an address."""

    def __init__(self, host: str, busy: bool = False) -> None:
        self.host = host
        self.busy = busy
        self.aborted = False

    def get_extra_info(self, name: str) -> Any:
        return (self.host, 1) if name == "peername" else None

    def abort(self) -> None:
        self.aborted = True


def admit(connections: Connections[Any], conn: Conn) -> bool:
    admitted = connections.admit(conn, conn)  # type: ignore[arg-type]
    for other in list(connections):
        if other.aborted:
            connections.left(other)
    if not admitted:
        connections.left(conn)
    return admitted


def hosts(connections: Connections[Any]) -> list[str]:
    return [conn.host for conn in connections]


def test_who_has_most_makes_room() -> None:
    connections: Connections[Any] = Connections(10)
    assert admit(connections, Conn("quiet"))
    for _ in range(20):
        assert admit(connections, Conn("flood"))
    assert hosts(connections) == ["quiet"] + ["flood"] * 9
    for _ in range(4):
        assert admit(connections, Conn("other"))
    assert sorted(hosts(connections)) == ["flood"] * 5 + ["other"] * 4 + ["quiet"]
    # A flood from many places takes no more than there is.
    for number in range(30):
        admit(connections, Conn(f"flood{number}"))
    assert len(connections) == 10


def test_busy_ones_stay_unless_they_are_most_of_all() -> None:
    connections: Connections[Any] = Connections(10)
    for _ in range(10):
        assert admit(connections, Conn("flood", busy=True))
    assert not admit(connections, Conn("flood"))
    for _ in range(5):
        assert admit(connections, Conn("quiet", busy=True))
    assert sorted(hosts(connections)) == ["flood"] * 5 + ["quiet"] * 5
    assert not admit(connections, Conn("third"))


def test_those_that_are_being_ended_are_not_ended_again() -> None:
    connections: Connections[Any] = Connections(10)
    flood = [Conn("flood", busy=True) for _ in range(10)]
    for conn in flood + [Conn("quiet", busy=True) for _ in range(3)]:
        assert connections.admit(conn, conn)  # type: ignore[arg-type]
    assert [conn.aborted for conn in flood] == [True] * 3 + [False] * 7
    for conn in connections:
        connections.left(conn)
    assert connections.sources == {}


def test_a_flood_of_idle_connections_takes_no_room_from_who_has_fewer() -> None:
    connections: Connections[Any] = Connections(10)
    for _ in range(2):
        assert admit(connections, Conn("quiet"))
    for _ in range(8):
        assert admit(connections, Conn("flood", busy=True))
    assert not admit(connections, Conn("flood"))
    assert hosts(connections).count("quiet") == 2


def test_those_who_have_gone_are_forgotten() -> None:
    connections: Connections[Any] = Connections(10)
    for number in range(100):
        admit(connections, Conn(f"h{number}"))
    for conn in connections:
        connections.left(conn)
    assert (len(connections), connections.sources) == (0, {})
