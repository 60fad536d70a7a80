"""What went wrong in other DHTs: poisoned tables, reflection, amplification, made-up addresses."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from bencode2 import bencode
from hypothesis import given
from hypothesis import strategies as st

from grenache_py.dht import bounds
from grenache_py.dht.identity import AddressVotes, crc32c, id_fits, is_public, make_id
from grenache_py.dht.items import Item
from grenache_py.dht.krpc import encode_query, pack_address
from grenache_py.dht.proven import Proven
from grenache_py.dht.ratelimit import StrangerLimiter
from grenache_py.dht.republish import OwnItems
from tests.unit.dht.test_node import STRANGER, Lone, node_id

PUBLIC = ("8.8.8.8", 6881)


def ending(last: int, count: int) -> bytes:
    """Random bytes, the last of them as it was asked for."""
    return bytes(count - 1) + bytes([last])


def test_the_ids_of_bep_42() -> None:
    # The table at the end of BEP 42: address, seed, the first bytes of the id (21 bits count) and the last.
    table = [
        ("124.31.75.21", 1, "5fbfbf"),
        ("21.75.31.124", 86, "5a3ce9"),
        ("65.23.51.170", 22, "a5d432"),
        ("84.124.73.14", 65, "1b0321"),
        ("43.213.53.83", 90, "e56f6c"),
    ]
    for host, last, first in table:
        fitting = bytes.fromhex(first) + bytes(16) + bytes([last])
        assert id_fits(fitting, host)
        assert not id_fits(bytes([fitting[0] ^ 1]) + fitting[1:], host)
        made = make_id(host, partial(ending, last))
        assert made[:2] == fitting[:2]
        assert made[2] >> 3 == fitting[2] >> 3
        assert made[-1] == last
    assert crc32c(b"123456789") == 0xE3069283


@given(st.ip_addresses(v=4), st.binary(min_size=20, max_size=20))
def test_made_ids_fit(address: Any, drawn: bytes) -> None:
    made = make_id(str(address), lambda count: drawn[:count])
    assert id_fits(made, str(address))
    if not is_public(str(address)):
        assert made == drawn
    else:
        assert made[3:] == drawn[3:]


def test_the_own_address_is_what_most_say() -> None:
    votes = AddressVotes()
    assert votes.winner() is None
    for number in range(bounds.ADDRESS_VOTES_MIN - 1):
        votes.add(f"9.9.9.{number}", "1.2.3.4")
    for _ in range(50):  # one voter, one vote
        votes.add("9.9.9.0", "1.2.3.4")
    assert votes.winner() is None
    votes.add("9.9.9.200", "1.2.3.4")
    assert votes.winner() == "1.2.3.4"
    for number in range(bounds.ADDRESS_VOTES_MIN):
        votes.add(f"7.7.7.{number}", "6.6.6.6")
    assert votes.winner() is None
    for number in range(100):
        votes.add(f"5.5.5.{number}", "6.6.6.6")
    assert votes.winner() == "6.6.6.6"
    assert len(votes._votes) == bounds.ADDRESS_VOTERS_MAX


def join(lone: Lone, address: tuple[str, int]) -> None:
    """Have the node at an address become a contact."""
    lone.query(address, b"ping", id=node_id(address))
    lone.answer_all()


def test_a_node_takes_an_id_for_the_public_address_that_others_tell() -> None:
    lone = Lone()
    node = lone.node
    before = node.node_id
    voters = [(f"9.9.{number}.9", 1000 + number) for number in range(bounds.ADDRESS_VOTES_MIN)]
    for voter in voters:
        lone.query(voter, b"ping", id=node_id(voter))
        queries, lone.sent[:] = list(lone.sent), []
        for message, address in queries:
            if message[b"y"] == b"q":
                told = pack_address(("124.31.75.21", 20001))
                reply = {b"t": message[b"t"], b"y": b"r", b"r": {b"id": node_id(address)}, b"ip": told}
                node.receive(bencode(reply), address)
    assert node.node_id != before
    assert id_fits(node.node_id, "124.31.75.21")
    assert len(node.routing) == len(voters)
    node.routing.check()
    answer = lone.query(STRANGER, b"ping")
    assert answer is not None
    assert answer[b"r"][b"id"] == node.node_id


def test_addresses_taken_for_our_own_are_bounded() -> None:
    node = Lone().node
    for number in range(2 * bounds.OWN_HOSTS_MAX):
        for voter in range(bounds.ADDRESS_VOTERS_MAX):
            node._on_own_address(pack_address((f"124.31.75.{number}", 20001)), (f"9.9.{voter}.9", 1))
    assert len(node.own_hosts) == bounds.OWN_HOSTS_MAX


def test_a_public_host_gets_a_fitting_id_at_once() -> None:
    assert id_fits(Lone(host="124.31.75.21").node.node_id, "124.31.75.21")


def test_the_asker_is_told_its_public_address() -> None:
    lone = Lone()
    answer = lone.query(PUBLIC, b"ping", id=node_id(PUBLIC))
    assert answer is not None
    assert answer[b"ip"] == pack_address(PUBLIC)
    assert b"ip" not in (lone.query(STRANGER, b"ping") or {b"ip": b""})


def test_no_crowd_at_one_public_address() -> None:
    lone = Lone()
    for number in range(20):
        join(lone, ("8.8.8.8", 1000 + number))
        join(lone, ("10.0.0.1", 1000 + number))
    hosts = [contact.address[0] for contact in lone.node.routing]
    assert hosts.count("8.8.8.8") == bounds.CONTACTS_PER_HOST
    assert hosts.count("10.0.0.1") > bounds.CONTACTS_PER_HOST
    lone.node.routing.check()


def test_a_walk_asks_no_crowd_either() -> None:
    lone = Lone()
    join(lone, STRANGER)
    lone.node.lookup(b"svc", lambda found: None)
    crowd = b"".join(
        b"svc" + bytes([number]) * 17 + pack_address(("8.8.8.8", 1000 + number)) for number in range(1, 30)
    )
    lone.answer_all(nodes=crowd)
    asked = {address for message, address in lone.sent if message[b"q"] == b"get_peers"}
    assert len(asked) == bounds.CONTACTS_PER_HOST


def sent_to(lone: Lone, address: tuple[str, int], kind: bytes) -> list[dict[bytes, Any]]:
    return [message for message, to in lone.sent if to == address and message[b"y"] == kind]


@pytest.mark.parametrize("method", [b"find_node", b"get_peers", b"get"])
def test_a_stranger_gets_a_small_multiple_of_what_it_sent(method: bytes) -> None:
    lone = Lone()
    node = lone.node
    for number in range(40):
        join(lone, ("10.0.0.1", 1000 + number))
    name = b"popular"
    for number in range(100):
        node.peers.announce(name, pack_address(("10.0.0.2", 1 + number)), "10.0.0.2", lone.network.now)
    big = Item(b"x" * 1000)
    node.items.put(big, None, lone.network.now)
    for target in (name, big.target, b"n" * 20):
        lone.sent.clear()
        lengths: dict[Any, int] = {}
        node._send = lambda datagram, to: (lengths.setdefault(to, len(datagram)), None)[1]  # noqa: B023
        key = b"info_hash" if method == b"get_peers" else b"target"
        query = encode_query(b"aa", method, {b"id": b"x" * 20, key: target})
        node.receive(query, PUBLIC)
        assert lengths.get(PUBLIC, 0) <= bounds.STRANGER_REPLY_RATIO * len(query)


def test_the_long_answer_comes_after_the_pong() -> None:
    lone = Lone()
    item = Item(b"x" * 1000)
    lone.node.items.put(item, None, lone.network.now)
    assert lone.query(PUBLIC, b"get", id=node_id(PUBLIC), target=item.target) is None
    (ping,) = sent_to(lone, PUBLIC, b"q")
    assert ping[b"q"] == b"ping"
    lone.answer_all()
    (answer,) = sent_to(lone, PUBLIC, b"r")
    assert answer[b"r"][b"v"] == item.v
    # Proved once, it is answered at once, contact or not.
    lone.node.routing.remove(next(iter(lone.node.routing)))
    join(lone, PUBLIC)
    assert lone.query(PUBLIC, b"get", id=node_id(PUBLIC), target=item.target) is not None


def test_who_does_not_answer_the_ping_gets_nothing_long() -> None:
    lone = Lone()
    item = Item(b"x" * 1000)
    lone.node.items.put(item, None, lone.network.now)
    lone.query(PUBLIC, b"get", id=node_id(PUBLIC), target=item.target)
    lone.network.run(10.0)
    assert sent_to(lone, PUBLIC, b"r") == []
    assert not lone.node._upkeep.verifying


def test_who_cannot_be_asked_gets_nothing_long() -> None:
    lone = Lone()
    item = Item(b"x" * 1000)
    lone.node.items.put(item, None, lone.network.now)
    query = {
        b"t": b"aa",
        b"y": b"q",
        b"q": b"get",
        b"a": {b"id": b"x" * 20, b"target": item.target},
        b"ro": 1,
    }
    lone.node.receive(bencode(query), PUBLIC)
    assert lone.sent == []
    assert not lone.node._upkeep.verifying


def test_a_token_proves_an_address() -> None:
    lone = Lone()
    answer = lone.query(PUBLIC, b"get_peers", info_hash=b"svc")
    assert answer is not None
    token = answer[b"r"][b"token"]
    assert not lone.node._proven.has(PUBLIC, lone.network.now)
    lone.query(PUBLIC, b"announce_peer", info_hash=b"svc", port=1, token=b"wrong")
    assert not lone.node._proven.has(PUBLIC, lone.network.now)
    lone.query(PUBLIC, b"announce_peer", info_hash=b"svc", port=1, token=token)
    assert lone.node._proven.has(PUBLIC, lone.network.now)


def test_a_query_under_our_own_id_is_never_answered() -> None:
    lone = Lone()
    own = lone.node.node_id
    lone.node.receive(encode_query(b"aa", b"find_node", {b"id": own, b"target": own}), STRANGER)
    assert lone.sent == []


def test_nobody_is_at_port_0() -> None:
    lone = Lone()
    assert lone.query((STRANGER[0], 0), b"ping", id=b"x" * 20) is None
    assert lone.sent == []


def test_too_short_for_a_message() -> None:
    lone = Lone()
    lone.node.receive(b"d1:t0:1:y1:qe"[:14], STRANGER)
    assert lone.sent == []


def test_made_up_addresses_get_no_more_than_all_may_have() -> None:
    limiter = StrangerLimiter()
    allowed = sum(limiter.allow(f"8.{n >> 16}.{n >> 8 & 255}.{n & 255}", 1.0) for n in range(30_000))
    assert allowed == bounds.STRANGERS_BURST
    assert limiter.allow("10.0.0.1", 1.0)
    assert limiter.allow("9.9.9.9", 2.0)


def test_proofs_age_and_are_bounded() -> None:
    proven = Proven(max_age_s=10.0, max_addresses=3)
    for port in range(1, 6):
        proven.add(("8.8.8.8", port), float(port))
    assert [port for port in range(1, 6) if proven.has(("8.8.8.8", port), 5.0)] == [3, 4, 5]
    proven.add(("8.8.8.8", 3), 6.0)
    assert not proven.has(("8.8.8.8", 4), 14.0)
    proven.purge(15.0)
    assert len(proven) == 1


def test_own_items_are_due_every_hour_for_a_day() -> None:
    own = OwnItems(max_items=3)
    items = [Item(b"%d" % number) for number in range(4)]
    for item in items:
        own.add(item, 0.0)
    assert len(own) == 3
    assert own.take_due(bounds.REPUBLISH_S - 1.0, 10) == []
    assert own.take_due(bounds.REPUBLISH_S, 2) == items[1:3]
    assert own.take_due(bounds.REPUBLISH_S, 2) == items[3:]
    assert own.take_due(bounds.REPUBLISH_S, 2) == []
    own.drop_older(items[1])  # the same, not a newer one
    assert len(own) == 3
    assert own.take_due(bounds.ITEM_MAX_AGE_S - 1.0, 10) == items[1:]
    assert own.take_due(2 * bounds.ITEM_MAX_AGE_S, 10) == []
    assert len(own) == 0


def test_an_own_item_is_not_put_again_when_others_hold_a_newer_one() -> None:
    own = OwnItems()
    own.add(Item(b"two", b"k" * 32, b"s" * 64, 2), 0.0)
    for seq, left in ((1, 1), (2, 1), (3, 0)):
        own.drop_older(Item(b"other", b"k" * 32, b"s" * 64, seq))
        own.drop_older(Item(b"other", b"k" * 32, b"s" * 64, 9, b"salt"))
        assert len(own) == left
