"""Link against real Node Grapes, and beside the Node Link, in both flavours."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grenache_py import Grape, errors
from grenache_py.grape_api import Item
from tests.harness import eventually


@pytest.fixture
def node_link(node_script, node_grapes):
    """Call the Node Link at the second Grape: ``node_link("lookup", name, {})`` → its error and result."""
    process, _ = node_script("rpc_client.js", {"grape": node_grapes[1].url})

    def call(name: str, *args: object) -> tuple[str | None, object]:
        process.send_json({"call": name, "args": args})
        answer = process.next_json()
        return answer["err"], answer["res"]

    return call


def test_what_we_announce_is_found_by_node_and_the_other_way_round(flavour, node_grapes, node_link):
    link = flavour.link(node_grapes[0].url)
    assert link.announce("from:python", 6001) == 1
    assert node_link("lookup", "from:python", {}) == (None, ["127.0.0.1:6001"])
    assert node_link("announce", "from:node", 6002, {}) == (None, 1)
    assert link.lookup("from:node") == ["127.0.0.1:6002"]


@pytest.mark.parametrize("name", ["rest:util:net", "sérvice 😀", "a", "n" * 300])
def test_names_of_all_kinds(flavour, node_grapes, name):
    first, second = (flavour.link(grape.url) for grape in node_grapes)
    first.announce(name, 7000)
    second.announce(name, 7001)
    for link in (first, second):
        assert sorted(link.lookup(name, fresh=True)) == ["127.0.0.1:7000", "127.0.0.1:7001"]


def test_nobody_announced(flavour, node_grapes, node_link):
    with pytest.raises(errors.LookupEmptyError) as caught:
        flavour.link(node_grapes[0].url).lookup("nobody")
    assert node_link("lookup", "nobody", {})[0] == caught.value.code


def test_announcing_keeps_a_service_on_the_network_until_it_stops(flavour, node_grape):
    first = node_grape(dht_peer_maxAge=300)
    second = node_grape(bootstrap=[first.dht_address], dht_peer_maxAge=300)
    link, other = flavour.link(first.url), flavour.link(second.url)
    assert link.start_announcing("svc", 6001, interval=0.05)

    def found() -> bool:
        try:
            return other.lookup("svc", fresh=True) == ["127.0.0.1:6001"]
        except errors.LookupEmptyError:
            return False

    # A record lives 0.4 s at most here; it is there again and again because it is renewed.
    for _ in range(10):
        eventually(found)
    link.stop_announcing("svc", 6001)
    eventually(lambda: not found())


def test_a_grape_that_was_alone_when_it_was_first_asked(flavour, node_grape):
    """Its empty table of nodes for the name is kept for five minutes; our look-up in between renews it."""
    first = node_grape()
    link = flavour.link(first.url)
    with pytest.raises(errors.AnnounceError, match="No nodes to query"):
        link.announce("svc", 6001)
    second = node_grape(bootstrap=[first.dht_address])
    assert link.announce("svc", 6001) == 1
    assert flavour.link(second.url).lookup("svc") == ["127.0.0.1:6001"]


def test_values(flavour, node_grapes, node_link):
    first, second = (flavour.link(grape.url) for grape in node_grapes)
    for value in ("hello", "wörld 😀", "", "x" * 999):
        key, report = first.put_report(value)
        assert report is None  # Node Grapes tell nothing of it
        data = value.encode()
        assert key == hashlib.sha1(b"%d:%b" % (len(data), data)).hexdigest()
        assert first.get(key) == Item(value)
        assert second.get(key) == Item(value)
        assert node_link("get", key)[1]["v"] == value
    err, key = node_link("put", {"v": "from node"})
    assert err is None
    assert first.get(key) == Item("from node")
    assert first.get("0" * 40) is None


@pytest.mark.parametrize("salt", [None, b"foo", b"[1,2]", b"123", bytes(range(64))])
def test_mutable_values(flavour, node_grape, salt):
    first = node_grape(verify=True)
    second = node_grape(bootstrap=[first.dht_address], verify=True)
    here, there = flavour.link(first.url), flavour.link(second.url)
    secret = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    k = secret.public_key().public_bytes_raw()

    def sign(value: str, seq: int) -> bytes:
        """BEP 44: the bencoded salt, seq and v, without the dictionary around them."""
        data = value.encode()
        salted = b"" if salt is None else b"4:salt%d:%b" % (len(salt), salt)
        return secret.sign(salted + b"3:seqi%de1:v%d:%b" % (seq, len(data), data))

    key = here.put("one", k=k, sig=sign("one", 1), seq=1, salt=salt)
    assert key == hashlib.sha1(k + (salt or b"")).hexdigest()
    assert here.get(key, salt=salt) == Item("one", 1, k, sign("one", 1))
    here.put("two", k=k, sig=sign("two", 2), seq=2, salt=salt, cas=1)
    assert there.get(key, salt=salt) == Item("two", 2, k, sign("two", 2))
    for seq, cas, status in ((2, None, 302), (3, 1, 301)):
        with pytest.raises(errors.GrapeReplyError) as caught:
            here.put("three", k=k, sig=sign("three", seq), seq=seq, salt=salt, cas=cas)
        assert caught.value.status == status


def test_mutable_values_at_grapes_that_cannot_check_them(flavour, node_grapes):
    """A stock Node Grape has no signature check; what it answers must come out as an error."""
    link = flavour.link(node_grapes[0].url)
    with pytest.raises(errors.GrapeReplyError) as caught:
        link.put("x", k=b"k" * 32, sig=b"s" * 64, seq=1)
    assert caught.value.text == "All queries failed"


def test_a_request_that_is_too_large_for_the_grape(flavour, node_grape):
    grape = node_grape(check_maxPayloadSize=100)
    with pytest.raises(errors.GrapeReplyError) as caught:
        flavour.link(grape.url).put("x" * 200)
    assert (caught.value.status, caught.value.code) == (413, "ERR_GRAPE_PAYLOAD_SIZE")


def test_a_grape_that_was_killed(flavour, node_grapes):
    link = flavour.link(node_grapes[0].url)
    link.announce("svc", 6001)
    assert link.lookup("svc") == ["127.0.0.1:6001"]
    node_grapes[0].process.kill()
    assert link.lookup("svc") == ["127.0.0.1:6001"]  # still known
    with pytest.raises(errors.GrapeUnreachableError):
        link.lookup("svc", fresh=True)


def test_put_mutable_with_node_grapes_that_verify(flavour, node_grape):
    first = node_grape(verify=True)
    second = node_grape(bootstrap=[first.dht_address], verify=True)
    key = Ed25519PrivateKey.generate()
    links = [flavour.link(grape.url) for grape in (first, second)]
    hash = links[0].put_mutable("one", key, salt=b"[1]")
    assert links[1].get(hash, salt=b"[1]").value == "one"
    assert links[0].put_mutable("two", key, salt=b"[1]") == hash
    assert links[0].get(hash, salt=b"[1]", fresh=True).seq == 2
    with pytest.raises(errors.GrapeReplyError, match="302") as caught:
        links[0].put_mutable("old", key, salt=b"[1]", seq=1)
    assert caught.value.status == 302
    with pytest.raises(errors.GrapeReplyError, match="301"):
        links[0].put_mutable("three", key, salt=b"[1]", seq=3, cas=1)


def test_a_node_grape_takes_no_harm_from_a_withdrawal(flavour, node_grapes):
    first, second = (flavour.link(grape.url) for grape in node_grapes)
    assert first.start_announcing("svc", 6001)
    assert first.stop_announcing("svc", 6001)
    # It knows no such request, so the announcement ends with its age.
    assert second.lookup("svc") == ["127.0.0.1:6001"]
    assert first.announce("svc", 6001) == 1


def test_a_service_that_stops_is_withdrawn_from_our_grape(flavour, node_grape):
    node = node_grape()
    with Grape(host="127.0.0.1", bootstrap=[node.dht_address]) as ours:
        link, other = flavour.link(ours.url), flavour.link(ours.url)
        link.start_announcing("svc", 6001)
        link.start_announcing("svc", 6002)
        assert sorted(other.lookup("svc", fresh=True)) == ["127.0.0.1:6001", "127.0.0.1:6002"]
        link.stop_announcing("svc", 6001)
        assert other.lookup("svc", fresh=True) == ["127.0.0.1:6002"]
        link.stop()
        with pytest.raises(errors.LookupEmptyError):
            other.lookup("svc", fresh=True)
