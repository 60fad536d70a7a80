"""Walks as a state machine: whom they ask, when they end, what they bring."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grenache_py.dht import bounds
from grenache_py.dht.items import Item
from grenache_py.dht.krpc import Address, pack_address
from grenache_py.dht.lookup import Candidate, ItemWalk, PeerWalk, Walk
from grenache_py.dht.routing import Contact

OWN = b"\xff" * 20
TARGET = b"\0" * 20


def node_id(distance: int) -> bytes:
    """The id at this distance from the target."""
    return distance.to_bytes(20, "big")


def address(distance: int) -> Address:
    return f"10.0.{distance >> 8}.{distance & 255}", 4000


def nodes(*distances: int) -> bytes:
    return b"".join(node_id(distance) + pack_address(address(distance)) for distance in distances)


class Run:
    """A walk, whom it asked, and whether it ended."""

    def __init__(self, kind: type[Any] = Walk, target: bytes = TARGET, **options: Any) -> None:
        self.asked: list[Candidate] = []
        self.endings: list[Walk] = []
        self.now = 0.0
        suspects: Container[Address] = options.get("suspects", ())
        limits = options.get("k", bounds.K), options.get("concurrency", bounds.CONCURRENCY)
        self.walk = kind(target, OWN, self.ask, self.done, suspects, *limits)

    def ask(self, walk: Walk, candidate: Candidate) -> None:
        candidate.asked_at = self.now
        self.asked.append(candidate)

    def done(self, walk: Walk) -> None:
        self.endings.append(walk)

    def start(self, *distances: int) -> None:
        for distance in distances:
            self.walk.add(node_id(distance), address(distance))
        self.walk.start()

    def distances(self) -> list[int]:
        return [candidate.distance for candidate in self.asked]

    def answer(self, distance: int, **reply: Any) -> None:
        candidate = next(candidate for candidate in self.asked if candidate.distance == distance)
        fields = {name.encode(): value for name, value in reply.items()}
        self.walk.answered(candidate, node_id(distance), {b"id": node_id(distance), **fields})

    def fail(self, distance: int) -> None:
        self.walk.failed(next(candidate for candidate in self.asked if candidate.distance == distance))


def test_with_nobody_to_ask_it_is_done() -> None:
    run = Run()
    run.start()
    assert (len(run.endings), run.walk.answers) == (1, 0)


def test_it_asks_the_closest_first_and_follows_replies_inwards() -> None:
    run = Run(concurrency=2)
    run.start(30, 10, 20)
    assert run.distances() == [10, 20]
    run.answer(10, nodes=nodes(1, 2, 40))
    assert run.distances() == [10, 20, 1]
    run.answer(20)
    assert run.distances() == [10, 20, 1, 2]
    for distance in (1, 2, 30, 40):
        run.answer(distance)
    assert len(run.endings) == 1
    assert run.walk.answers == 6


def test_it_ends_when_the_k_closest_alive_have_answered() -> None:
    run = Run(k=2, concurrency=10)
    run.start(1, 2, 3, 4)
    assert run.distances() == [1, 2]
    run.fail(1)
    assert run.distances() == [1, 2, 3]
    run.answer(2)
    assert not run.endings
    run.answer(3)
    assert len(run.endings) == 1
    assert run.distances() == [1, 2, 3]  # the fourth was not needed


def test_each_address_is_asked_once_and_never_ourselves() -> None:
    run = Run()
    run.walk.add(OWN, address(7))
    run.start(1)
    run.walk.add(node_id(9), address(1))
    run.answer(1, nodes=nodes(1, 1, 2) + OWN + pack_address(address(8)))
    assert run.distances() == [1, 2]


def test_a_contact_that_leads_back_to_ourselves_counts_as_failed() -> None:
    run = Run()
    run.start(1)
    run.walk.answered(run.asked[0], OWN, {b"id": OWN, b"token": b"t"})
    assert len(run.endings) == 1
    assert run.walk.holders() == []


def test_bootstrap_addresses_are_asked_first_and_sorted_in_when_they_answer() -> None:
    run = Run(k=2)
    run.walk.add(None, address(100))
    run.start(5)
    assert [candidate.id for candidate in run.asked] == [None, node_id(5)]
    run.walk.answered(run.asked[0], node_id(100), {b"id": node_id(100), b"token": b"t", b"nodes": nodes(1)})
    run.answer(5, token=b"u")
    run.answer(1, token=b"v")
    assert len(run.endings) == 1
    assert run.walk.holders() == [(address(1), b"v"), (address(5), b"u")]


def test_an_unexpected_id_is_taken_for_what_it_is() -> None:
    run = Run(PeerWalk, b"svc")
    run.walk.add(node_id(5), address(5))
    run.walk.start()
    run.walk.answered(run.asked[0], node_id(9), {b"id": node_id(9), b"token": b"t"})
    assert run.walk.holders() == [(address(5), b"t")]


@pytest.mark.parametrize("nonsense", [b"short", [nodes(1)], 5, None, {}])
def test_nonsense_in_nodes_and_tokens_is_passed_over(nonsense: Any) -> None:
    run = Run()
    run.start(3)
    run.answer(3, nodes=nonsense, token=5 if nonsense != 5 else b"x" * 65)
    assert len(run.endings) == 1
    assert run.walk.holders() == []


def test_unreachable_addresses_are_not_asked() -> None:
    run = Run()
    run.start(3)
    bad = b"".join(
        node_id(4) + pack_address(where) for where in (("0.0.0.0", 5), ("10.0.0.4", 0), ("239.1.1.1", 5))
    )
    run.answer(3, nodes=bad)
    assert run.distances() == [3]


def test_candidates_are_bounded() -> None:
    run = Run(concurrency=1, k=2000)
    run.start(60_000)
    for reply in range(60):
        answered = run.asked[-1].distance
        run.answer(answered, nodes=nodes(*range(100 + reply * 150, 100 + reply * 150 + 150)))
    assert len(run.walk._candidates) == bounds.CANDIDATES_MAX


def test_so_are_the_entries_that_are_no_candidates() -> None:
    run = Run(k=20, concurrency=20)
    run.start(*range(1, 21))
    for reply in range(20):
        same = b"".join(
            node_id(1000 * reply + number) + pack_address(address(7)) for number in range(100, 250)
        )
        run.answer(reply + 1, nodes=same)
    assert len(run.walk._candidates) == 20
    assert len(run.walk._entries) <= bounds.CANDIDATES_MAX


def test_suspects_are_asked_and_not_waited_for() -> None:
    suspects: Container[Address] = {address(1), address(2)}
    run = Run(suspects=suspects, k=2, concurrency=2)
    run.start(1, 2, 3, 4, 5)
    assert run.distances() == [1, 2, 3, 4]
    run.answer(3)
    assert not run.endings
    run.answer(1, token=b"t")  # it is back
    assert len(run.endings) == 1
    assert run.walk.holders() == [(address(1), b"t")]


def test_with_only_suspects_it_asks_them_and_is_done() -> None:
    run = Run(suspects={address(1)})
    run.start(1)
    assert (run.distances(), len(run.endings)) == ([1], 1)
    run.answer(1)  # too late, and harmless
    assert len(run.endings) == 1


def test_the_silent_are_not_waited_for_while_others_answer() -> None:
    run = Run()
    run.start(1, 2)
    run.now = 1.5
    assert run.walk.hurry(1.5) == []  # nobody has answered: it may be us
    run.answer(2, nodes=nodes(3))
    assert run.walk.hurry(1.5) == [address(1)]
    assert not run.endings
    assert run.walk.hurry(1.5 + bounds.PATIENCE_S / 2) == []  # 3 was asked only now
    run.answer(3)
    assert len(run.endings) == 1
    assert run.walk.hurry(9.0) == []


def test_even_less_when_something_was_found() -> None:
    run = Run(PeerWalk, b"svc")
    run.start(1, 2)
    candidate = run.asked[0]
    run.walk.answered(candidate, node_id(9), {b"id": node_id(9), b"values": [b"\x0a\0\0\1\x17\x71"]})
    assert run.walk.hurry(bounds.PATIENCE_FOUND_S - 0.01) == []
    assert len(run.walk.hurry(bounds.PATIENCE_FOUND_S)) == 1
    assert len(run.endings) == 1


def test_peers_are_gathered_from_all() -> None:
    one, two, three = b"\x0a\0\0\1\x17\x71", b"\x0a\0\0\2\x17\x71", b"\x0a\0\0\3\x17\x71"
    run = Run(PeerWalk, b"\0svc")
    assert run.walk.args == {b"id": OWN, b"info_hash": b"\0svc"}
    run.start(1, 2, 3)
    for candidate, values in zip(list(run.asked), ([one, two], [two, three], 5), strict=True):
        run.walk.answered(candidate, candidate.id, {b"id": candidate.id, b"values": values})
    assert len(run.endings) == 1
    assert list(run.walk.values) == [one, two, three]


def test_no_more_peers_are_gathered_than_one_could_want() -> None:
    nodes_max = bounds.VALUES_FOUND_MAX // bounds.VALUES_READ_MAX + 5
    run = Run(PeerWalk, b"\0svc", k=nodes_max, concurrency=nodes_max)
    run.start(*range(1, nodes_max + 1))
    for number, candidate in enumerate(list(run.asked)):
        values = [bytes([10, 0, 0, number]) + port.to_bytes(2, "big") for port in range(1, 301)]
        run.walk.answered(candidate, candidate.id, {b"id": candidate.id, b"values": values})
    assert len(run.endings) == 1
    assert len(run.walk.values) == bounds.VALUES_FOUND_MAX


def test_an_immutable_item_ends_the_walk() -> None:
    item = Item(b"hello")
    run = Run(ItemWalk, item.target)
    run.walk.add(node_id(1), address(1))
    run.walk.add(node_id(2), address(2))
    run.walk.start()
    first, second = run.asked
    run.walk.answered(first, first.id, {b"id": first.id, b"v": b"forged"})
    assert not run.endings
    run.walk.answered(second, second.id, {b"id": second.id, b"v": b"hello"})
    assert (len(run.endings), run.walk.item) == (1, item)
    assert run.walk.reply[b"id"] == second.id


def test_of_a_mutable_item_the_highest_valid_seq_wins() -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    public = key.public_key().public_bytes_raw()

    def reply(v: bytes, seq: int, *, forged: bool = False) -> dict[bytes, Any]:
        item = Item(v, public, b"", seq, b"salt")
        sig = b"s" * 64 if forged else key.sign(item.signed_bytes())
        return {b"v": v, b"k": public, b"sig": sig, b"seq": seq}

    replies = [
        reply(b"two", 2),
        reply(b"three", 3),
        reply(b"nine", 9, forged=True),
        reply(b"one", 1),
        {b"v": 5},
    ]
    run = Run(ItemWalk, Item(b"", public, b"", 0, b"salt").target)
    run.walk.salt = b"salt"
    for distance in range(1, 6):
        run.walk.add(node_id(distance), address(distance))
    run.walk.start()
    for candidate, fields in zip(list(run.asked), replies, strict=True):
        run.walk.answered(candidate, candidate.id, {b"id": candidate.id, **fields})
    assert len(run.endings) == 1
    assert (run.walk.item.v, run.walk.item.seq) == (b"three", 3)


def test_nodes_are_read_to_the_last_whole_entry() -> None:
    for told, expected in (
        (nodes(1, 2) + b"tail", [1, 2]),
        (b"", []),
        (b"x" * 25, []),
        ([nodes(1)], []),
        (7, []),
        (nodes(*range(1, 3000)), list(range(1, bounds.NODES_READ_MAX + 1))),
    ):
        run = Run()
        run.start(5000)
        run.answer(5000, nodes=told)
        known = [candidate.distance for candidate in run.walk._candidates if candidate.distance != 5000]
        assert known == expected


def test_it_begins_with_the_contacts_of_the_routing_table() -> None:
    run = Run()
    run.walk.seed([Contact(node_id(distance), address(distance), 0.0) for distance in (1, 5, 9)])
    run.start()
    assert run.distances() == [1, 5, 9]
    run.answer(1, nodes=nodes(1, 3, 5))
    assert run.distances() == [1, 5, 9, 3]
