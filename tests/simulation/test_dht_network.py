"""The DHT as a whole: what is announced is found, whoever dies, joins, returns or lies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grenache_py.dht import bounds
from grenache_py.dht.distance import key_of
from grenache_py.dht.items import Item
from grenache_py.dht.krpc import encode_reply, pack_address
from grenache_py.dht.node import Busy, DhtNode
from grenache_py.dht.storing import StoreReport
from tests.simulation.dht_network import Network


def lookup(network: Network, node: DhtNode, name: bytes) -> tuple[list[bytes], float]:
    """The peers found, and how long it took."""
    found: list[list[bytes]] = []
    node.lookup(name, found.append)
    took = network.until(lambda: found)
    return found[0], took


def announce(network: Network, node: DhtNode, name: bytes, port: int) -> StoreReport:
    reports: list[StoreReport] = []
    node.announce(name, port, reports.append)
    network.until(lambda: reports)
    return reports[0]


def put(network: Network, node: DhtNode, item: Item, cas: int | None = None) -> StoreReport:
    reports: list[StoreReport] = []
    node.put(item, cas, reports.append)
    network.until(lambda: reports)
    return reports[0]


def get(network: Network, node: DhtNode, target: bytes, **options: Any) -> Item | None:
    found: list[Item | None] = []
    node.get(target, lambda item, reply: found.append(item), **options)
    network.until(lambda: found)
    return found[0]


def peer(number: int, port: int) -> bytes:
    return pack_address((f"10.0.0.{number}", port))


@pytest.mark.parametrize("seed", range(3))
def test_fifty_nodes_find_what_any_of_them_announced(seed: int) -> None:
    network = Network(seed)
    nodes = network.grow(50)
    assert all(node.ready for node in nodes)
    report = announce(network, nodes[7], b"rest:util:net", 6001)
    assert (report.asked, report.stored, report.silent) == (bounds.K, bounds.K, 0)
    for node in nodes[::5]:
        found, took = lookup(network, node, b"rest:util:net")
        assert found == [peer(8, 6001)]
        assert took < 0.3
    assert lookup(network, nodes[0], b"nobody")[0] == []
    assert network.largest < 1400
    network.check()


@pytest.mark.parametrize("seed", range(3))
def test_with_loss_too(seed: int) -> None:
    network = Network(seed, loss=0.1)
    nodes = network.grow(30)
    network.run(30.0)
    report = announce(network, nodes[3], b"svc", 6001)
    assert report.stored > 5
    for node in nodes[::3]:
        found, took = lookup(network, node, b"svc")
        assert found == [peer(4, 6001)]
        assert took < 2.5
    network.check()


def test_a_lost_datagram_costs_a_look_up_a_tenth_of_a_second() -> None:
    network = Network(7)
    nodes = network.grow(20)
    announce(network, nodes[0], b"svc", 6001)
    for node in nodes:  # so that each knows how long the others take
        lookup(network, node, b"nobody")
    network.run(1.0)
    network.loss = 0.05
    before = network.datagrams
    took = []
    for number in range(200):
        found, seconds = lookup(network, nodes[number % 20], b"svc")
        assert found == [peer(1, 6001)]
        took.append(seconds)
        network.run(0.1)
    # One of three meets a node that misses both datagrams, and waits the 0.5 s for it as before.
    assert sorted(took)[100] < 0.2
    sent = network.datagrams - before
    resent = sum(node.counters.resent for node in nodes)
    assert 0 < resent < 0.1 * sent


def test_the_same_seed_gives_the_same_run() -> None:
    def trace(seed: int) -> tuple[int, list[tuple[Any, str]]]:
        network = Network(seed, loss=0.05)
        nodes = network.grow(10)
        announce(network, nodes[0], b"svc", 1)
        return network.datagrams, [(address, event) for address, event, _ in network.events]

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)


def test_a_look_up_does_not_wait_for_the_dead() -> None:
    network = Network()
    nodes = network.grow(12)
    announce(network, nodes[0], b"svc", 6001)
    for number in (10, 11, 12):
        network.remove(number)
    found, took = lookup(network, nodes[1], b"svc")
    assert found == [peer(1, 6001)]
    assert took < bounds.PATIENCE_FOUND_S + 2 * bounds.TICK_S
    assert lookup(network, nodes[1], b"nobody")[1] < 0.2  # they are known for it by now
    network.run(10.0)
    assert len(nodes[1].routing) == 8
    network.check()


def test_a_flood_while_most_are_dead_is_over_when_it_is_over() -> None:
    network = Network()
    nodes = network.grow(10)
    announce(network, nodes[0], b"svc", 6001)
    for number in range(4, 11):
        network.remove(number)
    found: list[list[bytes]] = []
    refused = 0
    for number in range(20_000):
        try:
            nodes[0].lookup(b"flood %d" % number, found.append)
        except Busy:
            refused += 1
        if number % 500 == 0:
            network.run(0.05)
    network.run(bounds.QUERY_TIMEOUT_S + 2.0)
    assert len(found) + refused == 20_000
    # Nothing is left of it that a later look-up would have to wait behind.
    assert nodes[0].queries_under_way <= 10
    answers, took = lookup(network, nodes[0], b"svc")
    assert (answers, took < 0.2) == ([peer(1, 6001)], True)
    network.check()


def test_without_any_live_contact_a_look_up_ends_with_the_time_limit() -> None:
    network = Network()
    nodes = network.grow(2)
    network.remove(1)
    found, took = lookup(network, nodes[1], b"svc")
    assert found == []
    assert bounds.QUERY_TIMEOUT_S <= took <= bounds.QUERY_TIMEOUT_S + 2 * bounds.TICK_S
    assert lookup(network, nodes[1], b"svc")[1] < 0.1


def test_a_pause_of_the_only_contact_is_forgiven() -> None:
    network = Network()
    nodes = network.grow(2)
    announce(network, nodes[0], b"svc", 6001)
    network.partition = {network.address(1)}, {network.address(2)}
    found: list[list[bytes]] = []
    for number in range(500):
        nodes[1].lookup(b"name %d" % number, found.append)
    network.run(2.1)
    network.partition = set(), set()
    # All queries of the pause fail; the ping that follows the first decides, and finds it alive.
    network.until(lambda: len(found) == 500)
    network.run(1.0)
    assert lookup(network, nodes[1], b"svc")[0] == [peer(1, 6001)]
    network.check()


def test_lost_datagrams_do_not_make_a_suspect_of_one_that_answers() -> None:
    network = Network(loss=0.3)
    nodes = network.grow(2)
    network.until(lambda: len(nodes[1].routing) == 1)
    done: list[list[bytes]] = []
    for number in range(300):
        nodes[1].lookup(b"name %d" % number, done.append)
        network.run(0.05)
        assert len(nodes[1].routing) == 1
    assert not nodes[1]._walks._suspects


def test_those_who_are_not_waited_for_are_asked_one_question_at_a_time() -> None:
    network = Network()
    nodes = network.grow(2)
    network.remove(1)
    lookup(network, nodes[1], b"svc")
    network.run(1.0)
    before = network.datagrams
    for number in range(1000):
        assert lookup(network, nodes[1], b"name %d" % number)[0] == []
    assert network.datagrams - before < 20


def test_a_slow_node_is_waited_for_when_it_is_the_only_one() -> None:
    network = Network()
    nodes = network.grow(2)
    announce(network, nodes[0], b"svc", 6001)
    network.partition = {network.address(1)}, {network.address(2)}
    found: list[list[bytes]] = []
    nodes[1].lookup(b"svc2", found.append)
    network.run(1.9)
    assert found == []


def test_an_announce_expires_everywhere() -> None:
    network = Network()
    nodes = network.grow(5)
    announce(network, nodes[0], b"svc", 6001)
    network.run(bounds.PEER_MAX_AGE_S - 2.0)
    assert lookup(network, nodes[3], b"svc")[0] == [peer(1, 6001)]
    network.run(3.0)
    assert lookup(network, nodes[3], b"svc")[0] == []
    assert lookup(network, nodes[0], b"svc")[0] == []


@pytest.mark.parametrize("host", [None, "10.0.0.1"])
def test_alone_it_keeps_an_announce_and_tells_those_who_join(host: str | None) -> None:
    network = Network()
    first = network.add(1, host=host)
    network.run(1.0)
    assert announce(network, first, b"svc", 6001) == StoreReport()
    assert lookup(network, first, b"svc")[0] == [pack_address((host or "127.0.0.1", 6001))]
    second = network.add(2, [1])
    network.run(2.0)
    assert lookup(network, second, b"svc")[0] == [peer(1, 6001)]
    assert second.peers.names == 1
    # Now that others tell our address, that is the one.
    assert lookup(network, first, b"svc")[0] == [peer(1, 6001)]


def test_names_are_announced_by_many_and_found_as_one_list() -> None:
    network = Network()
    nodes = network.grow(8)
    for number, node in enumerate(nodes, 1):
        announce(network, node, b"svc", 6000 + number)
    found, _ = lookup(network, nodes[0], b"svc")
    assert sorted(found) == [peer(number, 6000 + number) for number in range(1, 9)]


def test_simultaneous_look_ups_of_one_name_share_one_walk() -> None:
    network = Network()
    nodes = network.grow(5)
    found: list[list[bytes]] = []
    before = network.datagrams
    for _ in range(100):
        nodes[0].lookup(b"svc", found.append)
    network.until(lambda: len(found) == 100)
    assert network.datagrams - before < 20


def test_a_second_announce_needs_no_walk() -> None:
    network = Network()
    nodes = network.grow(5)
    announce(network, nodes[0], b"svc", 6001)
    before = network.datagrams
    assert announce(network, nodes[0], b"svc", 6001).stored == 4
    assert network.datagrams - before == 8


@pytest.mark.parametrize("same_id", [False, True])
def test_a_node_that_comes_back_is_announced_to_again(same_id: bool) -> None:
    network = Network()
    nodes = network.grow(4)
    announce(network, nodes[0], b"svc", 6001)
    network.add(3, [1], node_id=nodes[2].node_id if same_id else None)
    network.run(0.5)
    # Its tokens are new, so the cached ones are refused: the walk is made again.
    report = announce(network, nodes[0], b"svc", 6001)
    assert (report.stored, report.refusals) == (3, [])
    assert network.nodes[network.address(3)].peers.names == 1
    for number in (1, 2, 4):
        contacts = list(network.nodes[network.address(number)].routing)
        assert [contact.address for contact in contacts].count(network.address(3)) == 1
    network.check()


def test_an_empty_table_is_not_remembered() -> None:
    network = Network()
    first = network.add(1)
    network.run(1.0)
    announce(network, first, b"svc", 6001)
    network.add(2, [1])
    network.run(1.0)
    assert announce(network, first, b"svc", 6001).stored == 1


def test_it_joins_when_its_bootstrap_comes_up_late() -> None:
    network = Network()
    late = network.add(2, [1])
    assert network.until(lambda: late.ready) < 2.5
    network.run(20.0)
    network.add(1)
    network.until(lambda: len(late.routing) == 1, within_s=45.0)


def test_a_look_up_of_one_that_is_alone_asks_its_bootstrap() -> None:
    network = Network()
    alone = network.add(2, [1])
    network.run(120.0)
    announce(network, network.add(1, host="10.0.0.1"), b"svc", 6001)
    assert not alone.routing  # it tries to join every half minute
    assert lookup(network, alone, b"svc")[0] == []  # asked, but not waited for
    network.until(lambda: alone.routing, within_s=0.1)
    assert lookup(network, alone, b"svc")[0] == [peer(1, 6001)]


def test_a_node_that_is_its_own_bootstrap_finds_out() -> None:
    network = Network()
    lone = network.add(1, [1])
    network.until(lambda: lone.ready, within_s=0.1)
    asked = network.datagrams
    network.run(300.0)
    assert network.datagrams == asked
    assert not lone.routing


def test_two_halves_that_were_apart_find_each_other_again() -> None:
    network = Network()
    left = network.add(1, [2])
    right = network.add(2, [1])
    network.partition = {network.address(1), network.address(3)}, {network.address(2), network.address(4)}
    third, fourth = network.add(3, [1]), network.add(4, [2])
    network.run(60.0)
    assert len(left.routing) == len(right.routing) == 1
    announce(network, third, b"svc", 6001)
    assert lookup(network, fourth, b"svc")[0] == []
    network.partition = set(), set()
    network.until(lambda: len(left.routing) > 1 and len(right.routing) > 1, within_s=45.0)
    assert lookup(network, fourth, b"svc")[0] == [peer(3, 6001)]
    announce(network, fourth, b"other", 6002)
    assert lookup(network, third, b"other")[0] == [peer(4, 6002)]


def test_those_that_were_apart_for_hours_find_each_other_again_without_a_bootstrap() -> None:
    network = Network()
    nodes = network.grow(3)
    assert all(node.routing for node in nodes)
    for node in nodes:
        node.bootstrap.addresses = []
    network.lost = {network.address(number): b"d" for number in (1, 2, 3)}
    network.run(3 * 3600.0)
    assert not any(node.routing for node in nodes)
    network.lost = {}
    network.until(lambda: all(node.routing for node in nodes), within_s=45.0)
    announce(network, nodes[1], b"svc", 6001)
    assert lookup(network, nodes[2], b"svc")[0] == [peer(2, 6001)]


def test_contacts_that_were_given_up_are_bounded_and_forgotten() -> None:
    network = Network()
    lone = network.add(1)
    others = [network.add(number, [1]) for number in range(2, 2 * bounds.K + 2)]
    network.until(lambda: len(lone.routing) > bounds.K)
    network.run(5.0)
    for number in range(2, len(others) + 2):
        network.remove(number)
    network.run(900.0)
    assert not lone.routing
    assert len(lone.bootstrap.earlier) == bounds.K
    network.run(bounds.EARLIER_MAX_AGE_S)
    assert not lone.bootstrap.earlier
    asked = network.datagrams
    network.run(900.0)
    assert network.datagrams == asked


def test_a_newcomer_that_only_asks_is_known_at_once() -> None:
    network = Network()
    first = network.add(1)
    network.add(2, [1])
    network.until(lambda: len(first.routing) == 1, within_s=0.1)


def test_items_are_stored_and_found() -> None:
    network = Network()
    nodes = network.grow(30)
    item = Item(b"hello")
    report = put(network, nodes[3], item)
    closest = sorted(nodes, key=lambda node: key_of(item.target) ^ key_of(node.node_id))[: bounds.K]
    assert all(node.items.get(item.target, network.now) for node in closest)
    # At the twenty that the putting node found, and at itself where it is as close.
    assert report.stored == report.asked == bounds.K + (nodes[3] in closest)
    assert get(network, nodes[20], item.target) == item
    assert get(network, nodes[20], Item(b"other").target) is None
    assert get(network, nodes[3], item.target) == item


KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def signed(v: bytes, seq: int, salt: bytes | None = None) -> Item:
    item = Item(v, KEY.public_key().public_bytes_raw(), b"", seq, salt)
    return replace(item, sig=KEY.sign(item.signed_bytes()))


def codes(report: StoreReport) -> set[int]:
    return {code for code, _ in report.refusals}


def test_mutable_items_grow_and_the_newest_wins() -> None:
    network = Network()
    nodes = network.grow(30)
    target = signed(b"", 0, b"salt").target
    assert put(network, nodes[0], signed(b"one", 1, b"salt")).stored >= bounds.K
    stale = put(network, nodes[1], signed(b"other", 1, b"salt"))
    assert (codes(stale), stale.stored) == ({302}, 0)
    clash = put(network, nodes[1], signed(b"two", 2, b"salt"), cas=7)
    assert (codes(clash), clash.stored) == ({301}, 0)
    assert put(network, nodes[1], signed(b"two", 2, b"salt"), cas=1).stored >= bounds.K
    # A node that missed the second put still tells of the first, and reads the second itself.
    holder = next(node for node in nodes if len(node.items))
    holder.items.purge(float("inf"))
    holder.items.put(signed(b"one", 1, b"salt"), None, network.now)
    reader = next(node for node in nodes if not len(node.items))
    for node in (reader, holder):
        assert get(network, node, target, salt=b"salt") == signed(b"two", 2, b"salt")
        assert get(network, node, target, salt=b"other") is None
    # It does not stand in the way of the next version either.
    report = put(network, holder, signed(b"three", 3, b"salt"), cas=2)
    assert (report.taken, codes(report)) == (True, set())
    assert holder.items.get(target, network.now) == signed(b"three", 3, b"salt")


def test_alone_a_node_holds_what_is_put_and_tells_those_who_join() -> None:
    network = Network()
    node = network.add(1)
    network.run(1.0)
    item = signed(b"one", 1)
    assert put(network, node, item) == StoreReport(1, 1)
    assert get(network, node, item.target) == get(network, node, item.target, cache=False) == item
    assert codes(put(network, node, signed(b"other", 1))) == {302}
    assert codes(put(network, node, signed(b"two", 2), cas=3)) == {301}
    assert put(network, node, signed(b"two", 2), cas=1).taken
    other = network.add(2, [1])
    network.run(3.0)
    assert get(network, other, item.target) == signed(b"two", 2)
    network.run(bounds.REPUBLISH_S)
    network.remove(1)
    assert get(network, other, item.target) == signed(b"two", 2)


def test_of_two_nodes_each_sees_what_was_put_at_the_other() -> None:
    network = Network()
    nodes = network.grow(2)
    target = signed(b"", 0).target
    for seq in range(1, 7):
        report = put(network, nodes[seq % 2], signed(b"%d" % seq, seq), cas=seq - 1 or None)
        assert (report.stored, report.asked) == (2, 2)
        assert codes(put(network, nodes[seq % 2 - 1], signed(b"lost", seq), cas=seq - 1)) == {301}
        assert [get(network, node, target) for node in nodes] == 2 * [signed(b"%d" % seq, seq)]


def test_a_version_that_one_missed_is_read_and_followed_there() -> None:
    network = Network()
    nodes = network.grow(2)
    target = signed(b"", 0).target
    put(network, nodes[0], signed(b"one", 1))
    network.lost[network.address(2)] = b"1:q3:put"
    assert put(network, nodes[0], signed(b"two", 2), cas=1) == StoreReport(2, 1, swap=True)
    network.lost.clear()
    assert nodes[1].items.get(target, network.now) == signed(b"one", 1)
    assert get(network, nodes[1], target) == signed(b"two", 2)
    assert codes(put(network, nodes[1], signed(b"lost", 2), cas=1)) == {301}
    # From the one that has it to the one that has not, and the other way round.
    assert put(network, nodes[0], signed(b"three", 3), cas=2) == StoreReport(2, 2, swap=True)
    network.lost[network.address(2)] = b"1:q3:put"
    put(network, nodes[0], signed(b"four", 4), cas=3)
    network.lost.clear()
    assert put(network, nodes[1], signed(b"five", 5), cas=4) == StoreReport(2, 2, swap=True)
    assert [node.items.get(target, network.now) for node in nodes] == 2 * [signed(b"five", 5)]


@pytest.mark.parametrize("size", [2, 3, 6, 30])
def test_of_swaps_at_the_same_time_one_at_most_is_taken(size: int) -> None:
    taken = []
    for seed in range(20):
        network = Network(seed)
        nodes = network.grow(size)
        assert put(network, nodes[0], signed(b"one", 1)).taken
        reports: list[StoreReport] = []
        writers = network.random.sample(nodes, min(size, 3))
        for number, node in enumerate(writers):
            node.put(signed(b"%d" % number, 2), 1, reports.append)
            network.run(network.random.choice([0.0, 0.002, 0.02, 0.1]))
        network.until(lambda: len(reports) == len(writers))  # noqa: B023
        taken.append(sum(report.taken for report in reports))
        assert taken[-1] <= 1
        # Whoever lost reads again and follows: then one is taken.
        newest = get(network, writers[0], signed(b"", 0).target)
        assert newest is not None
        assert newest.seq == 2
        assert put(network, writers[0], signed(b"again", 3), cas=2).taken
    assert any(taken)


def test_strangers_that_never_answer_do_not_enter() -> None:
    network = Network()
    node = network.add(1)
    network.run(1.0)
    query = b"d1:ad2:id20:%be1:q4:ping1:t2:aa1:y1:qe"
    for number in range(200):
        node.receive(query % (bytes([number]) * 20), ("10.9.9.9", 1000 + number))
    assert node._upkeep.verifying == 200
    network.run(5.0)
    assert len(node.routing) == node._upkeep.verifying == 0
    network.check()


def test_a_reply_from_elsewhere_is_not_believed() -> None:
    network = Network()
    nodes = network.grow(2)
    found: list[list[bytes]] = []
    nodes[1].lookup(b"svc", found.append)
    (key,) = nodes[1]._transactions._pending
    forged = encode_reply(key, {b"id": b"f" * 20, b"values": [pack_address(("6.6.6.6", 6))]})
    nodes[1].receive(forged, ("6.6.6.6", 20001))
    nodes[1].receive(forged, ("10.0.0.1", 20002))
    network.until(lambda: found)
    assert found == [[]]


def test_who_asks_while_it_stops_gets_an_answer() -> None:
    network = Network()
    nodes = network.grow(3)
    found: list[Any] = []
    nodes[0].lookup(b"svc", found.append)
    nodes[0].announce(b"other", 1, found.append)
    nodes[0].get(b"x" * 20, lambda item, reply: found.append(item))
    nodes[0].stop()
    assert len(found) == 3


def test_the_old_age_of_a_quiet_network() -> None:
    network = Network()
    nodes = network.grow(8, node_liveness_s=60.0)
    network.run(1800.0)
    assert all(len(node.routing) == 7 for node in nodes)
    assert all(network.now - contact.seen < 70.0 for node in nodes for contact in node.routing)
    network.remove(3)
    network.run(120.0)
    assert all(len(node.routing) == 6 for node in network.nodes.values())
    network.check()


def test_items_outlive_the_nodes_they_lie_at() -> None:
    network = Network()
    nodes = network.grow(6, node_liveness_s=120.0)
    item = Item(b"hello")
    mutable = signed(b"v", 1, b"salt")
    for each in (item, mutable):
        assert put(network, nodes[5], each).stored == 6
    for number in range(2, 6):
        network.remove(number)
    network.run(300.0)
    for number in range(12, 16):
        network.add(number, [1])
    network.run(bounds.REPUBLISH_S)
    network.remove(1)
    network.remove(6)
    network.run(10.0)
    for each in (item, mutable):
        assert get(network, network.nodes[network.address(13)], each.target, salt=each.salt) == each


def test_what_is_withdrawn_is_not_found_here_any_more() -> None:
    network = Network()
    nodes = network.grow(5, host=None)
    nodes[0].own_hosts.add("10.0.0.1")
    announce(network, nodes[0], b"svc", 6001)
    announce(network, nodes[0], b"svc", 6002)
    announce(network, nodes[1], b"svc", 6001)
    assert nodes[0].withdraw(b"svc", 6001)
    assert not nodes[0].withdraw(b"svc", 6001)
    assert not nodes[0].withdraw(b"other", 6001)
    # The same port elsewhere is another service; the other nodes forget in time.
    assert set(lookup(network, nodes[0], b"svc")[0]) == {peer(1, 6002), peer(2, 6001)}
    assert len(lookup(network, nodes[2], b"svc")[0]) == 3
    announce(network, nodes[0], b"svc", 6001)
    assert len(lookup(network, nodes[0], b"svc")[0]) == 3
    nodes[0].withdraw(b"svc", 6001)
    network.run(bounds.PEER_MAX_AGE_S)
    assert nodes[0].own.withdrawn(b"svc", network.now) == []


def test_an_announce_does_not_wait_for_the_dead() -> None:
    network = Network()
    nodes = network.grow(6)
    announce(network, nodes[0], b"svc", 6001)
    network.remove(6)
    began = network.now
    report = announce(network, nodes[0], b"svc", 6001)
    assert (report.stored, report.silent) == (4, 1)
    assert network.now - began < bounds.PATIENCE_FOUND_S + 2 * bounds.TICK_S
    network.run(3.0)
    began = network.now
    report = announce(network, nodes[0], b"svc", 6001)
    assert (report.stored, report.silent) == (4, 0)
    assert network.now - began < 0.3


def test_an_answer_given_again_knows_what_was_announced_meanwhile() -> None:
    network = Network()
    nodes = network.grow(5)
    announce(network, nodes[0], b"svc", 6001)
    assert lookup(network, nodes[1], b"svc")[0] == [peer(1, 6001)]
    before = network.datagrams
    assert lookup(network, nodes[1], b"svc") == ([peer(1, 6001)], 0.0)
    assert network.datagrams == before
    # Through others, through itself, and withdrawn: it is asked for anew each time, however soon.
    announce(network, nodes[2], b"svc", 6002)
    assert len(lookup(network, nodes[1], b"svc")[0]) == 2
    nodes[2].announce(b"svc", 6004, lambda report: None)  # the second one needs no walk
    network.run(0.021)
    assert len(lookup(network, nodes[1], b"svc")[0]) == 3
    nodes[1].announce(b"svc", 6003, lambda report: None)
    assert len(lookup(network, nodes[1], b"svc")[0]) == 4
    nodes[1].own_hosts.add("10.0.0.2")
    nodes[1].withdraw(b"svc", 6003)
    assert len(lookup(network, nodes[1], b"svc")[0]) == 3
