"""One node against everything a socket may bring: nothing raises, nothing grows, and it still works."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from bencode2 import bencode

from grenache_py.dht import bounds
from grenache_py.dht.items import Item
from grenache_py.dht.krpc import Address, decode, pack_address
from grenache_py.dht.lookup import PeerWalk
from grenache_py.dht.node import Busy, DhtNode
from grenache_py.dht.settings import DhtSettings
from tests.simulation.dht_network import Network
from tests.unit.dht.vectors import VECTORS

STRANGER = ("10.7.7.7", 7777)


class Lone:
    """A node with a hand on its wire: what it sends is kept, nothing comes by itself."""

    def __init__(self, **settings: Any) -> None:
        self.network = Network()
        self.sent: list[tuple[dict[bytes, Any], Address]] = []
        random = Random(1)
        self.events: list[tuple[str, Any]] = []
        self.node = DhtNode(
            send=lambda datagram, address: self.sent.append((decode(datagram), address)),
            clock=lambda: self.network.now,
            call_later=self.network.call_later,
            random=random,
            random_bytes=random.randbytes,
            settings=DhtSettings(**settings),
            emit=lambda event, argument: self.events.append((event, argument)),
        )
        self.node.start()

    def query(self, address: Address, method: bytes, **args: Any) -> dict[bytes, Any] | None:
        """Ask the node something; returns its reply, if any."""
        self.sent.clear()
        fields = {name.encode(): value for name, value in args.items()}
        self.node.receive(bencode({b"t": b"aa", b"y": b"q", b"q": method, b"a": fields}), address)
        replies = [message for message, to in self.sent if to == address and message[b"y"] != b"q"]
        return replies[0] if replies else None

    def answer_all(self, **fields: Any) -> None:
        """Answer every query that the node has sent, each from the id that its port stands for."""
        queries, self.sent[:] = list(self.sent), []
        for message, address in queries:
            if message[b"y"] == b"q":
                r = {b"id": node_id(address), **{name.encode(): value for name, value in fields.items()}}
                self.node.receive(bencode({b"t": message[b"t"], b"y": b"r", b"r": r}), address)


def node_id(address: Address) -> bytes:
    return address[1].to_bytes(20, "big")


KILLERS: list[dict[bytes, Any]] = [
    {b"t": b"aa", b"y": b"q", b"a": {b"id": b"x" * 20}},
    {b"t": b"aa", b"y": b"q", b"q": b"get_peers", b"a": {b"id": b"x" * 20, b"info_hash": 5}},
    {b"t": b"aa", b"y": b"q", b"q": b"get_peers", b"a": {b"id": b"x" * 20, b"info_hash": [b"a"]}},
    {b"t": b"aa", b"y": b"q", b"q": b"find_node", b"a": {b"id": b"x" * 20, b"target": 5}},
    {b"t": b"aa", b"y": b"q", b"q": b"announce_peer", b"a": {b"info_hash": b"s", b"port": 1, b"token": 5}},
    {
        b"t": b"aa",
        b"y": b"q",
        b"q": b"put",
        b"a": {b"id": b"x" * 20, b"v": b"x", b"sig": b"s", b"token": b"t"},
    },
    {b"t": b"aa", b"y": b"q", b"q": b"put", b"a": {b"id": b"x" * 20, b"v": b"x", b"k": b"k", b"token": b"t"}},
    {b"t": b"aa", b"y": b"r", b"r": {b"id": 5}},
    {b"t": b"aa", b"y": b"e", b"e": 5},
]


@pytest.mark.parametrize("message", KILLERS, ids=range(len(KILLERS)))
def test_what_kills_a_node_grape_is_answered_with_an_error_or_not_at_all(message: dict[bytes, Any]) -> None:
    lone = Lone()
    lone.node.receive(bencode(message), STRANGER)
    assert all(reply[b"y"] in (b"e", b"q") for reply, _ in lone.sent)
    assert lone.query(STRANGER, b"ping") == {b"t": b"aa", b"y": b"r", b"r": {b"id": lone.node.node_id}}


def test_a_negative_length_does_not_hang_it() -> None:
    lone = Lone()
    for datagram in (b"d1:ad2:id-5:abce1:q4:pinge", b"d-1:e", b"-3:abc", b"d1:y1:q1:a-2:ee"):
        lone.node.receive(datagram, STRANGER)
    assert [event for event, _ in lone.events].count("warning") == 4


@pytest.mark.parametrize("seed", range(20))
def test_random_and_damaged_datagrams(seed: int) -> None:
    random = Random(seed)
    lone = Lone()
    node = lone.node
    genuine = [bytes.fromhex(text) for text in VECTORS["datagrams"]]
    neighbours = [("10.0.0.1", 1000 + number) for number in range(30)]
    for step in range(400):
        address = random.choice(neighbours)
        kind = random.randrange(6)
        if kind == 0:
            datagram = random.randbytes(random.randrange(200))
        elif kind == 1:
            damaged = bytearray(random.choice(genuine))
            for _ in range(random.randrange(1, 6)):
                damaged[random.randrange(len(damaged))] = random.randrange(256)
            datagram = bytes(damaged)
        elif kind == 2:
            datagram = random.choice(genuine)
        elif lone.sent:
            # A reply to something it asked, with damaged contents.
            message, address = random.choice(lone.sent)
            r: dict[bytes, Any] = {b"id": random.choice([node_id(address), b"x" * 20, node.node_id, 5])}
            for name in random.sample([b"nodes", b"values", b"token", b"v", b"k", b"sig", b"seq"], 3):
                r[name] = random.choice([random.randbytes(60), [random.randbytes(6)], 7, {}, [], b""])
            body: dict[bytes, Any] = random.choice(
                [{b"y": b"r", b"r": r}, {b"y": b"e", b"e": [203, b"no"]}, {b"y": b"r"}]
            )
            datagram = bencode({b"t": message.get(b"t", b""), **body})
        else:
            datagram = b""
        node.receive(datagram, address)
        if step % 20 == 0:
            node.lookup(b"name-%d" % step, lambda found: None)
            node.announce(b"name-%d" % step, 1, lambda report: None)
            node.put(Item(b"%d" % step), None, lambda report: None)
            node.get(random.randbytes(20), lambda item, reply: None)
        if step % 50 == 0:
            lone.network.run(1.0)
            lone.sent.clear()
    node.routing.check()
    node.peers.check()
    node._transactions.check()
    lone.network.run(30.0)
    assert not node._walks
    assert not node._upkeep.verifying
    assert len(node._transactions) == 0
    assert lone.query(("10.3.3.3", 1), b"ping") is not None


def test_a_stranger_may_not_ask_too_much() -> None:
    lone = Lone()
    public = ("8.8.8.8", 1)
    answered = sum(lone.query(public, b"ping") is not None for _ in range(1000))
    assert answered == bounds.STRANGER_BURST
    assert lone.query(STRANGER, b"ping") is not None


def test_who_answered_us_may_ask_more() -> None:
    lone = Lone()
    public = ("8.8.8.8", 1)
    lone.query(public, b"ping", id=node_id(public))
    lone.answer_all()
    assert len(lone.node.routing) == 1
    answered = sum(lone.query(public, b"ping", id=node_id(public)) is not None for _ in range(12_000))
    assert answered == bounds.PROVEN_BURST
    assert lone.node.counters.limited == 12_000 - bounds.PROVEN_BURST
    # What it answers to us is never too much, and a neighbour in a private network is not limited.
    lone.node.lookup(b"svc", lambda found: None)
    lone.answer_all(token=b"t", nodes=b"")
    assert lone.node.walks_under_way == 0
    lone.query(STRANGER, b"ping", id=node_id(STRANGER))
    lone.answer_all()
    assert all(lone.query(STRANGER, b"ping", id=node_id(STRANGER)) is not None for _ in range(12_000))


def test_a_liar_cannot_fill_the_memory_with_peers() -> None:
    lone = Lone()
    for port in range(1, 31):
        lone.query(("10.7.7.7", port), b"ping", id=node_id(("10.7.7.7", port)))
        lone.answer_all()
    found: list[list[bytes]] = []
    lone.node.lookup(b"svc", found.append)
    walk = next(iter(lone.node._walks._under_way))
    assert isinstance(walk, PeerWalk)
    answers = 0
    while lone.sent:
        message, address = lone.sent.pop(0)
        answers += 1
        values = [bytes([10, answers]) + number.to_bytes(4, "big") for number in range(1, 8001)]
        r = {b"id": node_id(address), b"token": b"t", b"values": values}
        lone.node.receive(bencode({b"t": message[b"t"], b"y": b"r", b"r": r}), address)
        assert len(walk.values) <= answers * bounds.VALUES_READ_MAX
    assert len(walk.values) <= bounds.VALUES_FOUND_MAX
    assert len(found) == 1
    assert len(found[0]) == bounds.VALUES_MAX


def test_one_address_cannot_keep_others_from_being_pinged() -> None:
    lone = Lone()
    for port in range(1, 301):
        lone.query(("8.8.8.8", port), b"ping", id=node_id(("8.8.8.8", port)))
    assert lone.node._upkeep.verifying == bounds.VERIFYING_PER_HOST_MAX
    lone.query(("9.9.9.9", 1), b"ping", id=b"y" * 20)
    assert lone.node._upkeep.verifying == bounds.VERIFYING_PER_HOST_MAX + 1


def test_so_many_are_pinged_at_once() -> None:
    lone = Lone()
    for number in range(2 * bounds.VERIFYING_MAX):
        stranger = f"10.7.{number >> 8}.{number & 255}", 1
        lone.query(stranger, b"ping", id=number.to_bytes(20, "big"))
    assert lone.node._upkeep.verifying == bounds.VERIFYING_MAX


def test_who_was_silent_is_remembered_for_a_minute() -> None:
    lone = Lone()
    walks = lone.node._walks
    for number in range(bounds.SUSPECTS_MAX + 100):
        walks.suspect((f"10.7.{number >> 8}.{number & 255}", 1), lone.network.now)
    assert len(walks._suspects) == bounds.SUSPECTS_MAX
    lone.network.run(bounds.SUSPECT_S - 1.0)
    assert len(walks._suspects) == bounds.SUSPECTS_MAX
    lone.network.run(1.5)
    assert len(walks._suspects) == 0


def test_what_nobody_asks_for_is_forgotten_too() -> None:
    lone = Lone(peer_max_age_s=10.0)
    node = lone.node
    node.items.put(Item(b"v"), None, lone.network.now - bounds.ITEM_MAX_AGE_S + 10.0)
    node.peers.announce(b"svc", b"peer--", "10.0.0.1", lone.network.now)
    node._proven.add(STRANGER, lone.network.now)
    lone.network.run(9.0)
    assert (len(node.items), len(node.peers), len(node._proven)) == (1, 1, 1)
    lone.network.run(bounds.PROVEN_S)
    assert (len(node.items), len(node.peers), len(node._proven)) == (0, 0, 0)


def test_those_who_share_a_look_up_are_bounded() -> None:
    lone = Lone()
    lone.query(STRANGER, b"ping", id=node_id(STRANGER))
    lone.answer_all()
    found: list[Any] = []
    for _ in range(bounds.WAITING_MAX):
        lone.node.lookup(b"svc", found.append)
    with pytest.raises(Busy):
        lone.node.lookup(b"svc", found.append)
    assert lone.node.walks_under_way == 1
    lone.answer_all()
    assert len(found) == bounds.WAITING_MAX


def test_large_datagrams_are_for_those_who_were_asked() -> None:
    lone = Lone()
    padding = b"x" * bounds.STRANGER_DATAGRAM_BYTES_MAX
    assert lone.query(STRANGER, b"ping", padding=padding) is None
    lone.query(STRANGER, b"ping", id=node_id(STRANGER))
    # A Node Grape lists its whole table in one datagram, however large.
    nodes = b"".join(
        number.to_bytes(20, "big") + pack_address(("10.0.0.1", number)) for number in range(1, 1000)
    )
    lone.answer_all(nodes=nodes)
    assert len(lone.node.routing) == 1


def test_a_read_only_node_is_answered_and_not_kept() -> None:
    lone = Lone()
    message = {b"t": b"aa", b"y": b"q", b"q": b"ping", b"a": {b"id": b"x" * 20}, b"ro": 1}
    lone.node.receive(bencode(message), STRANGER)
    assert len(lone.sent) == 1
    assert len(lone.node.routing) == 0


def test_the_bounds_of_names_and_ports() -> None:
    lone = Lone()
    for name in (b"", b"x" * (bounds.NAME_BYTES_MAX + 1)):
        with pytest.raises(ValueError, match="name must have"):
            lone.node.lookup(name, lambda found: None)
        with pytest.raises(ValueError, match="name must have"):
            lone.node.announce(name, 1, lambda report: None)
    for port in (0, -1, 65536):
        with pytest.raises(ValueError, match="port must be"):
            lone.node.announce(b"svc", port, lambda report: None)
    with pytest.raises(ValueError, match="node_id"):
        DhtNode(
            send=lambda datagram, address: None,
            clock=lambda: 0.0,
            call_later=lone.network.call_later,
            random=Random(1),
            random_bytes=Random(1).randbytes,
            node_id=b"short",
        )
    assert len(lone.node.own) == 0


def test_walks_are_bounded() -> None:
    lone = Lone()
    lone.query(STRANGER, b"ping", id=node_id(STRANGER))
    lone.answer_all()
    found: list[Any] = []
    for number in range(bounds.WALKS_MAX):
        lone.node.lookup(b"%d" % number, found.append)
    with pytest.raises(Busy):
        lone.node.lookup(b"one more", found.append)
    while len(found) < bounds.WALKS_MAX:
        lone.answer_all()
    lone.node.lookup(b"one more", found.append)
    lone.node._transactions.check()


def test_what_it_sends_to_node_grapes_cannot_kill_them() -> None:
    lone = Lone()
    lone.query(STRANGER, b"ping", id=node_id(STRANGER))
    lone.answer_all()
    lone.node.announce(b"svc", 6001, lambda report: None)
    lone.node.put(Item(b"hello"), None, lambda report: None)
    asked = []
    for _ in range(3):
        asked += [message for message, _ in lone.sent]
        lone.answer_all(token=b"token", nodes=b"")
    assert {message[b"q"] for message in asked} == {b"get_peers", b"announce_peer", b"get", b"put"}
    for message in asked:
        assert len(message[b"t"]) == 2
        args = message[b"a"]
        assert args[b"id"] == lone.node.node_id
        assert all(type(args[name]) is bytes for name in args.keys() & {b"info_hash", b"target", b"token"})
        assert b"sig" not in args or b"k" in args


def test_a_token_that_is_no_text_is_never_sent_back() -> None:
    lone = Lone()
    lone.query(STRANGER, b"ping", id=node_id(STRANGER))
    lone.answer_all()
    reports: list[Any] = []
    lone.node.announce(b"svc", 6001, reports.append)
    lone.answer_all(token=5)
    assert [report.asked for report in reports] == [0]
    assert lone.sent == []
