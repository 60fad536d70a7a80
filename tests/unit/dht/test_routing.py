"""The routing table, against k-bucket's recorded behaviour and against its own invariants."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grenache_py.dht.distance import distance, key_of
from grenache_py.dht.krpc import Address
from grenache_py.dht.routing import Routing
from tests.unit.dht.vectors import VECTORS

OWN = b"\x00" * 20
CONTACT_IDS = [bytes.fromhex(text) for text in VECTORS["contact_ids"]]


def address_of(number: int) -> Address:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 4000


def far(number: int) -> bytes:
    """An id in the half of the id space that is not ours."""
    return b"\x80" + number.to_bytes(19, "big")


@pytest.mark.parametrize("vector", VECTORS["closest"])
def test_as_k_bucket(vector: dict[str, Any]) -> None:
    routing = Routing(bytes.fromhex(VECTORS["own_id"]), 0.0)
    added = CONTACT_IDS[: vector["contacts_added"]]
    for number, node_id in enumerate(added):
        routing.answered(node_id, address_of(number), 0.0)
    rejected = [number for number, node_id in enumerate(added) if node_id not in routing.by_id]
    assert rejected == vector["rejected_full_bucket"]
    target = bytes.fromhex(vector["target_hex"])
    found = [contact.id for contact in routing.closest(key_of(target), vector["n"] or len(added))]
    recorded = [added[number] for number in vector["result"]]
    # Where the doubles of k-bucket are equal its order is that of arrival; ours is that of the full distance.
    assert [distance(node_id, target) for node_id in found] == [
        distance(node_id, target) for node_id in recorded
    ]
    distances = [distance(node_id, target) for node_id in recorded]
    if len(set(distances)) == len(distances):
        assert found == recorded


@given(
    st.lists(st.binary(min_size=20, max_size=20), unique=True, max_size=150),
    st.binary(max_size=30),
    st.integers(1, 40),
    st.binary(min_size=20, max_size=20),
)
def test_closest_is_exact(nodes: list[bytes], target: bytes, count: int, own: bytes) -> None:
    routing = Routing(own, 0.0, k=4)
    for number, node_id in enumerate(nodes):
        routing.answered(node_id, address_of(number), 0.0)
    routing.check()
    key = key_of(target)
    expected = sorted(routing, key=lambda contact: key ^ contact.long_id)[:count]
    assert routing.closest(key, count) == expected


@pytest.mark.parametrize("seed", range(60))
def test_invariants_hold_after_every_step(seed: int) -> None:
    random = Random(seed)
    routing = Routing(OWN, 0.0, k=3)
    nodes = [random.randbytes(20) for _ in range(25)] + [OWN] + [far(number) for number in range(8)]
    nodes += [b"\x00" * 18 + bytes([number, number]) for number in range(1, 8)]
    for step in range(120):
        now = float(step)
        node_id, address = random.choice(nodes), address_of(random.randrange(30))
        match random.randrange(5):
            case 0:
                routing.heard(node_id, address)
            case 1 | 2:
                routing.answered(node_id, address, now)
            case 3:
                routing.failed(address)
            case _:
                contact = routing.by_id.get(node_id)
                if contact is not None:
                    routing.remove(contact)
        routing.check()


def test_a_querier_is_pinged_and_enters_when_it_answers() -> None:
    routing = Routing(OWN, 0.0, k=2)
    assert routing.heard(far(1), address_of(1))
    assert len(routing) == 0
    assert routing.answered(far(1), address_of(1), 1.0) == (True, None)
    assert not routing.heard(far(1), address_of(1))
    assert routing.by_id[far(1)].seen == 1.0
    routing.answered(far(2), address_of(2), 3.0)
    assert routing.heard(far(3), address_of(3))
    routing.answered(b"\x01" * 20, address_of(4), 5.0)
    # By now the far half is a bucket of its own, and full: not worth a ping.
    assert not routing.heard(far(3), address_of(3))
    assert routing.heard(b"\x02" * 20, address_of(5))
    # Nor is a contact that is known to live; one that is thought dead is.
    assert not routing.heard(far(1), address_of(1))
    routing.failed(address_of(1))
    assert routing.heard(far(1), address_of(1))


def test_a_contact_is_asked_again_before_it_is_given_up() -> None:
    routing = Routing(OWN, 0.0)
    routing.answered(far(1), address_of(1), 0.0)
    contact = routing.by_id[far(1)]
    assert routing.failed(address_of(1)) is contact
    assert routing.answered(far(1), address_of(1), 3.0) == (True, None)  # back again
    assert routing.failed(address_of(1)) is contact
    assert routing.failed(address_of(1)) is None
    assert len(routing) == 0


def test_an_address_that_answers_with_a_new_id_replaces_the_old_contact_at_once() -> None:
    routing = Routing(OWN, 0.0)
    routing.answered(far(1), address_of(1), 0.0)
    # A query alone may be forged: it only leads to a ping.
    assert routing.heard(far(2), address_of(1))
    assert list(routing.by_id) == [far(1)]
    assert routing.answered(far(2), address_of(1), 2.0) == (True, None)
    assert list(routing.by_id) == [far(2)]
    routing.check()


def test_a_known_id_elsewhere_does_not_take_the_place_of_one_that_answers() -> None:
    routing = Routing(OWN, 0.0)
    routing.answered(far(1), address_of(1), 0.0)
    fresh, ping = routing.answered(far(1), address_of(2), 5.0)
    assert (fresh, ping) == (False, None)
    fresh, ping = routing.answered(far(1), address_of(2), 50.0)
    assert not fresh
    assert ping is routing.by_id[far(1)]
    routing.failed(address_of(1))
    assert routing.answered(far(1), address_of(2), 51.0) == (True, None)
    assert routing.by_id[far(1)].address == address_of(2)
    routing.check()


def test_a_full_bucket_asks_for_a_ping_of_the_longest_silent_and_then_replaces_it() -> None:
    routing = Routing(OWN, 0.0, k=3)
    for number in range(3):
        routing.answered(far(number), address_of(number), float(number))
    assert routing.answered(far(9), address_of(9), 5.0) == (False, None)  # all were seen a moment ago
    _, oldest = routing.answered(far(9), address_of(9), 30.0)
    assert oldest is routing.by_id[far(0)]
    routing.failed(oldest.address)
    routing.failed(oldest.address)
    assert set(routing.by_id) == {far(1), far(2), far(9)}
    routing.check()


def test_the_own_id_never_enters() -> None:
    routing = Routing(OWN, 0.0)
    assert not routing.heard(OWN, address_of(1))
    assert routing.answered(OWN, address_of(1), 0.0) == (False, None)
    assert len(routing) == 0


def test_ids_at_the_ends_of_buckets_are_found_again() -> None:
    routing = Routing(OWN, 0.0, k=1)
    edges = [(2**bit - 1).to_bytes(20, "big") for bit in (160, 159, 158)]
    edges += [(2**bit).to_bytes(20, "big") for bit in (159, 158, 157)]
    for number, node_id in enumerate(edges):
        routing.answered(node_id, address_of(number), 0.0)
        routing.check()
    for node_id in list(routing.by_id):
        routing.remove(routing.by_id[node_id])
        routing.check()


def test_the_silent_come_longest_first() -> None:
    routing = Routing(OWN, 0.0)
    for number in range(5):
        routing.answered(far(number), address_of(number), float(number))
    assert [contact.id for contact in routing.silent(100.0, 97.0, 2)] == [far(0), far(1)]
    assert routing.silent(100.0, 200.0, 2) == []


def test_every_bucket_is_refreshed_once_with_an_id_of_its_range() -> None:
    routing = Routing(OWN, 0.0, k=2)
    for number in range(4):
        routing.answered(far(number), address_of(number), 0.0)
        routing.answered(bytes([number + 1]) * 20, address_of(100 + number), 0.0)
    random = Random(1)
    assert routing.refresh_target(100.0, 900.0, random) is None
    targets = []
    while (target := routing.refresh_target(1000.0, 900.0, random)) is not None:
        targets.append(target)
    assert len(targets) > 1
    assert sum(target[0] >= 0x80 for target in targets) == 1  # the far half is one bucket
    assert routing.refresh_target(1000.0, 900.0, random) is None
