"""What a node knows again after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grenache_py.dht import bounds, snapshot
from grenache_py.dht.items import Item
from grenache_py.dht.krpc import pack_address
from grenache_py.dht.node import DhtNode
from tests.simulation.dht_network import Network
from tests.unit.dht.test_node import STRANGER, Lone

WALL = 1_700_000_000.0


def signed(v: Any, seq: int) -> Item:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    item = Item(v, key.public_key().public_bytes_raw(), b"", seq, b"salt")
    return replace(item, sig=key.sign(item.signed_bytes()))


def settled() -> tuple[Network, DhtNode]:
    """A network, and a node in it that knows something of each kind."""
    network = Network()
    node = network.grow(5)[0]
    for item in (Item(b"bytes"), Item([1, {b"a": b"b"}]), signed(b"one", 1)):
        node.items.put(item, None, network.now)
        node.own_items.add(item, network.now)
    node.announce(b"own", 6001, lambda report: None)
    node.peers.announce(b"svc", pack_address(("10.0.0.9", 1)), "10.0.0.9", network.now)
    network.run(10.0)
    return network, node


def reborn(network: Network, taken: snapshot.Snapshot, later_s: float, port: int = 20001) -> DhtNode:
    """The node after a restart, ``later_s`` after the snapshot."""
    network.remove(1)
    network.run(later_s)
    node = network.add(1, node_id=taken.node_id)
    read = snapshot.decode(snapshot.encode(taken))
    contacts = snapshot.restore(node, read, port, network.now, WALL + later_s)
    node.start((), contacts)
    network.run(3.0)
    return node


def test_everything_comes_back() -> None:
    network, node = settled()
    taken = snapshot.take(node, 20001, network.now, WALL)
    token = node.tokens.issue(("10.0.0.5", 1), b"svc", network.now)
    again = reborn(network, taken, 5.0)
    assert again.node_id == node.node_id
    assert len(again.routing) == 4
    assert again.tokens.valid(token, ("10.0.0.5", 1), b"svc", network.now)
    assert again.own.ports(b"own", network.now) == [6001]
    assert again.peers.names == 1
    for item in (Item(b"bytes"), Item([1, {b"a": b"b"}]), signed(b"one", 1)):
        assert again.items.get(item.target, network.now) == item
    assert len(again.own_items) == 3
    again.peers.check()


def test_what_has_just_been_kept_is_not_younger_than_new() -> None:
    """At times like this one, to add how long it is kept and to take that away again rounds up."""
    _, node = settled()
    now = next(t for t in (1000.0 + n / 1000 for n in range(10_000)) if (t + 120.0) - 120.0 > t)
    node.items.put(Item(b"new"), None, now)
    node.own_items.add(Item(b"new"), now)
    node.own.add(b"new", 6002, now)
    node.peers.announce(b"new", pack_address(("10.0.0.9", 2)), "10.0.0.9", now)
    taken = snapshot.take(node, 20001, now, WALL)
    assert snapshot.decode(snapshot.encode(taken)) == taken


def test_contacts_survive_a_restart_in_an_outage() -> None:
    network, node = settled()
    taken = snapshot.take(node, 20001, network.now, WALL)
    network.partition = {network.address(1)}, {network.address(number) for number in (2, 3, 4, 5)}
    again = reborn(network, taken, 5.0)
    network.run(60.0)
    assert not again.routing
    again = reborn(network, snapshot.take(again, 20001, network.now, WALL), 5.0)
    network.run(60.0)
    assert not again.routing
    network.partition = set(), set()
    network.until(lambda: len(again.routing) == 4, within_s=45.0)


def test_what_is_old_stays_away_and_the_rest_ages_on() -> None:
    network, node = settled()
    taken = snapshot.take(node, 20001, network.now, WALL)
    again = reborn(network, taken, bounds.PEER_MAX_AGE_S - 15.0)  # 10 s old when it was taken, 3 to start
    assert again.peers.names == 1
    network.run(3.0)
    assert again.peers.names == 0
    assert again.own.ports(b"own", network.now) == []
    for number in (2, 3, 4, 5):
        network.remove(number)  # what they would do meanwhile takes long, and changes nothing here
    again = reborn(network, taken, bounds.ITEM_MAX_AGE_S)
    assert (len(again.peers), len(again.items)) == (0, 0)
    assert again.own_items.take_due(network.now, 10) == []


def test_tokens_belong_to_a_port_and_a_clock_may_go_back() -> None:
    network, node = settled()
    taken = snapshot.take(node, 20001, network.now, WALL + 1000.0)
    token = node.tokens.issue(("10.0.0.5", 1), b"svc", network.now)
    again = reborn(network, taken, 1.0, port=20002)
    assert not again.tokens.valid(token, ("10.0.0.5", 1), b"svc", network.now)
    assert again.peers.names == 1


def test_tokens_do_not_outlive_a_long_pause() -> None:
    network, node = settled()
    taken = snapshot.take(node, 20001, network.now, WALL)
    token = node.tokens.issue(("10.0.0.5", 1), b"svc", network.now)
    again = reborn(network, taken, bounds.TOKEN_ROTATE_S)
    assert not again.tokens.valid(token, ("10.0.0.5", 1), b"svc", network.now)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("node_id", "eA=="),
        ("secrets", ["eA==", "eA=="]),
        ("contacts", 5),
        ("contacts", [["localhost", 20001]]),
        ("peers", [["eA==", "fwAAARdx", "nobody", 1.0]]),
        ("peers", [["eA==", "fwAAARdx", "127.0.0.1", -1.0]]),
        ("own_announces", [["eA==", 70000, 1.0]]),
        ("items", [{"v": "eA==", "age_s": 1}]),
        ("items", [{"v": "MTp4", "age_s": 1, "k": "eA=="}]),
    ],
)
def test_damage_is_told(field: str, value: Any) -> None:
    network, node = settled()
    fields = msgspec.json.decode(snapshot.encode(snapshot.take(node, 20001, network.now, WALL)))
    with pytest.raises(ValueError, match=r".+"):
        snapshot.decode(msgspec.json.encode(fields | {field: value}))
    for data in (b"", b"{}", b"[]", b"\xff", b"null"):
        with pytest.raises(ValueError, match=r".+"):
            snapshot.decode(data)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything in a JSON value."""
    inner: Any = value.items() if type(value) is dict else enumerate(value) if type(value) is list else ()
    for key, element in inner:
        yield (*path, key)
        yield from places(element, (*path, key))


