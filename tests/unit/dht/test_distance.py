"""Distances as k-bucket computes them, and the integers that stand in for them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grenache_py.dht.distance import distance, key_of
from tests.unit.dht.vectors import VECTORS

ids = st.binary(min_size=20, max_size=20)
targets = st.binary(max_size=140)


@pytest.mark.parametrize("vector", VECTORS["distance"])
def test_bit_for_bit_as_node(vector: dict[str, str]) -> None:
    found = distance(bytes.fromhex(vector["a"]), bytes.fromhex(vector["b"]))
    assert struct.pack(">d", found).hex() == vector["float64_be"]


@given(ids, ids, targets)
@example(b"\0" * 20, b"\0" * 19 + b"\1", b"a")
@example(b"\x80" + b"\0" * 19, b"\x7f" + b"\xff" * 19, b"rest:util:net")
def test_integers_never_contradict_node(a: bytes, b: bytes, target: bytes) -> None:
    key = key_of(target)
    key_a, key_b = key ^ key_of(a), key ^ key_of(b)
    node_a, node_b = distance(a, target), distance(b, target)
    # Node's doubles are coarser, so equal there may be unequal here, but never the other way round.
    if node_a < node_b:
        assert key_a < key_b
    elif node_a > node_b:
        assert key_a > key_b
    if key_a == key_b:
        assert node_a == node_b


@given(st.lists(ids, unique=True, max_size=30), targets)
def test_sorting_by_integers_sorts_node_distances(nodes: list[bytes], target: bytes) -> None:
    key = key_of(target)
    ordered = sorted(nodes, key=lambda node: key ^ key_of(node))
    distances: list[Any] = [distance(node, target) for node in ordered]
    assert distances == sorted(distances)
