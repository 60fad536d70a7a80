"""Answers to queries, against what Node Grapes answered to the same datagrams."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grenache_py.dht import bounds
from grenache_py.dht.items import Item, ItemStore, read_item
from grenache_py.dht.krpc import MalformedDatagram, Refusal, decode, pack_address
from grenache_py.dht.peers import PeerStore
from grenache_py.dht.proven import Proven
from grenache_py.dht.routing import Routing
from grenache_py.dht.server import Tables, answer
from grenache_py.dht.tokens import Tokens
from tests.unit.dht.vectors import VECTORS

OWN = b"o" * 20
SENDER = ("127.0.0.1", 21500)
ASKER = bytes.fromhex("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa01")


def tables() -> Tables:
    found = Tables(
        Routing(OWN, 0.0),
        Tokens(Random(1).randbytes, 0.0),
        PeerStore(),
        ItemStore(),
        Proven(),
        Random(1),
        lambda name: None,
    )
    found.routing.answered(ASKER, SENDER, 0.0)
    return found


def ask(found: Tables, method: str, now: float = 0.0, **args: Any) -> dict[bytes, Any]:
    message = {b"t": b"aa", b"y": b"q", b"q": method.encode()}
    fields = {name.encode(): value for name, value in args.items()}
    datagram = answer(found, SENDER, {**message, b"a": {b"id": ASKER, **fields}}, now)
    assert datagram is not None
    reply = decode(datagram)
    assert reply[b"t"] == b"aa"
    return reply


def token_for(found: Tables, target: bytes) -> bytes:
    return found.tokens.issue(SENDER, target, 0.0)


# What a Node Grape does not answer, and we do: with this error.
TOLD = {
    "query without a": 203,
    "a is string": 203,
    "a empty string": 203,
    "a int": 203,
    "a list": 203,
    "a int 0": 203,
    "unknown method": 204,
    "q int": 203,
    "uppercase PING": 204,
    "announce_peer port 0": 203,
    "announce_peer port 70000": 203,
    "announce_peer port -1": 203,
    "announce_peer port string": 203,
    "announce_peer no token": 203,
    "announce_peer no info_hash": 203,
    "get no target": 203,
    "put int 0 v": 203,
    "put no v": 203,
    "put no token": 203,
    "verify: bad signature": 206,
    "verify: empty salt": 206,
    "verify: put no seq (signed as seq 0)": 203,
    "verify: put again, seq missing": 203,
    "verify: salt 65 bytes": 207,
    "verify: k not 32 bytes": 203,
    "crash: no q": 203,
    "crash: token int": 203,
    "crash: info_hash int": 203,
    "crash: info_hash list": 203,
    "crash: target int": 203,
    "crash: get target int": 203,
    "crash: sig without k, verify absent": 203,
}
# What a Node Grape answers, and we do not: the answer could not be matched, or would be no more than an echo.
SILENT = {"ping 300-byte t", "ping list t", "ping no t"}
# Node without verify refuses what it cannot check; what we check instead is the signature.
CHECKED = {"put mutable without verify": 206}
# Stored here even without the id, which is of no use.
ANSWERED = {"put no id"}
# Not stored, so not found.
NOT_STORED = {"verify: get that"}


def test_probes_of_node_grapes() -> None:
    found = tables()
    compared = 0
    for probe in VECTORS["probes"]:
        name = probe["name"]
        try:
            query = decode(bytes.fromhex(probe["send"]))
        except MalformedDatagram:
            assert probe["replies"] == []
            continue
        if query.get(b"y") != b"q":
            assert probe["replies"] == []
            continue
        if not any(b"bad token" in bytes.fromhex(recorded) for recorded in probe["replies"]):
            _use_our_token(found, query)
        datagram = answer(found, SENDER, query, 0.0)
        if name in SILENT:
            assert datagram is None, name
            continue
        assert datagram is not None, name
        reply = decode(datagram)
        code = TOLD.get(name) or CHECKED.get(name)
        if code is not None:
            assert reply[b"y"] == b"e", name
            assert reply[b"e"][0] == code, name
            continue
        if name in ANSWERED:
            assert (probe["replies"], reply[b"y"]) == ([], b"r")
            continue
        assert len(probe["replies"]) == 1, name
        recorded = decode(bytes.fromhex(probe["replies"][0]))
        assert reply[b"t"] == recorded[b"t"], name
        assert reply[b"y"] == recorded[b"y"], name
        if recorded[b"y"] == b"e":
            assert reply[b"e"] == recorded[b"e"], name
        elif name not in NOT_STORED:
            theirs, ours = recorded[b"r"], reply[b"r"]
            assert set(ours) == set(theirs), name
            assert {key: ours[key] for key in ours.keys() & {b"v", b"k", b"seq", b"sig"}} == {
                key: theirs[key] for key in theirs.keys() & {b"v", b"k", b"seq", b"sig"}
            }, name
            if b"values" in theirs:
                assert sorted(ours[b"values"]) == sorted(theirs[b"values"]), name
        compared += 1
    assert compared > 50


def _use_our_token(found: Tables, query: dict[bytes, Any]) -> None:
    """A token that the Grape gave becomes one of ours; made-up ones stay."""
    args = query.get(b"a")
    if not isinstance(args, dict) or not isinstance(token := args.get(b"token"), bytes):
        return
    if len(token) != 20 or len(set(token)) == 1:
        return
    target = args.get(b"info_hash")
    if target is None:
        try:
            target = read_item(args).target
        except Refusal:
            return
    args[b"token"] = found.tokens.issue(SENDER, target, 0.0)


def test_get_peers_gives_values_or_nodes_and_always_a_token() -> None:
    found = tables()
    r = ask(found, "get_peers", info_hash=b"svc")[b"r"]
    assert set(r) == {b"id", b"token", b"nodes"}
    assert r[b"nodes"] == ASKER + pack_address(SENDER)
    assert ask(found, "announce_peer", info_hash=b"svc", port=6001, token=r[b"token"])[b"r"] == {b"id": OWN}
    r = ask(found, "get_peers", info_hash=b"svc")[b"r"]
    assert set(r) == {b"id", b"token", b"values"}
    assert r[b"values"] == [pack_address(("127.0.0.1", 6001))]


def test_an_announce_is_told_and_expires() -> None:
    found = tables()
    told: list[bytes] = []
    found.announced = told.append
    token = token_for(found, b"svc")
    ask(found, "announce_peer", info_hash=b"svc", port=1, implied_port=1, token=token)
    assert told == [b"svc"]
    assert ask(found, "get_peers", info_hash=b"svc", now=119.0)[b"r"][b"values"] == [pack_address(SENDER)]
    assert b"values" not in ask(found, "get_peers", info_hash=b"svc", now=121.0)[b"r"]


@pytest.mark.parametrize("name", [b"", b"x" * (bounds.NAME_BYTES_MAX + 1), 5, [b"a"], None])
def test_unfit_names_are_not_stored(name: Any) -> None:
    found = tables()
    args = {} if name is None else {"info_hash": name}
    token = token_for(found, name if isinstance(name, bytes) else b"")
    assert ask(found, "announce_peer", port=1, token=token, **args)[b"e"][0] == 203
    assert len(found.peers) == 0


def test_names_that_nobody_could_announce_are_not_looked_up() -> None:
    found = tables()
    assert b"r" in ask(found, "get_peers", info_hash=b"x" * bounds.NAME_BYTES_MAX)
    assert ask(found, "get_peers", info_hash=b"x" * (bounds.NAME_BYTES_MAX + 1))[b"e"][0] == 203


@pytest.mark.parametrize("port", [0, -1, 65536, b"6001", None, [1]])
def test_unfit_ports_are_not_stored(port: Any) -> None:
    found = tables()
    args = {} if port is None else {"port": port}
    reply = ask(found, "announce_peer", info_hash=b"svc", token=token_for(found, b"svc"), **args)
    assert reply[b"e"][0] == 203
    assert len(found.peers) == 0


@pytest.mark.parametrize("field", ["cas", "salt", "seq"])
def test_half_a_mutable_item_is_not_stored_as_an_immutable_one(field: str) -> None:
    found = tables()
    args: dict[str, Any] = {"v": b"v", "token": token_for(found, Item(b"v").target)}
    assert ask(found, "put", **args, **{field: 1})[b"e"][0] == 203
    assert len(found.items) == 0
    assert b"r" in ask(found, "put", **args)
    assert len(found.items) == 1


def test_replies_fit_a_datagram() -> None:
    found = tables()
    for number in range(500):
        found.peers.announce(b"svc", number.to_bytes(6, "big"), "127.0.0.1", 0.0)
        found.routing.answered(
            bytes([number % 256]) * 19 + bytes([number // 256]),
            (f"10.0.{number // 256}.{number % 256}", 1),
            0.0,
        )
    v = b"v" * 1000
    ask(found, "put", v=v, token=token_for(found, Item(v).target))
    message = {b"t": b"t" * 32, b"y": b"q", b"a": {b"id": ASKER, b"info_hash": b"svc", b"target": b"\0" * 20}}
    for method in (b"ping", b"find_node", b"get_peers", b"get"):
        datagram = answer(found, SENDER, {**message, b"q": method}, 0.0)
        assert datagram is not None
        assert len(datagram) < 1400
    values = ask(found, "get_peers", info_hash=b"svc")[b"r"][b"values"]
    assert len(values) == bounds.VALUES_MAX
    assert len(ask(found, "find_node", target=b"")[b"r"][b"nodes"]) == 26 * bounds.K


keys = st.sampled_from(
    [b"id", b"info_hash", b"target", b"token", b"port", b"v", b"k", b"sig", b"seq", b"salt", b"cas"]
)
anything = st.recursive(
    st.integers(-(2**70), 2**70) | st.binary(max_size=40) | st.sampled_from([ASKER, b"", 0, 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=8), inner, max_size=3),
    max_leaves=6,
)
methods = st.sampled_from([b"ping", b"find_node", b"get_peers", b"announce_peer", b"get", b"put", b"vote"])
FUZZED = tables()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            b"t": anything,
            b"q": methods | anything,
            b"a": st.dictionaries(keys, anything, max_size=8) | anything,
        },
    )
)
def test_any_query_is_answered_or_passed_over(query: dict[bytes, Any]) -> None:
    datagram = answer(FUZZED, SENDER, query, 0.0)
    if datagram is not None:
        reply = decode(datagram)
        assert reply[b"t"] == query[b"t"]
        assert reply[b"y"] in (b"r", b"e")


@given(st.dictionaries(keys, anything, max_size=9), st.sampled_from([b"announce_peer", b"put"]))
def test_with_a_good_token_too(args: dict[bytes, Any], method: bytes) -> None:
    found = FUZZED
    name = args.get(b"info_hash")
    try:
        target = name if method == b"announce_peer" else read_item(args).target
    except Refusal:
        return
    if not isinstance(target, bytes):
        return
    query = {b"t": b"aa", b"q": method, b"a": {**args, b"token": found.tokens.issue(SENDER, target, 0.0)}}
    datagram = answer(found, SENDER, query, 0.0)
    assert datagram is not None
    assert decode(datagram)[b"y"] in (b"r", b"e")
