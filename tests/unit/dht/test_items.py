"""BEP 44 items: the published vectors, those that Node Grapes accepted, and every refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grenache_py.dht import bounds
from grenache_py.dht.items import Item, ItemStore, check_signature, read_item
from grenache_py.dht.krpc import ErrorCode, Refusal
from tests.unit.dht.vectors import VECTORS

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()


def signed(v: Any, seq: int, salt: bytes | None = None) -> Item:
    item = Item(v, PUBLIC, b"", seq, salt)
    return replace(item, sig=KEY.sign(item.signed_bytes()))


def fields_of(item: Item) -> dict[bytes, Any]:
    fields = {b"v": item.v, b"k": item.k, b"sig": item.sig, b"seq": item.seq, b"salt": item.salt}
    return {name: value for name, value in fields.items() if value is not None}


def refusal_of(fields: dict[bytes, Any]) -> int:
    with pytest.raises(Refusal) as caught:
        check_signature(read_item(fields))
    return caught.value.code


def as_bytes(v: Any) -> Any:
    if isinstance(v, str):
        return v.encode()
    if isinstance(v, list):
        return [as_bytes(element) for element in v]
    if isinstance(v, dict):
        return {key.encode(): as_bytes(element) for key, element in v.items()}
    return v


@pytest.mark.parametrize("vector", VECTORS["bep44"], ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    fields: dict[bytes, Any] = {b"v": as_bytes(vector["v"])}
    if "k" in vector:
        fields |= {b"k": bytes.fromhex(vector["k"]), b"sig": bytes.fromhex(vector["sig"])}
        fields[b"seq"] = vector["seq"]
        if "salt" in vector:
            fields[b"salt"] = vector["salt"].encode()
    item = read_item(fields)
    check_signature(item)
    assert item.target.hex() == vector["target"]
    if "signed" in vector:
        assert item.signed_bytes() == vector["signed"].encode()


def test_a_signature_covers_value_seq_salt_and_key() -> None:
    item = signed(b"v", 1, b"salt")
    check_signature(item)
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    for forged in (
        replace(item, v=b"w"),
        replace(item, seq=2),
        replace(item, salt=b"other"),
        replace(item, salt=None),
        replace(item, k=other),
        replace(item, k=b"\0" * 32),
    ):
        with pytest.raises(Refusal) as caught:
            check_signature(forged)
        assert caught.value.code == ErrorCode.INVALID_SIGNATURE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({b"v": None}, 203),
        ({b"v": 0}, 203),
        ({b"v": b"x" * 1001}, 205),
        ({b"v": [b"x"] * 400}, 205),
        ({b"v": {b"toString": 1}}, 203),
        ({b"v": [{b"a": {b"toString": b""}}]}, 203),
        ({b"v": 2**64}, 203),
        ({b"k": None}, 203),
        ({b"k": b"k" * 31}, 203),
        ({b"k": 5}, 203),
        ({b"sig": None}, 203),
        ({b"sig": b"s" * 63}, 203),
        ({b"sig": b"s" * 64}, 206),
        ({b"seq": None}, 203),
        ({b"seq": -1}, 203),
        ({b"seq": 2**63}, 203),
        ({b"seq": b"1"}, 203),
        ({b"salt": 5}, 203),
        ({b"salt": b"s" * 65}, 207),
    ],
    ids=str,
)
def test_refusals(change: dict[bytes, Any], code: int) -> None:
    fields = fields_of(signed(b"v", 1)) | change
    assert refusal_of({name: value for name, value in fields.items() if value is not None}) == code


def test_nesting_is_bounded() -> None:
    nested: Any = b"x"
    for _ in range(40):
        nested = [nested]
    assert refusal_of({b"v": nested}) == ErrorCode.PROTOCOL


def test_exactly_a_thousand_bytes_are_stored() -> None:
    assert read_item({b"v": b"x" * 1000}).v == b"x" * 1000
    assert read_item({b"v": b""}).v == b""


def put_code(store: ItemStore, item: Item, cas: int | None = None, now: float = 0.0) -> int | None:
    try:
        store.put(item, cas, now)
    except Refusal as refusal:
        return refusal.code
    return None


def test_seq_must_grow_and_cas_must_match() -> None:
    store = ItemStore()
    assert put_code(store, signed(b"one", 5), cas=99) is None  # nothing there to compare with
    assert put_code(store, signed(b"two", 4)) == ErrorCode.SEQ_TOO_OLD
    assert put_code(store, signed(b"two", 5)) == ErrorCode.SEQ_TOO_OLD
    assert put_code(store, signed(b"two", 6), cas=4) == ErrorCode.CAS_MISMATCH
    assert put_code(store, signed(b"two", 4), cas=4) == ErrorCode.CAS_MISMATCH  # as Node: cas first
    found = store.get(signed(b"x", 1).target, 0.0)
    assert found is not None
    assert found.v == b"one"
    assert put_code(store, signed(b"two", 6), cas=5) is None
    assert put_code(store, signed(b"three", 7)) is None


def test_salts_are_items_of_their_own() -> None:
    store = ItemStore()
    assert put_code(store, signed(b"a", 5, b"a")) is None
    assert put_code(store, signed(b"b", 1, b"b")) is None
    assert len(store) == 2


def test_the_same_item_again_is_refused_and_lives_on() -> None:
    store = ItemStore(max_age_s=100.0)
    item = signed(b"v", 1)
    store.put(item, None, 0.0)
    assert put_code(store, item, now=90.0) == ErrorCode.SEQ_TOO_OLD
    assert store.get(item.target, 150.0) == item
    assert put_code(store, signed(b"other", 1), now=180.0) == ErrorCode.SEQ_TOO_OLD
    assert store.get(item.target, 190.0) is None


def test_items_are_bounded_and_expire() -> None:
    store = ItemStore(max_items=10, max_age_s=100.0)
    for number in range(30):
        store.put(Item(b"%d" % number), None, float(number))
    assert len(store) == 10
    assert store.get(Item(b"19").target, 30.0) is None
    assert store.get(Item(b"20").target, 30.0) is not None
    store.put(Item(b"20"), None, 31.0)
    store.put(Item(b"new"), None, 31.0)
    assert store.get(Item(b"20").target, 32.0) is not None
    assert store.get(Item(b"21").target, 32.0) is None
    store.purge(1000.0)
    assert len(store) == 0


def test_one_source_cannot_push_out_the_items_of_others() -> None:
    store = ItemStore(max_items=100)
    store.put(Item(b"mine"), None, 0.0, "10.0.0.1")
    store.put(Item(b"own"), None, 0.0)
    # Who puts it again does not take it over, to have it pushed out by more of the same.
    store.put(Item(b"mine"), None, 1.0, "10.0.0.2")
    for number in range(500):
        store.put(Item(b"%d" % number), None, 2.0, "10.0.0.2")
        store.check()
    assert len(store) == 2 + 25
    assert store.get(Item(b"mine").target, 3.0) is not None
    assert store.get(Item(b"499").target, 3.0) is not None
    for number in range(60):  # this node's own are bounded with all others only
        store.put(Item(b"own %d" % number), None, 4.0)
    assert store.get(Item(b"own").target, 5.0) is not None
    store.check()
    store.purge(bounds.ITEM_MAX_AGE_S + 5.0)
    store.check()
    assert len(store) == 0