NUMBERS = [-1, 0, 1e300, -1e300, 2**70, 70000]
OTHER_VALUES: list[Any] = [*NUMBERS, "", "x", "999.1.1.1", "A" * 400, [], {}, True, None]


def test_whatever_is_damaged_is_told_or_harmless() -> None:
    network, node = settled()
    saved = snapshot.encode(snapshot.take(node, 20001, network.now, WALL))
    told = 0
    for path in list(places(msgspec.json.decode(saved))):
        for value in OTHER_VALUES:
            fields = holder = msgspec.json.decode(saved)
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
            try:
                read = snapshot.decode(msgspec.json.encode(fields))
            except ValueError:
                told += 1
                continue
            lone = Lone()
            contacts = snapshot.restore(lone.node, read, 20001, lone.network.now, WALL)
            lone.node.start((), contacts)
            lone.network.run(3.0)
            for name in (b"svc", b"own"):
                assert lone.query(STRANGER, b"get_peers", id=b"x" * 20, info_hash=name) is not None
                lone.node.lookup(name, lambda found: None)
            lone.node.peers.check()
            lone.node.peers.purge(lone.network.now + bounds.PEER_MAX_AGE_S)
            lone.node.own.purge(lone.network.now + bounds.PEER_MAX_AGE_S)
            assert len(lone.node.peers) == len(lone.node.own) == 0
    assert told > 250
