"""Tokens, announced peers, own announces, the rate limiter: bounded, on a clock that is handed in."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grenache_py.dht import bounds
from grenache_py.dht.announces import OwnAnnounces
from grenache_py.dht.answers import Answers
from grenache_py.dht.peers import PeerStore
from grenache_py.dht.ratelimit import StrangerLimiter
from grenache_py.dht.storing import HolderCache, Store, StoreReport
from grenache_py.dht.tokens import Tokens

SENDER = ("10.0.0.1", 4000)


def tokens() -> Tokens:
    return Tokens(Random(1).randbytes, 0.0)


def test_a_token_serves_its_receiver_for_its_target_only() -> None:
    issuer = tokens()
    token = issuer.issue(SENDER, b"svc", 0.0)
    assert issuer.valid(token, SENDER, b"svc", 1.0)
    assert not issuer.valid(token, ("10.0.0.2", 4000), b"svc", 1.0)
    assert not issuer.valid(token, ("10.0.0.1", 4001), b"svc", 1.0)
    assert not issuer.valid(token, SENDER, b"other", 1.0)
    assert not issuer.valid(b"", SENDER, b"svc", 1.0)
    assert not issuer.valid(token + b"x", SENDER, b"svc", 1.0)
    assert not Tokens(Random(2).randbytes, 0.0).valid(token, SENDER, b"svc", 1.0)


def test_a_token_lives_five_to_ten_minutes() -> None:
    issuer = tokens()
    early, late = issuer.issue(SENDER, b"svc", 0.0), issuer.issue(SENDER, b"svc", 299.0)
    assert early == late
    assert issuer.valid(early, SENDER, b"svc", 301.0)
    assert issuer.issue(SENDER, b"svc", 302.0) != early
    assert issuer.valid(early, SENDER, b"svc", 599.0)
    assert not issuer.valid(early, SENDER, b"svc", 602.0)


def test_a_token_does_not_outlive_a_long_silence() -> None:
    issuer = tokens()
    token = issuer.issue(SENDER, b"svc", 0.0)
    assert not issuer.valid(token, SENDER, b"svc", 700.0)


def test_peers_expire_exactly() -> None:
    store = PeerStore(120.0)
    store.announce(b"svc", b"peer-1", "10.0.0.1", 0.0)
    store.announce(b"svc", b"peer-2", "10.0.0.1", 60.0)
    assert store.get(b"svc", 119.9, 100, Random(1)) == [b"peer-1", b"peer-2"]
    assert store.get(b"svc", 120.0, 100, Random(1)) == [b"peer-2"]
    store.announce(b"svc", b"peer-2", "10.0.0.1", 170.0)
    assert store.get(b"svc", 289.0, 100, Random(1)) == [b"peer-2"]
    assert store.get(b"svc", 290.0, 100, Random(1)) == []
    assert (len(store), store.names) == (0, 0)


def test_more_peers_than_asked_for_are_sampled() -> None:
    store = PeerStore(120.0)
    for number in range(130):
        store.announce(b"svc", b"%06d" % number, "10.0.0.1", 0.0)
    samples = [frozenset(store.get(b"svc", 1.0, 100, Random(seed))) for seed in range(3)]
    assert all(len(sample) == 100 for sample in samples)
    assert len(set(samples)) == 3


def test_a_flood_pushes_out_its_own_announces_only() -> None:
    store = PeerStore(120.0, max_peers=100, max_per_name=20, max_per_source=10)
    store.announce(b"svc", b"victim", "10.0.0.1", 0.0)
    for number in range(50):
        store.announce(b"svc", b"%06d" % number, "6.6.6.6", 1.0)
        store.check()
    assert b"victim" in store.get(b"svc", 2.0, 100, Random(1))
    assert len(store) == 11


def test_the_oldest_of_a_name_and_of_all_go_first() -> None:
    store = PeerStore(120.0, max_peers=100, max_per_name=20, max_per_source=1000)
    for number in range(50):
        store.announce(b"svc", b"%06d" % number, "10.0.0.1", 0.0)
    assert sorted(store.get(b"svc", 1.0, 100, Random(1))) == [b"%06d" % number for number in range(30, 50)]
    for number in range(90):
        store.announce(b"%d" % number, b"peer--", "10.0.0.1", 2.0)
    assert sorted(store.get(b"svc", 3.0, 100, Random(1))) == [b"%06d" % number for number in range(40, 50)]
    assert len(store) == 100


# Most come at the same time, else few would be there at once.
pauses = st.sampled_from([0, 0, 0, 0, 1, 30])
announces = st.tuples(st.integers(0, 5), st.integers(0, 12), st.integers(0, 4), pauses)


@settings(max_examples=60)
@given(st.lists(announces, max_size=80))
def test_the_bounds_of_the_peer_store_hold(steps: list[tuple[int, int, int, int]]) -> None:
    store = PeerStore(60.0, max_peers=15, max_per_name=5, max_per_source=7)
    now = 0.0
    last: dict[tuple[bytes, bytes], float] = {}
    for name, peer, source, pause in steps:
        now += pause
        store.announce(b"%d" % name, b"%06d" % peer, f"10.0.0.{source}", now)
        last[b"%d" % name, b"%06d" % peer] = now
        store.check()
        for known in {name for name, _ in last}:
            for found in store.get(known, now, 100, Random(1)):
                assert now - last[known, found] < 60.0
    store.purge(now + 60.0)
    assert len(store) == store.names == 0


def test_own_announces_are_told_to_newcomers_while_fresh() -> None:
    own = OwnAnnounces(120.0)
    own.add(b"a", 1, 0.0)
    own.add(b"a", 2, 50.0)
    assert own.ports(b"a", 60.0) == [1, 2]
    own.welcome(SENDER, 100.0)
    assert own.take_welcomes(10, 130.0) == [(SENDER, (b"a", 2))]
    assert own.take_welcomes(10, 130.0) == []
    assert own.ports(b"a", 171.0) == []
    assert (b"a", 2) not in own


def test_own_announces_and_welcomes_are_bounded() -> None:
    own = OwnAnnounces(120.0, max_announces=10)
    for port in range(1, 101):
        own.add(b"a", port, 0.0)
    assert own.ports(b"a", 1.0) == list(range(91, 101))
    for _ in range(2000):
        own.welcome(SENDER, 1.0)
    assert len(own.take_welcomes(10**6, 1.0)) == bounds.WELCOMES_MAX
    assert len(own) == 10
    for port in range(1, 101):
        own.add(b"a", port, 2.0)
        assert own.withdraw(b"a", port, 2.0)
    assert own.withdrawn(b"a", 3.0) == list(range(91, 101))


def test_strangers_are_limited_by_address() -> None:
    limiter = StrangerLimiter()
    allowed = sum(limiter.allow("6.6.6.6", 0.0) for _ in range(10_000))
    assert allowed == bounds.STRANGER_BURST
    assert limiter.allow("6.6.6.7", 0.0)
    assert sum(limiter.allow("6.6.6.6", 1.0) for _ in range(10_000)) == bounds.STRANGER_RATE
    assert sum(limiter.allow("6.6.6.6", 1000.0) for _ in range(10_000)) == bounds.STRANGER_BURST


def test_neighbours_get_more_and_nonsense_costs_more() -> None:
    limiter = StrangerLimiter()
    for host in ("127.0.0.1", "10.9.9.9", "192.168.1.1", "172.16.0.1", "172.31.0.1"):
        assert sum(limiter.allow(host, 0.0) for _ in range(1000)) == 1000
    for host in ("172.32.0.1", "11.0.0.1"):
        assert sum(limiter.allow(host, 0.0) for _ in range(1000)) == bounds.STRANGER_BURST
    more = int(bounds.PRIVATE_BURST) + 1000
    assert sum(limiter.allow("10.8.8.8", 0.0) for _ in range(more)) == bounds.PRIVATE_BURST
    for _ in range(int(bounds.STRANGER_BURST // bounds.MALFORMED_COST)):
        limiter.malformed("6.6.6.6", 0.0)
    assert not limiter.allow("6.6.6.6", 0.0)


def test_the_limiter_forgets_who_was_silent_longest() -> None:
    limiter = StrangerLimiter(max_addresses=100)
    for number in range(1000):
        limiter.allow(f"6.6.{number >> 8}.{number & 255}", float(number))
    assert len(limiter) == 100


def test_holders_are_kept_as_long_as_their_tokens_are_good() -> None:
    cache = HolderCache(max_names=2)
    cache.keep(b"a", [(SENDER, b"token")], 0.0)
    assert cache.get(b"a", bounds.TABLE_MAX_AGE_S - 1) == [(SENDER, b"token")]
    assert cache.get(b"a", bounds.TABLE_MAX_AGE_S) == []
    cache.keep(b"a", [], 1.0)  # an empty table is not remembered
    assert len(cache) == 0
    for name in (b"a", b"b", b"c"):
        cache.keep(name, [(SENDER, b"token")], 2.0)
    assert len(cache) == 2
    assert cache.get(b"a", 3.0) == []


def test_a_report_counts_every_outcome() -> None:
    reports: list[StoreReport] = []
    waiting: dict[Store, None] = {}
    Store(StoreReport(), 0, 0.0, waiting, reports.append)
    store = Store(StoreReport(), 3, 0.0, waiting, reports.append)
    store.told(None, {b"id": b"x"}, None)
    store.told(None, None, (203, "bad token"))
    assert len(reports) == 1
    store.told(None, None, None)
    assert reports == [StoreReport(), StoreReport(3, 1, [(203, "bad token")])]
    assert reports[1].silent == 1


def test_who_stays_silent_is_not_waited_for_once_somebody_stored_it() -> None:
    reports: list[StoreReport] = []
    waiting: dict[Store, None] = {}
    store = Store(StoreReport(1, 1), 3, 10.0, waiting, reports.append)
    store.told(None, None, (203, "bad token"))
    store.hurry(20.0)  # that it is stored here hurries nobody
    store.told(None, {}, None)
    store.hurry(10.0 + bounds.PATIENCE_FOUND_S - 0.1)
    assert list(waiting) == [store]
    store.hurry(10.0 + bounds.PATIENCE_FOUND_S)
    store.told(None, {}, None)  # too late to count
    assert waiting == {}
    assert reports == [StoreReport(4, 2, [(203, "bad token")])]
    assert reports[0].silent == 1


@pytest.mark.parametrize(
    ("report", "taken"),
    [
        (StoreReport(), False),
        (StoreReport(3, 0, [(302, "")]), False),
        (StoreReport(3, 1, [(302, ""), (302, "")]), True),
        (StoreReport(3, 1, [(203, ""), (203, "")], swap=True), True),
        (StoreReport(3, 1, [(301, "")], swap=True), False),
        (StoreReport(3, 1, [(302, "")], swap=True), False),
        (StoreReport(3, 2, [(301, "")], swap=True), True),
        (StoreReport(5, 3, [(301, ""), (302, "")], swap=True), False),
        (StoreReport(3, 0, swap=True), False),
    ],
)
def test_a_swap_must_be_taken_by_twice_as_many_nodes_as_refuse_it(report: StoreReport, taken: bool) -> None:
    assert report.taken is taken


def test_answers_are_given_again_for_a_moment() -> None:
    answers = Answers(Random(1))
    peers = [b"%06d" % number for number in range(20)]
    answers.keep(b"svc", peers, 1.0)
    answers.keep(b"nobody", [], 1.0)
    assert answers.get(b"nobody", 1.0) is None
    given = [answers.get(b"svc", 1.01) for _ in range(3)]
    assert all(sorted(each or []) == peers for each in given)
    assert len({tuple(each or []) for each in given}) == 3
    assert answers.get(b"svc", 1.0 + bounds.ANSWER_MAX_AGE_S) is None
    answers.keep(b"svc", peers, 2.0)
    answers.drop(b"svc")
    answers.drop(b"svc")
    assert answers.get(b"svc", 2.0) is None
    for number in range(3 * bounds.ANSWERS_MAX):
        answers.keep(b"%d" % number, peers, 3.0)
        assert len(answers) <= bounds.ANSWERS_MAX
